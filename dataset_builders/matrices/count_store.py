"""Counts of cells by peaks that are gathered in any order and read row by row, with little memory.

While they are gathered, each count is one number of 8 bytes in a temporary file. Afterwards the numbers are sorted a
block of rows at a time. So memory is bounded by the block, however many cells and counts there are.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

from .row_blocks import row_blocks
from .row_store import RowStore, ScratchFolder

ENTRIES_PER_BUCKET = 1_000_000  # sorted at a time: 8 MB, some ten times that while they are
MAX_BUCKETS = 256  # files open at a time


class CountStore:
    """Gathers pairs of a cell and a peak; each pair counts one.

    Attributes:
        num_pairs: (cells,) pairs of each cell so far.
        scratch: the temporary folder, removed when nothing holds it any more.
    """

    def __init__(self, num_columns: int) -> None:
        """Make a temporary folder, in ``TMPDIR`` if that is set."""
        self.num_columns = num_columns
        self.num_pairs = np.zeros(0, dtype=np.int64)
        self.scratch = ScratchFolder(tempfile.gettempdir())
        self._folder = Path(self.scratch.path)
        self._pairs = self._folder / "pairs"
        self._pairs.touch()

    def add(self, cells: NDArray[np.int64], peaks: NDArray[np.int64], num_cells: int) -> None:
        """Append pairs; all cells are below `num_cells`.

        Raises:
            OSError: if the disk is full.
        """
        self.num_pairs = added(self.num_pairs, np.bincount(cells, minlength=num_cells))
        with self._disk_explained(), self._pairs.open("ab", buffering=0) as file:
            file.write(((cells << 32) | peaks).data)

    def finish(self, kept: NDArray[np.int64]) -> RowStore:
        """Sort what was gathered; nothing can be added afterwards.

        Args:
            kept: the cells that become the rows, in this order.

        Returns:
            (kept, columns) int32, the columns of each row rising. The files last as long as `scratch`.

        Raises:
            OSError: if the disk is full.
        """
        num_cells = max(len(self.num_pairs), int(kept.max(initial=-1)) + 1)
        num_pairs = added(self.num_pairs, np.zeros(num_cells, dtype=np.int64))
        row_of = np.full(num_cells, -1, dtype=np.int64)
        row_of[kept] = np.arange(len(kept))
        before = np.concatenate([[0], np.cumsum(num_pairs[kept])])
        bounds = list(row_blocks(before, max(ENTRIES_PER_BUCKET, int(before[-1]) // MAX_BUCKETS)))
        with self._disk_explained():
            self._distribute(row_of, np.array([start for start, _ in bounds], dtype=np.int64))
            lengths = [self._sort(i, start, stop) for i, (start, stop) in enumerate(bounds)]
        indptr = np.concatenate([[0], *lengths]).cumsum()
        return RowStore(self._folder, indptr, self.num_columns, np.dtype(np.int32))

    def _distribute(self, row_of: NDArray[np.int64], first_rows: NDArray[np.int64]) -> None:
        """Put the pairs into one file for each block of rows."""
        with ExitStack() as stack, self._pairs.open("rb", buffering=0) as pairs:
            open_files = [(self._folder / f"bucket{i}").open("wb", buffering=0) for i in range(len(first_rows))]
            buckets = [stack.enter_context(file) for file in open_files]
            while (keys := np.fromfile(pairs, dtype=np.int64, count=ENTRIES_PER_BUCKET)).size:
                rows = row_of[keys >> 32]
                keys = (rows << 32) | (keys & 0xFFFFFFFF)
                places = (np.searchsorted(first_rows, rows, side="right") - 1).astype(np.int16)  # -1: not kept
                order = np.argsort(places, kind="stable")
                cuts = np.searchsorted(places[order], np.arange(len(buckets) + 1)).tolist()
                for bucket, start, stop in zip(buckets, cuts[:-1], cuts[1:], strict=True):
                    bucket.write(keys[order[start:stop]].data)
        self._pairs.unlink()

    def _sort(self, bucket: int, start: int, stop: int) -> NDArray[np.int64]:
        """Append the counts of a block of rows to the store; (rows of the block,) its entries in each row."""
        file = self._folder / f"bucket{bucket}"
        keys = np.fromfile(file, dtype=np.int64)
        file.unlink()
        shape = (stop - start, self.num_columns)
        ones = np.ones(len(keys), dtype=np.int32)
        # in linear time where the fragments of each cell came sorted, as they do from most files
        counts = coo_matrix((ones, ((keys >> 32) - start, keys & 0xFFFFFFFF)), shape).tocsr()
        with (self._folder / "columns").open("ab", buffering=0) as columns:
            columns.write(counts.indices.astype(np.int32).data)
        with (self._folder / "values").open("ab", buffering=0) as values:
            values.write(counts.data.data)
        return np.diff(counts.indptr)

    @contextmanager
    def _disk_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"the counts cannot be kept in {self._folder.parent} while they are sorted, about 16 bytes for each "
                f"fragment in a peak ({error.strerror or error}): set TMPDIR to a folder with more room"
            ) from error


def added(totals: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two arrays, of which the second may be longer."""
    if len(totals) < len(more):
        totals = np.concatenate([totals, np.zeros(len(more) - len(totals), dtype=np.int64)])
    totals[: len(more)] += more
    return totals
