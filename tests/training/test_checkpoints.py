import os
from pathlib import Path

import pytest

from epifoundation.training.checkpoints import MANIFEST, break_seal, is_complete, last_complete_checkpoint, seal


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
            (folder / name).write_bytes(b"x" * step)
        seal(folder)
    return tmp_path


def test_the_last_by_step_is_found(run_folder: Path) -> None:
    os.utime(run_folder / "checkpoint-5")
    assert last_complete_checkpoint(run_folder) == run_folder / "checkpoint-100"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "shorter", "empty"])
def test_a_damaged_one_is_skipped(run_folder: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = run_folder / "checkpoint-100" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2 if damage == "shorter" else 0])
    assert last_complete_checkpoint(run_folder) == run_folder / "checkpoint-10"
    assert "checkpoint-100 is incomplete" in caplog.text


def test_one_without_a_seal_is_incomplete(run_folder: Path) -> None:
    for step in (5, 10, 100):
        break_seal(run_folder / f"checkpoint-{step}")
    assert last_complete_checkpoint(run_folder) is None
    break_seal(run_folder / "checkpoint-5")  # twice is no error


def test_more_files_do_no_harm(run_folder: Path) -> None:
    (run_folder / "checkpoint-100" / "notes.txt").write_text("mine")
    assert is_complete(run_folder / "checkpoint-100")


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path / "new") is None
