import numpy as np
from anndata import read_h5ad

from .conftest import NAMES


def bed(path, names):
    path.write_text("".join(name.replace(":", "\t").replace("-", "\t") + "\n" for name in names))
    return path


def test_counts_go_to_the_peaks_of_a_bed_file(run, adata, peaks_file, tmp_path):
    target = bed(tmp_path / "t.bed", ["chr1:900-4100", "chr2:1900-2100"])
    with np.errstate(all="raise"):
        result = run("remap", peaks_file, "--peaks", target, "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    remapped = read_h5ad(tmp_path / "out.h5ad")
    assert remapped.var_names.tolist() == ["chr1:900-4100", "chr2:1900-2100"]
    columns = [NAMES.index(name) for name in ("chr1:1000-1500", "chr1:4000-4500")]
    np.testing.assert_array_equal(remapped.X[:, 0].toarray(), adata.X[:, columns].toarray().sum(axis=1, keepdims=True))
    assert "12 cells mapped. 3 of 40 peaks (7.5 %)" in result.stdout
    assert "warning: only 3 of 40 peaks (8%) overlap" in result.stderr


def test_counts_go_to_the_peaks_of_a_checkpoint(run, adata, peaks_file, checkpoint, tmp_path):
    result = run("remap", peaks_file, "-p", checkpoint, "-o", tmp_path / "out.h5ad", "--counting", "binary", "-q")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    remapped = read_h5ad(tmp_path / "out.h5ad")
    assert ((adata.X > 0) != remapped[:, NAMES].X).nnz == 0


def test_bad_input_is_one_line_and_writes_nothing(run_badly, peaks_file, tmp_path):
    out, target = tmp_path / "out.h5ad", bed(tmp_path / "t.bed", ["chr9:1-5"])
    assert "none of the 40 peaks overlaps" in run_badly("remap", peaks_file, "-p", target, "-o", out)
    assert "ends with .h5ad" in run_badly("remap", peaks_file, "-p", target, "-o", tmp_path / "x.csv")
    assert "No such file" in run_badly("remap", peaks_file, "-p", tmp_path / "no.bed", "-o", out)
    mouse = bed(tmp_path / "m.bed", ["chr1:248956000-248956500"])
    assert "m.bed: " in run_badly("remap", peaks_file, "-p", mouse, "-o", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad", "m.bed", "t.bed"]
    target.write_text("chr1\t5\t9\nchr1\t9\t5\n")
    assert "t.bed, line 2: expected start < end, got the start 9 and the end 5" in run_badly(
        "remap", peaks_file, "-p", target, "-o", out
    )
    target.write_text("<html>")
    assert "t.bed cannot be read as text: it looks like HTML" in run_badly("remap", peaks_file, "-p", target, "-o", out)


def test_an_output_that_exists_is_kept(run, run_badly, peaks_file, checkpoint, tmp_path):
    (tmp_path / "out.h5ad").write_text("mine")
    assert "exists" in run_badly("remap", peaks_file, "-p", checkpoint, "-o", tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").read_text() == "mine"
    assert run("remap", peaks_file, "-p", checkpoint, "-o", tmp_path / "out.h5ad", "--overwrite").exit_code == 0
