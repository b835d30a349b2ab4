"""What metrics refuse: embeddings that are no numbers, labels that do not fit the cells, cells in another order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

NAMES_SHOWN = 3  # in a message


def checked_embedding(embedding: Any, name: str = "embedding") -> np.ndarray:
    """The same as a float64 array (cells, dimensions).

    Raises:
        ValueError: if it has another form, is sparse, holds NaN or infinity, or fewer than three cells: with two,
            no cell has both a neighbour of its kind and one of another.
    """
    values = np.asarray(embedding)
    if values.dtype == object or values.ndim != 2:
        raise ValueError(
            f"expected the {name} as a dense array (cells, dimensions), got "
            f"{type(embedding).__name__} of shape {getattr(embedding, 'shape', values.shape)}"
        )
    if len(values) < 3 or not values.shape[1]:
        raise ValueError(f"expected at least three cells of one dimension or more, got {name} {values.shape}")
    is_bad = ~np.isfinite(values).all(axis=1)
    if is_bad.any():
        raise ValueError(
            f"{is_bad.sum():,} of {len(values):,} cells have NaN or infinity in the {name}, the first in row "
            f"{is_bad.argmax()}: look for cells without any count, or leave these cells out of all methods"
        )
    return values.astype(np.float64, copy=False)


def checked_labels(labels: Any, num_cells: int, name: str, min_labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels as numbers: (cells,) codes, and the names they stand for in the order of their first cell.

    Args:
        labels: one per cell; a list, an array, or a column of ``obs``, of which unused categories do not count.
        num_cells: how many there must be.
        name: what they are, for messages ("cell types").
        min_labels: how many different ones the metric needs.

    Raises:
        ValueError: if there are too few, too many, too few different ones, or a cell has none (None or NaN).
    """
    values = np.asarray(labels, dtype=object)
    if values.ndim != 1 or len(values) != num_cells:
        raise ValueError(
            f"expected one of the {name} for each of the {num_cells:,} cells, got {values.shape}: "
            "take both from the same table, after the same filter"
        )
    codes, names = pd.factorize(values)
    if (codes < 0).any():
        raise ValueError(f"{(codes < 0).sum():,} of {num_cells:,} cells have none of the {name}: leave them out")
    if len(names) < min_labels:
        raise ValueError(
            f"expected at least {min_labels} different {name}, all {num_cells:,} cells have {names[0]!r}: "
            "this metric compares cells of different ones"
        )
    return codes, names


def refuse_other_cells(cell_names: Sequence[str], expected: Sequence[str], name: str = "embedding") -> None:
    """Check that the rows of two tables are the same cells in the same order.

    Raises:
        ValueError: if they are not; it tells whether order, number or names differ.
    """
    if len(cell_names) != len(expected):
        raise ValueError(f"the {name} has {len(cell_names):,} cells, expected {len(expected):,}")
    first = next((i for i, (a, b) in enumerate(zip(cell_names, expected, strict=True)) if a != b), None)
    if first is None:
        return
    where = f"row {first} is {cell_names[first]!r}, expected {expected[first]!r}"
    if set(cell_names) == set(expected):
        raise ValueError(f"the {name} has the cells in another order ({where}): sort its rows by cell name first")
    raise ValueError(f"the {name} has other cells ({where})")


def shared_genes(predicted: Sequence[str], measured: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where the genes found in both lists stand in the first, and where in the second; in the order of the first.

    Raises:
        ValueError: if they share none, or one list names a gene twice.
    """
    for names, what in ((predicted, "predicted"), (measured, "measured")):
        if len(set(names)) != len(names):
            raise ValueError(f"the {what} genes are named more than once: {_some(_repeated(names))}")
    place = {name: i for i, name in enumerate(measured)}
    pairs = [(i, place[name]) for i, name in enumerate(predicted) if name in place]
    if not pairs:
        raise ValueError(
            f"none of the {len(predicted):,} predicted genes ({_some(predicted)}) is among the {len(measured):,} "
            f"measured ones ({_some(measured)}): are one side symbols and the other Ensembl identifiers?"
        )
    first, second = np.array(pairs).T
    return first, second


def types_of_one_batch(cell_types: Any, batches: Any) -> list[str]:
    """The cell types found in a single batch, whose mixing of batches cannot be told; sorted."""
    num_batches = pd.Series(np.asarray(batches, dtype=object)).groupby(np.asarray(cell_types, dtype=object)).nunique()
    return sorted(str(name) for name in num_batches.index[num_batches < 2])


def _repeated(names: Sequence[str]) -> list[str]:
    seen = pd.Index(names)
    return list(seen[seen.duplicated()].unique())


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:NAMES_SHOWN])) + (", …" if len(names) > NAMES_SHOWN else "")
