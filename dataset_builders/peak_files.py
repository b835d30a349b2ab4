"""Tables of cells by peaks, in a file (.h5ad, .h5mu) or in memory, read in blocks of rows.

A block holds a bounded number of stored entries, so the memory needed does not grow with the file. The rows of a
sparse file are read through slices of its three arrays; AnnData's backed mode, row by row, is far slower.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import h5py
import numpy as np
from anndata.io import read_elem
from scipy.sparse import csr_matrix, issparse

from epifoundation.tokenization.tokenization_epifoundation import PEAK_MODALITIES, peak_table

ENTRIES_PER_BLOCK = 4_000_000  # stored entries: some 50 MB as CSR, a few times that while it is tokenised
ROWS_PER_BLOCK = 1024  # where the number of entries of a row is not known beforehand

_SIGNATURES = {
    b"\x1f\x8b": "it looks gzip-compressed: unpack it first (gunzip)",
    b"PK\x03\x04": "it looks like a zip archive: unpack it first",
    b"%%MatrixMarket": "it looks like a Matrix Market file: read it with scanpy.read_mtx and save it with write_h5ad",
    b"<": "it looks like HTML or XML, perhaps an error page saved by a download",
    b"{": "it looks like JSON",
}


class PeakSource(Protocol):
    """What `PeakFile` and `PeakTable` have in common.

    Attributes:
        num_cells: number of rows.
        peak_names: name of each column.
    """

    num_cells: int
    peak_names: list[str]

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """All rows in their order, in blocks."""
        ...


class PeakTable:
    """The peaks of an AnnData or MuData in memory (or backed), as a `PeakSource`; nothing of it is changed.

    Attributes:
        adata: the AnnData that holds the peaks: the one given, or the modality of a MuData.
        num_cells: number of rows.
        peak_names: name of each column.
    """

    def __init__(self, data: Any, modality: str | None = None) -> None:
        """Find the peaks in `data`.

        Args:
            data: an AnnData or a MuData.
            modality: which part of a MuData; by default "atac", "peaks", or the only one.

        Raises:
            TypeError: if `data` is neither.
            ValueError: if the modality is not there, there is no X, or X is empty.
        """
        self.adata = _part(data, modality)
        if self.adata.X is None:
            raise ValueError("the AnnData has no X: put the raw counts of the peaks there")
        self.num_cells = int(self.adata.n_obs)
        self.peak_names = [str(name) for name in self.adata.var_names]
        _refuse_empty("the AnnData", self.num_cells, len(self.peak_names))

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """Yield the rows in their order as CSR blocks of at most `max_entries` entries, or of a single row."""
        matrix = self.adata.X
        if getattr(matrix, "format", None) == "csc":  # no row can be read from it without reading all
            matrix = (matrix.to_memory() if hasattr(matrix, "to_memory") else matrix).tocsr()
        for start, stop in _bounds(matrix, self.num_cells, len(self.peak_names), max_entries):
            yield csr_matrix(matrix[start:stop])


class PeakFile:
    """An .h5ad or .h5mu file opened for reading; a `PeakSource` and a context manager. See `open_peak_file`.

    Attributes:
        path: the file.
        table_path: place of the table within the file: "/", or such as "/mod/atac" in a MuData.
        num_cells: number of rows.
        peak_names: name of each column.
    """

    def __init__(self, file: h5py.File, path: Path, modality: str | None = None) -> None:
        """Take an open file; most callers want `open_peak_file`."""
        self._file = file
        self.path = path
        with _damage_explained(path):
            self._table = _table(file, path, modality)
            self.table_path: str = self._table.name
            self._matrix = _matrix(self._table, path)
            shape = _shape(self._matrix, path)
            _refuse_empty(str(path), *shape)
            self.num_cells = shape[0]
            self.peak_names = _index(self._table["var"])
        if len(self.peak_names) != shape[1]:
            raise ValueError(f"{path} is damaged: X has {shape[1]:,} columns, var {len(self.peak_names):,} names")

    @cached_property
    def cell_names(self) -> list[str]:
        """Name of each row, such as its barcode; read when first asked for."""
        with _damage_explained(self.path):
            names = _index(self._table["obs"])
        if len(names) != self.num_cells:
            raise ValueError(f"{self.path} is damaged: X has {self.num_cells:,} rows, obs {len(names):,} names")
        return names

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """Yield the rows in file order as CSR blocks of at most `max_entries` entries, or of a single row.

        A row counts one entry more than it stores. Of a dense matrix all values count. A matrix stored by
        columns (CSC) has to be read and converted as a whole, once; its blocks are then cut in memory.
        Values are passed on as they are: the tokenizer refuses negative and not finite ones.

        Raises:
            ValueError: if the file is damaged.
        """
        shape = (self.num_cells, len(self.peak_names))
        if isinstance(self._matrix, h5py.Dataset):
            for start, stop in _bounds(self._matrix, *shape, max_entries):
                with _damage_explained(self.path):
                    block = csr_matrix(self._matrix[start:stop])
                yield block
        elif _encoding(self._matrix) == "csc_matrix":
            with _damage_explained(self.path):
                matrix = read_elem(self._matrix).tocsr()
            for start, stop in _bounds(matrix, *shape, max_entries):
                yield matrix[start:stop]
        else:
            yield from self._csr_blocks(shape, max_entries)

    def _csr_blocks(self, shape: tuple[int, int], max_entries: int) -> Iterator[csr_matrix]:
        data, indices = self._matrix["data"], self._matrix["indices"]
        with _damage_explained(self.path):
            indptr = self._matrix["indptr"][:].astype(np.int64)
        ends_fit = len(indptr) == shape[0] + 1 and indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
        if not ends_fit or (np.diff(indptr) < 0).any():
            raise ValueError(f"{self.path} is damaged: the arrays of the sparse X do not fit each other")
        for start, stop in _row_blocks(indptr, max_entries):
            entries = slice(indptr[start], indptr[stop])
            with _damage_explained(self.path):
                columns, values = indices[entries], data[entries]
            if len(columns) and not (columns.min() >= 0 and columns.max() < shape[1]):
                raise ValueError(f"{self.path} is damaged: X has entries outside its {shape[1]:,} columns")
            block_indptr = indptr[start : stop + 1] - indptr[start]
            yield csr_matrix((values, columns, block_indptr), shape=(stop - start, shape[1]))

    def close(self) -> None:
        """Close the file; blocks can no longer be read."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_peak_file(path: str | os.PathLike[str], modality: str | None = None) -> PeakFile:
    """Open the peaks of an .h5ad or .h5mu file without reading its matrix.

    Args:
        path: the file.
        modality: which part of an .h5mu; by default "atac", "peaks", or the only one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an AnnData or MuData file, is incomplete, or has no peaks, cells or X.
    """
    path = Path(path)
    file = _opened(path)
    try:
        return PeakFile(file, path, modality)
    except BaseException:
        file.close()
        raise


