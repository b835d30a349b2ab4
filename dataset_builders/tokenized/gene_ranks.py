"""Genes of a cell in the order of their expression, as an encoder of genes reads them."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

PER_CELL = 10_000  # counts to which every cell is scaled before genes are compared across cells
GENE_PAD_ID, GENE_CLS_ID = 0, 2
BLOCK = 10_000


def rank_genes(gene_ids: Any, gene_counts: Any, typical_counts: np.ndarray | None = None) -> np.ndarray:
    """The genes of a cell, most expressed first (Geneformer, Theodoris et al. 2023).

    Args:
        gene_ids: ids of the expressed genes.
        gene_counts: their counts.
        typical_counts: (gene ids,) what is usual for each gene, by which counts are divided, so that genes that are
            high in every cell do not come first; see `typical_gene_counts`. By default counts are taken as they are.

    Returns:
        (genes,) int64 ids; equal ones in the order of their ids. ``[CLS]`` alone where no gene is expressed.
    """
    ids = np.asarray(gene_ids, dtype=np.int64)
    if not len(ids):
        return np.array([GENE_CLS_ID])
    values = np.asarray(gene_counts, dtype=np.float64)
    if typical_counts is not None:
        values = values / typical_counts[ids]
    return ids[np.lexsort((ids, -values))]


def typical_gene_counts(cells: "Dataset", num_gene_ids: int) -> np.ndarray:
    """(gene ids,) mean count of each gene over the cells that express it, cells scaled to 10,000 counts.

    Geneformer takes the median, for which all counts would have to be held; the mean needs one pass. A gene that no
    cell expresses gets 1.

    Args:
        cells: tokenised training cells with their `gene_ids` and `gene_counts`.
        num_gene_ids: of the vocabulary, special tokens included.
    """
    totals, num_cells = np.zeros(num_gene_ids), np.zeros(num_gene_ids)
    for block in cells.select_columns(["gene_ids", "gene_counts"]).with_format("arrow").iter(BLOCK):
        ids_per_cell, counts_per_cell = (block[name].combine_chunks() for name in ("gene_ids", "gene_counts"))
        lengths = ids_per_cell.value_lengths().to_numpy()
        ids = ids_per_cell.flatten().to_numpy()
        counts = counts_per_cell.flatten().to_numpy().astype(np.float64)
        cell = np.repeat(np.arange(len(lengths)), lengths)
        per_cell = np.bincount(cell, weights=counts, minlength=len(lengths))
        totals += np.bincount(ids, weights=counts * PER_CELL / per_cell[cell], minlength=num_gene_ids)
        num_cells += np.bincount(ids, minlength=num_gene_ids)
    return np.where(num_cells > 0, totals / np.maximum(num_cells, 1), 1.0)
