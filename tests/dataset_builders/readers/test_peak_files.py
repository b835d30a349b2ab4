import gzip
import tracemalloc

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix, random_array

from epifoundation.dataset_builders import PeakTable, open_peak_file

NUM_PEAKS = 30
PEAKS = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(NUM_PEAKS)]


def counts(num_cells=23, dtype=np.float32):
    generator = np.random.default_rng(0)
    density = generator.uniform(0, 0.6, size=(num_cells, 1))
    values = generator.integers(1, 5, (num_cells, NUM_PEAKS)) * (generator.random((num_cells, NUM_PEAKS)) < density)
    values[3] = 0
    return values.astype(dtype)


def cells(matrix):
    names = [f"cell{i}" for i in range(matrix.shape[0])]
    return AnnData(matrix, pd.DataFrame(index=names), pd.DataFrame(index=PEAKS))


def write(path, matrix, **options):
    cells(matrix).write_h5ad(path, **options)
    return path


STORED_AS = {
    "csr": csr_matrix,
    "csc": csc_matrix,
    "dense": np.asarray,
    "bytes": lambda values: csr_matrix(values.astype(np.uint8)),
    "bools": lambda values: csr_matrix(values > 0),
}


@pytest.mark.parametrize("kind", STORED_AS)
@pytest.mark.parametrize("max_entries", [1, 37, 10**6])
def test_blocks_are_the_rows_in_their_order(tmp_path, kind, max_entries):
    matrix = STORED_AS[kind](counts())
    path = write(tmp_path / "a.h5ad", matrix, compression="gzip")
    expected = np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix)
    with open_peak_file(path) as file:
        assert (file.num_cells, file.peak_names) == (23, PEAKS)
        assert file.cell_names == [f"cell{i}" for i in range(23)]
        from_file = list(file.blocks(max_entries))
    in_memory = list(PeakTable(cells(matrix)).blocks(max_entries))
    for blocks in (from_file, in_memory):
        assert all(isinstance(block, csr_matrix) for block in blocks)
        np.testing.assert_array_equal(np.vstack([block.toarray() for block in blocks]), expected)
        if kind != "dense":
            assert all(block.nnz + block.shape[0] <= max_entries or block.shape[0] == 1 for block in blocks)
        assert len(blocks) == 1 or max_entries < 10**6


def test_rows_without_entries_are_bounded_too(tmp_path):
    path = write(tmp_path / "a.h5ad", csr_matrix((50, NUM_PEAKS), dtype=np.float32))
    with open_peak_file(path) as file:
        assert [block.shape[0] for block in file.blocks(20)] == [20, 20, 10]


def test_explicit_zeros_and_values_are_passed_on(tmp_path):
    matrix = csr_matrix(np.array([[-1.0, np.nan, 0.0] + [0.0] * (NUM_PEAKS - 3)], dtype=np.float32))
    matrix.data[0] = 0
    path = write(tmp_path / "a.h5ad", matrix)
    with open_peak_file(path) as file:
        np.testing.assert_array_equal(next(file.blocks()).data, matrix.data)


def test_a_backed_anndata_is_read_in_blocks(tmp_path):
    path = write(tmp_path / "a.h5ad", csr_matrix(counts()))
    backed = anndata.read_h5ad(path, backed="r")
    np.testing.assert_array_equal(np.vstack([b.toarray() for b in PeakTable(backed).blocks()]), counts())
    backed.file.close()


def test_a_categorical_index_is_read(tmp_path):
    path = write(tmp_path / "a.h5ad", csr_matrix(counts()))
    with h5py.File(path, "r+") as file:
        anndata.io.write_elem(file["obs"], "_index", pd.Categorical([f"c{i % 5}" for i in range(23)]))
    with open_peak_file(path) as file:
        assert file.cell_names == [f"c{i % 5}" for i in range(23)]


@pytest.fixture
def multiome(tmp_path):
    matrix = csr_matrix(counts())
    modalities = {"rna": AnnData(np.ones((23, 2), dtype=np.float32)), "atac": cells(matrix)}
    modalities["rna"].obs_names = modalities["atac"].obs_names
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(modalities)
        data.write(tmp_path / "m.h5mu")
    return data, tmp_path / "m.h5mu"


def test_the_peaks_of_a_mudata_are_found(multiome):
    data, path = multiome
    with open_peak_file(path) as file, open_peak_file(path, "atac") as named:
        assert file.table_path == named.table_path == "/mod/atac"
        np.testing.assert_array_equal(next(file.blocks()).toarray(), counts())
    assert PeakTable(data).adata is data.mod["atac"]
    with open_peak_file(path, "rna") as other:
        assert other.num_cells == 23


