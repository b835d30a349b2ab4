"""Writing a sparse matrix to an .h5ad file block by block, so that it never has to be in memory as a whole."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy.sparse import csr_matrix

from .full_disk import PatientFile, full_disk_explained

ENTRIES_PER_CHUNK = 262_144


def write_matrix(
    path: str | os.PathLike[str],
    blocks: Iterable[csr_matrix],
    obs: pd.DataFrame,
    var: pd.DataFrame,
    *,
    dtype: np.dtype | type = np.int32,
    obsm: Mapping[str, np.ndarray] | None = None,
    uns: Mapping[str, Any] | None = None,
) -> None:
    """Write an .h5ad file with a sparse X, gzip-compressed; what is at `path` is replaced.

    Args:
        path: the file. After an error it is incomplete: write beside the final name, and rename.
        blocks: the rows in their order, each block (some rows, columns).
        obs: one row per row of X.
        var: one row per column of X.
        dtype: type of the values.
        obsm: further arrays (rows, dimensions), by name.
        uns: anything else that AnnData can store.

    Raises:
        OSError: if the disk is full.
        ValueError: if the blocks do not have as many rows and columns as `obs` and `var`.
    """
    with full_disk_explained(Path(path)), PatientFile(path) as disk:
        with h5py.File(disk, "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            _write_rows(file.create_group("X"), _while_written(blocks, disk), (len(obs), len(var)), np.dtype(dtype))
            parts: dict[str, Any] = {"obs": obs, "var": var, "obsm": dict(obsm or {}), "uns": dict(uns or {})}
            for name, part in parts.items():
                disk.refuse_if_failed()
                write_elem(file, name, part, dataset_kwargs={"compression": "gzip"} if name == "obsm" else {})
            for name in ("layers", "obsp", "varm", "varp"):
                write_elem(file, name, {})
        disk.refuse_if_failed()


def _while_written(blocks: Iterable[csr_matrix], disk: PatientFile) -> Iterator[csr_matrix]:
    """The blocks, until the disk is full."""
    for block in blocks:
        disk.refuse_if_failed()
        yield block


def _write_rows(group: h5py.Group, blocks: Iterable[csr_matrix], shape: tuple[int, int], dtype: np.dtype) -> None:
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(shape)})
    kwargs = {"maxshape": (None,), "chunks": (ENTRIES_PER_CHUNK,), "compression": "gzip", "compression_opts": 4}
    data = group.create_dataset("data", (0,), dtype, **kwargs)
    indices = group.create_dataset("indices", (0,), np.int32, **kwargs)
    lengths = [np.zeros(1, dtype=np.int64)]
    num_entries = num_rows = 0
    for block in blocks:
        if block.shape[1] != shape[1]:
            raise ValueError(f"expected blocks of {shape[1]:,} columns, got {block.shape[1]:,}")
        for stored, values in ((data, block.data), (indices, block.indices)):
            stored.resize(num_entries + block.nnz, axis=0)
            stored[num_entries:] = values
        lengths.append(np.diff(block.indptr))
        num_entries, num_rows = num_entries + block.nnz, num_rows + block.shape[0]
    if num_rows != shape[0]:
        raise ValueError(f"expected {shape[0]:,} rows in all, got {num_rows:,}")
    group.create_dataset("indptr", data=np.cumsum(np.concatenate(lengths)), compression="gzip")
