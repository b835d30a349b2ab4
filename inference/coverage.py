"""How much of a data set a tokenizer can use, before any embedding."""

import math
import os
from typing import Any

import numpy as np

from epifoundation.dataset_builders import PeakFile, PeakSource, PeakTable, open_peak_file
from epifoundation.dataset_builders.readers.peak_files import ENTRIES_PER_BLOCK
from epifoundation.tokenization import Coverage, PeakTokenizer, plausible_genomes
from epifoundation.tokenization.intervals_epifoundation import parse_peaks

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def peak_coverage(
    data: Any,
    tokenizer: PeakTokenizer,
    *,
    modality: str | None = None,
    max_entries_per_block: int = ENTRIES_PER_BLOCK,
) -> Coverage:
    """Count the peaks and open peaks of a data set that overlap the vocabulary; low coverage is no error here.

    Args:
        data: path of an .h5ad or .h5mu file, an open `PeakFile`, an AnnData or a MuData.
        tokenizer: the tokenizer of a model; it stays as it is.
        modality: which part of a MuData; by default "atac", "peaks", or the only one.
        max_entries_per_block: stored entries read at a time.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the data cannot be read, a peak name cannot be read, or values are no counts.
    """
    if isinstance(data, str | os.PathLike):
        with open_peak_file(data, modality) as file:
            return _coverage(file, tokenizer, max_entries_per_block)
    source = data if isinstance(data, PeakFile | PeakTable) else PeakTable(data, modality)
    return _coverage(source, tokenizer, max_entries_per_block)


def _coverage(source: PeakSource, tokenizer: PeakTokenizer, max_entries: int) -> Coverage:
    mapping = tokenizer.vocabulary.map(source.peak_names, check=False)
    tokenizer = PeakTokenizer(tokenizer.vocabulary, max_peaks=tokenizer.max_peaks)  # with a coverage of its own
    parts = []
    for block in source.blocks(max_entries):
        tokenizer(block, peaks=mapping, check=False)
        parts.append(tokenizer.coverage)
    return sum(parts[1:], start=parts[0])


def genomes_of(peak_names: list[str]) -> tuple[str, ...]:
    """Names of the known assemblies that can hold these peaks, hg38 first; often more than one, or none."""
    columns = parse_peaks(peak_names)
    return plausible_genomes([columns.chromosomes[code] for code in columns.codes], columns.ends)


def coverage_numbers(coverage: Coverage) -> dict[str, int | float]:
    """The counts and shares of a coverage by name, for a report or ``uns``; shares of nothing are NaN."""
    return {
        "num_cells": coverage.num_cells,
        "num_peaks": coverage.num_peaks,
        "num_matched_peaks": coverage.num_matched_peaks,
        "peaks_share": coverage.peaks_share,
        "num_entries": coverage.num_entries,
        "num_matched_entries": coverage.num_matched_entries,
        "entries_share": coverage.entries_share,
        "num_empty_cells": coverage.num_empty_cells,
        "num_truncated_cells": coverage.num_truncated_cells,
        **_quantiles(coverage.cells_share),
    }


def _quantiles(shares: np.ndarray) -> dict[str, int | float]:
    shares = shares[~np.isnan(shares)]
    values = np.quantile(shares, QUANTILES).tolist() if shares.size else [math.nan] * len(QUANTILES)
    return {f"cells_share_{100 * q:02.0f}_percent": value for q, value in zip(QUANTILES, values, strict=True)}
