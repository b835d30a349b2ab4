"""Tables of cells by peaks or by genes, in a file (.h5ad, .h5mu, .h5 of 10x) or in memory, read in blocks of rows.

A block holds a bounded number of stored entries, so the memory needed does not grow with the file. The rows of a
sparse file are read through slices of its three arrays; AnnData's backed mode, row by row, is far slower.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy.sparse import csr_matrix, issparse

from epifoundation.tokenization.tokenization_epifoundation import PEAK_MODALITIES

from ..matrices.row_blocks import ENTRIES_PER_BLOCK, row_blocks
from .tenx_files import is_tenx, tenx_table

ROWS_PER_BLOCK = 1024  # where the number of entries of a row is not known beforehand
ENTRIES_PER_DIGEST = 4_000_000  # of each array of X; half a second from a compressed file
RUNS_PER_DIGEST = 256

_SIGNATURES = {
    b"\x1f\x8b": "it looks gzip-compressed: unpack it first (gunzip)",
    b"PK\x03\x04": "it looks like a zip archive: unpack it first",
    b"%%MatrixMarket": "it looks like a Matrix Market file: read it with scanpy.read_mtx and save it with write_h5ad",
    b"<": "it looks like HTML or XML, perhaps an error page saved by a download",
    b"{": "it looks like JSON",
}


class Measured(NamedTuple):
    """What the columns of a table stand for.

    Attributes:
        things: word for them in messages.
        modalities: names under which a MuData may hold them, the likeliest first.
    """

    things: str
    modalities: tuple[str, ...]


PEAKS = Measured("peaks", PEAK_MODALITIES)
GENES = Measured("genes", ("rna", "gex", "genes"))


class Annotations(NamedTuple):
    """One table of cell annotations, an ``obs``, whose columns are read when they are asked for.

    Attributes:
        columns: names of its columns.
        cell_names: name of each row.
        read: the values of a column.
    """

    columns: list[str]
    cell_names: Callable[[], Sequence[str]]
    read: Callable[[str], pd.Series]


class MatrixSource(Protocol):
    """What `MatrixFile` and `MatrixTable` have in common.

    Attributes:
        num_cells: number of rows.
        column_names: name of each column.
    """

    num_cells: int
    column_names: list[str]

    @property
    def cell_names(self) -> list[str]:
        """Name of each row."""
        ...

    @property
    def indptr(self) -> np.ndarray:
        """(cells + 1,) int64, entries stored before each row; of a dense matrix all values count."""
        ...

    @property
    def reads_any_order(self) -> bool:
        """Whether `rows` takes positions in any order, or only rising ones."""
        ...

    @property
    def annotations(self) -> list[Annotations]:
        """Tables that may hold annotations of the cells, the likeliest first."""
        ...

    def rows(self, positions: np.ndarray) -> csr_matrix:
        """The rows at `positions`."""
        ...

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """All rows in their order, in blocks."""
        ...


class MatrixTable:
    """The matrix of an AnnData or MuData in memory (or backed), as a `MatrixSource`; nothing of it is changed.

    Attributes:
        adata: the AnnData that holds the matrix: the one given, or the modality of a MuData.
        num_cells: number of rows.
        column_names: name of each column.
        reads_any_order: True.
    """

    measured = PEAKS
    reads_any_order = True

    def __init__(self, data: Any, modality: str | None = None) -> None:
        """Find the matrix in `data`.

        Args:
            data: an AnnData or a MuData.
            modality: which part of a MuData; by default the one with a known name, or the only one.

        Raises:
            TypeError: if `data` is neither.
            ValueError: if the modality is not there, there is no X, or X is empty.
        """
        self.adata = _part(data, modality, self.measured)
        self._x = self.adata.X
        if self._x is None:
            raise ValueError(f"the AnnData has no X: put the raw counts of the {self.measured.things} there")
        self.num_cells = int(self.adata.n_obs)
        self.column_names = [str(name) for name in self.adata.var_names]
        _refuse_empty("the AnnData", self.num_cells, len(self.column_names), self.measured)

    @property
    def cell_names(self) -> list[str]:
        """Name of each row, such as its barcode."""
        return [str(name) for name in self.adata.obs_names]

    @property
    def annotations(self) -> list[Annotations]:
        """Its ``obs``."""
        obs = self.adata.obs
        return [Annotations(obs.columns.tolist(), lambda: self.cell_names, lambda key: obs[key])]

    @cached_property
    def _by_rows(self) -> Any:
        if getattr(self._x, "format", None) == "csc":  # no row can be read from it without reading all
            return (self._x.to_memory() if hasattr(self._x, "to_memory") else self._x).tocsr()
        return self._x

    @cached_property
    def indptr(self) -> np.ndarray:
        """(cells + 1,) int64, entries stored before each row; of a dense matrix all values count."""
        if issparse(self._by_rows):
            return self._by_rows.indptr.astype(np.int64)
        return np.arange(self.num_cells + 1, dtype=np.int64) * len(self.column_names)

    def rows(self, positions: np.ndarray) -> csr_matrix:
        """The rows at `positions`, in any order."""
        return csr_matrix(self._by_rows[positions])

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """Yield the rows in their order as CSR blocks of at most `max_entries` entries, or of a single row."""
        matrix = self._by_rows
        for start, stop in _bounds(matrix, self.num_cells, len(self.column_names), max_entries):
            yield csr_matrix(matrix[start:stop])


class GeneTable(MatrixTable):
    """A `MatrixTable` of genes."""

    measured = GENES


class MatrixFile:
    """An .h5ad, .h5mu or 10x .h5 file opened for reading; a `MatrixSource` and a context manager.

    Of a 10x file the features of one type are the columns; entries of others are read and left out.

    Attributes:
        path: the file.
        table_path: place of the table within the file: "/", or such as "/mod/atac" in a MuData.
        is_tenx: whether it is a feature-barcode matrix of Cell Ranger and not an AnnData or MuData.
        num_cells: number of rows.
        column_names: name of each column.
        reads_any_order: False.
    """

    measured = PEAKS
    reads_any_order = False

    def __init__(self, file: h5py.File, path: Path, modality: str | None = None) -> None:
        """Take an open file; most callers want `open`."""
        self._file = file
        self.path = path
        self.is_tenx = is_tenx(file)
        if self.is_tenx:
            self._open_tenx(modality)
            return
        with _damage_explained(path):
            self._table = _table(file, path, modality, self.measured)
            self.table_path: str = self._table.name
            self._matrix = _matrix(self._table, path, self.measured)
            shape = _shape(self._matrix, path, self.measured)
            _refuse_empty(str(path), *shape, self.measured)
            self.num_cells = shape[0]
            self.column_names = _index(self._table["var"])
        self._num_stored_columns = shape[1]
        if len(self.column_names) != shape[1]:
            raise ValueError(f"{path} is damaged: X has {shape[1]:,} columns, var {len(self.column_names):,} names")

    def _open_tenx(self, modality: str | None) -> None:
        if modality is not None:
            raise ValueError(
                f"{self.path} is a file of Cell Ranger, without modalities: leave modality={modality!r} out"
            )
        with _damage_explained(self.path):
            self._tenx = tenx_table(self._file, self.path, self.measured.things)
        self._matrix, self.table_path = self._tenx.matrix, self._tenx.matrix.name
        self.num_cells, self.column_names = self._tenx.num_cells, self._tenx.column_names
        self._num_stored_columns = self._tenx.num_features
        _refuse_empty(str(self.path), self.num_cells, len(self.column_names), self.measured)

    @classmethod
    def open(cls, path: str | os.PathLike[str], modality: str | None = None) -> Self:
        """Open a file without reading its matrix.

        Args:
            path: an .h5ad or .h5mu file, or an .h5 of Cell Ranger (``filtered_feature_bc_matrix.h5``).
            modality: which part of an .h5mu; by default the one with a known name, or the only one.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not an AnnData or MuData file, is incomplete, or has no columns, cells or X.
        """
        path = Path(path)
        file = _opened(path)
        try:
            return cls(file, path, modality)
        except BaseException:
            file.close()
            raise

    @cached_property
    def cell_names(self) -> list[str]:
        """Name of each row, such as its barcode; read when first asked for."""
        with _damage_explained(self.path):
            names = self._tenx.cell_names() if self.is_tenx else _index(self._table["obs"])
        if len(names) != self.num_cells:
            raise ValueError(f"{self.path} is damaged: X has {self.num_cells:,} rows, obs {len(names):,} names")
        return names

    @property
    def annotations(self) -> list[Annotations]:
        """Its ``obs``, and in a MuData that of all modalities together; none in a 10x file."""
        if self.is_tenx:
            return []
        own = _annotations(self._table["obs"], self.path, lambda: self.cell_names)
        if self.table_path == "/" or "obs" not in self._file:
            return [own]
        return [own, _annotations(self._file["obs"], self.path)]

    @property
    def layers(self) -> list[str]:
        """Names of the other matrices of the table, which are never read."""
        return [] if self.is_tenx else list(self._table.get("layers") or [])

    @property
    def is_stored_by_columns(self) -> bool:
        """Whether X is a CSC matrix, of which no row can be read without reading all."""
        return isinstance(self._matrix, h5py.Group) and _encoding(self._matrix) == "csc_matrix"

    @cached_property
    def indptr(self) -> np.ndarray:
        """(cells + 1,) int64, entries stored before each row; of a dense matrix all values count.

        Raises:
            ValueError: if the file is damaged.
        """
        if isinstance(self._matrix, h5py.Dataset):
            return np.arange(self.num_cells + 1, dtype=np.int64) * len(self.column_names)
        if self.is_stored_by_columns:
            return self._by_rows.indptr.astype(np.int64)
        return self._stored_indptr(self.num_cells)

    def rows(self, positions: np.ndarray) -> csr_matrix:
        """The rows at `positions`, which must rise; all entries from the first to the last of them are read.

        Raises:
            ValueError: if the file is damaged.
        """
        start, stop = int(positions[0]), int(positions[-1]) + 1
        block = self._slice(start, stop)
        return block if len(positions) == stop - start else block[positions - start]

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """Yield the rows in file order as CSR blocks of at most `max_entries` entries, or of a single row.

        A row counts one entry more than it stores. Of a dense matrix all values count. A matrix stored by
        columns (CSC) has to be read and converted as a whole, once; its blocks are then cut in memory.
        Values are passed on as they are: the tokenizer refuses negative and not finite ones.

        Raises:
            ValueError: if the file is damaged.
        """
        if isinstance(self._matrix, h5py.Dataset):
            bounds = _bounds(self._matrix, self.num_cells, len(self.column_names), max_entries)
        else:
            bounds = row_blocks(self.indptr, max_entries)
        for start, stop in bounds:
            yield self._slice(start, stop)

    def column_entries(
        self, max_entries: int = ENTRIES_PER_BLOCK
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the entries of a matrix stored by columns as (rows, columns, values), at most `max_entries` at a time.

        Raises:
            ValueError: if the file is damaged.
        """
        ends = self._stored_indptr(len(self.column_names))[1:]
        for start in range(0, int(ends[-1]), max_entries):
            stop = min(start + max_entries, int(ends[-1]))
            rows, values = self._entries(start, stop, self.num_cells, "rows")
            columns = np.searchsorted(ends, np.arange(start, stop), side="right").astype(np.int32)
            yield rows, columns, values

    @property
    def dtype(self) -> np.dtype:
        """Type of the values of X."""
        return (self._matrix["data"] if isinstance(self._matrix, h5py.Group) else self._matrix).dtype

    def digest(self) -> str:
        """A digest of the names of cells and columns and of X, for the keys of caches; hexadecimal text.

        Of each array of X at most 4 million values enter: all of a small one, else evenly spaced runs of it. All
        row lengths of a sparse matrix enter, and the sizes at which its arrays are stored, which change with nearly
        every change of a compressed array. What is missed is a change of values that keeps all of these, in a large
        matrix. The path, the time of the file and annotations play no part.
        """
        digest = hashlib.blake2b(digest_size=16)
        for names in (self.cell_names, self.column_names):
            digest.update("\n".join([str(len(names)), *names]).encode())
        with _damage_explained(self.path):
            if isinstance(self._matrix, h5py.Dataset):
                _add_sample(digest, self._matrix)
            else:
                digest.update(_encoding(self._matrix).encode())
                digest.update(self._matrix["indptr"][:].astype("<i8").tobytes())
                for name in ("indices", "data"):
                    _add_sample(digest, self._matrix[name])
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file; blocks can no longer be read."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @cached_property
    def _by_rows(self) -> csr_matrix:
        with _damage_explained(self.path):
            return read_elem(self._matrix).tocsr()

    def _stored_indptr(self, length: int) -> np.ndarray:
        """(length + 1,) int64 as stored, found to be sound."""
        data, indices = self._matrix["data"], self._matrix["indices"]
        with _damage_explained(self.path):
            indptr = self._matrix["indptr"][:].astype(np.int64)
        ends_fit = len(indptr) == length + 1 and indptr[0] == 0 and indptr[-1] == len(data) == len(indices)
        if not ends_fit or (np.diff(indptr) < 0).any():
            raise ValueError(f"{self.path} is damaged: the arrays of the sparse X do not fit each other")
        return indptr

    def _slice(self, start: int, stop: int) -> csr_matrix:
        if isinstance(self._matrix, h5py.Dataset):
            with _damage_explained(self.path):
                return csr_matrix(self._matrix[start:stop])
        if self.is_stored_by_columns:
            return self._by_rows[start:stop]
        indptr, num_columns = self.indptr[start : stop + 1], self._num_stored_columns
        columns, values = self._entries(int(indptr[0]), int(indptr[-1]), num_columns, "columns")
        block = csr_matrix((values, columns, indptr - indptr[0]), shape=(stop - start, num_columns))
        return block[:, self._tenx.columns] if self.is_tenx else block

    def _entries(self, start: int, stop: int, bound: int, axis: str) -> tuple[np.ndarray, np.ndarray]:
        """The stored indices, all below `bound`, and values of some entries."""
        with _damage_explained(self.path):
            indices, values = self._matrix["indices"][start:stop], self._matrix["data"][start:stop]
        if len(indices) and not (indices.min() >= 0 and indices.max() < bound):
            raise ValueError(f"{self.path} is damaged: X has entries outside its {bound:,} {axis}")
        return indices, values


