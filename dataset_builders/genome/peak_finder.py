"""Which peaks of a vocabulary lie under given stretches of the genome, for millions of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from epifoundation.tokenization import PeakVocabulary, canonical_chromosome
from epifoundation.tokenization.intervals_epifoundation import global_positions, overlapping_pairs

_BEYOND = np.iinfo(np.int64).max


class PeakFinder:
    """Finds the peaks that share at least one base pair with an interval.

    Where no peak of the vocabulary lies within another, the peaks under an interval follow each other both by their
    starts and by their ends, and one binary search finds the first. Else all pairs are listed, which takes about
    four times as long.
    """

    def __init__(self, vocabulary: PeakVocabulary) -> None:
        """Sort the peaks of a vocabulary by position."""
        starts = global_positions(vocabulary.chromosome_codes, vocabulary.starts)
        ends = global_positions(vocabulary.chromosome_codes, vocabulary.ends)
        self._order = np.lexsort((ends, starts))
        self._starts, self._ends = starts[self._order], ends[self._order]
        self._next_starts = np.append(self._starts, _BEYOND)
        self._is_nested = bool((self._ends[1:] < self._ends[:-1]).any())
        self._is_in_order = bool((np.diff(self._order) == 1).all())
        self._code_of = {name: code for code, name in enumerate(vocabulary.chromosomes)}

    def chromosome_codes(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Code of each chromosome in the vocabulary (chromosomes,), in any spelling; -1 where it has none."""
        return np.array([self._code_of.get(canonical_chromosome(name), -1) for name in names], dtype=np.int64)

    def pairs(
        self, codes: NDArray[np.int64], starts: NDArray[np.integer], ends: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All pairs of an interval and a peak that overlap.

        Args:
            codes: (intervals,) chromosome of each interval in the vocabulary, none -1.
            starts: (intervals,) base pairs, 0-based.
            ends: (intervals,) not included, above the start.

        Returns:
            Index of the interval (pairs,) and number of the peak in the vocabulary, counted from 0 (pairs,).
        """
        first_bases, last_bases = global_positions(codes, starts), global_positions(codes, ends)
        if self._is_nested:
            intervals, peaks, _ = overlapping_pairs(first_bases, last_bases, self._starts, self._ends)
        else:
            intervals, peaks = self._consecutive(first_bases, last_bases)
        return intervals, peaks if self._is_in_order else self._order[peaks]

    def _consecutive(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = np.searchsorted(self._ends, starts, side="right")  # of the peaks that end after the start
        hits = np.flatnonzero(self._next_starts[first] < ends)
        first = first[hits]
        if not (self._next_starts[np.minimum(first + 1, len(self._starts))] < ends[hits]).any():
            return hits, first
        counts = np.searchsorted(self._starts, ends[hits], side="left") - first
        before = np.cumsum(counts) - counts
        peaks = np.arange(int(counts.sum())) + np.repeat(first - before, counts)
        return np.repeat(hits, counts), peaks
