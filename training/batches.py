"""Which cells make up which batch: by number of tokens, complete and equally many on every process, reproducible."""

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from epifoundation.training.collators import DRAW_SEED

Batch = np.ndarray  # indices of cells
LENGTHS_AT_A_TIME = 10_000


class Draw(NamedTuple):
    """One look at a cell: what is drawn for it follows from these three numbers."""

    seed: int
    epoch: int
    cell: int


class CellsToDraw(TorchDataset[dict[str, Any]]):
    """Rows of tokenised cells, each with the seed of what a collator draws for it.

    The seed comes with the index, not from the state of a generator: prefetching, worker processes, restarts and the
    way cells are grouped into batches then change nothing in what is drawn.

    Args:
        cells: tokenised cells.
    """

    def __init__(self, cells: Dataset) -> None:
        self.cells = cells.with_format("arrow")

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[dict[str, Any]]:
        """The rows of a batch."""
        table = self.cells[[draw.cell for draw in draws]]
        columns = {name: _values(table[name]) for name in table.column_names}
        return [
            {name: values[i] for name, values in columns.items()} | {DRAW_SEED: list(draw)}
            for i, draw in enumerate(draws)
        ]


class CellBatchSampler(Sampler[list[Draw]]):
    """Batches of whole cells, each cell once per epoch and all processes together.

    The cells are shuffled, taken in pools, sorted by length within a pool, cut into batches that hold at most
    `max_cells` cells and `max_tokens` tokens (a longer cell makes a batch alone), and the batches are shuffled. The
    plan of an epoch follows from `seed` and the epoch; process r of w takes its batches r, r + w, r + 2w, ...

    Every epoch has the same number of batches, a multiple of `num_processes`, so that steps can be counted and
    processes stay in step: the largest batches are halved until there are enough. Only where there are not enough cells
    for that are the two shortest batches joined, which may then exceed the limits. The number of batches suffices for
    the first epoch; `fit_epochs` makes it suffice for more.

    Args:
        lengths: (cells,) tokens of each cell as it will be read, ``[CLS]`` counted.
        max_tokens: tokens of a batch at most; of a padded one padding counts too.
        max_cells: cells of a batch at most.
        is_packed: batches are laid end to end, without padding.
        pool_size: cells sorted together; 1 leaves the cells of a batch to chance. By default 64 average batches if
            batches are padded and limited by tokens, where sorting saves padding, else 1.
        seed: of the plans.
        process_index: r.
        num_processes: w.

    Raises:
        ValueError: if there are fewer cells than processes, or neither limit is given.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        max_tokens: int | None = None,
        max_cells: int | None = None,
        is_packed: bool = False,
        pool_size: int | None = None,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        if max_tokens is None and max_cells is None:
            raise ValueError("expected max_tokens or max_cells: something must limit a batch")
        for name, limit in (("max_tokens", max_tokens), ("max_cells", max_cells), ("pool_size", pool_size)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, got {limit}")
        if len(lengths) < num_processes:
            raise ValueError(
                f"{len(lengths)} training cells cannot be shared among {num_processes} processes: expected at least "
                "one cell for each; use fewer processes"
            )
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.max_tokens = max_tokens or math.inf
        self.max_cells = max_cells or len(self.lengths)
        self.is_packed = is_packed
        self.pool_size = pool_size or self._default_pool_size()
        self.seed = seed
        self.epoch = 0
        self.process_index = process_index
        self.num_processes = num_processes
        self._num_batches = 0
        self.fit_epochs(1)

    def fit_epochs(self, num_epochs: int) -> None:
        """Set the number of batches per epoch so that it suffices for each of `num_epochs` epochs."""
        permutations = (np.random.default_rng((self.seed, epoch)) for epoch in range(num_epochs))
        num_cells, num_processes = len(self.lengths), self.num_processes
        most = max(len(self._cut(rng.permutation(num_cells))) for rng in permutations)
        self._num_batches = min(-(-most // num_processes), num_cells // num_processes) * num_processes

    def set_epoch(self, epoch: int) -> None:
        """Choose the plan of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_batches // self.num_processes

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in self.plan(self.epoch)[self.process_index :: self.num_processes]:
            yield [Draw(self.seed, self.epoch, int(cell)) for cell in batch]

    def plan(self, epoch: int) -> list[Batch]:
        """The batches of an epoch, of all processes: indices of cells."""
        rng = np.random.default_rng((self.seed, epoch))
        batches = _of_number(self._cut(rng.permutation(len(self.lengths))), self._num_batches, self.lengths)
        if self.pool_size > 1:
            order = rng.permutation(len(batches))
            batches = [batches[i] for i in order]
        return batches

    def _default_pool_size(self) -> int:
        if self.is_packed or self.max_tokens == math.inf:
            return 1
        return max(1, int(64 * min(self.max_cells, self.max_tokens / self.lengths.mean())))

    def _cut(self, permutation: np.ndarray) -> list[Batch]:
        batches = []
        pool_size = self.pool_size if self.pool_size > 1 else len(permutation)
        for begin in range(0, len(permutation), pool_size):
            pool = permutation[begin : begin + pool_size]
            if self.pool_size > 1:
                pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += self._cut_pool(pool)
        return batches

    def _cut_pool(self, pool: np.ndarray) -> list[Batch]:
        """Cut where the next cell would exceed a limit."""
        begins: list[int] = []
        total, longest = 0, 0
        for place, length in enumerate(self.lengths[pool].tolist()):
            num_cells = place + 1 - begins[-1] if begins else 0
            longest = max(longest, length)
            tokens = total + length if self.is_packed else num_cells * longest
            if not begins or num_cells > self.max_cells or tokens > self.max_tokens:
                begins.append(place)
                tokens = longest = length
            total = tokens
        return np.split(pool, begins[1:])


