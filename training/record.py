"""What remains of a run besides its weights: `run.json` and a picture of its loss and metrics."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PACKAGES = ("epifoundation", "torch", "transformers", "datasets", "accelerate", "numpy", "peft")
DIGESTED_AT_A_TIME = 1_000
# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def data_digest(cells: Dataset) -> str:
    """SHA-256 of the content of tokenised cells: names, types and values of all columns, in the order of the rows.

    It does not depend on how the data set is stored or was selected.
    """
    digest = hashlib.sha256(repr(sorted(cells.features.items())).encode())
    columns = sorted(cells.column_names)
    for block in cells.with_format("arrow").iter(DIGESTED_AT_A_TIME):
        for name in columns:
            column = block[name].combine_chunks()
            if hasattr(column, "value_lengths"):
                digest.update(np.asarray(column.value_lengths()).tobytes())
                digest.update(np.asarray(column.flatten()).tobytes())
            else:
                digest.update(json.dumps(column.to_pylist()).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def plot_curves(
    log_history: Sequence[Mapping[str, Any]], metric: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the loss in training and on held-out cells over the steps, and one metric of the latter.

    The two losses may differ by nature: genes are drawn in training, often half of them expressed, and fixed in
    evaluation.

    Args:
        log_history: ``trainer.state.log_history``.
        metric: name of the metric, such as ``"eval_accuracy"``; drawn against an axis of its own on the right.
        ax: where to draw; by default new axes.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots()
    ax.set_xlabel("optimiser steps")
    ax.set_ylabel("loss")
    lines = _draw(ax, log_history, "loss", "training cells", COLOURS[0], "-", "")
    lines += _draw(ax, log_history, "eval_loss", "held-out cells", COLOURS[1], "--", "o")
    if metric is not None and any(metric in entry for entry in log_history):
        right = ax.twinx()
        name = metric.removeprefix("eval_").replace("_", " ")
        right.set_ylabel(f"{name} of held-out cells")
        lines += _draw(right, log_history, metric, name, COLOURS[2], ":", "s")
    if lines:
        ax.legend(handles=lines, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    return ax


def save_curves(log_history: Sequence[Mapping[str, Any]], metric: str | None, path: Path) -> None:
    """Write `plot_curves` as PNG; needs the extra ``plot``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")  # without pyplot: no window system, nothing to close
    plot_curves(log_history, metric, figure.subplots())
    figure.savefig(path, dpi=120)


def _draw(
    ax: "Axes", log_history: Sequence[Mapping[str, Any]], key: str, label: str, colour: str, line: str, marker: str
) -> list[Any]:
    points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
    if not points:
        return []
    steps, values = zip(*points, strict=True)
    # A single value is a point, which a line would not show.
    return list(
        ax.plot(
            steps,
            values,
            line,
            color=colour,
            marker=marker or ("o" if len(points) == 1 else None),
            markersize=4,
            label=label,
        )
    )
