import gzip
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.inference import embed_cells


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_command_gives_what_the_library_gives(run, adata, peaks_file, checkpoint, tmp_path):
    output = tmp_path / "out.h5ad"
    result = run(
        "embed", peaks_file, "--model", checkpoint, "--output", output, "--key-added", "X_new", "--max-peaks", 9
    )
    assert result.exit_code == 0
    assert "12 cells embedded" in result.stdout
    assert result.stderr == ""
    embed_cells(adata, checkpoint, key_added="X_new", max_peaks=9)
    np.testing.assert_array_equal(anndata.read_h5ad(output).obsm["X_new"], adata.obsm["X_new"])


def test_quiet_is_quiet(run, peaks_file, checkpoint, tmp_path):
    result = run("embed", peaks_file, "-m", checkpoint, "-o", tmp_path / "out.parquet", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_the_output_is_replaced_on_request_alone(run, run_badly, peaks_file, checkpoint):
    command = ("embed", peaks_file, "-m", checkpoint, "-o", peaks_file)
    assert "--overwrite" in run_badly(*command)
    assert run(*command, "--overwrite").exit_code == 0
    assert "X_epifoundation" in anndata.read_h5ad(peaks_file).obsm


def test_low_coverage_is_one_line(run, adata, checkpoint, tmp_path):
    adata.var_names = [n if i % 4 == 0 else f"chr9:{i + 1}-{i + 2}" for i, n in enumerate(adata.var_names)]
    adata.write_h5ad(tmp_path / "low.h5ad")
    result = run("embed", tmp_path / "low.h5ad", "-m", checkpoint, "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: less than half of the open peaks")
    assert result.stderr.count("\n") == 1


def bad_matrix(change):
    def write(adata, path):
        adata.X = change(adata.X.toarray())
        adata.write_h5ad(path)

    return write


def bad_names(make):
    def write(adata, path):
        adata.var_names = [make(i) for i in range(adata.n_vars)]
        adata.write_h5ad(path)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda adata, path: None, "does not exist"),
        (lambda adata, path: path.write_text("hello"), "is not an AnnData file: it looks like text"),
        (lambda adata, path: path.write_bytes(gzip.compress(b"x", mtime=0)), "gzip-compressed"),
        (lambda adata, path: adata[:0].copy().write_h5ad(path), "is empty: it has 0 cells"),
        (bad_names(lambda i: f"gene{i}"), "gene0"),
        (bad_names(lambda i: f"chr9:{i + 1}-{i + 2}"), "none of the 40 peaks overlaps"),
        (bad_names(lambda i: f"chr1:{195_000_000 + i}-{195_000_001 + i}" if i else "chrY:91000000-91744600"), "mm10"),
        (bad_matrix(lambda x: csr_matrix(-x)), "are negative"),
        (bad_matrix(lambda x: np.where(x > 0, np.nan, 0)), "NaN or infinite"),
        (bad_matrix(lambda x: csr_matrix(0 * x)), "no cell has an open peak"),
    ],
)
def test_a_bad_input_is_one_line_and_leaves_nothing(run_badly, adata, checkpoint, tmp_path, write, message):
    path = tmp_path / "bad.h5ad"
    write(adata, path)
    before = names(tmp_path)
    assert message in run_badly("embed", path, "-m", checkpoint, "-o", tmp_path / "out.h5ad")
    assert names(tmp_path) == before


def test_a_bad_model_or_output_is_one_line(run_badly, peaks_file, checkpoint, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    out = tmp_path / "out.h5ad"
    assert "lacks model.safetensors, peaks.npz" in run_badly("embed", peaks_file, "-m", tmp_path / "half", "-o", out)
    assert "does not exist" in run_badly("embed", peaks_file, "-m", "./none", "-o", out)
    assert "in the cache" in run_badly("embed", peaks_file, "-m", "some/one", "-o", out)
    assert "no device" in run_badly("embed", peaks_file, "-m", checkpoint, "-o", out, "--device", "moon")
    assert "make it first" in run_badly("embed", peaks_file, "-m", checkpoint, "-o", tmp_path / "no" / "out.h5ad")
    assert ".parquet" in run_badly("embed", peaks_file, "-m", checkpoint, "-o", tmp_path / "out.csv")
    assert names(tmp_path) == ["cells.h5ad", "half"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(number, peaks_file, checkpoint, tmp_path):
    marker = tmp_path / "has started"
    # Nothing of the command is replaced but the batch, which says that it has begun and takes its time.
    code = (
        "import sys, time, pathlib\n"
        "import epifoundation.inference.batching as batching\n"
        "def slow(*_):\n"
        f"    pathlib.Path({str(marker)!r}).touch()\n"
        "    time.sleep(60)\n"
        "batching._compute = slow\n"
        "from epifoundation_cli.main import main\n"
        "main()"
    )
    before = peaks_file.read_bytes()
    command = [sys.executable, "-c", code, "embed", peaks_file, "-m", checkpoint, "-o", peaks_file, "--overwrite"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not marker.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    assert len(names(tmp_path)) == 3  # the output has begun
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr == "interrupted; nothing was written\n"
    assert names(tmp_path) == ["cells.h5ad", "has started"]
    assert peaks_file.read_bytes() == before


def test_a_mistyped_input_is_refused_before_torch_is_imported(checkpoint, tmp_path):
    code = (
        "import sys\n"
        "sys.argv = ['epifoundation', 'embed', 'mistyped.h5ad', '-m', 'x', '-o', 'y.h5ad']\n"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules))\n"
        "from epifoundation_cli.main import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 1
    assert run.stderr == "error: mistyped.h5ad does not exist\n"
    assert run.stdout == "False\n"
