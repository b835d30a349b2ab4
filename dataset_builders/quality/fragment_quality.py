"""Quality of each barcode of a fragment file, in one pass over its lines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from epifoundation.tokenization import PeakVocabulary, canonical_chromosome
from epifoundation.tokenization.intervals_epifoundation import global_positions, overlapping_pairs

from ..genome.genome_sets import MergedIntervals, TranscriptionStarts
from ..readers.fragment_files import FragmentBatch, FragmentFile

NUCLEOSOME_FREE, MONONUCLEOSOMAL = 147, 294  # base pairs: below the first; from there to below the second
TSS_WIDTH, TSS_CENTRE, TSS_FLANK = 1000, 500, 100  # base pairs: each side, of these near the start, at the ends
LONGEST_LENGTH = 1000  # of the distribution of lengths; longer fragments count as this
MITOCHONDRION = "chrM"
SECONDS_WITHOUT_PROGRESS = 3

# What is added up for each barcode.
_SUMS = (
    *("unique", "reads", "free", "mono", "mitochondrial", "in_peaks", "in_blacklist"),
    *("flank_cuts", "centre_cuts", "flank_reads", "centre_reads"),
)
_INDEX = {name: i for i, name in enumerate(_SUMS)}


@dataclass(frozen=True, eq=False)
class FragmentQuality:
    """What was found in a fragment file.

    Attributes:
        table: one row per barcode with enough fragments, see `fragment_quality`.
        lengths: (1001,) number of fragments of each length in base pairs, of all barcodes; the last counts all
            that are 1,000 or longer.
        num_unique_fragments: (barcodes,) unique fragments of every barcode, the richest first.
    """

    table: pd.DataFrame
    lengths: np.ndarray
    num_unique_fragments: np.ndarray


def fragment_quality(
    file: FragmentFile | str | os.PathLike[str],
    *,
    starts: TranscriptionStarts | None = None,
    peaks: PeakVocabulary | None = None,
    blacklist: MergedIntervals | None = None,
    min_fragments: int = 1,
    show_progress: bool = True,
) -> FragmentQuality:
    """Measure the quality of each barcode of a fragment file, in one pass and in memory for its barcodes alone.

    A line of the file is a unique fragment; its fifth column tells how many read pairs gave it. The columns are:

    ``num_fragments``
        Read pairs, duplicates included.
    ``num_unique_fragments``
        Lines.
    ``duplicate_fraction``
        Share of the read pairs that repeat another one: 1 - unique / all.
    ``mitochondrial_fraction``
        Share of the unique fragments that lie on chrM.
    ``nucleosome_signal``
        Unique fragments of 147 to 293 bp over those below 147 bp. Where there is none of the latter, one is added
        to both. As in Signac and ``muon.atac.tl.nucleosome_signal``.
    ``tss_enrichment``
        Signac's: cut sites per base pair within 500 bp of a start of transcription over those in the outer 100 bp
        of 1,000 bp on both sides, all starts together. A cell without a cut site in the flanks gets the mean of
        the cells of this table there. The two cut sites of a fragment are its first and its last base pair.
    ``tss_score``
        muon's (``muon.atac.tl.tss_enrichment``): the same ratio of the read pairs that cover each base pair.
        Cells differ far more in it than in Signac's: thresholds of the two are not interchangeable.
    ``peaks_fraction``
        Share of the unique fragments that overlap a peak, by a base pair or more.
    ``blacklist_fraction``
        Share that overlap a stretch of the blacklist.

    Args:
        file: fragments; a `FragmentFile` may name the wanted barcodes and a prefix.
        starts: starts of transcription; without them the two columns of them are missing.
        peaks: peaks; without them ``peaks_fraction`` is missing.
        blacklist: stretches where signal means nothing; without it ``blacklist_fraction`` is missing.
        min_fragments: unique fragments that a barcode needs to enter the table, and the mean that stands in for
            empty flanks.
        show_progress: show a progress bar on a terminal if the work takes more than a few seconds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is no fragment, or no barcode has enough fragments.
    """
    file = file if isinstance(file, FragmentFile) else FragmentFile(file)
    sums = _FragmentSums(starts, peaks, blacklist)
    with _progress(file, show_progress) as progress:
        for batch in file:
            sums.add(batch, file.chromosomes)
            progress.update(file.num_bytes_read - progress.n)
    return sums.quality(file.barcodes, min_fragments, str(file.path))


class _FragmentSums:
    """Adds up what is known of each barcode, a block of lines at a time."""

    def __init__(
        self, starts: TranscriptionStarts | None, peaks: PeakVocabulary | None, blacklist: MergedIntervals | None
    ) -> None:
        self._sums = np.zeros((0, len(_SUMS)))
        self._lengths = np.zeros(LONGEST_LENGTH + 1, dtype=np.int64)
        self._starts = None if starts is None else _StartWindows.of(starts)
        self._peaks = None if peaks is None else MergedIntervals.from_vocabulary(peaks)
        self._blacklist = blacklist

    def add(self, batch: FragmentBatch, chromosomes: Sequence[str]) -> None:
        if (batch.barcode_ids < 0).any():
            batch = FragmentBatch(*(column[batch.barcode_ids >= 0] for column in batch))
        present, cells = np.unique(batch.barcode_ids, return_inverse=True)
        if not len(present):
            return
        self._grow(int(present[-1]) + 1)
        lengths = batch.ends - batch.starts
        self._lengths += np.bincount(np.minimum(lengths, LONGEST_LENGTH), minlength=LONGEST_LENGTH + 1)
        is_mitochondrial = np.array([canonical_chromosome(name) == MITOCHONDRION for name in chromosomes])
        weights: dict[str, Any] = {
            "unique": np.ones(len(cells)),
            "reads": batch.counts,
            "free": lengths < NUCLEOSOME_FREE,
            "mono": (lengths >= NUCLEOSOME_FREE) & (lengths < MONONUCLEOSOMAL),
            "mitochondrial": is_mitochondrial[batch.chromosome_ids],
        }
        for name, regions in (("in_peaks", self._peaks), ("in_blacklist", self._blacklist)):
            if regions is not None:
                weights[name] = regions.overlaps(*_global(batch, regions, chromosomes))
        for name, values in weights.items():
            self._sums[present, _INDEX[name]] += np.bincount(cells, values)
        if self._starts is not None:
            for name, of_cell in self._starts.sums(batch, chromosomes, cells, len(present)).items():
                self._sums[present, _INDEX[name]] += of_cell

    def quality(self, barcodes: Sequence[str], min_fragments: int, place: str) -> FragmentQuality:
        self._grow(len(barcodes))
        unique = self._sums[: len(barcodes), _INDEX["unique"]]
        enough = np.flatnonzero(unique >= max(1, min_fragments))
        ordered = np.sort(unique[unique > 0].astype(np.int64))[::-1]
        if not len(enough):
            most = int(ordered[0]) if len(ordered) else 0
            raise ValueError(
                f"{place}: no barcode has {min_fragments:,} unique fragments or more: the richest of {len(ordered):,} "
                f"has {most:,}; ask for fewer, or check that this is the whole file"
            )
        index = pd.Index([barcodes[i] for i in enough.tolist()], name="barcode")
        return FragmentQuality(pd.DataFrame(self._columns(enough), index=index), self._lengths, ordered)

    def _columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = dict(zip(_SUMS, self._sums[rows].T, strict=True))
        columns = {
            "num_fragments": sums["reads"].astype(np.int64),
            "num_unique_fragments": sums["unique"].astype(np.int64),
            "duplicate_fraction": 1 - sums["unique"] / sums["reads"],
            "mitochondrial_fraction": sums["mitochondrial"] / sums["unique"],
            "nucleosome_signal": nucleosome_signal(sums["free"], sums["mono"]),
        }
        if self._starts is not None:
            columns["tss_enrichment"] = tss_enrichment(sums["centre_cuts"], sums["flank_cuts"])
            columns["tss_score"] = tss_enrichment(sums["centre_reads"], sums["flank_reads"])
        for name, regions in (("peaks", self._peaks), ("blacklist", self._blacklist)):
            if regions is not None:
                columns[f"{name}_fraction"] = sums[f"in_{name}"] / sums["unique"]
        return columns

    def _grow(self, num_barcodes: int) -> None:
        if num_barcodes > len(self._sums):
            more = max(num_barcodes, 2 * len(self._sums)) - len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros((more, len(_SUMS)))])


def nucleosome_signal(num_free: np.ndarray, num_mono: np.ndarray) -> np.ndarray:
    """Ratio of fragments around one nucleosome to those around none, (cells,); see `fragment_quality`."""
    has_none = num_free == 0
    return (num_mono + has_none) / (num_free + has_none)


def tss_enrichment(centre: np.ndarray, flanks: np.ndarray) -> np.ndarray:
    """Signal per base pair near starts of transcription over that in the flanks, (cells,); see `fragment_quality`.

    Args:
        centre: (cells,) signal within the 1,001 bp of the centre, summed.
        flanks: (cells,) signal within the 200 bp of the flanks, summed.

    Returns:
        NaN for all cells without signal in their flanks if no cell has any there.
    """
    background = flanks / (2 * TSS_FLANK)
    mean = background.mean() or np.nan
    return centre / (2 * TSS_CENTRE + 1) / np.where(background == 0, mean, background)


class _StartWindows(NamedTuple):
    """Starts of transcription, with the 2,001 base pairs around each.

    Attributes:
        windows: of all starts, joined where they overlap.
        positions: (starts,) global positions.
    """

    windows: MergedIntervals
    positions: np.ndarray

    @classmethod
    def of(cls, starts: TranscriptionStarts) -> "_StartWindows":
        return cls(starts.windows(TSS_WIDTH), global_positions(starts.codes, starts.positions))

    def sums(
        self, batch: FragmentBatch, chromosomes: Sequence[str], cells: np.ndarray, num_cells: int
    ) -> dict[str, np.ndarray]:
        """Signal of each cell in the centres and the flanks of all windows."""
        starts, ends = _global(batch, self.windows, chromosomes)
        near = np.flatnonzero(self.windows.overlaps(starts, ends))
        fragments, windows, _ = overlapping_pairs(
            starts[near], ends[near], self.positions - TSS_WIDTH, self.positions + TSS_WIDTH + 1
        )
        of_pair = near[fragments]
        # of the start of transcription: the first base pair of the fragment, and the one behind its last
        begin, stop = starts[of_pair] - self.positions[windows], ends[of_pair] - self.positions[windows]
        # muon asks for the fragments that begin before the last base pair of the window
        reads = np.where(begin < TSS_WIDTH, batch.counts[of_pair], 0)
        cell = cells[of_pair]
        parts = {
            "centre": [(-TSS_CENTRE, TSS_CENTRE + 1)],
            "flank": [(-TSS_WIDTH, TSS_FLANK - TSS_WIDTH), (TSS_WIDTH + 1 - TSS_FLANK, TSS_WIDTH + 1)],
        }
        sums = {}
        for name, stretches in parts.items():
            covered = sum(np.maximum(np.minimum(stop, b) - np.maximum(begin, a), 0) for a, b in stretches)
            cuts = sum(_within(begin, a, b) + _within(stop - 1, a, b) for a, b in stretches)
            sums[f"{name}_reads"] = np.bincount(cell, reads * covered, num_cells)
            sums[f"{name}_cuts"] = np.bincount(cell, cuts, num_cells)
        return sums


def _within(positions: np.ndarray, start: int, end: int) -> np.ndarray:
    return ((positions >= start) & (positions < end)).astype(np.int64)


def _global(
    batch: FragmentBatch, regions: MergedIntervals, chromosomes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Global positions of the fragments among the regions; those on other chromosomes come before them all."""
    codes = regions.codes(chromosomes)[batch.chromosome_ids]
    return global_positions(codes, batch.starts), global_positions(codes, batch.ends)


def _progress(file: FragmentFile, is_shown: bool) -> Any:
    return tqdm(
        total=file.num_bytes,
        unit="B",
        unit_scale=True,
        desc=f"quality of {file.path.name}",
        delay=SECONDS_WITHOUT_PROGRESS,
        disable=None if is_shown else True,
    )
