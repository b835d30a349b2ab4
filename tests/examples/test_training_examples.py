"""The training scripts, on a few of the cells that come with the project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from epifoundation.dataset_builders import load_cells

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT = ["--max_steps", "2", "--max_peaks", "40", "--curves", "false", "--disable_tqdm", "true"]
SHORT += ["--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps", "--save_steps", "1"]


def run(folder: Path, script: str, *words: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, words)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
def test_from_files_to_fine_tuned_models(tmp_path: Path) -> None:
    assert "runs/snare/cells: train 837, validation 106, test 104" in run(tmp_path, "snare.py")
    cells = load_cells(tmp_path / "runs" / "snare" / "cells", "train")
    assert set(cells.features["cell_type"].names) == {"BJ", "GM12878", "H1", "K562"}
    small = tmp_path / "cells"
    cells.select(range(0, 800, 16)).save_to_disk(small)
    given = ["--data", small, "--tokenizer", tmp_path / "runs" / "snare" / "cells"]
    settings = EXAMPLES / "settings"
    sizes = ["--hidden_size", 16, "--max_genes", 50]
    out = run(tmp_path, "pretrain.py", settings / "pretrain_small.yaml", *given, "--output_dir", "p", *sizes, *SHORT)
    assert "alignment, 2 steps; on held-out cells: loss" in out
    for name in ("classification", "expression"):
        words = [settings / f"finetune_{name}_small.yaml", *given, "--model", "p", "--output_dir", name, *SHORT]
        assert f"{name}, 2 steps; on held-out cells: loss" in run(tmp_path, f"finetune_{name}.py", *words)
        assert json.loads((tmp_path / name / "run.json").read_text())["objective"] == name
