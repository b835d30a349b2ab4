import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, identity

from epifoundation.evaluation.gene_activity import body_activity, distance_activity, positions_of

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
        np.testing.assert_array_equal(body_activity(each, names, coordinates).toarray(), body)
    else:
        with pytest.raises(ValueError, match="no peak lies in or before a gene"):
            body_activity(each, names, coordinates)


def test_genes_are_found_by_symbol_and_by_ensembl_id():
    found = positions_of(["GAPDH", "not a gene", "ENSG00000111640.15"])
    assert found["chromosome"].isna().tolist() == [False, True, False]
    assert found["start"].tolist()[0] == found["start"].tolist()[2]
    assert found["chromosome"][0] == "chr12"


def test_a_gene_without_a_position_has_no_activity():
    genes = positions_of(["not a gene", "GAPDH"])
    gapdh = genes.iloc[1]
    names = [f"chr12:{int(gapdh['start'])}-{int(gapdh['start']) + 10}", "chr12:100-200"]
    counts = csr_matrix(np.array([[2.0, 1.0]]))
    assert body_activity(counts, names, genes).toarray().tolist() == [[0, 2]]
    assert distance_activity(counts, names, genes).toarray().tolist() == [[0, 2]]


def test_genes_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match=r"none of the 2 genes, such as \['a', 'b'\], has a known position in hg38"):
        positions_of(["a", "b"])
    with pytest.raises(ValueError, match="no table of genes for 'mm10'"):
        positions_of(["Gapdh"], "mm10")
