"""Which cells of two measurements belong together, with their labels, and what found no partner."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Features

from epifoundation.tokenization import PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import PeakMapping

from ..readers.matrix_files import MatrixSource
from .features import UNKNOWN_LABEL, cell_features
from .gene_counts import gene_ids_of

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("tissue", "donor")


@dataclass(frozen=True)
class PairingReport:
    """What of the data is used, and how much finds no place.

    Attributes:
        num_cells: cells of the data set.
        num_atac_cells: cells in the ATAC data.
        num_rna_cells: cells in the RNA data; None where there is none.
        num_peaks: peaks of the ATAC data.
        num_matched_peaks: those that overlap a peak of the vocabulary.
        num_genes: genes of the RNA data; None where there is none.
        num_matched_genes: those that are among the tokenizer's.
        num_unlabelled: cells without a value, by column of the data set.
        is_same_order: whether the cells have the same order in both; otherwise the RNA is copied once.
        atac_only: a few barcodes that only the ATAC data has.
        rna_only: a few barcodes that only the RNA data has.
    """

    num_cells: int
    num_atac_cells: int
    num_rna_cells: int | None
    num_peaks: int
    num_matched_peaks: int
    num_genes: int | None = None
    num_matched_genes: int | None = None
    num_unlabelled: Mapping[str, int] = field(default_factory=dict)
    is_same_order: bool = True
    atac_only: tuple[str, ...] = ()
    rna_only: tuple[str, ...] = ()

    def summary(self) -> str:
        """One paragraph for a reader."""
        peaks = f"{self.num_matched_peaks:,} of {self.num_peaks:,} peaks overlap one of the vocabulary."
        if self.num_rna_cells is None:
            text = f"{self.num_cells:,} cells, ATAC alone. {peaks}"
        else:
            text = (
                f"{self.num_cells:,} of {self.num_atac_cells:,} ATAC and {self.num_rna_cells:,} RNA cells are in both. "
                f"{peaks} {self.num_matched_genes:,} of {self.num_genes:,} genes are among the tokenizer's."
            )
        unlabelled = [f"{number:,} cells have no {name}." for name, number in self.num_unlabelled.items() if number]
        return " ".join([text, *unlabelled])


@dataclass(frozen=True, eq=False)
class Pairing:
    """The cells of a data set, in the order of the ATAC data.

    Attributes:
        barcodes: (cells,) names.
        atac_rows: (cells,) int64 rising positions in the ATAC data.
        rna_rows: (cells,) int64 positions in the RNA data; None where there is none.
        peaks: where the peaks lie in the vocabulary.
        gene_ids: (genes of the RNA data,) int32, -1 for those that are not among the tokenizer's.
        labels: the label columns.
        features: all columns.
        report: what was left out.
    """

    barcodes: pa.StringArray
    atac_rows: np.ndarray
    rna_rows: np.ndarray | None
    peaks: PeakMapping
    gene_ids: np.ndarray | None
    labels: Mapping[str, pa.Array]
    features: Features
    report: PairingReport

    def digest(self) -> str:
        """A digest of the names, labels and classes, as hexadecimal text."""
        digest = hashlib.blake2b(repr(self.features).encode(), digest_size=16)
        for name, column in [("barcode", self.barcodes), *self.labels.items()]:
            digest.update(repr((name, len(column))).encode())
            digest.update("\n".join(map(str, column.to_pylist())).encode())
        return digest.hexdigest()


def pair(
    atac: MatrixSource, rna: MatrixSource | None, tokenizer: PeakTokenizer, keys: Mapping[str, str | None]
) -> Pairing:
    """Match the cells of both by barcode and find their labels; how many are left out is logged.

    Args:
        atac: (cells, peaks).
        rna: (cells, genes), or None.
        tokenizer: its peak vocabulary and its genes give the ids.
        keys: column of the data set -> column of an ``obs``, of the ATAC data first, then of the RNA data; None leaves
            the column out.

    Raises:
        ValueError: if no barcode is in both, barcodes repeat, a label column is missing, cells have no batch, or the
            tokenizer has no genes or knows none of these.
    """
    if rna is None:
        barcodes, atac_rows, rna_rows = _unique("ATAC", atac.cell_names), np.arange(atac.num_cells), None
        left_out: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    else:
        barcodes, atac_rows, rna_rows, left_out = match_names(atac.cell_names, rna.cell_names)
    mapping = tokenizer.vocabulary.map_or_explain(atac.column_names)
    gene_ids = None if rna is None else gene_ids_of(rna.column_names, tokenizer)
    labels, classes, num_unlabelled = _labels([atac] if rna is None else [atac, rna], barcodes, keys)
    report = PairingReport(
        num_cells=len(barcodes),
        num_atac_cells=atac.num_cells,
        num_rna_cells=None if rna is None else rna.num_cells,
        num_peaks=mapping.num_peaks,
        num_matched_peaks=mapping.num_matched,
        num_genes=None if gene_ids is None else len(gene_ids),
        num_matched_genes=None if gene_ids is None else int((gene_ids >= 0).sum()),
        num_unlabelled=num_unlabelled,
        is_same_order=rna_rows is None or is_rising(rna_rows),
        atac_only=left_out[0],
        rna_only=left_out[1],
    )
    features = cell_features(
        is_paired=rna is not None,
        cell_types=classes.get("cell_type"),
        batches=classes.get("batch"),
        assays=classes.get("assay"),
        has_tissue="tissue" in labels,
        has_donor="donor" in labels,
    )
    logger.info("%s", report.summary())
    names = pa.array(barcodes, pa.string())
    return Pairing(names, atac_rows, rna_rows, mapping, gene_ids, labels, features, report)


def match_names(
    atac: Sequence[str], rna: Sequence[str]
) -> tuple[pd.Index, np.ndarray, np.ndarray, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The barcodes that are in both, in the order of `atac`; how many were left out is logged.

    Returns:
        The barcodes, their positions in `atac` and in `rna`, and a few examples that only either has.

    Raises:
        ValueError: if a barcode repeats within a modality, or none is in both.
    """
    atac_names, rna_names = _unique("ATAC", atac), _unique("RNA", rna)
    found = rna_names.get_indexer(atac_names)
    atac_rows = np.flatnonzero(found >= 0)
    if not len(atac_rows):
        raise ValueError(
            f"no barcode is in both modalities: ATAC has {list(atac_names[:3])}, RNA has {list(rna_names[:3])}"
        )
    atac_only = tuple(atac_names[found < 0][:3])
    rna_only = tuple(rna_names[~np.isin(np.arange(len(rna_names)), found)][:3])
    if atac_only or rna_only:
        logger.warning(
            "%d of %d ATAC and %d RNA cells are in both; only in one: %s",
            len(atac_rows),
            len(atac_names),
            len(rna_names),
            ", ".join([*(f"{name} (ATAC)" for name in atac_only), *(f"{name} (RNA)" for name in rna_only)]),
        )
    return atac_names[atac_rows], atac_rows, found[atac_rows].astype(np.int64), (atac_only, rna_only)


