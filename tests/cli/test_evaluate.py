"""The four comparisons by the command, on small cells and with settings that train for moments."""

import json

import anndata
import numpy as np
import pytest
from huggingface_hub import ModelCard

from epifoundation.evaluation.report import Report
from epifoundation_cli import evaluate as command

from .evaluation_cells import write_cells

PRETRAIN = """
hidden_size: 8
num_hidden_layers: 1
num_attention_heads: 2
intermediate_size: 8
pooling: mean
init_peak_embeddings: lsi
attention_probs_dropout_prob: 0.0
num_train_epochs: 1
learning_rate: 1.0e-3
per_device_train_batch_size: 32
curves: false
use_cpu: true
"""
FINETUNE = """
num_train_epochs: 1
learning_rate: 1.0e-3
per_device_train_batch_size: 32
curves: false
use_cpu: true
"""


@pytest.fixture(autouse=True)
def leave_the_bars_of_datasets():
    from datasets import enable_progress_bars

    yield
    enable_progress_bars()


@pytest.fixture(autouse=True)
def draw_without_umap(monkeypatch):
    """Compiling it takes longer than all the rest; that it draws is tested with the plots."""
    from epifoundation_cli.comparison import files as figures

    monkeypatch.setattr(figures, "umap", lambda embedding: embedding[:, :2])


@pytest.fixture
def settings(tmp_path):
    for name, text in (("pretrain", PRETRAIN), ("finetune", FINETUNE)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return (
        *("--pretrain-settings", tmp_path / "pretrain.yaml", "--finetune-settings", tmp_path / "finetune.yaml"),
        *("--min-cells-per-gene", 5, "--test-share", 0.25),
    )


@pytest.fixture
def files(tmp_path):
    return write_cells(tmp_path)


def titles(output, task):
    return [row["title"] for row in json.loads((output / f"{task}.json").read_text())["rows"]]


def scores(output, task, title):
    [row] = [row for row in json.loads((output / f"{task}.json").read_text())["rows"] if row["title"] == title]
    return {name: spread["mean"] for name, spread in row["metrics"].items()}


OURS = "EpiFoundation (small, trained here)"


@pytest.mark.slow
def test_batches_are_compared_and_finished_methods_kept(run, files, settings, tmp_path):
    atac, rna = files
    output = tmp_path / "out"
    words = ("evaluate", "batch", atac, "--rna", rna, "--methods", "pca,lsi", "--output", output, *settings)
    result = run(*words, "--card", tmp_path / "card.md")
    assert result.exit_code == 0
    assert titles(output, "batch") == ["PCA", "TF-IDF + LSI", f"{OURS}, zero-shot", f"{OURS}, fine-tuned"]
    assert "| TF-IDF + LSI |" in result.stdout
    assert {"batch.md", "batch.csv", "batch_metrics.png", "batch_umap.png"} <= {e.name for e in output.iterdir()}
    assert scores(output, "batch", "PCA")["cASW"] > 0.5
    [found] = {
        entry.metric_value
        for entry in ModelCard.load(tmp_path / "card.md").data.eval_results
        if entry.metric_name == "cASW"
    }
    assert found == round(scores(output, "batch", f"{OURS}, zero-shot")["cASW"], 4)

    before = {file: file.stat().st_mtime_ns for file in (output / "results").rglob("*.json")}
    assert len(before) == 4
    assert run(*words).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
def test_annotation_without_genes(run, files, settings, tmp_path):
    output = tmp_path / "out"
    words = ("--finetune-settings", tmp_path / "pretrain.yaml")  # which has the sizes of a new model
    result = run("evaluate", "annotation", files[0], "--methods", "logistic", "-o", output, *settings, *words)
    assert result.exit_code == 0
    assert titles(output, "annotation") == ["LSI + logistic", OURS]
    assert scores(output, "annotation", "LSI + logistic")["ACC"] > 0.9
    assert {"annotation_metrics.png", "annotation_confidence.png"} <= {e.name for e in output.iterdir()}


@pytest.mark.slow
def test_expression_and_its_control(run, files, settings, tmp_path):
    atac, rna = files
    output = tmp_path / "out"
    words = ("evaluate", "expression", atac, "--rna", rna, "-o", output, *settings)
    assert run(*words, "--methods", "gene_mean,gene_activity").exit_code == 0
    assert titles(output, "expression") == [
        "per-gene mean",
        "gene activity (body + 2 kb)",
        OURS,
        f"{OURS}, cells shuffled",
    ]
    assert scores(output, "expression", "gene activity (body + 2 kb)")["Pearson"] > 0.3
    assert scores(output, "expression", "per-gene mean")["Pearson"] == 0
    assert (output / "expression_genes.png").is_file()


@pytest.mark.slow
def test_ablation_trains_four_models(run, files, settings, tmp_path):
    atac, rna = files
    assert run("evaluate", "ablation", atac, "--rna", rna, "-o", tmp_path / "out", *settings).exit_code == 0
    assert titles(tmp_path / "out", "ablation") == [
        "batch labels on, chromosomes on",
        "batch labels off, chromosomes on",
        "batch labels on, chromosomes off",
        "batch labels off, chromosomes off",
    ]
    configs = [json.loads(file.read_text()) for file in (tmp_path / "out" / "models").glob("*/pretrain/config.json")]
    found = {(config["use_batch_embeddings"], config["use_chromosome_embeddings"]) for config in configs}
    assert found == {(True, True), (True, False), (False, True), (False, False)}


def test_a_checkpoint_is_compared_as_it_is(run, files, checkpoint, tmp_path):
    atac = anndata.read_h5ad(files[0])
    atac.var_names = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(60)]
    atac.write_h5ad(tmp_path / "other.h5ad")
    words = ("evaluate", "batch", tmp_path / "other.h5ad", "--methods", "", "-m", checkpoint, "--no-finetune")
    assert run(*words, "-o", tmp_path / "out").exit_code == 0
    assert titles(tmp_path / "out", "batch") == [f"{checkpoint.name}, zero-shot"]


