"""The nearest cells of each cell."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .checks import checked_embedding
from .distances import read_distances

# scib counts a cell as the first of its own neighbours; here it is left out. So its 90 are 89 of ours, its 15 are 14.
NUM_NEIGHBORS = 89


class Neighbors(NamedTuple):
    """The nearest other cells of each cell, nearest first.

    Attributes:
        indices: (cells, neighbours) rows of the embedding; never the cell itself.
        distances: (cells, neighbours) Euclidean, float64.
    """

    indices: np.ndarray
    distances: np.ndarray

    def nearest(self, num_neighbors: int) -> "Neighbors":
        """The first of them; all, if there are no more."""
        return Neighbors(self.indices[:, :num_neighbors], self.distances[:, :num_neighbors])

    def with_itself(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices and float32 distances as UMAP wants them: each cell is the first of its own neighbours."""
        itself = np.arange(len(self.indices))[:, None]
        distances = np.hstack([np.zeros(itself.shape), self.distances]).astype(np.float32)
        return np.hstack([itself, self.indices]), distances


def nearest_neighbors(
    embedding: np.ndarray, num_neighbors: int = NUM_NEIGHBORS, *, show_progress: bool = False
) -> Neighbors:
    """The `num_neighbors` nearest other cells by Euclidean distance; all others, if there are fewer.

    Exact. Which of several cells at the same distance comes first, or comes in at all, is not defined, but is the
    same in each run on one machine. Cells with the same vector are neighbours at distance 0. Costs 2·cells²·dimensions
    operations (see `read_distances`); keeps 16 bytes per neighbour, 140 MB for 100,000 cells.

    Args:
        embedding: (cells, dimensions).
        num_neighbors: how many, the cell itself not counted.
        show_progress: whether to show a progress bar on a terminal.

    Raises:
        ValueError: see `checked_embedding`.
    """
    points = checked_embedding(embedding)
    reader = NearestReader(len(points), num_neighbors)
    read_distances(points, reader, show_progress=show_progress)
    return reader.neighbors


class NearestReader:
    """Keeps the nearest cells while distances are read."""

    def __init__(self, num_cells: int, num_neighbors: int = NUM_NEIGHBORS) -> None:
        if num_neighbors < 1:
            raise ValueError(f"expected at least one neighbour, got {num_neighbors}")
        shape = (num_cells, min(num_neighbors, num_cells - 1))
        self.neighbors = Neighbors(np.empty(shape, dtype=np.int64), np.empty(shape))

    def read(self, start: int, distances: Tensor) -> None:
        """See `DistanceReader`; a cell's distance to itself is out of the way meanwhile."""
        rows = slice(start, start + len(distances))
        itself = distances.diagonal(start)
        itself.fill_(float("inf"))
        found: Any = distances.topk(self.neighbors.indices.shape[1], largest=False, sorted=True)
        itself.zero_()
        self.neighbors.indices[rows] = found.indices.numpy()
        self.neighbors.distances[rows] = found.values.numpy()
