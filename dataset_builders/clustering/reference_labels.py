"""Cell types of clusters, by their likeness to reference profiles that the user supplies."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import rankdata

from .expression import log_normalized, most_variable

NUM_GENES = 3_000
FEWEST_GENES = 20


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reference profiles (genes, cell types) from a table of texts, .tsv or .csv, plain or gzip-compressed.

    The first line names the cell types, the first column the genes; values are mean expression of any scale, as only
    their ranks within a cell type are used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such table, or a gene or a cell type occurs twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a table of genes by cell types (.tsv or .csv)")
    separator = "," if ".csv" in Path(path).suffixes else "\t"
    try:
        table = pd.read_csv(path, sep=separator, index_col=0, keep_default_na=False, dtype=str)
        table.index = table.index.astype(str)
        profiles = table.astype(np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a table of numbers, genes by cell types, with a header of names ({error})"
        ) from error
    if profiles.shape[1] < 2:
        raise ValueError(f"{path}: expected two cell types or more, got {list(profiles.columns)}; is it tab-separated?")
    for kind, names in (("gene", profiles.index), ("cell type", profiles.columns)):
        if not names.is_unique:
            raise ValueError(f"{path}: the {kind} {names[names.duplicated()][0]!r} occurs twice")
    if not np.isfinite(profiles.to_numpy()).all():
        raise ValueError(f"{path}: expected finite numbers only")
    return profiles


def label_clusters(
    gene_counts: sp.csr_matrix,
    gene_names: Sequence[str],
    clusters: np.ndarray,
    reference: pd.DataFrame,
    num_genes: int = NUM_GENES,
) -> pd.DataFrame:
    """Give each cluster the cell type whose profile correlates most with it (Spearman), over the most variable genes.

    Args:
        gene_counts: (cells, genes) raw counts, or gene activity.
        gene_names: (genes,) as in the index of `reference`; the first of those that repeat is taken.
        clusters: (cells,) number of each cell's cluster, from 0.
        reference: (genes, cell types) profiles.
        num_genes: how many genes to compare; fewer where fewer are in both.

    Returns:
        One row per cluster, in their order: ``cell_type``, its ``correlation``, the ``runner_up`` and its
        ``runner_up_correlation``, and ``num_cells``.

    Raises:
        ValueError: if fewer than 20 genes of the reference are in the data and vary.
    """
    position = {name: i for i, name in reversed(list(enumerate(map(str, gene_names))))}
    shared = [name for name in reference.index if name in position]
    if len(shared) < FEWEST_GENES:
        raise ValueError(
            f"the reference profiles share {len(shared)} genes with the data, too few to compare: theirs are like "
            f"{list(reference.index[:3])}, those of the data like {list(gene_names[:3])}; use the same kind of names"
        )
    normalized = log_normalized(gene_counts)[:, [position[name] for name in shared]]
    variable = most_variable(normalized, num_genes)
    if len(variable) < FEWEST_GENES:
        raise ValueError(f"only {len(variable)} genes of the reference profiles vary in the data: too few to compare")
    num_clusters = int(clusters.max()) + 1
    sizes = np.bincount(clusters, minlength=num_clusters)
    members = sp.csr_matrix((1 / sizes[clusters], (clusters, np.arange(len(clusters)))), (num_clusters, len(clusters)))
    means = (members @ normalized[:, variable]).toarray()
    profiles = reference.loc[shared].to_numpy()[variable].T
    return _best(spearman(means, profiles), reference.columns, sizes)


def spearman(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, genes) and (m, genes) -> (n, m) rank correlations; 0 where a row is constant."""
    standardized = []
    for values in (rows, others):
        ranks = rankdata(values, axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(ranks, axis=1, keepdims=True)
        standardized.append(np.divide(ranks, lengths, out=np.zeros_like(ranks), where=lengths > 0))
    return standardized[0] @ standardized[1].T


def _best(correlations: np.ndarray, types: pd.Index, sizes: np.ndarray) -> pd.DataFrame:
    order = np.argsort(-correlations, axis=1, kind="stable")
    rows = np.arange(len(correlations))
    columns = {}
    for place, (name, value) in enumerate((("cell_type", "correlation"), ("runner_up", "runner_up_correlation"))):
        columns[name] = np.asarray(types)[order[:, place]]
        columns[value] = correlations[rows, order[:, place]]
    return pd.DataFrame({**columns, "num_cells": sizes}, index=pd.Index(rows, name="cluster"))
