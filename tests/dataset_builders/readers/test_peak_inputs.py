"""Inputs of any kind become one file of counts."""

import gzip
from pathlib import Path

import anndata
import pytest

from epifoundation.dataset_builders.readers.peak_inputs import FragmentOptions, as_peak_file, read_barcodes
from epifoundation.tokenization import PeakVocabulary

from .test_tenx_files import PEAKS as TENX_PEAKS
from .test_tenx_files import write_folder, write_h5

LINES = "chr2\t5\t15\tA-1\t1\nchr1\t5\t150\tA-1\t1\nchr2\t5\t15\tB-1\t1\n"


def vocabulary() -> PeakVocabulary:
    return PeakVocabulary.from_names(["chr1:100-200", "chr2:10-20"])


def open_and_close(inputs: list[Path], options: FragmentOptions | None = None) -> None:
    with as_peak_file(inputs, vocabulary, options=options):
        pass


def no_vocabulary() -> PeakVocabulary:
    raise AssertionError("a count matrix needs no vocabulary")


def test_a_count_matrix_is_given_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.h5ad").touch()
    with as_peak_file([tmp_path / "x.h5ad"], no_vocabulary) as path:
        assert path == tmp_path / "x.h5ad"


def test_fragments_are_counted(tmp_path: Path) -> None:
    for sample in ("one", "two"):
        (tmp_path / f"{sample}.tsv.gz").write_bytes(gzip.compress(LINES.encode()))
    options = FragmentOptions(prefixes=["1_", "2_"], min_fragments=2)
    with as_peak_file([tmp_path / "one.tsv.gz", tmp_path / "two.tsv.gz"], vocabulary, options=options) as path:
        adata = anndata.read_h5ad(path)
    assert not path.exists()
    assert adata.obs_names.tolist() == ["1_A-1", "2_A-1"]
    assert adata.var_names.tolist() == ["chr1:100-200", "chr2:10-20"]
    assert adata.X.toarray().tolist() == [[1, 1], [1, 1]]
    assert adata.obs["num_fragments"].tolist() == adata.obs["num_fragments_in_peaks"].tolist() == [2, 2]


def test_bulk_samples_are_counted(tmp_path: Path) -> None:
    (tmp_path / "liver.bed").write_text("chr2\t5\t15\n")
    with as_peak_file([tmp_path / "liver.bed"], vocabulary) as path:
        adata = anndata.read_h5ad(path)
    assert adata.obs_names.tolist() == ["liver"]
    assert adata.X.toarray().tolist() == [[0, 1]]


@pytest.mark.parametrize("kind", ["h5", "folder"])
def test_output_of_cell_ranger_is_read(tmp_path: Path, kind: str) -> None:
    written = write_h5(tmp_path / "x.h5") if kind == "h5" else write_folder(tmp_path / "x", ".gz")
    with as_peak_file([written], no_vocabulary) as path:
        assert anndata.read_h5ad(path).var_names.tolist() == TENX_PEAKS


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    for name in ("a.tsv", "b.bed", "c.h5ad"):
        (tmp_path / name).write_text(LINES)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"c.h5ad together with other inputs: expected one count matrix"):
        open_and_close([tmp_path / "a.tsv", tmp_path / "c.h5ad"])
    with pytest.raises(ValueError, match="expected one prefix for each of 1 fragment files, got 2"):
        open_and_close([tmp_path / "a.tsv"], FragmentOptions(prefixes=["a", "b"]))
    with pytest.raises(ValueError, match=r"folder is a folder without matrix.mtx"):
        open_and_close([tmp_path / "folder"])
    with pytest.raises(FileNotFoundError, match=r"none.tsv does not exist"):
        open_and_close([tmp_path / "none.tsv"])


def test_barcodes_are_the_first_column_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "barcodes.tsv.gz").write_bytes(gzip.compress(b"A-1\nB-1\n\nA-1\n"))
    (tmp_path / "singlecell.csv").write_text("barcode,total\r\nA-1,5\r\nC-1,7\r\n")
    (tmp_path / "empty.tsv").write_text("barcode\n")
    assert read_barcodes(tmp_path / "barcodes.tsv.gz") == ["A-1", "B-1"]
    assert read_barcodes(tmp_path / "singlecell.csv") == ["A-1", "C-1"]
    with pytest.raises(ValueError, match=r"empty.tsv holds no barcodes: expected one a line"):
        read_barcodes(tmp_path / "empty.tsv")
