"""Fragments, bulk samples and output of Cell Ranger given to commands that read cells by peaks."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest

from epifoundation.dataset_builders import count_fragments
from epifoundation.inference import embed_cells
from epifoundation.tokenization import PeakVocabulary

from .conftest import NAMES


@pytest.fixture
def fragments(tmp_path):
    """Three cells with 1,500, 1,200 and 10 fragments, two of three of them in the peaks of the checkpoint."""
    rng = np.random.default_rng(0)
    lines = []
    for barcode, count in (("AAA-1", 1500), ("CCC-1", 1200), ("TTT-1", 10)):
        for peak in rng.integers(0, 60, count):
            start = 1000 * (int(peak) + 1)
            lines.append(f"chr{1 + peak % 3}\t{start}\t{start + 100}\t{barcode}\t1\n")
    path = tmp_path / "fragments.tsv.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def test_from_a_fragment_file_to_embeddings(run, fragments, checkpoint, tmp_path):
    output = tmp_path / "out.h5ad"
    result = run("embed", fragments, "--model", checkpoint, "--output", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "2 cells embedded" in result.stdout
    adata = anndata.read_h5ad(output)
    assert adata.obs_names.tolist() == ["AAA-1", "CCC-1"]
    counts = count_fragments(fragments, PeakVocabulary.from_names(NAMES), min_fragments=1000)
    assert (counts.matrix != adata.X).nnz == 0
    expected = counts.to_anndata()
    assert adata.obs["num_fragments"].tolist() == expected.obs["num_fragments"].tolist() == [1500, 1200]
    embed_cells(expected, checkpoint)
    np.testing.assert_array_equal(adata.obsm["X_epifoundation"], expected.obsm["X_epifoundation"])


def test_named_barcodes_are_the_cells(run, fragments, checkpoint, tmp_path):
    (tmp_path / "barcodes.tsv").write_text("s_TTT-1\ns_AAA-1\n")
    output = tmp_path / "out.h5ad"
    options = ("--barcodes", tmp_path / "barcodes.tsv", "--prefix", "s_", "--counting", "insertion")
    assert run("embed", fragments, "-m", checkpoint, "-o", output, *options).exit_code == 0
    adata = anndata.read_h5ad(output)
    assert adata.obs_names.tolist() == ["s_TTT-1", "s_AAA-1"]
    assert adata.X.sum() > adata.obs["num_fragments_in_peaks"].sum(), "two cut sites a fragment"


def test_coverage_tells_the_share_of_fragments_in_peaks(run, fragments, checkpoint):
    result = run("coverage", fragments, "--model", checkpoint)
    assert result.exit_code == 0
    numbers = json.loads(run("coverage", fragments, "--model", checkpoint, "--json").stdout)
    assert numbers["num_fragments"] == 2700
    share = numbers["num_fragments_in_peaks"] / 2700
    assert 0.6 < share < 0.73
    in_peaks = numbers["num_fragments_in_peaks"]
    assert f"fragments       {in_peaks:,} of 2,700 lie in a peak of the model ({100 * share:.1f} %)" in result.stdout


def test_bulk_samples_can_be_embedded(run, checkpoint, tmp_path):
    for name in ("liver.bed", "heart.bed"):
        (tmp_path / name).write_text("chr1\t1000\t1200\nchr2\t2000\t2100\n")
    output = tmp_path / "out.parquet"
    files = [tmp_path / "liver.bed", tmp_path / "heart.bed"]
    assert run("embed", *files, "-m", checkpoint, "-o", output, "-q").exit_code == 0
    assert output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"chr1\t1\t1\tAAA\t1\n", "fragments.tsv.gz, line 1: expected 0 <= start < end, got the start 1 and the end 1"),
        (gzip.compress(b"chr1\t1\t9\tAAA\t1\n" * 999, mtime=0)[:-9], "fragments.tsv.gz is truncated or damaged"),
        (b"<html>404</html>", "it looks like HTML or XML, perhaps an error page saved by a download"),
        (gzip.compress(b"BAM\x01", mtime=0), "it is a BAM file of aligned reads"),
        (b"", "fragments.tsv.gz is empty"),
        (b"chr1\t1\t9\tAAA\t1\n", "none of the 1 fragments overlaps a peak of the vocabulary (hg38)"),
        (b"chr1\t1001\t1009\tAAA\t1\n", "no barcode has 1,000 fragments or more: the largest of 1 has 1"),
        (b"chr1\t1\t9\n", "has no barcodes: expected"),
    ],
)
def test_bad_fragments_end_with_one_line_and_no_output(run_badly, checkpoint, tmp_path, content, message):
    path = tmp_path / "fragments.tsv.gz"
    path.write_bytes(content)
    output = tmp_path / "out.h5ad"
    assert message in run_badly("embed", path, "--model", checkpoint, "--output", output)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fragments.tsv.gz"]


def test_barcodes_that_match_none_are_shown(run_badly, fragments, checkpoint, tmp_path):
    (tmp_path / "barcodes.tsv").write_text("AAA\nCCC\n")
    said = run_badly("coverage", fragments, "-m", checkpoint, "--barcodes", tmp_path / "barcodes.tsv")
    assert "it has barcodes like AAA-1, CCC-1, TTT-1, wanted are ones like AAA, CCC; only those end with" in said


def test_the_output_is_checked_before_fragments_are_read(run_badly, fragments, checkpoint, tmp_path):
    output = tmp_path / "out.h5ad"
    output.write_text("mine")
    assert "--overwrite" in run_badly("embed", fragments, "-m", checkpoint, "-o", output)
    assert output.read_text() == "mine"
    said = run_badly("embed", fragments, "-m", checkpoint, "-o", tmp_path / "out.csv")
    assert "cannot tell from its ending what" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_fragments_are_read_leaves_nothing(number, fragments, checkpoint, tmp_path):
    marker, temporary = tmp_path / "has started", tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "import pathlib, sys, time\n"
        f"sys.argv = ['epifoundation', 'embed', {str(fragments)!r}, '-m', {str(checkpoint)!r}, '-o', 'out.h5ad']\n"
        "from epifoundation.dataset_builders.matrices import count_store\n"
        "def slow(*_):\n"
        f"    pathlib.Path({str(marker)!r}).touch()\n"
        "    time.sleep(60)\n"
        "count_store.CountStore._sort = slow\n"
        "from epifoundation_cli.main import main\n"
        "main()"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while not marker.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (130, "interrupted; nothing was written\n")
    assert list(temporary.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fragments.tsv.gz", "has started", "temporary"]
