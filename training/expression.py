"""From the gene counts of a cell to what expression prediction learns: log-normalised values and their levels."""

import numpy as np

TARGET_SUM = 10_000.0


def log_normalized(counts: np.ndarray, target_sum: float = TARGET_SUM) -> np.ndarray:
    """Counts of one cell, scaled to `target_sum` in total, then ``log(1 + x)``.

    Args:
        counts: (genes,) counts of the expressed genes, or of all.
        target_sum: what the counts sum to before the logarithm (scanpy's habit: 10,000).

    Returns:
        (genes,) float64; zeros for a cell without counts.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    return np.log1p(counts * (target_sum / total)) if total > 0 else np.zeros_like(counts)


def expression_levels(counts: np.ndarray, num_bins: int, *, legacy: bool = False) -> np.ndarray:
    """Level of expression of each gene of one cell, from 0 (no counts) to at most ``num_bins - 1``.

    The levels of expressed genes follow from the order of their counts within the cell alone, so it does not matter
    whether these were log-normalised. Let the cell have m different positive counts, and ``K = min(num_bins - 1, m)``.
    Then equal counts share a level, a higher count never has a lower level, and 1 to K are all used. Such an assignment
    is found from the quantiles: with q the share of expressed genes below a count plus half the share of those at it,
    its level is ``floor((num_bins - 1) * q) + 1``, lowered where it would leave a level out after the next smaller
    count, then raised where the highest count would otherwise not reach K.

    The official code puts the edges at quantiles of the counts instead. In a cell where most genes have one count
    several edges coincide, and the levels between them stay empty: `legacy` reproduces that.

    Args:
        counts: (genes,) counts, not negative.
        num_bins: number of levels including 0 (paper: 10), at least 2.
        legacy: the digitisation of the official code.

    Returns:
        (genes,) int64.

    Raises:
        ValueError: if `num_bins` is below 2.
    """
    if num_bins < 2:
        raise ValueError(f"expected at least 2 levels, not expressed and expressed, got num_bins={num_bins}")
    counts = np.asarray(counts)
    levels = np.zeros(counts.shape, dtype=np.int64)
    is_expressed = counts > 0
    positive = counts[is_expressed]
    if positive.size:
        levels[is_expressed] = _official_levels(positive, num_bins) if legacy else _levels(positive, num_bins - 1)
    return levels


def _levels(positive: np.ndarray, num_levels: int) -> np.ndarray:
    values, value_of_gene, num_genes = np.unique(positive, return_inverse=True, return_counts=True)
    place = np.arange(1, len(values) + 1)  # of each different count, from the smallest
    num_used = min(num_levels, len(values))
    quantiles = (np.cumsum(num_genes) - num_genes / 2) / num_genes.sum()
    wanted = np.floor(num_levels * quantiles).astype(np.int64) + 1
    # From one count to the next the level may rise by one at most, beginning with 1 ...
    climbing = np.minimum(place + np.minimum.accumulate(wanted - place), place)
    # ... and must rise early enough to reach the highest.
    return np.maximum(climbing, num_used - (len(values) - place))[value_of_gene]


def _official_levels(positive: np.ndarray, num_bins: int) -> np.ndarray:
    edges = np.quantile(positive, np.linspace(0, 1, num_bins - 1))
    return np.digitize(positive, edges)
