"""Local inverse Simpson's index: how many labels, effectively, are around a cell (Korsunsky et al. 2019)."""

from typing import Any

import numpy as np

from .checks import checked_labels
from .neighbors import Neighbors

# As in the authors' code and in scib, so that the bisection ends at the same width.
ENTROPY_TOLERANCE = 1e-5
MAX_TRIES = 50
CELLS_PER_BLOCK = 8_192
MIN_NEIGHBORS = 5  # a perplexity of two: less is no neighbourhood


def lisi(neighbors: Neighbors, labels: Any) -> np.ndarray:
    """(cells,) effective number of labels around each cell, from 1 to the number of labels.

    Neighbours weigh exp(-β·distance), with β such that their weights have a perplexity of a third of the
    neighbours, the cell itself counted among those (30 for 89 others); LISI is 1 / Σ (weight of a label)². As in
    scib-metrics; distances are not squared. Labels of neighbours count, not the cell's own.

    Raises:
        ValueError: if there are fewer than 5 neighbours, or labels do not fit them.
    """
    num_cells, num_neighbors = neighbors.indices.shape
    codes, names = checked_labels(labels, num_cells, "labels")
    if num_neighbors < MIN_NEIGHBORS:
        raise ValueError(f"LISI needs at least {MIN_NEIGHBORS} neighbours (of 6 cells), got {num_neighbors}")
    found = np.empty(num_cells)
    for start in range(0, num_cells, CELLS_PER_BLOCK):
        rows = slice(start, start + CELLS_PER_BLOCK)
        weights = _weights(neighbors.distances[rows], (num_neighbors + 1) // 3)
        bins = np.arange(len(weights))[:, None] * len(names) + codes[neighbors.indices[rows]]
        shares = np.bincount(bins.ravel(), weights.ravel(), minlength=len(weights) * len(names))
        found[rows] = 1 / (shares.reshape(len(weights), -1) ** 2).sum(axis=1)
    return found


def cell_type_lisi(neighbors: Neighbors, cell_types: Any) -> float:
    """The cLISI in [0, 1]: (L - median LISI) / (L - 1), L the number of cell types; 1 if only own types are around.

    The median over cells is scib's; the paper does not say how cells are averaged.
    """
    _, names = checked_labels(cell_types, len(neighbors.indices), "cell types", min_labels=2)
    return float((len(names) - np.median(lisi(neighbors, cell_types))) / (len(names) - 1))


def batch_lisi(neighbors: Neighbors, batches: Any) -> float:
    """The iLISI in [0, 1]: (median LISI - 1) / (B - 1) for B batches; 1 if all are around each cell evenly."""
    _, names = checked_labels(batches, len(neighbors.indices), "batches", min_labels=2)
    return float((np.median(lisi(neighbors, batches)) - 1) / (len(names) - 1))


def _weights(distances: np.ndarray, perplexity: int) -> np.ndarray:
    """(cells, neighbours) -> weights that sum to 1 for each cell, of the given perplexity.

    Bisection over β, begun at 1 and doubled or halved until a bound on the other side is known. Distances count
    from the nearest one: that changes no weight, and keeps the exponential of large ones from vanishing.
    """
    beyond = distances - distances[:, :1]
    beta, low, high = np.ones(len(beyond)), np.full(len(beyond), -np.inf), np.full(len(beyond), np.inf)
    weights, entropy = _weights_at(beyond, beta)
    for _ in range(MAX_TRIES):
        excess = entropy - np.log(perplexity)
        todo = np.flatnonzero(np.abs(excess) >= ENTROPY_TOLERANCE)
        if not len(todo):
            break
        is_flat, current = excess[todo] > 0, beta[todo]
        low[todo] = np.where(is_flat, current, low[todo])
        high[todo] = np.where(is_flat, high[todo], current)
        halfway = (low[todo] + high[todo]) / 2
        beta[todo] = np.where(
            np.isposinf(high[todo]), current * 2, np.where(np.isneginf(low[todo]), current / 2, halfway)
        )
        weights[todo], entropy[todo] = _weights_at(beyond[todo], beta[todo])
    return weights


def _weights_at(beyond: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and their entropy in nats."""
    weights = np.exp(-beyond * beta[:, None])
    total = weights.sum(axis=1)
    entropy = np.log(total) + beta * (beyond * weights).sum(axis=1) / total
    return weights / total[:, None], entropy