def _opened(path: Path) -> h5py.File:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected an .h5ad or .h5mu file")
    if path.is_dir():
        raise ValueError(
            f"{path} is not an AnnData file: it is a folder; save a zarr store as .h5ad with anndata first"
        )
    with path.open("rb") as raw:
        first = raw.read(512)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an AnnData file: {_likeness(first)}")
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise OSError(f"{path} is open for writing in another program: close it there first") from error
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened, it may be incomplete: copy or download it again ({error})"
        ) from error


def _likeness(first: bytes) -> str:
    """What a file that is not HDF5 looks like, from its first bytes."""
    if not first:
        return "it is empty"
    stripped = first.lstrip()
    for signature, likeness in _SIGNATURES.items():
        if stripped.startswith(signature):
            return likeness
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in first)
    return "it looks like text" if is_text else "it is not an HDF5 file, or its beginning is lost"


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn what h5py raises inside a damaged file into one error that says so."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not an AnnData file: {error}") from error


def _part(data: Any, modality: str | None) -> Any:
    modalities = getattr(data, "mod", None)
    if modality is None or modalities is None:
        if modality is not None:
            raise ValueError(f"the data is an AnnData, without modalities: leave modality={modality!r} out")
        table = peak_table(data)
        if table is None:
            raise TypeError(f"expected an AnnData or a MuData, got {type(data).__name__}")
        return table
    if modality not in modalities:
        raise ValueError(f"the data has no modality {modality!r}: it has {', '.join(modalities)}")
    return modalities[modality]


