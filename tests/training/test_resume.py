"""A run that was killed and started again ends as one that never was."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from epifoundation.training.options import read_options

from .conftest import SMALL_GENE_ENCODER, SMALL_MODEL, SMALL_RUN, words
from .runner import OBJECTIVES

RUNNER = Path(__file__).parent / "runner.py"
pytestmark = pytest.mark.slow

# 24 cells by 4 give 6 steps in each of 3 epochs; checkpoints at 4, 8, 12, 16 lie within and between epochs.
COMMON = SMALL_RUN | {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4}
OPTIONS = {
    "alignment": {**SMALL_MODEL, "max_genes": 16, "use_gene_bias": "true", "init_peak_embeddings": "lsi"},
    "replaced_peaks": {**SMALL_MODEL, "objective": "replaced_peaks", "encoder": "atacformer"},
    "masked_peaks": {**SMALL_MODEL, "objective": "masked_peaks", "init_peak_embeddings": "lsi"},
    "combined": {**SMALL_MODEL, "objective": "combined", "max_genes": 16, "gradient_accumulation_steps": 2},
    "classification": {"class_weights": "balanced", "load_best_model_at_end": "true", "gradient_accumulation_steps": 2},
    "expression": {"max_genes": 16, "max_tokens_per_batch": 40, "lora": "true"},
    "clustering": {"load_best_model_at_end": "true"},
    "batch_correction": {"adversarial_weight": 0.5, "num_trainable_layers": 1},
    "contrastive": {**SMALL_GENE_ENCODER, "gradient_accumulation_steps": 2},
    "imputation": {"lora": "true"},
    "bulk": {"load_best_model_at_end": "true"},
}


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    """Weights, and everything logged but times."""
    log = json.loads((folder / "run.json").read_text())["log"]
    # The mean loss of a start, and its speed, are those of that start.
    logged = [{k: v for k, v in entry.items() if not k.endswith(("runtime", "_per_second"))} for entry in log]
    return load_file(folder / "model.safetensors"), [entry for entry in logged if "train_loss" not in entry]


def start_words(objective: str, folder: Path, data: Path, starts: dict[str, Path]) -> list[str]:
    model = {"model": starts[objective]} if objective in starts else {}
    return words(data=data, output_dir=folder, **model, **COMMON, **OPTIONS[objective])


@pytest.mark.parametrize(
    ("objective", "when"),
    [
        ("alignment", "step:9"),
        ("alignment", "save:8"),
        ("replaced_peaks", "step:9"),
        ("masked_peaks", "step:9"),
        ("combined", "step:7"),
        ("classification", "step:7"),
        ("expression", "step:14"),
        ("clustering", "step:9"),
        ("batch_correction", "step:9"),
        ("contrastive", "step:7"),
        ("imputation", "step:9"),
        ("bulk", "step:9"),
    ],
)
def test_killed_and_started_again(
    objective: str, when: str, data_folder: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    torch.set_num_threads(1)  # as in the process that is killed, whatever the tests before this one did
    kind, run = OBJECTIVES[objective]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    command = [sys.executable, RUNNER, objective, when, *start_words(objective, killed, data_folder, starts)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert not (killed / "run.json").exists()
    second = run(*read_options(kind, start_words(objective, killed, data_folder, starts)))
    run(*read_options(kind, start_words(objective, undisturbed, data_folder, starts)))
    at = int(when.split(":")[1])
    assert second["resumed_from_step"] == (at - 4 if when.startswith("save") else at // 4 * 4)
    weights, log = outcome(killed)
    expected_weights, expected_log = outcome(undisturbed)
    assert log == expected_log
    assert weights.keys() == expected_weights.keys()
    for name, weight in weights.items():
        assert (weight == expected_weights[name]).all(), name
