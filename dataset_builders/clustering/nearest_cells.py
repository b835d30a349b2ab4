"""The nearest cells of another set, such as the cells by RNA that lie next to a cell by ATAC."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

BYTES_PER_BLOCK = 256 * 2**20


class NearestCells(NamedTuple):
    """The nearest reference cells of each cell, nearest first.

    Attributes:
        indices: (cells, neighbours) int64 rows of the references.
        distances: (cells, neighbours) Euclidean, float64.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest_cells(cells: np.ndarray, references: np.ndarray, num_neighbors: int) -> NearestCells:
    """The `num_neighbors` references nearest to each cell; all of them, if there are fewer. Exact.

    Which of several references at the same distance comes first is not defined, but is the same in each run on one
    machine. Of vectors of unit length the nearest are those of the highest cosine.

    Args:
        cells: (cells, dimensions), finite.
        references: (references, dimensions), in the same space.
        num_neighbors: how many.

    Raises:
        ValueError: if the dimensions differ, or no neighbour is asked for.
    """
    if num_neighbors < 1:
        raise ValueError(f"expected at least one neighbour, got {num_neighbors}")
    shape = (len(cells), min(num_neighbors, len(references)))
    nearest = NearestCells(np.empty(shape, dtype=np.int64), np.empty(shape))
    for start, squares in squared_distances(cells, references):
        rows = slice(start, start + len(squares))
        found: Any = squares.topk(shape[1], largest=False, sorted=True)
        nearest.indices[rows] = found.indices.numpy()
        nearest.distances[rows] = found.values.sqrt().numpy()
    return nearest


def squared_distances(cells: np.ndarray, references: np.ndarray) -> Iterator[tuple[int, Tensor]]:
    """Squared Euclidean distances of all cells to all references, a block of cells at a time.

    They come from |x|² + |y|² - 2xy in double precision, with the mean reference moved to the origin. Costs
    2·cells·references·dimensions operations; holds one block of 256 MiB, and both sets twice.

    Args:
        cells: (cells, dimensions), finite.
        references: (references, dimensions).

    Yields:
        The first cell of a block, and (cells of the block, references) float64, overwritten by the next block.

    Raises:
        ValueError: if the dimensions differ.
    """
    if cells.ndim != 2 or references.ndim != 2 or cells.shape[1] != references.shape[1]:
        raise ValueError(
            f"expected cells and references in the same space, (cells, dimensions) each, got {cells.shape} and "
            f"{references.shape}"
        )
    origin = references.mean(axis=0, dtype=np.float64)
    points, others = torch.from_numpy(cells - origin), torch.from_numpy(references - origin)
    lengths, other_lengths = points.square().sum(dim=1), others.square().sum(dim=1)
    rows_per_block = max(1, min(len(points), BYTES_PER_BLOCK // (8 * len(others))))
    buffer = torch.empty(rows_per_block, len(others), dtype=torch.float64)
    for start in range(0, len(points), rows_per_block):
        block = points[start : start + rows_per_block]
        squares = torch.addmm(other_lengths, block, others.T, alpha=-2, out=buffer[: len(block)])
        yield start, squares.add_(lengths[start : start + len(block), None]).clamp_(min=0)