def test_modalities_that_are_not_there_are_named(multiome, tmp_path):
    data, path = multiome
    with pytest.raises(ValueError, match=r"has no modality 'dna': it has .*atac"):
        open_peak_file(path, "dna")
    with pytest.raises(ValueError, match=r"has no modality 'dna': it has .*atac"):
        PeakTable(data, "dna")
    single = write(tmp_path / "a.h5ad", csr_matrix(counts()))
    with pytest.raises(ValueError, match="single AnnData"):
        open_peak_file(single, "atac")
    with pytest.raises(ValueError, match="without modalities"):
        PeakTable(data.mod["atac"], "atac")
    with h5py.File(path, "r+") as file:
        file.move("mod/atac", "mod/dna")
    with pytest.raises(ValueError, match="cannot tell which modality holds the peaks"):
        open_peak_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (gzip.compress(b"anything", mtime=0), "gzip-compressed"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"chr1\t1\t5\n", "looks like text"),
        (b"PK\x03\x04zip", "zip archive"),
        (b"\x00\x01\x02", "its beginning is lost"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_likeness(tmp_path, content, message):
    path = tmp_path / "a.h5ad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.h5ad is not an AnnData file: .*{message}"):
        open_peak_file(path)


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.h5ad does not exist"):
        open_peak_file(tmp_path / "no.h5ad")
    with pytest.raises(ValueError, match="it is a folder"):
        open_peak_file(tmp_path)


def test_other_hdf5_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["table"] = [1]
    with pytest.raises(ValueError, match="not an AnnData file: expected obs, var and X in it, found table"):
        open_peak_file(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["matrix/barcodes"] = [1]
    with pytest.raises(ValueError, match="is damaged or not an AnnData file"):
        open_peak_file(tmp_path / "x.h5")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = write(tmp_path / "a.h5ad", csr_matrix(counts(400)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"may be incomplete|damaged"):
        open_peak_file(path)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path / "a.h5ad", csr_matrix(counts()))
    with h5py.File(path, "r+") as file:
        file["X/indices"][0] = NUM_PEAKS
    with open_peak_file(path) as file, pytest.raises(ValueError, match="entries outside its 30 columns"):
        list(file.blocks())
    with h5py.File(path, "r+") as file:
        file["X/indptr"][-1] = 10**6
    with open_peak_file(path) as file, pytest.raises(ValueError, match="do not fit each other"):
        list(file.blocks())
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = (23, 31)
    with pytest.raises(ValueError, match="X has 31 columns, var 30 names"):
        open_peak_file(path)


def test_a_missing_x_is_refused(tmp_path):
    data = cells(csr_matrix(counts()))
    data.layers["counts"] = data.X
    data.X = None
    data.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"has no X: put the raw counts of the peaks there \(its layers: counts\)"):
        open_peak_file(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="has no X"):
        PeakTable(data)


def test_texts_in_x_are_refused(tmp_path):
    path = write(tmp_path / "a.h5ad", counts())
    with h5py.File(path, "r+") as file:
        del file["X"]
        anndata.io.write_elem(file, "X", np.full((23, NUM_PEAKS), "a", dtype=object))
    with pytest.raises(ValueError, match="expected numbers in X"):
        open_peak_file(path)


@pytest.mark.parametrize("shape", [(0, NUM_PEAKS), (5, 0)])
def test_an_empty_matrix_is_refused(tmp_path, shape):
    data = AnnData(csr_matrix(shape, dtype=np.float32))
    data.write_h5ad(tmp_path / "a.h5ad")
    for source in (lambda: open_peak_file(tmp_path / "a.h5ad"), lambda: PeakTable(data)):
        with pytest.raises(ValueError, match=f"is empty: it has {shape[0]} cells and {shape[1]} peaks"):
            source()


def test_something_else_than_an_anndata_is_refused():
    with pytest.raises(TypeError, match="expected an AnnData or a MuData, got csr_matrix"):
        PeakTable(csr_matrix((2, 2)))


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak_memory(num_cells):
        matrix = csr_matrix(random_array((num_cells, NUM_PEAKS), density=0.5, rng=np.random.default_rng(0)))
        path = tmp_path / f"{num_cells}.h5ad"
        AnnData(matrix, var=pd.DataFrame(index=PEAKS)).write_h5ad(path)
        tracemalloc.start()
        try:
            with open_peak_file(path) as file:
                assert sum(block.nnz for block in file.blocks(20_000)) == matrix.nnz
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_memory(2_000)  # what is imported or cached on first use is not counted
    assert peak_memory(40_000) < 3 * peak_memory(4_000)  # ten times the cells; indptr alone grows
