"""From counts in one set of peaks to counts in another, such as the vocabulary of a model."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem
from scipy.sparse import csr_matrix, vstack
from tqdm.auto import tqdm

from epifoundation.tokenization import Coverage, PeakMapping, PeakVocabulary
from epifoundation.tokenization.vocabulary_epifoundation import NUM_SPECIAL_TOKENS

from ..readers.peak_files import PeakFile, PeakSource, PeakTable, open_peak_file
from .matrix_writing import write_matrix

Counting = Literal["sum", "binary"]
UNS_KEY = "epifoundation_remap"
SECONDS_WITHOUT_PROGRESS = 3


def remap_matrix(matrix: csr_matrix, mapping: PeakMapping, num_peaks: int, counting: Counting = "sum") -> csr_matrix:
    """Counts (cells, peaks) in one's own peaks as counts (cells, `num_peaks`) in those of a vocabulary.

    Each of the own peaks gives its counts to one peak of the vocabulary, the one with which it shares most base
    pairs: the rule of the tokenizer. Those that overlap none are left out. Counts of a peak across two peaks of the
    vocabulary are not divided; counting the fragments anew is better where there are fragments.

    Args:
        matrix: (cells, own peaks); nothing of it is changed.
        mapping: ``vocabulary.map(names)``.
        num_peaks: ``len(vocabulary)``.
        counting: "sum" adds the counts of the own peaks that go to the same peak; "binary" gives 1 where any of them
            is above 0.

    Returns:
        The columns of each row rise; zeros are not stored; of the type of `matrix`.
    """
    if counting not in get_args(Counting):
        raise ValueError(f"counting must be one of {', '.join(map(repr, get_args(Counting)))}, got {counting!r}")
    columns = mapping.ids[matrix.indices]
    is_kept = (columns >= 0) & (matrix.data != 0)
    bounds = np.concatenate([[0], np.cumsum(is_kept)])[matrix.indptr]
    values = (matrix.data[is_kept] > 0).astype(matrix.dtype) if counting == "binary" else matrix.data[is_kept]
    # summed in a wide type: counts in an .h5ad are often uint8
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    shape = (matrix.shape[0], num_peaks)
    remapped = csr_matrix((wide, columns[is_kept] - NUM_SPECIAL_TOKENS, bounds), shape=shape)
    remapped.sum_duplicates()
    if counting == "binary":
        remapped.data = np.minimum(remapped.data, 1)
    return remapped.astype(_type_of_sums(matrix.dtype))


def remap_peaks(adata: AnnData, vocabulary: PeakVocabulary, counting: Counting = "sum") -> AnnData:
    """A new AnnData with counts in the peaks of a vocabulary, and the ``obs`` and ``obsm`` of `adata`.

    ``uns["epifoundation_remap"]`` tells how much could be used. For the rule see `remap_matrix`; of a MuData take
    the modality of the peaks.

    Raises:
        ValueError: if no peak overlaps one of the vocabulary, with the likely cause, or X is missing or empty.

    Warns:
        UserWarning: if less than half of the peaks overlap one of the vocabulary.
    """
    source = PeakTable(adata)
    mapping = vocabulary.map(source.peak_names)
    blocks, coverages = zip(*_remapped(source, vocabulary, mapping, counting, False), strict=True)
    remapped = AnnData(vstack(blocks, format="csr"), adata.obs.copy(), _var(vocabulary))
    remapped.obsm = {key: value.copy() for key, value in adata.obsm.items()}
    remapped.uns[UNS_KEY] = _record(_total(coverages), vocabulary, counting)
    return remapped


def remap_file(
    path: str | os.PathLike[str],
    vocabulary: PeakVocabulary,
    output: str | os.PathLike[str],
    *,
    counting: Counting = "sum",
    modality: str | None = None,
    show_progress: bool = True,
) -> Coverage:
    """Like `remap_peaks` from a file (.h5ad, .h5mu, 10x .h5) to an .h5ad file, a block of cells at a time.

    Args:
        path: the file.
        vocabulary: the peaks to count in.
        output: to be written; what is there is replaced. After an error it is incomplete.
        counting: see `remap_matrix`.
        modality: which part of an .h5mu; by default "atac", "peaks", or the only one.
        show_progress: show a progress bar on a terminal if the work takes more than a few seconds.

    Returns:
        How much of the file could be used.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the disk is full.
        ValueError: if the file cannot be used, or no peak overlaps one of the vocabulary.

    Warns:
        UserWarning: if less than half of the peaks overlap one of the vocabulary.
    """
    with open_peak_file(path, modality) as source:
        mapping = vocabulary.map(source.peak_names)
        obs, obsm = _annotations(source)
        coverages: list[Coverage] = []
        uns: dict[str, Any] = {}

        def blocks() -> Iterator[csr_matrix]:
            for block, coverage in _remapped(source, vocabulary, mapping, counting, show_progress):
                coverages.append(coverage)
                yield block
            # `write_matrix` reads it after the last block
            uns[UNS_KEY] = _record(_total(coverages), vocabulary, counting)

        write_matrix(output, blocks(), obs, _var(vocabulary), dtype=_type_of_sums(source.dtype), obsm=obsm, uns=uns)
    return _total(coverages)


def _remapped(
    source: PeakSource, vocabulary: PeakVocabulary, mapping: PeakMapping, counting: Counting, show_progress: bool
) -> Iterator[tuple[csr_matrix, Coverage]]:
    """Blocks of rows in the peaks of the vocabulary, with what of each was used."""
    sizes = {mapping.digest: (mapping.num_peaks, mapping.num_matched)}
    is_matched = mapping.ids >= 0
    with _progress(source.num_cells, show_progress) as progress:
        for block in source.blocks():
            block = csr_matrix(block)
            open_cells = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))[block.data > 0]
            matched = open_cells[is_matched[block.indices[block.data > 0]]]
            used, found = (np.bincount(cells, minlength=block.shape[0]) for cells in (matched, open_cells))
            yield (
                remap_matrix(block, mapping, len(vocabulary), counting),
                Coverage(used, found, int((used == 0).sum()), 0, sizes),
            )
            progress.update(block.shape[0])


def _total(coverages: Sequence[Coverage]) -> Coverage:
    return sum(coverages[1:], start=coverages[0])  # a source has cells, and so a block


def _type_of_sums(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32 if np.dtype(dtype).kind == "f" else np.int32)


def _annotations(source: PeakFile) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The ``obs`` of a table, and the arrays of its ``obsm``; a file of Cell Ranger has names alone."""
    with h5py.File(source.path, "r") as file:
        table = file[source.table_path]
        if "obs" not in table:
            return pd.DataFrame(index=source.cell_names), {}
        stored = read_elem(table["obsm"]) if "obsm" in table else {}
        return read_elem(table["obs"]), {key: value for key, value in stored.items() if isinstance(value, np.ndarray)}


def _var(vocabulary: PeakVocabulary) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(vocabulary.names(), dtype=object))


def _record(coverage: Coverage, vocabulary: PeakVocabulary, counting: Counting) -> dict[str, Any]:
    return {
        "counting": counting,
        "genome": vocabulary.genome,
        "vocabulary_digest": vocabulary.digest(),
        "num_peaks": coverage.num_peaks,
        "num_matched_peaks": coverage.num_matched_peaks,
        "num_entries": coverage.num_entries,
        "num_matched_entries": coverage.num_matched_entries,
        "num_empty_cells": coverage.num_empty_cells,
    }


def _progress(num_cells: int, is_shown: bool) -> Any:
    return tqdm(
        total=num_cells,
        unit="cell",
        desc="mapping peaks",
        delay=SECONDS_WITHOUT_PROGRESS,
        disable=None if is_shown else True,
    )
