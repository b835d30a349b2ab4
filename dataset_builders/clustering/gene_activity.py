"""Accessibility of genes, a stand-in for their expression where only peaks were measured."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from epifoundation.tokenization import canonical_chromosome, parse_peaks
from epifoundation.tokenization.intervals_epifoundation import global_positions, overlapping_pairs

UPSTREAM = 2_000  # base pairs before the start of transcription, as in Signac


def gene_activity(
    peak_counts: sp.csr_matrix, peak_names: Sequence[str], genes: pd.DataFrame
) -> tuple[sp.csr_matrix, list[str]]:
    """Sum the counts of the peaks that overlap each gene or the 2,000 base pairs upstream of it.

    Upstream is on both sides of a gene whose strand is not known. Genes that share a symbol are counted as one.

    Args:
        peak_counts: (cells, peaks).
        peak_names: (peaks,) such as ``chr1:100-200``.
        genes: as `gene_coordinates` gives them.

    Returns:
        (cells, genes) float32, and the symbol of each gene, in the order of the table.

    Raises:
        ValueError: if a name is no peak, or no peak lies in a gene.
    """
    peaks = parse_peaks(peak_names)
    code_of = {name: code for code, name in enumerate(peaks.chromosomes)}
    codes = np.array([code_of.get(canonical_chromosome(name), -1) for name in genes["chromosome"]], dtype=np.int64)
    before = np.where(genes["strand"] == "-", 0, UPSTREAM)
    behind = np.where(genes["strand"] == "+", 0, UPSTREAM)
    starts, ends = np.maximum(genes["start"] - before, 0).to_numpy(), (genes["end"] + behind).to_numpy()
    pairs = overlapping_pairs(
        global_positions(peaks.codes, peaks.starts),
        global_positions(peaks.codes, peaks.ends),
        global_positions(codes, starts),
        global_positions(codes, ends),
    )
    if not len(pairs[0]):
        raise ValueError("no peak lies in or before a gene: check that the peaks and the genes are of one genome")
    symbols = list(dict.fromkeys(genes["symbol"]))
    column_of = {symbol: column for column, symbol in enumerate(symbols)}
    columns = np.array([column_of[symbol] for symbol in genes["symbol"]])[pairs[1]]
    members = sp.csr_matrix((np.ones(len(columns), np.float32), (pairs[0], columns)), (len(peak_names), len(symbols)))
    members.data[:] = 1  # a peak in two genes of one symbol counts once
    return (sp.csr_matrix(peak_counts, dtype=np.float32) @ members).tocsr(), symbols
