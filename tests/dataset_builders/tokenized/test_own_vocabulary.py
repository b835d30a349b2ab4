import numpy as np
import pytest
from scipy.sparse import csc_matrix

from epifoundation.dataset_builders.readers.matrix_files import GeneFile, MatrixFile
from epifoundation.dataset_builders.tokenized.own_vocabulary import ColumnCounts, count_columns, own_tokenizer


@pytest.mark.parametrize("layout", ["rows", "columns", "dense"])
def test_cells_are_counted_in_any_layout(layout, multiome, write):
    atac, rna = (data.copy() for data in multiome)
    expected = (atac.X.toarray() > 0).sum(axis=0)
    if layout == "columns":
        atac.X = csc_matrix(atac.X)
    elif layout == "dense":
        atac.X = atac.X.toarray()
    with MatrixFile.open(write(atac, rna)[0]) as file:
        counts = count_columns(file)
    assert counts.names == atac.var_names.tolist()
    np.testing.assert_array_equal(counts.num_cells, expected)


def test_stored_zeros_are_no_cells(multiome, write):
    atac, rna = multiome[0], multiome[1].copy()
    rna.X.data[::2] = 0
    with GeneFile.open(write(atac, rna)[1]) as file:
        np.testing.assert_array_equal(count_columns(file).num_cells, (rna.X.toarray() > 0).sum(axis=0))


def test_rare_peaks_and_genes_are_left_out():
    peaks = ColumnCounts(["chr2:5-9", "chr1:5-9", "chr1:1-3"], np.array([3, 2, 1]))
    genes = ColumnCounts(["GAPDH", "NOGENE", "ACTB"], np.array([9, 10, 11]))
    tokenizer = own_tokenizer(peaks, genes, min_cells_per_peak=2)
    assert tokenizer.vocabulary.names() == ["chr1:5-9", "chr2:5-9"]
    assert (tokenizer.genes.symbols, tokenizer.genes.chromosomes) == (("NOGENE", "ACTB"), ("unknown", "chr7"))
    assert own_tokenizer(peaks, None).genes is None


def test_a_genome_without_a_table_leaves_chromosomes_unknown():
    peaks = ColumnCounts(["chr1:5-9"], np.array([3]))
    with pytest.warns(UserWarning, match="no table of genes for mm10: the chromosomes of the genes stay unknown"):
        tokenizer = own_tokenizer(peaks, ColumnCounts(["Actb"], np.array([30])), genome="mm10")
    assert tokenizer.genes.chromosomes == ("unknown",)


def test_a_limit_that_leaves_nothing_is_refused():
    counts = ColumnCounts(["chr1:5-9", "chr1:1-3"], np.array([3, 4]))
    message = "none of the 2 peaks is found in 5 cells, the most frequent in 4: ask for fewer cells"
    with pytest.raises(ValueError, match=message):
        own_tokenizer(counts, None, min_cells_per_peak=5)