class GeneFile(MatrixFile):
    """A `MatrixFile` of genes."""

    measured = GENES


def modalities_of(path: str | os.PathLike[str]) -> list[str]:
    """Names of the modalities of an .h5mu file; none for an .h5ad file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an HDF5 file.
    """
    with _opened(Path(path)) as file:
        return list(file["mod"]) if "mod" in file and "X" not in file else []


def _annotations(frame: h5py.Group, path: Path, cell_names: Callable[[], Sequence[str]] | None = None) -> Annotations:
    def read(key: str) -> pd.Series:
        with _damage_explained(path):
            return pd.Series(read_elem(frame[key]))

    columns = [str(name) for name in frame.attrs.get("column-order", [])]
    return Annotations(columns, cell_names or (lambda: _index(frame)), read)


def _add_sample(digest: Any, array: h5py.Dataset) -> None:
    """Add shape, type, stored size and values of an array: all, or evenly spaced runs if it is large."""
    digest.update(repr((array.shape, array.dtype.str, array.id.get_storage_size())).encode())
    width = array.shape[1] if array.ndim == 2 else 1
    length, total = len(array), ENTRIES_PER_DIGEST // width
    if length <= total:
        starts, run = range(0, length, max(1, total // RUNS_PER_DIGEST)), max(1, total // RUNS_PER_DIGEST)
    else:
        run = max(1, total // RUNS_PER_DIGEST)
        starts = np.linspace(0, length - run, min(RUNS_PER_DIGEST, max(2, total)), dtype=np.int64).tolist()
    for start in starts:
        digest.update(np.ascontiguousarray(array[start : start + run]).tobytes())


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


def _part(data: Any, modality: str | None, measured: Measured) -> Any:
    modalities = getattr(data, "mod", None)
    if modalities is not None:
        return modalities[_modality(list(modalities), "the data", modality, measured)]
    if not (hasattr(data, "X") and hasattr(data, "var_names")):
        raise TypeError(f"expected an AnnData or a MuData, got {type(data).__name__}")
    if modality is not None:
        raise ValueError(f"the data is an AnnData, without modalities: leave modality={modality!r} out")
    return data


def _table(file: h5py.File, path: Path, modality: str | None, measured: Measured) -> h5py.Group:
    """The group of the file that is laid out as an AnnData."""
    table = file
    if "mod" in file and "X" not in file:
        table = file["mod"][_modality(list(file["mod"]), str(path), modality, measured)]
    elif modality is not None:
        raise ValueError(f"{path} holds a single AnnData, no modalities: leave modality={modality!r} out")
    if isinstance(table.get("obs"), h5py.Dataset):
        raise ValueError(f"{path} was written by AnnData before 0.7: open and save it with a newer anndata")
    if "obs" not in table or "var" not in table:
        found = ", ".join(list(file)[:5]) or "nothing"
        raise ValueError(f"{path} is not an AnnData file: expected obs, var and X in it, found {found}")
    return table


def _modality(names: list[str], place: str, modality: str | None, measured: Measured) -> str:
    if modality is None:
        known = [name for name in measured.modalities if name in names]
        if known or len(names) == 1:
            return (known or names)[0]
        raise ValueError(
            f"{place}: cannot tell which modality holds the {measured.things}: expected "
            f"{' or '.join(map(repr, measured.modalities))}, got {', '.join(map(repr, names)) or 'none'}; name it "
            "with modality="
        )
    if modality not in names:
        raise ValueError(f"{place} has no modality {modality!r}: it has {', '.join(names)}")
    return modality


def _matrix(table: h5py.Group, path: Path, measured: Measured) -> h5py.Group | h5py.Dataset:
    matrix = table.get("X")
    if matrix is None or _encoding(matrix) == "null":
        layers = f" (its layers: {', '.join(table['layers'])})" if table.get("layers") else ""
        raise ValueError(f"{path} has no X: put the raw counts of the {measured.things} there{layers}")
    if isinstance(matrix, h5py.Group) and _encoding(matrix) not in ("csr_matrix", "csc_matrix"):
        raise ValueError(f"{path}: expected X as a sparse or dense matrix, got the encoding {_encoding(matrix)!r}")
    dtype = (matrix["data"] if isinstance(matrix, h5py.Group) else matrix).dtype
    if dtype.kind not in "buif":
        raise ValueError(f"{path}: expected numbers in X, got values of type {dtype}")
    return matrix


def _encoding(matrix: h5py.Group | h5py.Dataset) -> str:
    return str(matrix.attrs.get("encoding-type", ""))


def _shape(matrix: h5py.Group | h5py.Dataset, path: Path, measured: Measured) -> tuple[int, int]:
    shape = matrix.attrs["shape"] if isinstance(matrix, h5py.Group) else matrix.shape
    if len(shape) != 2:
        raise ValueError(f"{path}: expected X of the shape (cells, {measured.things}), got {tuple(shape)}")
    return int(shape[0]), int(shape[1])


def _refuse_empty(name: str, num_cells: int, num_columns: int, measured: Measured) -> None:
    if not num_cells or not num_columns:
        raise ValueError(f"{name} is empty: it has {num_cells:,} cells and {num_columns:,} {measured.things}")


def _index(frame: h5py.Group) -> list[str]:
    """The index of obs or var, whether it is stored as texts or as categories."""
    return [str(name) for name in read_elem(frame[frame.attrs["_index"]])]


def _bounds(matrix: Any, num_rows: int, num_columns: int, max_entries: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows of any matrix: by its entries where they can be told, else of a fixed number of rows."""
    if issparse(matrix):
        return row_blocks(matrix.indptr.astype(np.int64), max_entries)
    rows = ROWS_PER_BLOCK
    if isinstance(matrix, np.ndarray | h5py.Dataset):
        rows = max(1, max_entries // num_columns)
        chunk_rows = (getattr(matrix, "chunks", None) or (1,))[0]
        rows -= rows % chunk_rows if rows > chunk_rows else 0  # no chunk is unpacked twice
    return ((start, min(start + rows, num_rows)) for start in range(0, num_rows, rows))
