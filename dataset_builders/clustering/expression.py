"""Counts of genes made comparable between cells, and their principal components; all on sparse matrices."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, svds

COUNTS_PER_CELL = 1e4
NUM_BINS = 20  # of mean expression
LARGEST_SCALED = 10.0  # as in Seurat and in scanpy's tutorials: one cell must not make a component


def log_normalized(counts: sp.csr_matrix) -> sp.csr_matrix:
    """(cells, genes) counts -> log(1 + 10,000 * share of the cell's counts), float64; empty cells stay empty."""
    totals = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)
    factors = np.divide(COUNTS_PER_CELL, totals, out=np.zeros_like(totals), where=totals > 0)
    normalized = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    normalized.data *= np.repeat(factors, np.diff(normalized.indptr))
    np.log1p(normalized.data, out=normalized.data)
    return normalized


def most_variable(normalized: sp.csr_matrix, num_genes: int) -> np.ndarray:
    """Rising indices of the genes whose expression varies most for its mean, at most `num_genes` of those expressed.

    Genes are binned by their mean, and the log of variance over mean is standardised within each bin: the method
    of Seurat, ``flavor="seurat"`` of ``scanpy.pp.highly_variable_genes``.

    Args:
        normalized: (cells, genes) as `log_normalized` gives them.
        num_genes: how many.
    """
    counts = normalized.copy()
    np.expm1(counts.data, out=counts.data)
    means, variances = _mean_and_variance(counts)
    dispersions = np.full_like(means, np.nan)
    np.divide(variances, means, out=dispersions, where=(means > 0) & (variances > 0))
    table = pd.DataFrame({"dispersion": np.log(dispersions), "bin": pd.cut(np.log1p(means), NUM_BINS)})
    by_bin = table.groupby("bin", observed=True)["dispersion"]
    centre, spread = by_bin.transform("mean"), by_bin.transform("std")
    # a gene alone in its bin has no spread: it is as variable as one standard deviation above others
    is_alone = spread.isna()
    spread, centre = spread.where(~is_alone, centre), centre.where(~is_alone, 0)
    scores = ((table["dispersion"] - centre) / spread).to_numpy()
    chosen = np.argsort(-scores, kind="stable")[:num_genes]  # NaN comes last
    return np.sort(chosen[~np.isnan(scores[chosen])])


def principal_components(normalized: sp.csr_matrix, num_dimensions: int, seed: int = 0) -> np.ndarray:
    """(cells, genes) -> (cells, dimensions) components of the genes scaled to unit variance, the largest first.

    Scaled values above 10 are cut to 10. The matrix stays sparse: means are taken off within the products. There are
    at most as many dimensions as cells or genes less one.
    """
    means, variances = _mean_and_variance(normalized)
    deviations = np.where(variances > 0, np.sqrt(variances), 1.0)
    bounds = means + LARGEST_SCALED * deviations
    scaled = normalized.copy()
    scaled.data = np.minimum(scaled.data, bounds[scaled.indices]) / deviations[scaled.indices]
    centre = np.asarray(scaled.mean(axis=0)).ravel()
    centred = LinearOperator(
        scaled.shape,
        dtype=np.float64,
        matvec=lambda x: scaled @ x.ravel() - centre @ x.ravel(),
        rmatvec=lambda x: scaled.T @ x.ravel() - centre * x.sum(),
    )
    num_dimensions = min(num_dimensions, min(scaled.shape) - 1)
    start = np.random.default_rng(seed).normal(size=min(scaled.shape))
    left, values, _ = svds(centred, k=num_dimensions, v0=start)
    order = np.argsort(-values)
    return left[:, order] * values[order]


def _mean_and_variance(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance of each column."""
    num_rows = matrix.shape[0]
    means = np.asarray(matrix.mean(axis=0)).ravel()
    squares = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel()
    return means, np.maximum(squares - means**2, 0) * (num_rows / max(1, num_rows - 1))
