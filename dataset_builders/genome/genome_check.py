"""Whether data are of the genome of a vocabulary, told from the data themselves.

Coordinates of hg19 and hg38 differ by some ten thousand base pairs on most of each chromosome, and nothing in a file
says which of them they are. But open chromatin lies in the peaks of a vocabulary far more often than a little beside
them, and of the wrong genome it does not: real fragments and peaks of hg38 lie in peaks 2.3 to 9.1 times as often as
beside them, the same lifted over to hg19 0.95 to 1.46 times (``benchmarks/pbmc_fragments.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epifoundation.tokenization import PeakVocabulary, parse_peaks

from .peak_finder import PeakFinder

SHIFTS = (-50_000, -25_000, 25_000, 50_000)  # base pairs: the same neighbourhood, but other peaks
BY_CHANCE = 1.5  # times as often in peaks as beside them; less is taken for chance
MIN_BESIDE = 50  # intervals beside a peak, in the mean of the shifts, for a judgement
WIDELY_COVERED = 0.5  # share of the neighbourhood that is peaks; with more, both shares are high whatever the genome
SAMPLE = 2_000  # intervals looked at of each block


@dataclass
class OverlapByChance:
    """Counts intervals in peaks, and those that would be if they lay a little beside.

    Attributes:
        num_intervals: intervals looked at.
        num_inside: those that overlap a peak.
        num_beside: those that do after a shift, in the mean of the shifts.
    """

    num_intervals: int = 0
    num_inside: int = 0
    num_beside: float = 0.0

    def add(
        self,
        finder: PeakFinder,
        codes: NDArray[np.int64],
        starts: NDArray[np.integer],
        ends: NDArray[np.integer],
        sample: int = SAMPLE,
    ) -> None:
        """Look at `sample` intervals, evenly taken; arguments as in `PeakFinder.pairs`."""
        step = max(1, -(-len(codes) // sample))
        codes, starts, ends = codes[::step], starts[::step].astype(np.int64), ends[::step].astype(np.int64)
        self.num_intervals += len(codes)
        self.num_inside += _num_inside(finder, codes, starts, ends)
        for shift in SHIFTS:
            self.num_beside += _num_inside(finder, codes, starts + shift, ends + shift) / len(SHIFTS)

    @property
    def is_by_chance(self) -> bool:
        """Whether the intervals lie in peaks hardly more often than beside them; False if that cannot be told."""
        can_be_told = MIN_BESIDE <= self.num_beside < WIDELY_COVERED * self.num_intervals
        return can_be_told and self.num_inside < BY_CHANCE * self.num_beside

    def summary(self, things: str, genome: str) -> str:
        """One clause with the figures.

        Args:
            things: word for the intervals, such as "fragments".
            genome: that of the vocabulary.
        """
        total = max(1, self.num_intervals)
        return (
            f"{self.num_inside / total:.1%} of the {things} overlap a peak of the vocabulary ({genome}), "
            f"{self.num_beside / total:.1%} would if they lay {min(map(abs, SHIFTS)) // 1000} to "
            f"{max(SHIFTS) // 1000} thousand base pairs beside"
        )


def other_genome(found: OverlapByChance, things: str, vocabulary: PeakVocabulary) -> str:
    """One clause, with the figures, that the data are of another genome; "" if they are not, or it cannot be told.

    Args:
        found: what was counted.
        things: word for the intervals, such as "fragments".
        vocabulary: the peaks.
    """
    if not found.is_by_chance:
        return ""
    likely = {"hg38": " (hg19 perhaps)", "hg19": " (hg38 perhaps)", "mm10": " (mm39 perhaps)"}
    genome = vocabulary.genome
    return (
        f"the {things} seem to be of another genome than {genome}{likely.get(genome, '')}, as they lie in its peaks "
        f"hardly more often than by chance: {found.summary(things, genome)}"
    )


def refuse_other_genome(found: OverlapByChance, things: str, vocabulary: PeakVocabulary) -> None:
    """Check that data lie in the peaks of a vocabulary more than by chance; arguments as in `other_genome`.

    Raises:
        ValueError: with the figures, if they do not.
    """
    if clause := other_genome(found, things, vocabulary):
        raise ValueError(
            f"{clause}; align them to {vocabulary.genome} or lift them over, or leave the check out if you know better "
            "(check_genome=False, --no-genome-check)"
        )


def peaks_by_chance(peak_names: Iterable[str], vocabulary: PeakVocabulary) -> OverlapByChance:
    """Count the peaks of a data set in those of a vocabulary and beside them.

    Windows of one width side by side lie in peaks and beside them equally often: of them nothing is counted, so that
    nothing can be told.
    """
    columns, found = parse_peaks(peak_names), OverlapByChance()
    widths = columns.ends - columns.starts
    if (widths == widths[0]).all() and len(np.unique(columns.starts % widths[0])) == 1:
        return found
    finder = PeakFinder(vocabulary)
    codes = finder.chromosome_codes(columns.chromosomes)[columns.codes]
    is_known = codes >= 0
    found.add(finder, codes[is_known], columns.starts[is_known], columns.ends[is_known], sample=len(codes))
    return found


def _num_inside(
    finder: PeakFinder, codes: NDArray[np.int64], starts: NDArray[np.integer], ends: NDArray[np.integer]
) -> int:
    is_on_chromosome = starts >= 0
    intervals, _ = finder.pairs(codes[is_on_chromosome], starts[is_on_chromosome], ends[is_on_chromosome])
    return len(np.unique(intervals))
