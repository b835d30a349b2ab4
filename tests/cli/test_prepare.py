import sys

import pytest

from epifoundation.dataset_builders import load_cells
from epifoundation_cli.prepare import _name

from ..dataset_builders.raw_samples import (
    NUM_CELLS,
    write_bed,
    write_fragments,
    write_rna,
    write_rna_reference,
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for seed, name in enumerate("ab"):
        write_fragments(folder / f"{name}.tsv.gz", seed)
        write_rna(folder / f"{name}.rna.h5ad", seed)
    write_bed(folder / "peaks.bed")
    write_rna_reference(folder / "profiles.tsv")
    (folder / "qc.yaml").write_text("num_unique_fragments: {above: 10}\n")
    return folder


@pytest.fixture
def common(raw):
    return ["--peaks", raw / "peaks.bed", "--qc", raw / "qc.yaml", "--min-fragments", 5]


def test_raw_files_become_cells_for_training(run, raw, common, tmp_path):
    rna = [word for name in "ab" for word in ("--rna", raw / f"{name}.rna.h5ad")]
    inputs = [raw / "a.tsv.gz", raw / "b.tsv.gz"]
    result = run("prepare", *inputs, *rna, "--reference", raw / "profiles.tsv", *common, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert f"a: {NUM_CELLS} cells of " in result.stdout
    assert f"num_unique_fragments above 10: {NUM_CELLS} of {NUM_CELLS} pass" in result.stdout
    assert f"{2 * NUM_CELLS} cells of 2 inputs, ready for training" in result.stdout
    cells = load_cells(tmp_path / "out" / "cells")
    assert {"gene_ids", "cell_type", "batch"} <= set(cells["train"].features)
    assert (tmp_path / "out" / "quality" / "a.png").read_bytes().startswith(b"\x89PNG")
    again = run("prepare", *inputs, *rna, "--reference", raw / "profiles.tsv", *common, "-o", tmp_path / "out")
    assert "a: done before" in again.stdout


def test_a_failed_input_is_told_and_tried_again(run, raw, common, tmp_path):
    (tmp_path / "b.tsv.gz").write_text("chr1\t5\t4\tA\t1\n")
    inputs = [raw / "a.tsv.gz", tmp_path / "b.tsv.gz"]
    result = run("prepare", *inputs, *common, "-o", tmp_path / "out")
    assert result.exit_code == 1
    error, summary = result.stderr.splitlines()
    assert error.startswith(f"error: b: {tmp_path / 'b.tsv.gz'}, line 1: ")
    assert summary == "1 of 2 inputs are done; the same command tries the others again"
    (tmp_path / "b.tsv.gz").write_bytes((raw / "b.tsv.gz").read_bytes())
    again = run("prepare", *inputs, *common, "-o", tmp_path / "out")
    assert again.exit_code == 0, again.stderr
    assert "a: done before" in again.stdout


def test_bad_input_is_one_line(run_badly, raw, common, tmp_path, monkeypatch):
    out, a = tmp_path / "out", raw / "a.tsv.gz"
    assert "does not exist" in run_badly("prepare", tmp_path / "no.tsv", *common, "-o", out)
    assert "name the peaks to count them in (--peaks)" in run_badly("prepare", a, "-o", out)
    assert "two samples are called 'a': give each a name of its own (--name)" in run_badly(
        "prepare", a, a, *common, "-o", out
    )
    assert "--rna was given 1 times for 2 inputs" in run_badly("prepare", a, a, "--rna", a, *common, "-o", out)
    assert "expected 'paper', 'none'" in run_badly("prepare", a, "-p", raw / "peaks.bed", "--qc", "papr", "-o", out)
    monkeypatch.setitem(sys.modules, "snapatac2", None)
    call = ["--peaks", "call", *common[2:]]
    assert 'pip install "epifoundation[qc]"' in run_badly("prepare", a, *call, "-o", out)


def test_no_passing_barcode_shows_the_distribution(run, raw, tmp_path):
    result = run("prepare", raw / "a.tsv.gz", "-p", raw / "peaks.bed", "--min-fragments", 5, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "0 of 42 barcodes pass quality control" in result.stderr
    assert "num_unique_fragments above 1,000 and below 100,000: 0 of 42 pass (5 %, median, 95 %: 80, 80, 80)" in (
        result.stderr
    )


def test_profiles_without_common_genes_are_told(run, raw, common, tmp_path):
    (tmp_path / "p.tsv").write_text("gene\tA\tB\n" + "".join(f"ENSG{i}\t{i}\t1\n" for i in range(30)))
    words = ["--rna", raw / "a.rna.h5ad", "--reference", tmp_path / "p.tsv"]
    result = run("prepare", raw / "a.tsv.gz", *words, *common, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "the reference profiles share 0 genes with the data" in result.stderr


def test_the_name_of_a_sample_is_that_of_its_file(tmp_path):
    assert [_name(tmp_path / name) for name in ("a.tsv.gz", "b.v2.fragments.tsv.gz", "c.h5ad")] == ["a", "b.v2", "c"]
