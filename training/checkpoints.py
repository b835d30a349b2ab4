"""Checkpoints that are known to be complete: a process may be killed while it writes one."""

import json
import logging
from pathlib import Path

from transformers.trainer_utils import sort_checkpoints

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint complete: write the names and sizes of its files, as the last file of all.

    The list appears whole or not at all.
    """
    partial = checkpoint / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(_sizes(checkpoint), indent=1))
    partial.replace(checkpoint / MANIFEST)


def break_seal(checkpoint: Path) -> None:
    """Declare a checkpoint incomplete, before anything in it is written anew."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, and all of its files are still there in full length."""
    try:
        expected = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return expected.items() <= _sizes(checkpoint).items()


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """The complete checkpoint of the highest step in a folder, or None; incomplete ones after it are reported."""
    for folder in reversed(checkpoints(output_dir)):
        if is_complete(folder):
            return folder
        logger.warning("%s is incomplete, the run was ended while it was written: it is skipped", folder)
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoints of a folder, complete or not, by step."""
    return [Path(folder) for folder in sort_checkpoints(str(output_dir))] if output_dir.is_dir() else []


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (file for file in checkpoint.rglob("*") if file.is_file() and MANIFEST not in file.name)
    return {file.relative_to(checkpoint).as_posix(): file.stat().st_size for file in files}
