"""How well the expression of genes is predicted: squared error, and correlations per gene and per cell."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

ENTRIES_PER_BLOCK = 8_000_000  # 64 MB of float64, a few times over


@dataclass(frozen=True)
class ExpressionScores:
    """Scores of predicted levels.

    A gene measured at the same level in all cells has no correlation: it is NaN below, left out of the means, and
    counted. One predicted at the same level in all cells, while measured levels differ, counts as 0: a model cannot
    hide genes by giving up on them. The same for cells.

    Attributes:
        mse: mean squared error over all pairs of cell and gene, constant genes included.
        pearson_per_gene: (genes,) across cells.
        spearman_per_gene: (genes,) Pearson correlation of ranks, equal levels sharing their mean rank.
        pearson_per_cell: (cells,) across genes.
        spearman_per_cell: (cells,).
    """

    mse: float
    pearson_per_gene: np.ndarray
    spearman_per_gene: np.ndarray
    pearson_per_cell: np.ndarray
    spearman_per_cell: np.ndarray

    @property
    def num_constant_genes(self) -> int:
        """Genes left out, their measured level being the same in all cells."""
        return int(np.isnan(self.pearson_per_gene).sum())

    @property
    def num_constant_cells(self) -> int:
        """Cells left out, all their genes having been measured at the same level."""
        return int(np.isnan(self.pearson_per_cell).sum())

    def titled(self) -> dict[str, float]:
        """Means under their short titles, as the paper's table 3; NaN where all genes or cells are constant."""
        return {
            "MSE": self.mse,
            "Spearman": _mean(self.spearman_per_gene),
            "Pearson": _mean(self.pearson_per_gene),
            "Spearman per cell": _mean(self.spearman_per_cell),
            "Pearson per cell": _mean(self.pearson_per_cell),
        }


def expression_scores(measured: Any, predicted: Any) -> ExpressionScores:
    """Compare predicted with measured levels of the same cells and genes, in the same order.

    Read a block of genes, then of cells, at a time; a sparse matrix stays sparse. Ranks cost most: about
    cells·genes·log(cells) comparisons.

    Args:
        measured: (cells, genes), dense or sparse, on the scale of the predictions.
        predicted: the same shape.

    Raises:
        ValueError: if shapes differ, there is a single cell or gene, or a level is NaN or infinite.
    """
    if np.shape(measured) != np.shape(predicted) or len(np.shape(measured)) != 2:
        raise ValueError(
            f"expected two matrices (cells, genes) of the same shape, got {np.shape(measured)} measured "
            f"and {np.shape(predicted)} predicted"
        )
    num_cells, num_genes = np.shape(measured)
    if num_cells < 2 or num_genes < 2:
        raise ValueError(f"a correlation needs two cells and two genes at least, got {num_cells} and {num_genes}")
    squares, per_gene = 0.0, []
    for truth, guess in zip(_columns(measured), _columns(predicted), strict=True):
        _refuse_bad_levels(truth, "measured")
        _refuse_bad_levels(guess, "predicted")
        squares += float(((truth - guess) ** 2).sum())
        per_gene.append(_both_correlations(truth, guess))
    per_cell = [_both_correlations(a.T, b.T) for a, b in zip(_rows(measured), _rows(predicted), strict=True)]
    pearson_per_gene, spearman_per_gene = np.hstack(per_gene)
    pearson_per_cell, spearman_per_cell = np.hstack(per_cell)
    mse = squares / (num_cells * num_genes)
    return ExpressionScores(mse, pearson_per_gene, spearman_per_gene, pearson_per_cell, spearman_per_cell)


def column_correlations(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(rows, columns) twice -> (columns,) Pearson; NaN where `measured`, else 0 where `predicted` is constant."""
    varies = (measured != measured[0]).any(axis=0)
    is_told = varies & (predicted != predicted[0]).any(axis=0)
    a, b = (values - values.mean(axis=0) for values in (measured, predicted))
    norms = np.sqrt((a**2).sum(axis=0)) * np.sqrt((b**2).sum(axis=0))
    found = np.divide((a * b).sum(axis=0), norms, out=np.zeros(a.shape[1]), where=is_told & (norms > 0))
    return np.where(varies, np.clip(found, -1, 1), np.nan)


def _both_correlations(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(2, columns) Pearson and Spearman."""
    ranks = (rankdata(values, axis=0) for values in (measured, predicted))
    return np.stack([column_correlations(measured, predicted), column_correlations(*ranks)])


def _columns(matrix: Any) -> Iterator[np.ndarray]:
    by_column = matrix.tocsc() if sp.issparse(matrix) else np.asarray(matrix)
    return _blocks(matrix.shape[1], matrix.shape[0], lambda block: by_column[:, block])


def _rows(matrix: Any) -> Iterator[np.ndarray]:
    by_row = matrix.tocsr() if sp.issparse(matrix) else np.asarray(matrix)
    return _blocks(matrix.shape[0], matrix.shape[1], lambda block: by_row[block])


def _blocks(length: int, width: int, take: Callable[[slice], Any]) -> Iterator[np.ndarray]:
    """Dense float64 blocks of rows or columns."""
    step = max(1, ENTRIES_PER_BLOCK // width)
    for start in range(0, length, step):
        block = take(slice(start, start + step))
        yield np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float64)


def _refuse_bad_levels(levels: np.ndarray, name: str) -> None:
    if not np.isfinite(levels).all():
        raise ValueError(f"the {name} levels hold NaN or infinity: leave these genes or cells out of all methods")


def _mean(correlations: np.ndarray) -> float:
    known = correlations[~np.isnan(correlations)]
    return float(known.mean()) if len(known) else float("nan")