def token_lengths(cells: Dataset, max_peaks: int) -> np.ndarray:
    """(cells,) number of tokens of each cell as a collator with this `max_peaks` reads it."""
    blocks = cells.select_columns("input_ids").with_format("arrow").iter(LENGTHS_AT_A_TIME)
    counts = [pc.list_value_length(block["input_ids"]).to_numpy() for block in blocks]
    return np.minimum(np.concatenate([np.zeros(0, np.int64), *counts]), max_peaks + 1)


def _of_number(batches: list[Batch], wanted: int, lengths: np.ndarray) -> list[Batch]:
    """Halve the largest batches, or join the shortest, until there are `wanted`; the rest keep their order."""
    if len(batches) > wanted:
        return _joined(batches, wanted, lengths)
    # Pieces of a batch stay where it was: (what is halved first, place).
    heap: list[tuple[float, int]] = [(-len(batch), place) for place, batch in enumerate(batches)]
    heapq.heapify(heap)
    num_pieces = [1] * len(batches)
    for _ in range(wanted - len(batches)):
        _, place = heapq.heappop(heap)
        num_pieces[place] += 1
        heapq.heappush(heap, (-(len(batches[place]) / num_pieces[place]), place))
    return [piece for batch, n in zip(batches, num_pieces, strict=True) for piece in np.array_split(batch, n)]


def _joined(batches: list[Batch], wanted: int, lengths: np.ndarray) -> list[Batch]:
    heap: list[tuple[int, int, Batch]] = [
        (int(lengths[batch].sum()), place, batch) for place, batch in enumerate(batches)
    ]
    heapq.heapify(heap)
    while len(heap) > wanted:
        tokens, place, batch = heapq.heappop(heap)
        more_tokens, other_place, other = heapq.heappop(heap)
        heapq.heappush(heap, (tokens + more_tokens, min(place, other_place), np.concatenate([batch, other])))
    return [batch for _, _, batch in sorted(heap, key=lambda entry: entry[1])]


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    """The values of a column; those of lists as arrays that share its memory."""
    array = column.combine_chunks()
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        return array.to_pylist()
    bounds = array.offsets.to_numpy().tolist()
    values = array.values.to_numpy(zero_copy_only=False)
    return [values[i:j] for i, j in itertools.pairwise(bounds)]
