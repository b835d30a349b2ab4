"""Files of Cell Ranger, against scanpy's reader of them."""

import gzip
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import scanpy
from anndata import AnnData
from scipy.io import mmwrite
from scipy.sparse import csr_matrix, random_array

from epifoundation.dataset_builders import open_peak_file
from epifoundation.dataset_builders.readers.matrix_files import GeneFile
from epifoundation.dataset_builders.readers.tenx_files import read_tenx_folder

NUM_CELLS = 30
GENES = ["GENE1", "SAME", "SAME", "GENE4"]
GENE_IDS = [f"ENSG0000000000{i}" for i in range(4)]
PEAKS = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(20)]
TYPES = ["Gene Expression"] * 4 + ["Peaks"] * 20
BARCODES = [f"{'ACGT' * 3}{i:04d}-1" for i in range(NUM_CELLS)]
COUNTS = csr_matrix(
    (10 * random_array((NUM_CELLS, 24), density=0.3, rng=np.random.default_rng(0)).toarray()).astype(np.int32)
)


def write_h5(path: Path) -> Path:
    """Genes and peaks in the layout of Cell Ranger ARC: features by barcodes, by columns."""
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(BARCODES, dtype="S")
        matrix["data"], matrix["indices"] = COUNTS.data, COUNTS.indices.astype(np.int64)
        matrix["indptr"], matrix["shape"] = COUNTS.indptr.astype(np.int64), np.array([24, NUM_CELLS], np.int32)
        features = matrix.create_group("features")
        features["id"] = np.array(GENE_IDS + PEAKS, dtype="S")
        features["name"] = np.array(GENES + PEAKS, dtype="S")
        features["feature_type"] = np.array(TYPES, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 24, dtype="S")
    return path


def write_folder(folder: Path, ending: str, features: str = "features.tsv") -> Path:
    """The same as text files."""
    folder.mkdir()
    counts = COUNTS if features == "features.tsv" else COUNTS[:, 4:]
    mmwrite(folder / "matrix.mtx", counts.T.tocoo())
    rows = zip(GENE_IDS + PEAKS, GENES + PEAKS, TYPES, strict=True)
    lines = ["\t".join(row) for row in rows]
    if features == "peaks.bed":
        lines = [re.sub("[:-]", "\t", name) for name in PEAKS]
    (folder / features).write_text("\n".join(lines) + "\n")
    (folder / "barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
    if ending:
        for file in list(folder.iterdir()):
            file.with_name(file.name + ending).write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_h5(tmp_path_factory.mktemp("tenx") / "filtered_feature_bc_matrix.h5")


@pytest.fixture(scope="module")
def expected(file: Path) -> AnnData:
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        return scanpy.read_10x_h5(file, gex_only=False)


def test_the_peaks_of_an_h5_are_read_in_blocks(file: Path, expected: AnnData) -> None:
    peaks = expected[:, expected.var["feature_types"] == "Peaks"]
    with open_peak_file(file) as opened:
        assert opened.peak_names == peaks.var_names.tolist() == PEAKS
        assert opened.cell_names == peaks.obs_names.tolist()
        blocks = list(opened.blocks(max_entries=40))
        assert len(blocks) > 3
        np.testing.assert_array_equal(np.vstack([block.toarray() for block in blocks]), peaks.X.toarray())
        rows = opened.rows(np.array([3, 4, 9]))
        np.testing.assert_array_equal(rows.toarray(), peaks.X[[3, 4, 9]].toarray())
        assert opened.layers == opened.annotations == []
        assert len(opened.digest()) == 32


def test_the_genes_of_an_h5_have_a_name_of_their_own(file: Path, expected: AnnData) -> None:
    with GeneFile.open(file) as opened:
        assert opened.column_names == ["GENE1", GENE_IDS[1], GENE_IDS[2], "GENE4"]
        genes = expected.X[:, :4].toarray()
        np.testing.assert_array_equal(np.vstack([block.toarray() for block in opened.blocks()]), genes)


def test_an_h5_without_peaks_is_refused(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "rna.h5")
    with h5py.File(path, "r+") as file:
        file["matrix/features/feature_type"][:] = np.array([b"Gene Expression"] * 24)
    message = r"rna.h5 holds no peaks: expected features of the type 'Peaks', got Gene Expression"
    with pytest.raises(ValueError, match=message):
        open_peak_file(path)
    with pytest.raises(ValueError, match="is a file of Cell Ranger, without modalities: leave modality='atac' out"):
        open_peak_file(path, "atac")


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("features", ["features.tsv", "peaks.bed"])
def test_a_folder_holds_the_same(tmp_path: Path, expected: AnnData, ending: str, features: str) -> None:
    adata = read_tenx_folder(write_folder(tmp_path / "matrix", ending, features))
    assert adata.var_names.tolist() == PEAKS
    assert adata.obs_names.tolist() == BARCODES
    np.testing.assert_array_equal(adata.X.toarray(), expected.X[:, 4:].toarray())
    assert adata.X.format == "csr"


def test_the_genes_of_a_folder_can_be_read_too(tmp_path: Path, expected: AnnData) -> None:
    adata = read_tenx_folder(write_folder(tmp_path / "matrix", ".gz"), "genes")
    assert adata.var_names.tolist() == ["GENE1", GENE_IDS[1], GENE_IDS[2], "GENE4"]
    np.testing.assert_array_equal(adata.X.toarray(), expected.X[:, :4].toarray())


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "matrix", "")
    (folder / "barcodes.tsv").write_text("\n".join(BARCODES[:-1]))
    with pytest.raises(ValueError, match=r"has 24 features and 30 barcodes, features.tsv 24 lines and .* 29"):
        read_tenx_folder(folder)
    (folder / "barcodes.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"matrix lacks barcodes.tsv, gzip-compressed or not"):
        read_tenx_folder(folder)


def test_damaged_files_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "matrix", ".gz")
    whole = (folder / "features.tsv.gz").read_bytes()
    (folder / "features.tsv.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"features.tsv.gz is damaged"):
        read_tenx_folder(folder)
    (folder / "features.tsv.gz").write_bytes(whole)
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(ValueError, match=r"matrix.mtx.gz is damaged or no Matrix Market file"):
        read_tenx_folder(folder)
