"""Readers of single-cell chromatin data, quality control, and builders of tokenised data sets.

What needs the `datasets` library is imported when it is first asked for, so that reading files stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .gene_annotation import gene_annotation
from .peak_files import PeakFile, PeakSource, PeakTable, open_peak_file

if TYPE_CHECKING:
    from .features import cell_features
    from .mini_atlas import MiniAtlas
    from .paired_cells import PairedCells
    from .splits import split_cells
    from .stored_cells import load_cells, save_cells

__all__ = [
    "MiniAtlas",
    "PairedCells",
    "PeakFile",
    "PeakSource",
    "PeakTable",
    "cell_features",
    "gene_annotation",
    "load_cells",
    "open_peak_file",
    "save_cells",
    "split_cells",
]

_MODULES = {
    "MiniAtlas": "mini_atlas",
    "PairedCells": "paired_cells",
    "cell_features": "features",
    "load_cells": "stored_cells",
    "save_cells": "stored_cells",
    "split_cells": "splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
