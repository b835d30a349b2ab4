"""The small checkpoint that comes with the package, for those who name none."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CARRIED = Path(__file__).parent / "checkpoints" / "human_small"
HELD_OUT_FILE = "held_out.json"  # data set -> barcodes of the cells it never saw


def default_checkpoint() -> Path:
    """The folder of the small checkpoint; its card (``README.md``) says what it is for and what not.

    Raises:
        FileNotFoundError: if this installation carries none.
    """
    if not (CARRIED / "config.json").is_file():
        raise FileNotFoundError(
            "this installation carries no checkpoint: name a folder or a model on the Hub (--model)"
        )
    return CARRIED


def is_held_out(folder: str | Path, barcodes: Sequence[str]) -> np.ndarray | None:
    """Which cells a checkpoint was tested on, having learned from none of them.

    Args:
        folder: of a checkpoint; one without ``held_out.json`` does not tell.
        barcodes: names of cells.

    Returns:
        (cells,) bool; None if the checkpoint does not tell, or was tested on none of these.
    """
    file = Path(folder) / HELD_OUT_FILE
    if not file.is_file():
        return None
    known = {barcode for of_set in json.loads(file.read_text(encoding="utf-8")).values() for barcode in of_set}
    held_out = np.array([barcode in known for barcode in barcodes], dtype=bool)
    return held_out if held_out.any() else None