def test_bad_input_ends_with_one_line(run_badly, files, tmp_path):
    atac = files[0]
    out = ("--output", tmp_path / "out", "--methods", "pca")
    assert "no column 'x' in obs" in run_badly("evaluate", "batch", atac, "--label-key", "x", *out)
    assert "no column 'x' in obs" in run_badly("evaluate", "batch", atac, "--batch-key", "x", *out)
    assert "expected seeds such as 0,1,2, got 'a'" in run_badly("evaluate", "batch", atac, "--seeds", "a", *out)
    assert "there is no method umap" in run_badly("evaluate", "batch", atac, "-o", tmp_path / "o", "--methods", "umap")
    assert "peaks alone: name the file of the genes" in run_badly(
        "evaluate", "expression", atac, "--methods", "gene_mean", "-o", tmp_path / "o"
    )
    assert "does not exist" in run_badly("evaluate", "batch", tmp_path / "none.h5ad", *out)
    assert "there is no settings file" in run_badly(
        "evaluate", "batch", atac, "--pretrain-settings", tmp_path / "none.yaml", *out
    )
    one_batch = run_badly("evaluate", "batch", atac, "--holdout", "batch", "--test-batches", "a", *out)
    assert "the cells held out are all of the batch 'a'" in one_batch
    assert not (tmp_path / "out").exists()


def test_genes_that_nobody_knows_are_refused(run_badly, files, checkpoint, tmp_path):
    atac, rna = files
    words = ("evaluate", "expression", atac, "--rna", rna, "-o", tmp_path / "out", "--min-cells-per-gene", 5)
    assert "0 of the genes, such as ['GAPDH'" in run_badly(*words, "-m", checkpoint, "--methods", "gene_mean")


def test_embeddings_that_are_no_numbers_are_refused(run, files, tmp_path, monkeypatch):
    from epifoundation.evaluation import linear_baselines

    monkeypatch.setattr(linear_baselines, "embed_pca", lambda cells, seed: np.full((cells.peaks.shape[0], 2), np.nan))
    words = ("--methods", "pca,lsi", "-m", "scratch", "--no-finetune", "--output", tmp_path / "out")
    result = run("evaluate", "batch", files[0], *words)
    assert result.exit_code == 0
    assert "PCA is left out: 24 of 24 cells have NaN or infinity" in result.stderr
    assert titles(tmp_path / "out", "batch") == ["TF-IDF + LSI"]
    assert "PCA is left out: 24 of 24" in (tmp_path / "out" / "batch.md").read_text()


def test_a_missing_extra_is_named_with_its_command(run_badly, files, tmp_path, monkeypatch):
    from epifoundation_cli.comparison import runs

    monkeypatch.setattr(runs, "find_spec", lambda name: None)
    line = run_badly("evaluate", "batch", files[0], "--methods", "scanvi", "-o", tmp_path / "out")
    assert 'scANVI needs scvi: pip install "epifoundation[baselines]"' in line


def test_without_data_and_clone_it_says_so(run_badly, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "CARRIED", tmp_path / "not there")
    assert "come with a clone of the project" in run_badly("evaluate", "annotation", "-o", tmp_path / "out")


def test_an_interruption_says_that_finished_results_are_kept(run, files, tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Report, "markdown", interrupt)
    words = ("evaluate", "batch", files[0], "--methods", "pca", "--no-finetune", "-o", tmp_path / "out")
    result = run(*words)
    assert result.exit_code == 130
    assert "what is finished is kept" in result.stderr
    assert (tmp_path / "out" / "results" / "batch" / "pca-seed0.json").is_file()
