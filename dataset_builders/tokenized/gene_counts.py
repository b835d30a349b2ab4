"""Raw counts of genes, under the gene ids of a tokenizer."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from epifoundation.tokenization import PeakTokenizer


def gene_ids_of(names: Sequence[str], tokenizer: PeakTokenizer) -> np.ndarray:
    """(genes,) int32 id of each gene, found by symbol or by Ensembl id; -1 for those that are not the tokenizer's.

    Raises:
        ValueError: if the tokenizer has no genes or knows none of these.
    """
    if tokenizer.genes is None:
        raise ValueError("the tokenizer holds no genes; make it with PeakTokenizer(vocabulary, genes)")
    ids = tokenizer.genes.map(names)
    if (ids < 0).all():
        raise ValueError(
            f"none of the {len(names)} genes of the RNA data, such as {list(names[:3])}, is among the tokenizer's, "
            f"such as {list(tokenizer.genes.symbols[:3])}"
        )
    return ids


def counts_by_gene(
    block: csr_matrix, gene_ids: np.ndarray, num_gene_ids: int, allow_float_counts: bool = False
) -> csr_matrix:
    """(cells, gene ids) float32 counts above 0 of the genes that have an id, sorted by it.

    Args:
        block: (cells, genes) raw counts.
        gene_ids: (genes,) as `gene_ids_of` gives.
        num_gene_ids: of the vocabulary, special tokens included.
        allow_float_counts: take counts that are not whole numbers.

    Raises:
        ValueError: if counts are negative, not finite, or not whole.
    """
    _refuse_bad_counts(block.data, allow_float_counts)
    ids = gene_ids[block.indices]
    is_kept = (ids >= 0) & (block.data > 0)  # a file may store zeros
    indptr = np.concatenate([[0], np.cumsum(is_kept)])[block.indptr]
    shape = (block.shape[0], num_gene_ids)
    kept = csr_matrix((block.data[is_kept].astype(np.float32), ids[is_kept], indptr), shape=shape)
    kept.sum_duplicates()  # a gene may stand in two columns, as symbol and as Ensembl id; sorts the ids too
    return kept


def _refuse_bad_counts(values: np.ndarray, allow_floats: bool) -> None:
    if not len(values) or values.dtype.kind in "ub":
        return
    if not (values.min() >= 0 and values.max() < np.inf):
        bad = values[~((values >= 0) & (values < np.inf))]
        raise ValueError(
            f"the RNA data holds values that are negative, NaN or infinite, such as {bad[0]}: put the raw counts "
            "into X, before any scaling"
        )
    if values.dtype.kind == "f" and not allow_floats:
        is_broken = values != np.floor(values)
        if is_broken.any():
            raise ValueError(
                f"the RNA data holds values that are not whole numbers, such as {values[is_broken][0]:g}: put the raw "
                "counts into X, not normalised ones (they may be in a layer or in raw); if there are no others, take "
                "these with allow_float_counts=True"
            )
