"""Pictures of embeddings."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from .neighbors import Neighbors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by colour-blind readers; with markers they work in black and white too. Yellow,
# faint on white, comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def refuse_missing_plot_libraries(names: Sequence[str] = ("matplotlib", "umap")) -> None:
    """Check before minutes of work that the picture at their end can be drawn, without importing what draws it.

    Raises:
        ImportError: if one of the libraries is not there; the message tells the command that installs it.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ImportError(f'the picture needs {" and ".join(missing)}: pip install "epifoundation[plot]"')


def umap(embedding: np.ndarray, seed: int = 0, neighbors: Neighbors | None = None) -> np.ndarray:
    """(cells, dimensions) -> (cells, 2), by cosine distance or given neighbours; needs the extra ``plot``."""
    from umap import UMAP

    # One job: with a fixed seed umap runs on one, and warns if more are asked for.
    options = {"metric": "cosine", "random_state": seed, "n_jobs": 1}
    if neighbors is not None:
        indices, distances = neighbors.with_itself()
        # Without the second option umap finds the neighbours of few cells itself.
        known = {"precomputed_knn": (indices, distances, None), "force_approximation_algorithm": True}
        options |= known | {"n_neighbors": indices.shape[1], "metric": "euclidean"}
    with warnings.catch_warnings():
        # It tells how it starts, and that other cells cannot be added, which nobody does.
        warnings.filterwarnings("ignore", category=UserWarning)
        return np.asarray(UMAP(**options).fit_transform(embedding))


def plot_cells(coordinates: np.ndarray, labels: Sequence[str], ax: "Axes | None" = None, title: str = "") -> "Axes":
    """Draw cells in the plane, a colour and a marker for each label.

    Args:
        coordinates: (cells, 2).
        labels: one per cell; in the legend with their number of cells.
        ax: where to draw; by default new axes.
        title: above the picture.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots()
    of_cell = np.asarray(labels)
    for i, label in enumerate(sorted(set(labels))):
        is_label = of_cell == label
        ax.scatter(
            coordinates[is_label, 0],
            coordinates[is_label, 1],
            s=14,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            linewidths=0,
            alpha=0.8,
            label=f"{label} ({is_label.sum()})",
        )
    ax.set(title=title, xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    return ax
