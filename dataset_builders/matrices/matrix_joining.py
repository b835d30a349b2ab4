"""Several count matrices of other cells made into one, a block of rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from ..readers.matrix_files import MatrixFile
from .matrix_writing import write_matrix


def join_matrices(paths: Sequence[Path], output: Path) -> None:
    """Put the rows of several .h5ad files below each other, a block at a time; columns are matched by name.

    Columns that a file lacks count as 0 in it; ``obs`` keeps the columns that all files have.

    Raises:
        OSError: if the disk is full.
        ValueError: if a file is damaged.
    """
    names: dict[str, int] = {}
    obs, dtypes = [], []
    for path in paths:
        with MatrixFile.open(path) as file:
            for name in file.column_names:
                names.setdefault(name, len(names))
            obs.append(_obs(file))
            dtypes.append(file.dtype)
    var = pd.DataFrame(index=pd.Index(list(names), dtype=object))
    together = pd.concat(obs, join="inner")
    for column in together:
        if isinstance(obs[0][column].dtype, pd.CategoricalDtype):
            together[column] = pd.Categorical(together[column])
    write_matrix(output, _joined_rows(paths, names), together, var, dtype=np.result_type(*dtypes))


def _obs(file: MatrixFile) -> pd.DataFrame:
    [table] = file.annotations
    return pd.DataFrame({name: table.read(name) for name in table.columns}).set_axis(file.cell_names)


def _joined_rows(paths: Sequence[Path], names: Mapping[str, int]) -> Iterator[csr_matrix]:
    for path in paths:
        with MatrixFile.open(path) as file:
            columns = np.array([names[name] for name in file.column_names], dtype=np.int32)
            for block in file.blocks():
                shape = (block.shape[0], len(names))
                rows = csr_matrix((block.data, columns[block.indices], block.indptr), shape=shape)
                rows.sort_indices()
                yield rows
