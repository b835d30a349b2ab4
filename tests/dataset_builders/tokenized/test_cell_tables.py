import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.readers.matrix_files import GeneTable, MatrixFile, MatrixTable
from epifoundation.dataset_builders.tokenized.cell_tables import CellTables
from epifoundation.dataset_builders.tokenized.pairing import pair
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary


def tables_of(atac, rna, tokenizer, **options):
    peaks, genes = MatrixTable(atac), None if rna is None else GeneTable(rna)
    return CellTables(pair(peaks, genes, tokenizer, {}), peaks, genes, tokenizer, **options)


def of_values(rna, values):
    return AnnData(values, rna.obs, rna.var)


@pytest.mark.parametrize("max_entries", [1, 40, 200, 10**6])
def test_blocks_are_bounded_and_cover_all_cells(multiome, tokenizer, max_entries):
    atac, rna = multiome
    bounds = list(tables_of(atac, rna, tokenizer).bounds(max_entries))
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == 60
    assert len(bounds) >= 16  # so that several processes have something to do
    entries = np.diff(atac.X.indptr) + np.diff(rna.X.indptr) + 1
    assert all(entries[start:stop].sum() <= max_entries or stop == start + 1 for start, stop in bounds)


def test_a_gap_between_cells_of_a_file_is_not_read(multiome, tokenizer, tmp_path):
    atac, rna = multiome
    atac.write_h5ad(tmp_path / "a.h5ad")
    chosen = rna[[0, 1, 58, 59]]
    with MatrixFile.open(tmp_path / "a.h5ad") as peaks:
        genes = GeneTable(chosen)
        tables = CellTables(pair(peaks, genes, tokenizer, {}), peaks, genes, tokenizer)
        span = int(peaks.indptr[2] - peaks.indptr[0] + chosen.X[:2].nnz + 2)
        assert list(tables.bounds(span)) == [(0, 1), (1, 2), (2, 3), (3, 4)]  # 4 cells make no more than 4 blocks
        tables_of_pairs = [tables.table(start, stop) for start, stop in tables.bounds(span)]
    assert [len(table) for table in tables_of_pairs] == [1, 1, 1, 1]


def test_zeros_that_are_stored_are_no_expressed_genes(multiome, tokenizer):
    atac, rna = multiome
    counts = rna.X.copy()
    counts.data[::2] = 0
    table = tables_of(atac, of_values(rna, counts), tokenizer).table(0, 60)
    assert (np.concatenate(table["gene_counts"].to_numpy()) > 0).all()
    assert len(np.concatenate(table["gene_ids"].to_numpy())) == (counts[:, :10] > 0).sum()


def test_columns_of_one_gene_are_added_up(multiome):
    atac, _ = multiome
    genes = GeneVocabulary(["TP53", "MYC"], ["ENSG00000141510", ""], ["chr17", "chr8"])
    tokenizer = PeakTokenizer(PeakVocabulary.from_anndata(atac), genes)
    values = csr_matrix(np.tile([3.0, 1.0, 2.0], (60, 1)))
    rna = AnnData(values, atac.obs[[]], pd.DataFrame(index=["MYC", "ENSG00000141510.9", "TP53"]))
    table = tables_of(atac, rna, tokenizer).table(0, 1)
    assert table["gene_ids"].to_pylist() == [[4, 5]]
    assert table["gene_counts"].to_pylist() == [[3.0, 3.0]]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_values_that_are_no_counts_are_refused(multiome, tokenizer, bad):
    atac, rna = multiome
    values = rna.X.copy()
    values.data[3] = bad
    tables = tables_of(atac, of_values(rna, values), tokenizer, allow_float_counts=True)
    with pytest.raises(ValueError, match=rf"negative, NaN or infinite, such as {bad}: put the raw counts into X"):
        tables.table(0, 60)
    peaks = AnnData(atac.X.copy(), atac.obs, atac.var)
    peaks.X.data[3] = bad
    with pytest.raises(ValueError, match="values are negative and"):
        tables_of(peaks, None, tokenizer).table(0, 60)


def test_negative_integers_are_refused(multiome, tokenizer):
    atac, rna = multiome
    values = rna.X.astype(np.int32)
    values.data[3] = -2
    with pytest.raises(ValueError, match="such as -2"):
        tables_of(atac, of_values(rna, values), tokenizer).table(0, 60)


def test_normalised_values_are_refused_unless_allowed(multiome, tokenizer):
    atac, rna = multiome
    normalised = of_values(rna, rna.X.log1p())
    message = r"not whole numbers, such as 0\.693147: put the raw counts into X.*allow_float_counts=True"
    with pytest.raises(ValueError, match=message):
        tables_of(atac, normalised, tokenizer).table(0, 60)
    table = tables_of(atac, normalised, tokenizer, allow_float_counts=True).table(0, 60)
    counts = np.concatenate(table["gene_counts"].to_numpy())
    np.testing.assert_array_equal(counts, rna.X[:, :10].log1p().data.astype(np.float32))


def test_low_coverage_warns_once_the_cells_are_read(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.var_names = [name if i < 5 else f"chr9:{i}-{i + 1}" for i, name in enumerate(atac.var_names)]
    tables = tables_of(atac, None, tokenizer)
    tables.warn_if_low_coverage()  # nothing is known yet
    tables.table(0, 60)
    with pytest.warns(UserWarning, match="less than half of the open peaks can be used"):
        tables.warn_if_low_coverage()
    assert tables.coverage.num_peaks == 40


def test_the_tokenizer_of_the_caller_is_left_alone(multiome, tokenizer):
    own = PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=5)
    table = tables_of(*multiome, own).table(0, 60)
    assert max(map(len, table["input_ids"].to_pylist())) > 6
    assert own.max_peaks == 5
    with pytest.raises(ValueError, match="no coverage yet"):
        _ = own.coverage
