import logging

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.paired_cells import count_matrix, match_cells, paired_cells, peak_matrix
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

PEAKS = ["chr1:100-200", "chr1:300-400", "chr2:100-200"]
GENES = ["A", "B", "C", "D"]


def peaks_of(barcodes: list[str], values: list[list[int]]) -> AnnData:
    adata = AnnData(sp.csr_matrix(np.array(values, dtype=np.float32)))
    adata.obs_names, adata.var_names = barcodes, PEAKS
    adata.obs["type"] = [f"type_{b}" for b in barcodes]
    return adata


def genes_of(barcodes: list[str], values: list[list[int]]) -> AnnData:
    adata = AnnData(sp.csr_matrix(np.array(values, dtype=np.float32)))
    adata.obs_names, adata.var_names = barcodes, GENES
    return adata


@pytest.fixture
def tokenizer() -> PeakTokenizer:
    # D is not in the vocabulary, and C comes before A and B.
    genes = GeneVocabulary(["C", "A", "B"], ["", "", ""], ["chr1", "unknown", "chr2"])
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes)


ATAC = peaks_of(["x", "y", "z"], [[1, 0, 2], [0, 1, 0], [1, 1, 1]])
RNA = genes_of(["z", "w", "x", "y"], [[5, 0, 1, 9], [1, 1, 1, 1], [0, 2, 0, 0], [0, 0, 0, 4]])


def test_cells_are_matched_by_barcode(tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, tokenizer)
    assert cells["barcode"][:] == ["x", "y", "z"]
    assert cells["input_ids"][:] == [[2, 4, 6], [2, 5], [2, 4, 5, 6]]
    assert [sorted(zip(*pair, strict=True)) for pair in zip(cells["gene_ids"], cells["gene_counts"], strict=True)] == [
        [(6, 2.0)],
        [],
        [(4, 1.0), (5, 5.0)],
    ]


def test_what_does_not_match_is_counted(tokenizer: PeakTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        paired_cells(ATAC, RNA, tokenizer)
    assert "3 of 3 ATAC and 4 RNA cells are in both" in caplog.text


def test_matrices_come_back_from_the_rows(tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, tokenizer)
    np.testing.assert_array_equal(peak_matrix(cells, 7).toarray()[:, 4:], ATAC.X.toarray() > 0)
    expected = RNA[["x", "y", "z"], ["C", "A", "B"]].X.toarray()
    np.testing.assert_array_equal(count_matrix(cells, 7).toarray()[:, 4:], expected)


def test_matrices_of_selected_rows_follow_the_selection(tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, tokenizer).select([2, 0])
    np.testing.assert_array_equal(peak_matrix(cells, 7).toarray()[:, 4:], (ATAC.X.toarray() > 0)[[2, 0]])


def test_labels_become_classes_and_missing_ones_minus_one(tokenizer: PeakTokenizer) -> None:
    atac = ATAC.copy()
    atac.obs["type"] = ["b", None, "a"]
    cells = paired_cells(atac, RNA, tokenizer, cell_type_key="type")
    assert cells.features["cell_type"].names == ["a", "b"]
    assert cells["cell_type"][:] == [1, -1, 0]


def test_no_cell_is_cut_to_the_maximum_of_peaks(tokenizer: PeakTokenizer) -> None:
    small = PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=1)
    assert paired_cells(ATAC, RNA, small)["input_ids"][2] == [2, 4, 5, 6]
    assert small.max_peaks == 1


def test_no_shared_barcode_shows_both_kinds() -> None:
    with pytest.raises(ValueError, match=r"no barcode is in both.*'x'.*'cell-1'"):
        match_cells(ATAC, genes_of(["cell-1"], [[1, 0, 0, 0]]))


def test_repeated_barcodes_are_refused() -> None:
    twice = genes_of(["x", "x"], [[1, 0, 0, 0], [1, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"barcodes of the RNA data repeat, for example \['x'\]"):
        match_cells(ATAC, twice)


def test_genes_are_needed(tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match="tokenizer holds no genes"):
        paired_cells(ATAC, RNA, PeakTokenizer(tokenizer.vocabulary))


def test_unknown_genes_are_refused(tokenizer: PeakTokenizer) -> None:
    rna = RNA.copy()
    rna.var_names = ["P", "Q", "R", "S"]
    with pytest.raises(ValueError, match=r"none of the 4 genes of the RNA data, such as \['P', 'Q', 'R'\]"):
        paired_cells(ATAC, rna, tokenizer)


def test_a_wrong_key_names_the_columns(tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match=r"obs has no column 'annot'; it has \['type'\]"):
        paired_cells(ATAC, RNA, tokenizer, cell_type_key="annot")
