import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, identity

from epifoundation.dataset_builders.clustering.gene_activity import distance_activity, gene_activity
from epifoundation.dataset_builders.genome.gene_coordinates import positions_of

GENES = pd.DataFrame(
    {
        "chromosome": ["chr1", "chr1", "chr1", "chr2", "chr2"],
        "start": [10_000, 30_000, 50_000, 1_000, 500],
        "end": [12_000, 31_000, 51_000, 2_000, 600],
        "strand": ["+", "-", None, "+", "-"],
        "symbol": ["PLUS", "MINUS", "UNKNOWN", "OTHER", "LAST"],
    }
)
PEAKS = {
    "chr1:8000-8001": {"PLUS"},
    "chr1:7999-8000": set(),
    "chr1:12000-12100": set(),
    "chr1:11999-12100": {"PLUS"},
    "chr1:29999-30000": set(),
    "chr1:32999-33000": {"MINUS"},
    "chr1:48000-48001": {"UNKNOWN"},
    "chr1:52999-53100": {"UNKNOWN"},
    "2:0-3000": {"OTHER", "LAST"},
    "chr3:0-60000": set(),
}


def test_a_gene_counts_its_body_and_2000_base_pairs_upstream():
    counts = csr_matrix([[i + 1 for i in range(len(PEAKS))], [0] * len(PEAKS)])
    activity = gene_activity(counts, list(PEAKS), GENES)
    expected = [sum(i + 1 for i, genes in enumerate(PEAKS.values()) if symbol in genes) for symbol in GENES["symbol"]]
    assert activity.toarray().tolist() == [expected, [0] * 5]


def test_peaks_away_from_all_genes_are_an_error():
    with pytest.raises(ValueError, match="no peak lies in or before a gene"):
        gene_activity(csr_matrix((1, 1)), ["chr9:1-2"], GENES)


INTERVAL = st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 300_000), st.integers(1, 60_000))


def table(intervals, strands):
    rows = [(name, start, start + size) for name, start, size in intervals]
    return pd.DataFrame(rows, columns=["chromosome", "start", "end"]).assign(strand=strands, symbol="X")


@given(
    peaks=st.lists(INTERVAL, min_size=1, max_size=8, unique=True),
    genes=st.lists(st.tuples(INTERVAL, st.sampled_from(["+", "-", None])), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_activities_are_those_of_comparing_each_peak_with_each_gene(peaks, genes):
    names = [f"{name}:{start}-{start + size}" for name, start, size in peaks]
    coordinates = table([interval for interval, _ in genes], [strand for _, strand in genes])
    body, distance = np.zeros((len(peaks), len(genes))), np.zeros((len(peaks), len(genes)))
    for i, (name, start, size) in enumerate(peaks):
        for j, ((of_gene, begin, length), strand) in enumerate(genes):
            before, behind = 0 if strand == "-" else 2_000, 0 if strand == "+" else 2_000
            if name == of_gene:
                body[i, j] = start < begin + length + behind and max(begin - before, 0) < start + size
                gap = max(begin - (start + size), start - (begin + length), 0)
                is_near = start < begin + length + 100_000 and begin - 100_000 < start + size
                distance[i, j] = np.exp(-gap / 5_000) * is_near
    each = csr_matrix(identity(len(peaks), format="csr"))  # a cell for each peak
    np.testing.assert_allclose(distance_activity(each, names, coordinates).toarray(), distance)
    if body.any():
        np.testing.assert_array_equal(gene_activity(each, names, coordinates).toarray(), body)
    else:
        with pytest.raises(ValueError, match="no peak lies in or before a gene"):
            gene_activity(each, names, coordinates)


def test_a_gene_without_a_position_has_no_activity():
    genes = positions_of(["not a gene", "GAPDH"])
    gapdh = genes.iloc[1]
    names = [f"chr12:{int(gapdh['start'])}-{int(gapdh['start']) + 10}", "chr12:100-200"]
    counts = csr_matrix(np.array([[2.0, 1.0]]))
    assert gene_activity(counts, names, genes).toarray().tolist() == [[0, 2]]
    assert distance_activity(counts, names, genes).toarray().tolist() == [[0, 2]]
