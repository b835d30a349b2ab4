"""Checkpoints that come with the package, for those who name none."""

from pathlib import Path
from typing import Literal

Task = Literal["embedding", "annotation", "expression"]

CARRIED = Path(__file__).parent / "checkpoints"


def default_checkpoint(task: Task) -> Path:
    """The folder of the small checkpoint that is carried for a task; its card says what it is for and what not.

    Raises:
        FileNotFoundError: if this installation carries none.
    """
    folder = CARRIED / task
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"this installation carries no checkpoint for {task}: name a folder or a model on the Hub (--model)"
        )
    return folder
