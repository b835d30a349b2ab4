import pytest

from epifoundation import (
    EpiFoundationForBatchCorrection,
    EpiFoundationForBulkClassification,
    EpiFoundationForCellClassification,
    EpiFoundationForCellClustering,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    EpiFoundationForExpressionPrediction,
)
from epifoundation.dataset_builders import load_cells

from .conftest import NAMES
from .training_data import write_training_cells

SHORT = ["--max_steps", "2", "--use_cpu", "--curves", "false", "--disable_tqdm", "true"]
GENE_ENCODER = ["--gene_hidden_size", 8, "--gene_layers", 1, "--gene_attention_heads", 2, "--projection_size", 8]
TASKS = {
    "classification": ([], EpiFoundationForCellClassification),
    "expression": (["--max_genes", "6"], EpiFoundationForExpressionPrediction),
    "clustering": (["--validation_share", 0.5], EpiFoundationForCellClustering),
    "batch-correction": ([], EpiFoundationForBatchCorrection),
    "contrastive": (GENE_ENCODER, EpiFoundationForContrastiveAlignment),
    "bulk": ([], EpiFoundationForBulkClassification),
}


@pytest.fixture(scope="module")
def training_cells(tmp_path_factory):
    return write_training_cells(tmp_path_factory.mktemp("cells"), NAMES)


@pytest.mark.parametrize("task", TASKS)
def test_fine_tuning_from_the_command_line(task, run, checkpoint, training_cells, tmp_path):
    options, model_class = TASKS[task]
    words = ["--model", checkpoint, "--tokenizer", training_cells, "--data", training_cells, "--output_dir", tmp_path]
    result = run("finetune", task, *words, *options, *SHORT)
    assert result.exit_code == 0
    assert f"{tmp_path}: {task.replace('-', '_')}, 2 steps; on held-out cells: loss" in result.stdout
    model_class.from_pretrained(tmp_path)


def test_imputation_starts_from_an_aligned_model(run, checkpoint, training_cells, tmp_path):
    words = ["--data", training_cells, "--tokenizer", training_cells]
    for task, model in (("contrastive", checkpoint), ("imputation", tmp_path / "contrastive")):
        own = ["--model", model, "--output_dir", tmp_path / task, *(GENE_ENCODER if task == "contrastive" else [])]
        result = run("finetune", task, *words, *own, *SHORT)
        assert result.exit_code == 0
    assert "imputation, 2 steps; on held-out cells: loss" in result.stdout
    EpiFoundationForExpressionImputation.from_pretrained(tmp_path / "imputation")


def test_a_model_that_was_not_aligned_cannot_impute(run_badly, checkpoint, training_cells, tmp_path):
    words = ["--data", training_cells, "--tokenizer", training_cells, "--model", checkpoint, "--output_dir", tmp_path]
    assert "expected a checkpoint of 'finetune contrastive'" in run_badly("finetune", "imputation", *words, "--use_cpu")


@pytest.mark.parametrize(
    ("task", "column", "message"),
    [
        ("clustering", "cell_type", "lack cell_type, which this run needs"),
        ("batch-correction", "batch", "lack batch, which this run needs"),
        ("contrastive", "gene_counts", "lack gene_counts, which this run needs"),
        ("imputation", "gene_ids", "lack gene_ids, which this run needs"),
        ("bulk", "assay", "lack assay, which this run needs"),
    ],
)
def test_data_without_what_a_task_needs_is_one_line(
    task, column, message, run_badly, checkpoint, training_cells, tmp_path
):
    load_cells(training_cells).remove_columns(column).save_to_disk(tmp_path / "cells")
    words = ["--model", checkpoint, "--tokenizer", training_cells, "--data", tmp_path / "cells"]
    assert message in run_badly("finetune", task, *words, "--output_dir", tmp_path / "out", "--use_cpu")


@pytest.mark.parametrize("task", [*TASKS, "imputation"])
def test_a_missing_model_is_one_line(task, run_badly, training_cells, tmp_path):
    words = ["--data", training_cells, "--output_dir", tmp_path, "--use_cpu"]
    assert "required: --model" in run_badly("finetune", task, *words)
    assert "no folder nowhere" in run_badly("finetune", task, *words, "--model", "nowhere")


@pytest.mark.parametrize("task", [*TASKS, "imputation"])
def test_the_options_can_be_listed(task, run):
    assert "--lora (False):" in run("finetune", task, "--options").stdout


def test_a_task_must_be_named(run):
    assert "classification" in run("finetune", "--help").stdout
