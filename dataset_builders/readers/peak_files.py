"""Tables of cells by peaks, in a file (.h5ad, .h5mu, .h5 of 10x) or in memory, read in blocks of rows."""

import os
from collections.abc import Iterator
from typing import Protocol

from scipy.sparse import csr_matrix

from ..matrices.row_blocks import ENTRIES_PER_BLOCK
from .matrix_files import MatrixFile, MatrixTable

__all__ = ["ENTRIES_PER_BLOCK", "PeakFile", "PeakSource", "PeakTable", "open_peak_file"]


class PeakSource(Protocol):
    """What `PeakFile` and `PeakTable` have in common."""

    @property
    def num_cells(self) -> int:
        """Number of rows."""
        ...

    @property
    def cell_names(self) -> list[str]:
        """Name of each row."""
        ...

    @property
    def peak_names(self) -> list[str]:
        """Name of each column."""
        ...

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """All rows in their order, in blocks."""
        ...


class PeakTable(MatrixTable):
    """The peaks of an AnnData or MuData in memory (or backed), as a `PeakSource`; nothing of it is changed."""

    @property
    def peak_names(self) -> list[str]:
        """Name of each column."""
        return self.column_names


class PeakFile(MatrixFile):
    """An .h5ad, .h5mu or 10x .h5 file opened by `open_peak_file`; a `PeakSource` and a context manager."""

    @property
    def peak_names(self) -> list[str]:
        """Name of each column."""
        return self.column_names


def open_peak_file(path: str | os.PathLike[str], modality: str | None = None) -> PeakFile:
    """Open the peaks of an .h5ad, .h5mu or 10x .h5 file without reading its matrix.

    Args:
        path: the file.
        modality: which part of an .h5mu; by default "atac", "peaks", or the only one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, is incomplete, or has no peaks, cells or X.
    """
    return PeakFile.open(path, modality)
