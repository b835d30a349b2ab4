"""Sets of stretches of a genome that fragments are compared with: blacklists, peaks, starts of transcription."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from epifoundation.tokenization import PeakVocabulary, canonical_chromosome
from epifoundation.tokenization.intervals_epifoundation import global_positions

from .gene_coordinates import gene_coordinates

NOWHERE = -1  # code of a chromosome that a set has nothing on


@dataclass(frozen=True, eq=False)
class MergedIntervals:
    """Stretches of the genome, those that overlap or touch each other joined to one.

    Attributes:
        code_of: number of each chromosome, by its canonical name.
        starts: (intervals,) rising global positions, see `global_positions`.
        ends: (intervals,) rising, not included.
    """

    code_of: dict[str, int]
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def from_columns(cls, chromosomes: Sequence[str], codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Self:
        """Join the intervals of these columns, of which `codes` are indices into `chromosomes`."""
        order = np.lexsort((starts, codes))
        begins, stops = global_positions(codes[order], starts[order]), global_positions(codes[order], ends[order])
        furthest = np.maximum.accumulate(stops) if len(stops) else stops
        is_first = np.r_[True, begins[1:] > furthest[:-1]][: len(begins)]
        is_last = np.r_[is_first[1:], True][: len(begins)]
        code_of = {canonical_chromosome(name): code for code, name in enumerate(chromosomes)}
        return cls(code_of, begins[is_first], furthest[is_last])

    @classmethod
    def from_vocabulary(cls, vocabulary: PeakVocabulary) -> Self:
        """The peaks of a vocabulary."""
        columns = (vocabulary.chromosome_codes, vocabulary.starts, vocabulary.ends)
        return cls.from_columns(vocabulary.chromosomes, *columns)

    @classmethod
    def from_bed(cls, path: str | os.PathLike[str], genome: str = "hg38") -> Self:
        """The stretches of a BED file, such as ENCODE's blacklist.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a line is no stretch of this genome, or occurs twice.
        """
        return cls.from_vocabulary(PeakVocabulary.from_bed(path, genome))

    def codes(self, chromosomes: Sequence[str]) -> np.ndarray:
        """Number of each of these chromosomes in any spelling, int64; -1 for those that have no interval."""
        found = (self.code_of.get(canonical_chromosome(name), NOWHERE) for name in chromosomes)
        return np.fromiter(found, dtype=np.int64, count=len(chromosomes))

    def overlaps(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Whether each stretch, given by global positions, shares a base pair with one of these."""
        if not len(self.starts):
            return np.zeros(len(starts), dtype=bool)
        following = np.searchsorted(self.ends, starts, side="right")
        return (following < len(self.ends)) & (self.starts[np.minimum(following, len(self.ends) - 1)] < ends)


def num_overlapping_peaks(vocabulary: PeakVocabulary) -> int:
    """Number of peaks that begin before another one, which begins no later, has ended."""
    starts = global_positions(vocabulary.chromosome_codes, vocabulary.starts)
    order = np.argsort(starts, kind="stable")
    ends = global_positions(vocabulary.chromosome_codes, vocabulary.ends)[order]
    return int((starts[order][1:] < np.maximum.accumulate(ends)[:-1]).sum())


@dataclass(frozen=True, eq=False)
class TranscriptionStarts:
    """Where transcription of genes starts.

    Attributes:
        chromosomes: canonical names.
        codes: (starts,) int64, index of each one's chromosome.
        positions: (starts,) int64 base pairs, 0-based.
    """

    chromosomes: tuple[str, ...]
    codes: np.ndarray
    positions: np.ndarray

    @classmethod
    def from_columns(cls, chromosomes: Sequence[str], positions: Sequence[int] | np.ndarray) -> Self:
        """Take the chromosome and the base pair of each start, as they are: one that repeats counts again."""
        canonical = [canonical_chromosome(name) for name in chromosomes]
        names = tuple(dict.fromkeys(canonical))
        code_of = {name: code for code, name in enumerate(names)}
        codes = np.array([code_of[name] for name in canonical], dtype=np.int64)
        return cls(names, codes, np.asarray(positions, dtype=np.int64))

    @classmethod
    def of_genome(cls, genome: str = "hg38") -> Self:
        """The starts of the genes of a genome, each base pair once.

        Args:
            genome: "hg38" (19,452 genes of Ensembl 110), or another name of it.

        Raises:
            ValueError: for a genome without a table.
        """
        genes = gene_coordinates(genome).dropna(subset="tss").drop_duplicates(["chromosome", "tss"])
        return cls.from_columns(genes["chromosome"].tolist(), genes["tss"].to_numpy(np.int64))

    def windows(self, width: int) -> MergedIntervals:
        """The stretches from `width` base pairs before each start to as many behind it."""
        begins, stops = np.maximum(self.positions - width, 0), self.positions + width + 1
        return MergedIntervals.from_columns(self.chromosomes, self.codes, begins, stops)
