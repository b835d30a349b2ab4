import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.tokenized.gene_counts import counts_by_gene, gene_ids_of
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

PEAKS = PeakVocabulary.from_names(["chr1:100-200"])


@pytest.fixture
def tokenizer():
    genes = GeneVocabulary(["CD19", "CD3E", ""], ["ENSG00000000001", "", "ENSG00000000003"], ["chr1"] * 3)
    return PeakTokenizer(PEAKS, genes)


def test_genes_are_found_by_symbol_or_ensembl_id(tokenizer):
    names = ["ENSG00000000003.7", "none", "CD3E", "ENSG00000000001"]
    assert gene_ids_of(names, tokenizer).tolist() == [6, -1, 5, 4]
    with pytest.raises(ValueError, match=r"none of the 2 genes of the RNA data, such as \['A', 'B'\], is among"):
        gene_ids_of(["A", "B"], tokenizer)
    with pytest.raises(ValueError, match="holds no genes"):
        gene_ids_of(names, PeakTokenizer(PEAKS))


def test_counts_come_under_the_ids_and_columns_of_one_gene_are_added():
    block = csr_matrix(np.array([[1, 2, 3, 4], [0, 5, 0, 0], [7, 0, 0, 0]], dtype=np.int32))
    found = counts_by_gene(block, np.array([6, -1, 5, 6], dtype=np.int32), 7)
    assert found.toarray().tolist() == [[0, 0, 0, 0, 0, 3, 5], [0] * 7, [0, 0, 0, 0, 0, 0, 7]]
    assert found.indices.tolist() == [5, 6, 6]
    assert found.dtype == np.float32


def test_stored_zeros_are_no_expressed_genes():
    block = csr_matrix((np.array([0.0, 2.0]), [0, 1], [0, 2]), shape=(1, 2))
    assert counts_by_gene(block, np.array([4, 5]), 6).indices.tolist() == [5]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_counts_are_refused(value):
    with pytest.raises(ValueError, match=f"negative, NaN or infinite, such as {value}"):
        counts_by_gene(csr_matrix([[value]]), np.array([4]), 5)


def test_broken_counts_are_taken_if_asked_for():
    with pytest.raises(ValueError, match=r"not whole numbers, such as 0\.5"):
        counts_by_gene(csr_matrix([[0.5]]), np.array([4]), 5)
    assert counts_by_gene(csr_matrix([[0.5]]), np.array([4]), 5, allow_float_counts=True).data.tolist() == [0.5]
