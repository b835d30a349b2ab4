from pathlib import Path

import pandas as pd

from epifoundation.evaluation import plots

FRAGMENTS = Path(__file__).parents[1] / "reference" / "muon_quality" / "fragments.tsv.gz"


def test_the_table_and_the_figure_are_written(run, tmp_path):
    (tmp_path / "black.bed").write_text("chr1\t0\t200000000\n")
    (tmp_path / "qc.yaml").write_text("num_unique_fragments: {above: 100}\nnum_rna_counts: {above: 5}\n")
    options = ["--qc", tmp_path / "qc.yaml", "--blacklist", tmp_path / "black.bed", "--min-fragments", 30]
    result = run("qc", FRAGMENTS, "-o", tmp_path / "q.tsv", *options)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(tmp_path / "q.tsv", sep="\t", index_col=0)
    assert table["num_unique_fragments"].min() >= 30
    assert table["passes"].tolist() == (table["num_unique_fragments"] > 100).tolist()
    assert table["blacklist_fraction"].between(0, 1).all()
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")
    passing = int(table["passes"].sum())
    assert f"{passing} of {len(table)} barcodes pass; see" in result.stdout
    assert "num_rna_counts: not applied, it was not measured" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["black.bed", "q.png", "q.tsv", "qc.yaml"]


def test_a_parquet_table_with_the_fraction_in_peaks(run, tmp_path):
    (tmp_path / "p.bed").write_text("chr1\t0\t200000000\n")
    result = run("qc", FRAGMENTS, "-o", tmp_path / "q.parquet", "--peaks", tmp_path / "p.bed")
    assert "blacklist fraction: not measured, as no --blacklist was given" in result.stdout
    table = pd.read_parquet(tmp_path / "q.parquet")
    assert table["peaks_fraction"].max() <= 1
    paper = (table["num_unique_fragments"] > 1_000) & (table["nucleosome_signal"] < 2) & (table["tss_enrichment"] > 1)
    assert table["passes"].tolist() == paper.tolist()


def test_other_genomes_have_no_tss(run, tmp_path):
    result = run("qc", FRAGMENTS, "-o", tmp_path / "q.tsv", "--genome", "hg19", "--qc", "none")
    assert result.exit_code == 0, result.stderr
    assert "TSS enrichment: not measured, as there is no table of the genes of hg19" in result.stdout
    assert "tss_enrichment" not in pd.read_csv(tmp_path / "q.tsv", sep="\t")


def test_bad_input_is_one_line_and_writes_nothing(run_badly, tmp_path, monkeypatch):
    (tmp_path / "page.tsv.gz").write_text("<html>")
    assert "HTML" in run_badly("qc", tmp_path / "page.tsv.gz", "-o", tmp_path / "q.tsv")
    assert "ends with .tsv or .parquet" in run_badly("qc", FRAGMENTS, "-o", tmp_path / "q.csv")
    assert "expected 'paper', 'none' or a YAML" in run_badly("qc", FRAGMENTS, "-o", tmp_path / "q.tsv", "--qc", "x")
    assert "does not exist" in run_badly("qc", tmp_path / "no.tsv", "-o", tmp_path / "q.tsv")
    (tmp_path / "page.tsv.gz").write_text("chr21\t5\t9\tA\t1\nchr21\t5\t46709984\tA\t1\n")
    beyond = run_badly("qc", tmp_path / "page.tsv.gz", "-o", tmp_path / "q.tsv")
    assert "page.tsv.gz, line 2: the fragment ends at 46,709,984, beyond the 46,709,983 base pairs of chr21" in beyond
    few = run_badly("qc", FRAGMENTS, "-o", tmp_path / "q.tsv", "--min-fragments", 10**6)
    assert "no barcode has 1,000,000 unique fragments or more: the richest of 68" in few
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert "the picture needs matplotlib: pip install" in run_badly("qc", FRAGMENTS, "-o", tmp_path / "q.tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["page.tsv.gz"]
