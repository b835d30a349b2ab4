"""How open the peaks in and near genes are: a stand-in for expression where only peaks were measured."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from epifoundation.tokenization import canonical_chromosome, parse_peaks
from epifoundation.tokenization.intervals_epifoundation import PeakColumns, global_positions, overlapping_pairs

UPSTREAM = 2_000  # base pairs before the start of transcription, as in Signac
REACH, DECAY = 100_000, 5_000.0  # base pairs


def gene_activity(counts: sp.csr_matrix, peak_names: Sequence[str], genes: pd.DataFrame) -> sp.csr_matrix:
    """(cells, genes) counts of the peaks that overlap each gene or the 2,000 base pairs upstream of it.

    Upstream is on both sides of a gene whose strand is not known.

    Args:
        counts: (cells, peaks).
        peak_names: (peaks,) such as ``chr1:100-200``.
        genes: as `gene_coordinates` or `positions_of` gives them; those without a position get 0.

    Raises:
        ValueError: if a name is no peak, or no peak lies in a gene.
    """
    before = np.where(genes["strand"] == "-", 0, UPSTREAM)
    behind = np.where(genes["strand"] == "+", 0, UPSTREAM)
    of_peak, of_gene = _overlaps(parse_peaks(peak_names), genes, before, behind)
    if not len(of_peak):
        raise ValueError("no peak lies in or before a gene: check that the peaks and the genes are of one genome")
    return _weighted_sums(counts, np.ones(len(of_peak), np.float32), of_peak, of_gene, len(genes))


def distance_activity(counts: sp.csr_matrix, peak_names: Sequence[str], genes: pd.DataFrame) -> sp.csr_matrix:
    """(cells, genes) counts within 100,000 base pairs of the body of each gene, weighted ``exp(-distance / 5,000)``.

    The distance is the number of base pairs between both, 0 if they overlap or touch. The decay is that of ArchR's gene
    scores, without its constant, its gene boundaries and its weights by gene length. Arguments as of `gene_activity`.
    """
    peaks = parse_peaks(peak_names)
    of_peak, of_gene = _overlaps(peaks, genes, REACH, REACH)
    starts, ends = (genes[name].to_numpy(np.float64)[of_gene] for name in ("start", "end"))
    gaps = np.maximum(starts - peaks.ends[of_peak], peaks.starts[of_peak] - ends)
    return _weighted_sums(counts, np.exp(-np.maximum(gaps, 0) / DECAY), of_peak, of_gene, len(genes))


def _overlaps(
    peaks: PeakColumns, genes: pd.DataFrame, before: np.ndarray | int, behind: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of peaks, and of the genes they overlap once these are made longer at both ends."""
    is_placed = genes["chromosome"].notna().to_numpy()
    code_of = {name: code for code, name in enumerate(peaks.chromosomes)}
    names = genes.loc[is_placed, "chromosome"]
    codes = np.array([code_of.get(canonical_chromosome(name), -1) for name in names], dtype=np.int64)
    starts = np.maximum(genes["start"] - before, 0)[is_placed].to_numpy(np.int64)
    ends = (genes["end"] + behind)[is_placed].to_numpy(np.int64)
    of_peak, of_gene, _ = overlapping_pairs(
        global_positions(peaks.codes, peaks.starts),
        global_positions(peaks.codes, peaks.ends),
        global_positions(codes, starts),
        global_positions(codes, ends),
    )
    return of_peak, np.flatnonzero(is_placed)[of_gene]


def _weighted_sums(
    counts: sp.csr_matrix, weights: np.ndarray, of_peak: np.ndarray, of_gene: np.ndarray, num_genes: int
) -> sp.csr_matrix:
    members = sp.csr_matrix((weights, (of_peak, of_gene)), shape=(counts.shape[1], num_genes))
    return sp.csr_matrix(sp.csr_matrix(counts, dtype=np.float32) @ members)