def is_rising(positions: np.ndarray) -> bool:
    """Whether each position lies behind the one before."""
    return bool((np.diff(positions) > 0).all())


def _unique(name: str, barcodes: Sequence[str]) -> pd.Index:
    index = pd.Index(barcodes, dtype=object)
    if not index.is_unique:
        repeated = index[index.duplicated()][:3].tolist()
        raise ValueError(f"barcodes of the {name} data repeat, for example {repeated}; make them unique first")
    return index


def _labels(
    sources: Sequence[MatrixSource], barcodes: pd.Index, keys: Mapping[str, str | None]
) -> tuple[dict[str, pa.Array], dict[str, list[str]], dict[str, int]]:
    """The label columns, the names of the classes, and the numbers of cells without a value."""
    labels, classes, num_unlabelled = {}, {}, {}
    for name, key in keys.items():
        if key is None:
            continue
        values = _annotation(sources, barcodes, name, key).remove_unused_categories()
        num_unlabelled[name] = int((values.codes < 0).sum())
        if name == "batch" and num_unlabelled[name]:
            raise ValueError(
                f"{num_unlabelled[name]:,} of {len(barcodes):,} cells have no value in obs[{key!r}]: every cell needs "
                "a batch; fill the gaps, or leave batch_key out"
            )
        names = values.categories.astype(str)
        if name in TEXT_COLUMNS:
            is_missing = values.codes < 0
            labels[name] = pa.array(names.to_numpy(dtype=object)[values.codes], pa.string(), mask=is_missing)
        else:
            assert UNKNOWN_LABEL == -1, "pandas marks a missing value by the code -1"
            labels[name], classes[name] = pa.array(values.codes, pa.int64()), names.tolist()
    return labels, classes, num_unlabelled


def _annotation(sources: Sequence[MatrixSource], barcodes: pd.Index, name: str, key: str) -> pd.Categorical:
    """Column `key` of the first ``obs`` that has it, for the given cells."""
    tables = [table for source in sources for table in source.annotations]
    for table in tables:
        if key in table.columns:
            values = pd.Categorical(table.read(key).astype("category"))
            return values.take(pd.Index(table.cell_names(), dtype=object).get_indexer(barcodes), allow_fill=True)
    found = list(dict.fromkeys(column for table in tables for column in table.columns))
    raise ValueError(
        f"obs has no column {key!r}; it has {found}: choose one of them with {name}_key=, or None for none"
    )
