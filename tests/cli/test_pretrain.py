import json
import subprocess
import sys

import pytest

from epifoundation import EpiFoundationForPeakToGeneAlignment

from .conftest import NAMES
from .training_data import write_training_cells


@pytest.fixture(scope="module")
def training_cells(tmp_path_factory):
    return write_training_cells(tmp_path_factory.mktemp("cells"), NAMES)


def test_pretraining_from_the_command_line(run, training_cells, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "hidden_size: 16\nnum_hidden_layers: 1\nnum_attention_heads: 2\nintermediate_size: 16\nmax_genes: 6\n"
        "attention_probs_dropout_prob: 0\nuse_cpu: true\nnum_train_epochs: 1\ncurves: false\ndisable_tqdm: true\n"
    )
    output = tmp_path / "out"
    result = run("pretrain", settings, "--data", training_cells, "--output_dir", output, "--max_steps", 2)
    assert result.exit_code == 0
    assert f"{output}: alignment, 2 steps; on held-out cells: loss" in result.stdout
    assert json.loads((output / "run.json").read_text())["steps"] == 2
    EpiFoundationForPeakToGeneAlignment.from_pretrained(output)


@pytest.mark.parametrize("objective", ["replaced_peaks", "masked_peaks", "combined"])
def test_each_objective_is_a_word(objective, run, training_cells, tmp_path):
    sizes = ["--hidden_size", 16, "--num_hidden_layers", 1, "--num_attention_heads", 2, "--max_genes", 6]
    words = ["--data", training_cells, "--output_dir", tmp_path, "--objective", objective, *sizes]
    result = run("pretrain", *words, "--max_steps", 2, "--use_cpu", "--curves", "false", "--disable_tqdm", "true")
    assert result.exit_code == 0
    assert f"{tmp_path}: {objective}, 2 steps; on held-out cells: loss" in result.stdout
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 16


def test_the_options_can_be_listed(run):
    listed = run("pretrain", "--options").stdout
    assert "--data (required): Folder" in listed
    assert "--hidden_size (512): Width" in listed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "x", "--output_dir", "{tmp}", "--objective", "all"], "invalid choice: 'all'"),
        (["--dta", "x"], "no option --dta; is --data meant?"),
        (["--data", "nowhere", "--output_dir", "{tmp}", "--use_cpu"], "there is no folder nowhere"),
        (
            ["--data", "x", "--output_dir", "{tmp}", "--use_cpu", "--num_processes", "2"],
            "meant for 2 processes but has 1",
        ),
    ],
)
def test_bad_input_is_one_line(run_badly, tmp_path, words, message):
    assert message in run_badly("pretrain", *(word.format(tmp=tmp_path) for word in words))


def test_an_interrupted_run_says_how_it_goes_on(run, training_cells, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("epifoundation.training.runs.pretrain", interrupt)
    result = run("pretrain", "--data", training_cells, "--output_dir", tmp_path, "--use_cpu")
    assert result.exit_code == 130
    assert "goes on from its last checkpoint" in result.stderr


@pytest.mark.slow
def test_two_processes_are_started_by_torchrun(training_cells, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]
    words = ["epifoundation_cli", "pretrain", "--data", training_cells, "--output_dir", tmp_path, "--use_cpu"]
    sizes = ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2", "--max_genes", "6"]
    options = ["--num_processes", "2", "--max_steps", "2", "--curves", "false", *sizes]
    ran = subprocess.run([*launcher, *words, *options], capture_output=True, text=True, check=False, timeout=270)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.count("alignment, 2 steps") == 1
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["arguments"]["world_size"] == 2