def _table(file: h5py.File, path: Path, modality: str | None) -> h5py.Group:
    """The group of the file that is laid out as an AnnData."""
    table = file
    if "mod" in file and "X" not in file:
        table = file["mod"][_modality(list(file["mod"]), path, modality)]
    elif modality is not None:
        raise ValueError(f"{path} holds a single AnnData, no modalities: leave modality={modality!r} out")
    if isinstance(table.get("obs"), h5py.Dataset):
        raise ValueError(f"{path} was written by AnnData before 0.7: open and save it with a newer anndata")
    if "obs" not in table or "var" not in table:
        if "matrix" in file and "barcodes" in file["matrix"]:
            raise ValueError(
                f"{path} is not an AnnData file: it looks like a file of Cell Ranger; "
                "read it with scanpy.read_10x_h5(path, gex_only=False) and save it with write_h5ad"
            )
        found = ", ".join(list(file)[:5]) or "nothing"
        raise ValueError(f"{path} is not an AnnData file: expected obs, var and X in it, found {found}")
    return table


def _modality(names: list[str], path: Path, modality: str | None) -> str:
    if modality is None:
        known = [name for name in PEAK_MODALITIES if name in names]
        if known or len(names) == 1:
            return (known or names)[0]
        raise ValueError(
            f"{path}: cannot tell which modality holds the peaks: expected 'atac' or 'peaks', got "
            f"{', '.join(map(repr, names)) or 'none'}; name it with modality="
        )
    if modality not in names:
        raise ValueError(f"{path} has no modality {modality!r}: it has {', '.join(names)}")
    return modality


def _matrix(table: h5py.Group, path: Path) -> h5py.Group | h5py.Dataset:
    matrix = table.get("X")
    if matrix is None or _encoding(matrix) == "null":
        layers = f" (its layers: {', '.join(table['layers'])})" if table.get("layers") else ""
        raise ValueError(f"{path} has no X: put the raw counts of the peaks there{layers}")
    if isinstance(matrix, h5py.Group) and _encoding(matrix) not in ("csr_matrix", "csc_matrix"):
        raise ValueError(f"{path}: expected X as a sparse or dense matrix, got the encoding {_encoding(matrix)!r}")
    dtype = (matrix["data"] if isinstance(matrix, h5py.Group) else matrix).dtype
    if dtype.kind not in "buif":
        raise ValueError(f"{path}: expected numbers in X, got values of type {dtype}")
    return matrix


def _encoding(matrix: h5py.Group | h5py.Dataset) -> str:
    return str(matrix.attrs.get("encoding-type", ""))


def _shape(matrix: h5py.Group | h5py.Dataset, path: Path) -> tuple[int, int]:
    shape = matrix.attrs["shape"] if isinstance(matrix, h5py.Group) else matrix.shape
    if len(shape) != 2:
        raise ValueError(f"{path}: expected X of the shape (cells, peaks), got {tuple(shape)}")
    return int(shape[0]), int(shape[1])


def _refuse_empty(name: str, num_cells: int, num_peaks: int) -> None:
    if not num_cells or not num_peaks:
        raise ValueError(f"{name} is empty: it has {num_cells:,} cells and {num_peaks:,} peaks")


def _index(frame: h5py.Group) -> list[str]:
    """The index of obs or var, whether it is stored as texts or as categories."""
    return [str(name) for name in read_elem(frame[frame.attrs["_index"]])]


def _bounds(matrix: Any, num_rows: int, num_columns: int, max_entries: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows of any matrix: by its entries where they can be told, else of a fixed number of rows."""
    if issparse(matrix):
        return _row_blocks(matrix.indptr.astype(np.int64), max_entries)
    rows = ROWS_PER_BLOCK
    if isinstance(matrix, np.ndarray | h5py.Dataset):
        rows = max(1, max_entries // num_columns)
        chunk_rows = (getattr(matrix, "chunks", None) or (1,))[0]
        rows -= rows % chunk_rows if rows > chunk_rows else 0  # no chunk is unpacked twice
    return ((start, min(start + rows, num_rows)) for start in range(0, num_rows, rows))


def _row_blocks(indptr: np.ndarray, max_entries: int) -> Iterator[tuple[int, int]]:
    """Bounds (start, stop) of blocks of rows with at most `max_entries` entries, or of a single row.

    Args:
        indptr: (rows + 1,) int64, entries before each row.
        max_entries: bound per block.
    """
    running = indptr + np.arange(len(indptr))  # rows without entries take memory too
    start = 0
    while start < len(indptr) - 1:
        stop = int(np.searchsorted(running, running[start] + max_entries, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop
