import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.clustering.gene_activity import gene_activity

GENES = pd.DataFrame(
    {
        "chromosome": ["chr1", "chr1", "chr1", "chr2", "chr2"],
        "start": [10_000, 30_000, 50_000, 1_000, 500],
        "end": [12_000, 31_000, 51_000, 2_000, 600],
        "strand": ["+", "-", None, "+", "-"],
        "symbol": ["PLUS", "MINUS", "UNKNOWN", "TWICE", "TWICE"],
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
    "2:0-3000": {"TWICE"},
    "chr3:0-60000": set(),
}


def test_a_gene_counts_its_body_and_2000_base_pairs_upstream():
    counts = csr_matrix([[i + 1 for i in range(len(PEAKS))], [0] * len(PEAKS)])
    activity, symbols = gene_activity(counts, list(PEAKS), GENES)
    assert symbols == ["PLUS", "MINUS", "UNKNOWN", "TWICE"]
    expected = [sum(i + 1 for i, genes in enumerate(PEAKS.values()) if symbol in genes) for symbol in symbols]
    assert activity.toarray().tolist() == [expected, [0] * 4]


def test_peaks_away_from_all_genes_are_an_error():
    with pytest.raises(ValueError, match="no peak lies in or before a gene"):
        gene_activity(csr_matrix((1, 1)), ["chr9:1-2"], GENES)
