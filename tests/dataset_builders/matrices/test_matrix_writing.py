import gc

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy.sparse import csr_matrix, random_array

from epifoundation.dataset_builders.matrices.matrix_writing import write_matrix
from epifoundation.dataset_builders.readers.peak_files import open_peak_file

from ..limits import files_of_at_most


@pytest.fixture
def matrix():
    return csr_matrix((random_array((50, 30), density=0.2, rng=np.random.default_rng(0)) * 9).astype(np.int32))


def frames(matrix):
    obs = pd.DataFrame({"kind": pd.Categorical(["a", "b"] * (matrix.shape[0] // 2))})
    obs.index = [f"c{i}" for i in range(matrix.shape[0])]
    return obs, pd.DataFrame(index=[f"chr1:{i}-{i + 1}" for i in range(matrix.shape[1])])


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_anndata_reads_what_was_written(tmp_path, matrix, rows):
    obs, var = frames(matrix)
    blocks = (matrix[start : start + rows] for start in range(0, 50, rows))
    write_matrix(tmp_path / "a.h5ad", blocks, obs, var, obsm={"X_pca": np.ones((50, 2))}, uns={"note": {"n": 1}})
    adata = read_h5ad(tmp_path / "a.h5ad")
    assert (matrix != adata.X).nnz == 0
    assert adata.X.dtype == np.int32
    assert adata.obs["kind"].tolist() == obs["kind"].tolist()
    assert adata.obsm["X_pca"].shape == (50, 2)
    assert adata.uns["note"]["n"] == 1
    with open_peak_file(tmp_path / "a.h5ad") as file:
        assert file.cell_names == list(obs.index)


def test_cells_without_entries_and_no_blocks_at_all(tmp_path):
    empty = csr_matrix((4, 3), dtype=np.int32)
    write_matrix(tmp_path / "a.h5ad", [empty], *frames(empty))
    assert read_h5ad(tmp_path / "a.h5ad").X.nnz == 0


def test_blocks_of_another_shape_are_refused(tmp_path, matrix):
    obs, var = frames(matrix)
    with pytest.raises(ValueError, match="expected 50 rows in all, got 49"):
        write_matrix(tmp_path / "a.h5ad", [matrix[:49]], obs, var)
    with pytest.raises(ValueError, match="expected blocks of 30 columns, got 29"):
        write_matrix(tmp_path / "a.h5ad", [matrix[:, :29]], obs, var)


@pytest.mark.parametrize("limit", [1_000, 60_000, 200_000])
def test_a_full_disk_is_one_clear_error(tmp_path, limit, capfd):
    rng = np.random.default_rng(0)
    blocks = [csr_matrix(rng.integers(0, 2**31 - 1, (20, 1000), dtype=np.int32))] * 5
    obs = pd.DataFrame(
        {"kind": pd.Categorical(["a", "b"] * 50)}, index=[f"a long name of a cell {i}" for i in range(100)]
    )
    var = pd.DataFrame(index=[str(i) for i in range(1000)])
    with (
        pytest.raises(OSError, match=f"^the disk is full: cannot write a.h5ad into {tmp_path}$"),
        files_of_at_most(limit),
    ):
        write_matrix(tmp_path / "a.h5ad", blocks, obs, var, obsm={"X_pca": rng.random((100, 10))})
    gc.collect()  # HDF5 tells of what it could not close when its objects go
    assert capfd.readouterr().err == ""
