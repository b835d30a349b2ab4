import pytest

from epifoundation import EpiFoundationForCellClassification, EpiFoundationForExpressionPrediction

from .conftest import NAMES
from .training_data import write_training_cells

SHORT = ["--max_steps", "2", "--use_cpu", "--curves", "false", "--disable_tqdm", "true"]


@pytest.fixture(scope="module")
def training_cells(tmp_path_factory):
    return write_training_cells(tmp_path_factory.mktemp("cells"), NAMES)


@pytest.mark.parametrize(
    ("task", "options", "model_class"),
    [
        ("classification", [], EpiFoundationForCellClassification),
        ("expression", ["--max_genes", "6"], EpiFoundationForExpressionPrediction),
    ],
)
def test_fine_tuning_from_the_command_line(task, options, model_class, run, checkpoint, training_cells, tmp_path):
    words = ["--model", checkpoint, "--tokenizer", training_cells, "--data", training_cells, "--output_dir", tmp_path]
    result = run("finetune", task, *words, *options, *SHORT)
    assert result.exit_code == 0
    assert f"{tmp_path}: {task}, 2 steps; on held-out cells: loss" in result.stdout
    model_class.from_pretrained(tmp_path)


@pytest.mark.parametrize("task", ["classification", "expression"])
def test_a_missing_model_is_one_line(task, run_badly, training_cells, tmp_path):
    words = ["--data", training_cells, "--output_dir", tmp_path, "--use_cpu"]
    assert "required: --model" in run_badly("finetune", task, *words)
    assert "no folder nowhere" in run_badly("finetune", task, *words, "--model", "nowhere")


@pytest.mark.parametrize("task", ["classification", "expression"])
def test_the_options_can_be_listed(task, run):
    assert "--lora (False):" in run("finetune", task, "--options").stdout


def test_a_task_must_be_named(run):
    assert "classification" in run("finetune", "--help").stdout
