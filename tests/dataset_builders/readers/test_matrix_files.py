"""What `test_peak_files` does not cover: rows, annotations, genes, and the digest."""

import os

import h5py
import mudata
import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix

from epifoundation.dataset_builders.readers import matrix_files
from epifoundation.dataset_builders.readers.matrix_files import (
    GeneFile,
    GeneTable,
    MatrixFile,
    MatrixTable,
    modalities_of,
)

STORED_AS = {"csr": csr_matrix, "csc": csc_matrix, "dense": np.asarray}


def stored(multiome, path, kind="csr", compression="gzip"):
    atac = multiome[0].copy()
    atac.X = STORED_AS[kind](atac.X.toarray())
    atac.write_h5ad(path, compression=compression)
    return path


def change(path, name, function):
    with h5py.File(path, "r+") as file:
        array = file[name]
        values = array[:]
        array[:] = function(values)
    return path


def digest(path):
    with MatrixFile.open(path) as file:
        return file.digest()


@pytest.mark.parametrize("kind", STORED_AS)
@pytest.mark.parametrize("positions", [[0], [3, 4, 5], [0, 7, 59], list(range(60))])
def test_rows_are_those_at_the_positions(multiome, tmp_path, kind, positions):
    expected = multiome[0].X.toarray()[positions]
    with MatrixFile.open(stored(multiome, tmp_path / "a.h5ad", kind)) as file:
        np.testing.assert_array_equal(file.rows(np.array(positions)).toarray(), expected)
        assert file.indptr[-1] == (multiome[0].X.nnz if kind != "dense" else multiome[0].X.toarray().size)
    table = MatrixTable(AnnData(STORED_AS[kind](multiome[0].X.toarray())))
    shuffled = np.array(positions)[::-1]
    np.testing.assert_array_equal(table.rows(shuffled).toarray(), expected[::-1])
    assert len(table.indptr) == table.num_cells + 1


@pytest.mark.parametrize("max_entries", [1, 17, 10**6])
def test_entries_of_a_matrix_stored_by_columns(multiome, tmp_path, max_entries):
    with MatrixFile.open(stored(multiome, tmp_path / "a.h5ad", "csc")) as file:
        assert file.is_stored_by_columns
        rows, columns, values = map(np.concatenate, zip(*file.column_entries(max_entries), strict=True))
    read = csr_matrix((values, (rows, columns)), shape=multiome[0].shape)
    np.testing.assert_array_equal(read.toarray(), multiome[0].X.toarray())


def test_annotations_are_read_by_column(multiome, tmp_path):
    with MatrixFile.open(stored(multiome, tmp_path / "a.h5ad")) as file:
        [table] = file.annotations
        assert table.columns == ["annot", "batch", "donor"]
        assert table.read("annot").tolist() == multiome[0].obs["annot"].tolist()
        assert list(table.cell_names()) == multiome[0].obs_names.tolist()


def test_genes_and_annotations_of_a_mudata_are_found(multiome, tmp_path):
    atac, rna = multiome
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"atac": atac.copy(), "rna": rna.copy()})
        data.obs["shared"] = "yes"
        data.write(tmp_path / "m.h5mu")
    with GeneFile.open(tmp_path / "m.h5mu") as file:
        assert file.table_path == "/mod/rna"
        assert [table.columns for table in file.annotations] == [[], ["shared"]]
    assert GeneTable(data).column_names == rna.var_names.tolist()
    assert set(modalities_of(tmp_path / "m.h5mu")) == {"atac", "rna"}
    assert modalities_of(stored(multiome, tmp_path / "a.h5ad")) == []


def test_messages_name_what_is_missing(multiome, tmp_path):
    atac, rna = multiome
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"one": atac.copy(), "two": rna.copy()}).write(tmp_path / "m.h5mu")
    with pytest.raises(ValueError, match="holds the genes: expected 'rna' or 'gex' or 'genes', got 'one', 'two'"):
        GeneFile.open(tmp_path / "m.h5mu")
    no_x = rna.copy()
    no_x.X = None
    with pytest.raises(ValueError, match="put the raw counts of the genes there"):
        GeneTable(no_x)


@pytest.mark.parametrize("kind", STORED_AS)
def test_the_digest_follows_the_content_and_not_the_file(multiome, tmp_path, kind):
    path = stored(multiome, tmp_path / "a.h5ad", kind)
    before = digest(path)
    copy = stored(multiome, tmp_path / "b.h5ad", kind)
    os.utime(copy, (0, 0))
    assert digest(copy) == before
    values = "X" if kind == "dense" else "X/data"
    assert digest(change(path, values, lambda array: array + (array == array.max()))) != before


@pytest.mark.parametrize("name", ["obs/_index", "var/_index"])
def test_the_digest_follows_the_names(multiome, tmp_path, name):
    path = stored(multiome, tmp_path / "a.h5ad")
    before = digest(path)
    assert digest(change(path, name, lambda names: np.roll(names, 1))) != before


def test_the_digest_follows_no_annotation(multiome, tmp_path):
    path = stored(multiome, tmp_path / "a.h5ad")
    before = digest(path)
    assert digest(change(path, "obs/annot/codes", lambda codes: codes[::-1])) == before


@pytest.mark.parametrize("kind", STORED_AS)
def test_of_a_large_matrix_samples_and_stored_sizes_enter_the_digest(multiome, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(matrix_files, "ENTRIES_PER_DIGEST", 100)
    monkeypatch.setattr(matrix_files, "RUNS_PER_DIGEST", 5)
    before = digest(stored(multiome, tmp_path / "a.h5ad", kind))
    assert digest(stored(multiome, tmp_path / "b.h5ad", kind)) == before
    values = "X" if kind == "dense" else "X/data"
    rng = np.random.default_rng(0)
    changed = change(tmp_path / "b.h5ad", values, lambda array: rng.integers(1, 1000, array.shape))
    assert digest(changed) != before
