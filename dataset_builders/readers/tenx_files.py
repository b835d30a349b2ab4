"""What Cell Ranger writes: ``filtered_feature_bc_matrix.h5`` and its kin, and folders with ``matrix.mtx``."""

import gzip
import os
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEATURE_TYPES = {"peaks": "Peaks", "genes": "Gene Expression"}
_FEATURES = ("features.tsv", "peaks.bed", "genes.tsv")  # the second of Cell Ranger ATAC, the third of old versions


class TenXTable(NamedTuple):
    """The part of a feature-barcode matrix that holds peaks, or genes.

    Attributes:
        matrix: the group with ``data``, ``indices`` and ``indptr``, of which a row is a barcode.
        num_cells: number of barcodes.
        num_features: all features, of every type.
        columns: (columns,) the features of the type that was asked for.
        column_names: their names.
    """

    matrix: h5py.Group
    num_cells: int
    num_features: int
    columns: NDArray[np.int64]
    column_names: list[str]

    def cell_names(self) -> list[str]:
        """The barcodes."""
        return _texts(self.matrix["barcodes"])


def is_tenx(file: h5py.File) -> bool:
    """Whether an HDF5 file is a feature-barcode matrix of Cell Ranger 3 or newer."""
    return "matrix" in file and "barcodes" in file["matrix"]


def tenx_table(file: h5py.File, path: Path, things: str) -> TenXTable:
    """Find the peaks or genes of a feature-barcode matrix.

    Args:
        file: the open file.
        path: its name, for messages.
        things: "peaks" or "genes".

    Raises:
        ValueError: if it has none of them.
    """
    matrix = file["matrix"]
    features = matrix["features"]
    names, ids = _texts(features["name"]), _texts(features["id"])
    columns, chosen = _chosen(_texts(features["feature_type"]), names, ids, str(path), things)
    num_features, num_cells = (int(size) for size in matrix["shape"][:])
    return TenXTable(matrix, num_cells, num_features, columns, chosen)


def read_tenx_folder(path: str | os.PathLike[str], things: str = "peaks") -> Any:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` or ``peaks.bed``, gzip or not.

    All of the matrix is held in memory, 12 bytes for each entry and twice that while it is read.

    Args:
        path: the folder.
        things: "peaks" or "genes": which features to keep.

    Returns:
        An AnnData (barcodes, features) of counts.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if the files do not fit each other, are damaged, or hold none of the things.
    """
    from anndata import AnnData
    from scipy.io import mmread

    folder = Path(path)
    matrix_file, barcodes_file = _member(folder, "matrix.mtx"), _member(folder, "barcodes.tsv")
    features_file = _member(folder, *_FEATURES)
    barcodes = [row[0] for row in _rows(barcodes_file)]
    columns, names = _features(features_file, things)
    try:
        matrix = mmread(matrix_file).T.tocsr()
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise ValueError(f"{matrix_file} is damaged or no Matrix Market file: {error}") from error
    num_features = len(_rows(features_file))
    if matrix.shape != (len(barcodes), num_features):
        raise ValueError(
            f"{folder} is damaged: {matrix_file.name} has {matrix.shape[1]:,} features and {matrix.shape[0]:,} "
            f"barcodes, {features_file.name} {num_features:,} lines and {barcodes_file.name} {len(barcodes):,}"
        )
    return AnnData(matrix[:, columns], obs=pd.DataFrame(index=barcodes), var=pd.DataFrame(index=names))


def is_tenx_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a ``matrix.mtx``, gzip or not."""
    return any(Path(path, name).is_file() for name in ("matrix.mtx", "matrix.mtx.gz"))


def _features(file: Path, things: str) -> tuple[NDArray[np.int64], list[str]]:
    rows = _rows(file)
    if file.name.startswith("peaks.bed"):
        names = [f"{row[0]}:{row[1]}-{row[2]}" for row in rows]
        return _chosen(["Peaks"] * len(rows), names, names, str(file), things)
    ids, names = [row[0] for row in rows], [row[min(1, len(row) - 1)] for row in rows]
    # without a third column, as in old versions, all are genes
    types = [row[2] if len(row) > 2 else "Gene Expression" for row in rows]
    return _chosen(types, names, ids, str(file), things)


def _chosen(
    types: list[str], names: list[str], ids: list[str], place: str, things: str
) -> tuple[NDArray[np.int64], list[str]]:
    """The features of one type and their names; the id where a name occurs twice, as some symbols do."""
    columns = np.flatnonzero(np.array(types) == FEATURE_TYPES[things])
    if not columns.size:
        found = ", ".join(sorted(set(types))) or "nothing"
        raise ValueError(
            f"{place} holds no {things}: expected features of the type {FEATURE_TYPES[things]!r}, got {found}"
        )
    repeated = pd.Series([names[i] for i in columns]).duplicated(keep=False).tolist()
    return columns, [ids[i] if again else names[i] for i, again in zip(columns, repeated, strict=True)]


def _member(folder: Path, *names: str) -> Path:
    candidates = [folder / f"{name}{ending}" for name in names for ending in ("", ".gz")]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{folder} lacks {' or '.join(names)}, gzip-compressed or not")
    return found


def _rows(file: Path) -> list[list[str]]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            return [line.rstrip("\r\n").split("\t") for line in lines if line.strip() and not line.startswith("#")]
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _texts(dataset: h5py.Dataset) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:]]
