"""A tokenised data set from peaks and gene counts measured in the same cells."""

import copy
import logging
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from datasets import ClassLabel, Dataset, Features, List, Value

from epifoundation.tokenization import GeneVocabulary, PeakTokenizer

logger = logging.getLogger(__name__)

NO_LIMIT = np.iinfo(np.int64).max


def paired_cells(
    atac: AnnData,
    rna: AnnData,
    tokenizer: PeakTokenizer,
    *,
    cell_type_key: str | None = None,
    batch_key: str | None = None,
) -> Dataset:
    """Tokenise the cells that were measured in both modalities.

    Cells are matched by barcode, whatever their order; the order of `atac` is kept. No cell is cut to `max_peaks`
    here, so that training may draw other peaks each time.

    Args:
        atac: (cells, peaks) raw values; its ``obs`` holds the labels.
        rna: (cells, genes) raw counts.
        tokenizer: its peak vocabulary and its genes give the ids.
        cell_type_key: column of ``atac.obs`` that becomes `cell_type`; missing values become -1.
        batch_key: column of ``atac.obs`` that becomes `batch`.

    Returns:
        One row per cell: `input_ids`, ``[CLS]`` and the open peaks; `gene_ids` of the genes expressed and their
        `gene_counts`; `barcode`; and the labels asked for.

    Raises:
        ValueError: if no barcode is in both, barcodes repeat, or the tokenizer has no genes or knows none of these.
    """
    if tokenizer.genes is None:
        raise ValueError("the tokenizer holds no genes; make it with PeakTokenizer(vocabulary, genes)")
    atac, rna = match_cells(atac, rna)
    unlimited = copy.copy(tokenizer)
    unlimited.max_peaks = NO_LIMIT
    columns: dict[str, Any] = {
        "barcode": atac.obs_names.tolist(),
        "input_ids": unlimited(atac)["input_ids"],
        **_expressed_genes(rna, tokenizer.genes),
    }
    features = {
        "barcode": Value("string"),
        "input_ids": List(Value("int32")),
        "gene_ids": List(Value("int32")),
        "gene_counts": List(Value("float32")),
    }
    for name, key in (("cell_type", cell_type_key), ("batch", batch_key)):
        if key is not None:
            labels = _categories(atac, key)
            columns[name] = labels.codes.tolist()
            features[name] = ClassLabel(names=labels.categories.astype(str).tolist())
    return Dataset.from_dict(columns, features=Features(features))


def match_cells(atac: AnnData, rna: AnnData) -> tuple[AnnData, AnnData]:
    """The cells that both hold, in the order of `atac`; how many were left out is logged.

    Raises:
        ValueError: if a barcode repeats within a modality, or none is in both.
    """
    for name, modality in (("ATAC", atac), ("RNA", rna)):
        if not modality.obs_names.is_unique:
            repeated = modality.obs_names[modality.obs_names.duplicated()][:3].tolist()
            raise ValueError(f"barcodes of the {name} data repeat, for example {repeated}; make them unique first")
    shared = atac.obs_names[atac.obs_names.isin(rna.obs_names)]
    if len(shared) == 0:
        raise ValueError(
            "no barcode is in both modalities: ATAC has "
            f"{atac.obs_names[:3].tolist()}, RNA has {rna.obs_names[:3].tolist()}"
        )
    if len(shared) < max(atac.n_obs, rna.n_obs):
        logger.warning("%d of %d ATAC and %d RNA cells are in both", len(shared), atac.n_obs, rna.n_obs)
    return atac[shared], rna[shared]


def peak_matrix(cells: Dataset, vocab_size: int) -> sp.csr_matrix:
    """(cells, vocab_size) float32, 1 where a cell's peak is open, from a tokenised data set; columns are token ids."""
    ids, indptr = _flat(cells, "input_ids")
    return sp.csr_matrix((np.ones(len(ids), np.float32), ids, indptr), shape=(len(cells), vocab_size))


def count_matrix(cells: Dataset, gene_vocab_size: int) -> sp.csr_matrix:
    """(cells, gene_vocab_size) float32 gene counts from a tokenised data set; columns are gene ids."""
    ids, indptr = _flat(cells, "gene_ids")
    counts, _ = _flat(cells, "gene_counts")
    return sp.csr_matrix((counts, ids, indptr), shape=(len(cells), gene_vocab_size))


def _flat(cells: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """All values of a list column in one array, and where each row begins and ends."""
    lists = cells.with_format("arrow")[:][column].combine_chunks()
    return lists.flatten().to_numpy(), np.r_[0, np.cumsum(lists.value_lengths().to_numpy())]


def _expressed_genes(rna: AnnData, genes: GeneVocabulary) -> dict[str, list[np.ndarray]]:
    ids = genes.map(rna.var_names)
    if (ids < 0).all():
        raise ValueError(
            f"none of the {rna.n_vars} genes of the RNA data, such as {rna.var_names[:3].tolist()}, is among the "
            f"tokenizer's, such as {list(genes.symbols[:3])}"
        )
    counts = sp.csr_matrix(rna.X)[:, ids >= 0]
    counts.eliminate_zeros()
    cells = np.split(np.arange(counts.nnz), counts.indptr[1:-1])
    kept = ids[ids >= 0]
    return {
        "gene_ids": [kept[counts.indices[cell]] for cell in cells],
        "gene_counts": [counts.data[cell].astype(np.float32) for cell in cells],
    }


def _categories(adata: AnnData, key: str) -> pd.Categorical:
    if key not in adata.obs:
        raise ValueError(f"obs has no column {key!r}; it has {adata.obs.columns.tolist()}")
    labels = adata.obs[key].astype("category").cat.remove_unused_categories()
    return pd.Categorical(labels)
