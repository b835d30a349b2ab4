import copy
import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from epifoundation.dataset_builders.matrices.row_store import RowStore, ScratchFolder
from epifoundation.dataset_builders.readers.matrix_files import MatrixFile

STORED_AS = {"csr": csr_matrix, "csc": csc_matrix, "dense": np.asarray}


@pytest.fixture(params=STORED_AS)
def file(request, multiome, tmp_path):
    atac = multiome[0].copy()
    atac.X = STORED_AS[request.param](atac.X.toarray())
    atac.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    (tmp_path / "copy").mkdir()
    with MatrixFile.open(tmp_path / "a.h5ad") as file:
        yield file


@pytest.mark.parametrize("max_entries", [1, 50, 10**6])
def test_rows_come_in_any_order(file, multiome, tmp_path, max_entries):
    store = RowStore.copy_of(file, np.arange(60), tmp_path / "copy", max_entries)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(store.rows(order).toarray(), multiome[0].X.toarray()[order])
    assert store.rows(order).dtype == np.float32


def test_only_the_rows_asked_for_are_kept(file, multiome, tmp_path):
    store = RowStore.copy_of(file, np.array([50, 2, 5]), tmp_path / "copy", 37)
    np.testing.assert_array_equal(store.rows(np.array([50, 2])).toarray(), multiome[0].X.toarray()[[50, 2]])
    assert store.indptr[-1] == multiome[0].X[[50, 2, 5]].nnz


def test_rows_without_entries_can_be_all_there_is(file, tmp_path):
    store = RowStore.copy_of(file, np.array([5]), tmp_path / "copy")  # the cell without peaks
    assert store.rows(np.array([5])).nnz == 0


def test_another_process_can_read_it(file, multiome, tmp_path):
    store = pickle.loads(pickle.dumps(RowStore.copy_of(file, np.arange(60), tmp_path / "copy")))
    np.testing.assert_array_equal(store.rows(np.array([9, 1])).toarray(), multiome[0].X.toarray()[[9, 1]])


def test_a_scratch_folder_goes_with_the_last_who_holds_it(tmp_path):
    scratch = ScratchFolder(str(tmp_path))
    path = Path(scratch.path)
    pickled, deep = pickle.loads(pickle.dumps(scratch)), copy.deepcopy([scratch])
    assert pickled.path == scratch.path
    del pickled, scratch
    gc.collect()
    assert path.is_dir()
    deep.clear()
    gc.collect()
    assert not path.exists()
