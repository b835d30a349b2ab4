"""All distances between cells, a block at a time, for whatever is to be told from them."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

BYTES_PER_BLOCK = 256 * 2**20
SECONDS_WITHOUT_PROGRESS = 3  # shorter work needs no progress bar


class DistanceReader(Protocol):
    """Something that takes from each block of distances what it needs."""

    def read(self, start: int, distances: Tensor) -> None:
        """Take in the (rows, cells) distances of the cells from `start` on; they may not be changed."""


def read_distances(embedding: np.ndarray, *readers: DistanceReader, show_progress: bool = False) -> None:
    """Give each reader the Euclidean distances of all cells to all cells, a block of rows at a time.

    The distances come from |x|² + |y|² - 2xy in double precision, with the mean cell moved to the origin, so that
    an embedding far from it loses no digits. Costs 2·cells²·dimensions operations once for all readers together;
    holds one block of 256 MiB, the embedding twice, and what the readers keep.

    Args:
        embedding: (cells, dimensions), finite.
        readers: what to do with each block.
        show_progress: whether to show a progress bar on a terminal.
    """
    points = torch.from_numpy(embedding - embedding.mean(axis=0, dtype=np.float64))
    squares = points.square().sum(dim=1)
    num_cells = len(points)
    rows_per_block = max(1, min(num_cells, BYTES_PER_BLOCK // (8 * num_cells)))
    buffer = torch.empty(rows_per_block, num_cells, dtype=torch.float64)
    disable = None if show_progress else True
    with tqdm(
        total=num_cells, unit="cell", desc="distances", delay=SECONDS_WITHOUT_PROGRESS, disable=disable
    ) as progress:
        for start in range(0, num_cells, rows_per_block):
            block = points[start : start + rows_per_block]
            distances = torch.addmm(squares, block, points.T, alpha=-2, out=buffer[: len(block)])
            distances.add_(squares[start : start + len(block), None]).clamp_(min=0).sqrt_()
            distances.diagonal(start).zero_()
            for reader in readers:
                reader.read(start, distances)
            progress.update(len(block))
