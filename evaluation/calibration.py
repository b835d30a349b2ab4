"""A line per gene from a score to a level of expression."""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse


def calibrated(train_scores: Any, train_levels: csr_matrix, scores: Any) -> np.ndarray:
    """Levels on the line of least squares from score to level, fitted for each gene on training cells.

    A gene whose score is the same in all training cells gets its mean level. Scores and levels of training cells may
    be sparse and stay so; only the result is dense.

    Args:
        train_scores: (training cells, genes), an array or a CSR matrix.
        train_levels: (training cells, genes).
        scores: (cells, genes), likewise, of the cells to predict for.

    Returns:
        (cells, genes) float32.
    """
    num_cells = train_levels.shape[0]
    mean_score, mean_level = _sums(train_scores) / num_cells, _sums(train_levels) / num_cells
    variance = _sums(_product(train_scores, train_scores)) / num_cells - mean_score**2
    covariance = _sums(_product(train_levels, train_scores)) / num_cells - mean_score * mean_level
    # What rounding leaves of the variance of a constant score is no variance.
    varies = variance > 1e-9 * np.maximum(1e-9, mean_score**2)
    slope = np.divide(covariance, variance, out=np.zeros_like(variance), where=varies)
    dense = scores.toarray() if issparse(scores) else scores
    return (dense * slope + (mean_level - slope * mean_score)).astype(np.float32)


def _sums(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def _product(a: Any, b: Any) -> Any:
    if issparse(a):
        return a.astype(np.float64).multiply(b).tocsr()
    return b.multiply(a).tocsr() if issparse(b) else a.astype(np.float64) * b
