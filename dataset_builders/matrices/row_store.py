"""Rows of a sparse matrix in plain temporary files, for reading in any order with little memory.

A compressed file gives its rows quickly in their own order only: each row read alone unpacks a whole chunk, and a
matrix stored by columns has no rows at all. Such a matrix is copied here once, uncompressed, in one pass.
"""

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from .row_blocks import ENTRIES_PER_BLOCK

if TYPE_CHECKING:
    from ..readers.matrix_files import MatrixFile


class ScratchFolder:
    """A folder for copies, removed when the process that made it holds this object no more.

    Copies of the object, also those in other processes, stand for the same folder and do not remove it.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: str) -> None:
        """Make a folder in `parent`."""
        self.path = tempfile.mkdtemp(prefix="epifoundation-", dir=parent)
        weakref.finalize(self, _remove_own, self.path, os.getpid())

    def __deepcopy__(self, memo: object) -> "ScratchFolder":
        return self  # or the folder would end with the original


def _remove_own(folder: str, process: int) -> None:
    if os.getpid() == process:  # a forked worker has a copy, and the end of that is not the end of the folder
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class RowStore:
    """A copy of rows of a matrix; it can be handed to other processes, as it holds no open file.

    Attributes:
        folder: where the files lie; whoever made the folder removes it.
        indptr: (rows + 1,) int64, entries before each row; rows that were not asked for have none.
        num_columns: number of columns.
        dtype: type of the values.
        reads_any_order: True.
    """

    folder: Path
    indptr: np.ndarray
    num_columns: int
    dtype: np.dtype
    reads_any_order: bool = True

    @classmethod
    def copy_of(
        cls, file: "MatrixFile", kept: np.ndarray, folder: Path, max_entries: int = ENTRIES_PER_BLOCK
    ) -> "RowStore":
        """Copy the rows at the positions `kept` into an empty folder; about 8 bytes per entry.

        Raises:
            ValueError: if the file is damaged.
        """
        is_kept = np.zeros(file.num_cells, dtype=bool)
        is_kept[kept] = True
        copy = _copy_columns if file.is_stored_by_columns else _copy_rows
        indptr = copy(file, is_kept, folder, max_entries)
        return cls(folder, indptr, len(file.column_names), file.dtype)

    def rows(self, positions: np.ndarray) -> csr_matrix:
        """The rows at `positions`, in any order; the columns of a row may come in any order too."""
        lengths = np.diff(self.indptr)[positions]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        starts = self.indptr[positions]
        columns = _gathered(self.folder / "columns", np.dtype(np.int32), starts, lengths)
        values = _gathered(self.folder / "values", self.dtype, starts, lengths)
        return csr_matrix((values, columns, indptr), shape=(len(positions), self.num_columns))


def _gathered(path: Path, dtype: np.dtype, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Runs of a file of numbers, one after the other.

    They are read, not mapped: the pages of a mapped file would count as memory of this process.
    """
    gathered = np.empty(int(lengths.sum()), dtype)
    place = gathered.view(np.uint8).data
    size, end = dtype.itemsize, 0
    with path.open("rb", buffering=0) as file:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            begin, end = end, end + length * size
            file.seek(start * size)
            if file.readinto(place[begin:end]) != end - begin:
                raise ValueError(f"{path} was changed by another program: start again")
    return gathered


def _copy_rows(file: "MatrixFile", is_kept: np.ndarray, folder: Path, max_entries: int) -> np.ndarray:
    lengths = np.zeros(file.num_cells, dtype=np.int64)
    start = 0
    with (folder / "columns").open("wb") as columns, (folder / "values").open("wb") as values:
        for block in file.blocks(max_entries):
            stop = start + block.shape[0]
            block = block[is_kept[start:stop]]
            lengths[start:stop][is_kept[start:stop]] = np.diff(block.indptr)
            block.indices.astype(np.int32).tofile(columns)
            block.data.astype(file.dtype).tofile(values)
            start = stop
    return np.concatenate([[0], np.cumsum(lengths)])


def _copy_columns(file: "MatrixFile", is_kept: np.ndarray, folder: Path, max_entries: int) -> np.ndarray:
    """Two passes: one counts the entries of each row, one puts every entry into its place."""
    lengths = np.zeros(file.num_cells, dtype=np.int64)
    for rows, _, _ in file.column_entries(max_entries):
        lengths += np.bincount(rows, minlength=file.num_cells)
    indptr = np.concatenate([[0], np.cumsum(lengths * is_kept)])
    free = indptr[:-1].copy()  # where the next entry of each row goes
    for name in ("columns", "values"):
        (folder / name).touch()
    for rows, columns, values in file.column_entries(max_entries):
        order = np.argsort(rows, kind="stable")
        order = order[is_kept[rows[order]]]
        present, num_entries = np.unique(rows[order], return_counts=True)
        for name, array in (("columns", columns), ("values", values)):
            _scatter(folder / name, array[order], free[present], num_entries)
        free[present] += num_entries
    return indptr


def _scatter(path: Path, values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Write `values` as runs, one for each start."""
    place = values.view(np.uint8).data
    size, end = values.dtype.itemsize, 0
    with path.open("r+b", buffering=0) as file:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            begin, end = end, end + length * size
            file.seek(start * size)
            file.write(place[begin:end])
