import json


def test_the_report_can_be_read(run, peaks_file, checkpoint):
    result = run("coverage", peaks_file, "--model", checkpoint)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["cells"] == "12"
    assert lines["peaks"] == "40 of 40 usable (100.0 %)"
    assert lines["genome"].startswith("the model's is hg38; the peaks fit hg38")


def test_the_numbers_come_as_json(run, adata, checkpoint, tmp_path):
    adata.var_names = [n if i % 4 else f"chr9:{i + 1}-{i + 2}" for i, n in enumerate(adata.var_names)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    numbers = json.loads(run("coverage", tmp_path / "a.h5ad", "-m", checkpoint, "--json").stdout)
    assert (numbers["num_peaks"], numbers["num_matched_peaks"]) == (40, 30)
    assert numbers["num_entries"] == (adata.X > 0).sum()
    assert numbers["model_genome"] == "hg38"
    assert "hg38" in numbers["possible_genomes"]


def test_no_coverage_is_reported_and_an_error(run, adata, checkpoint, tmp_path):
    adata.var_names = [f"chr1:{195_000_000 + i}-{195_000_001 + i}" for i in range(39)] + ["chrY:91000000-91744600"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    result = run("coverage", tmp_path / "a.h5ad", "-m", checkpoint)
    assert result.exit_code == 1
    assert "0 of 40 usable (0.0 %)" in result.stdout
    assert "fit the chromosome lengths of mm10, not of hg38" in result.stderr
    assert result.stderr.count("\n") == 1


def test_cells_without_open_peaks_are_an_error(run, adata, checkpoint, tmp_path):
    adata.X = adata.X * 0
    adata.write_h5ad(tmp_path / "a.h5ad")
    result = run("coverage", tmp_path / "a.h5ad", "-m", checkpoint, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["entries_share"] is None
    assert result.stderr == "error: no cell has an open peak that overlaps one of the model\n"


def test_bad_input_is_one_line(run_badly, peaks_file, checkpoint, tmp_path):
    assert "does not exist" in run_badly("coverage", tmp_path / "no.h5ad", "-m", checkpoint)
    assert "lacks peaks.npz" in run_badly("coverage", peaks_file, "-m", tmp_path)
