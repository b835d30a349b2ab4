"""From fragments to counts in the peaks of a vocabulary."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tqdm.auto import tqdm

from epifoundation.tokenization import PeakVocabulary

from ..genome.genome_check import OverlapByChance, refuse_other_genome
from ..genome.peak_finder import PeakFinder
from ..matrices.count_store import CountStore, added
from ..matrices.row_blocks import ENTRIES_PER_BLOCK, row_blocks
from ..matrices.row_store import RowStore, ScratchFolder
from .fragment_files import FragmentBatch, FragmentFile

Counting = Literal["fragment", "insertion"]
FragmentSource = str | os.PathLike[str] | FragmentFile
SECONDS_WITHOUT_PROGRESS = 3  # shorter work needs no progress bar


@dataclass(frozen=True)
class FragmentReport:
    """What became of the fragments.

    Attributes:
        num_fragments: lines of the files.
        num_barcodes: distinct barcodes that were wanted and found.
        num_wanted: fragments of the cells that were kept.
        num_in_peaks: those of them that overlap a peak of the vocabulary (or have a cut site in one).
        num_elsewhere: fragments of wanted barcodes on each chromosome without a peak of the vocabulary.
        counting: what was counted.
    """

    num_fragments: int
    num_barcodes: int
    num_wanted: int
    num_in_peaks: int
    num_elsewhere: dict[str, int]
    counting: Counting | Literal["interval"]

    @property
    def share_in_peaks(self) -> float:
        """Fragments in peaks over all of the kept cells."""
        return self.num_in_peaks / self.num_wanted if self.num_wanted else float("nan")

    def summary(self) -> str:
        """One paragraph for a reader."""
        text = (
            f"{self.num_fragments:,} fragments; {self.num_wanted:,} of the cells that were kept, of which "
            f"{self.num_in_peaks:,} ({self.share_in_peaks:.1%}) lie in a peak of the vocabulary."
        )
        if not self.num_elsewhere:
            return text
        return f"{text} {len(self.num_elsewhere):,} chromosomes have no peak in it{_most(self.num_elsewhere)}."


@dataclass(frozen=True, eq=False)
class VocabularyCounts:
    """Counts of cells in the peaks of a vocabulary, a `PeakSource` whose entries lie in temporary files.

    Attributes:
        vocabulary: the peaks, one column each.
        barcodes: name of each row.
        num_fragments: (cells,) fragments of each cell, in peaks or not.
        num_in_peaks: (cells,) those that overlap a peak.
        report: what became of the fragments.
        store: where the entries are read from.
        scratch: the folder of the store, removed when nothing holds it any more.
        reads_any_order: True.
    """

    vocabulary: PeakVocabulary
    barcodes: list[str]
    num_fragments: NDArray[np.int64]
    num_in_peaks: NDArray[np.int64]
    report: FragmentReport
    store: RowStore = field(repr=False)
    scratch: ScratchFolder = field(repr=False)
    reads_any_order: ClassVar[bool] = True

    @property
    def num_cells(self) -> int:
        """Number of rows."""
        return len(self.barcodes)

    @property
    def cell_names(self) -> list[str]:
        """Name of each row."""
        return self.barcodes

    @cached_property
    def peak_names(self) -> list[str]:
        """Name of each column."""
        return self.vocabulary.names()

    @property
    def indptr(self) -> NDArray[np.int64]:
        """(cells + 1,) entries before each row."""
        return self.store.indptr

    def rows(self, positions: NDArray[np.int64]) -> csr_matrix:
        """The rows at `positions`, in any order."""
        return self.store.rows(positions)

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        """Yield the rows in their order, in blocks of at most `max_entries` entries, or of a single row."""
        for start, stop in row_blocks(self.indptr, max_entries):
            yield self.rows(np.arange(start, stop))

    @cached_property
    def matrix(self) -> csr_matrix:
        """(cells, peaks) int32, all of it in memory: 8 bytes for each entry."""
        return self.rows(np.arange(self.num_cells))

    def to_anndata(self) -> Any:
        """An AnnData of the matrix, in memory, with the fragments of each cell in ``obs``."""
        from anndata import AnnData
        from pandas import DataFrame

        fragments = {"num_fragments": self.num_fragments, "num_fragments_in_peaks": self.num_in_peaks}
        return AnnData(self.matrix, obs=DataFrame(fragments, self.barcodes), var=DataFrame(index=self.peak_names))


def count_fragments(
    files: FragmentSource | Sequence[FragmentSource],
    vocabulary: PeakVocabulary,
    *,
    barcodes: Sequence[str] | None = None,
    min_fragments: int | None = None,
    counting: Counting = "fragment",
    check_genome: bool = True,
    show_progress: bool = True,
) -> VocabularyCounts:
    """Count the fragments of each cell in each peak of a vocabulary.

    Every line counts once, however many reads gave it. A fragment counts in each peak that it shares a base pair
    with, as in the matrices of Cell Ranger and Signac; with ``counting="insertion"`` its first and its last base pair
    count, each in the peaks that hold it, as in SnapATAC2 and ArchR. Which peaks are open hardly differs.

    Memory does not grow with the files: entries are kept in temporary files, 16 bytes for each fragment in a peak.

    Args:
        files: a fragment file or several; pass `FragmentFile` objects to give each sample a prefix.
        vocabulary: the peaks; they may overlap.
        barcodes: for paths, the only ones wanted; they become the rows, in this order, those without a fragment too.
            By default all barcodes are, in the order of their appearance.
        min_fragments: leave out barcodes with fewer fragments; by default none.
        counting: "fragment" or "insertion".
        check_genome: refuse fragments that lie in the peaks no more than by chance, as those of another genome do.
        show_progress: show a progress bar on a terminal if the work takes more than a few seconds.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: as `FragmentFile`; if a barcode occurs in two files, none has `min_fragments`, no fragment overlaps
            a peak, or they are of another genome.
        OSError: if the temporary disk is full.
    """
    if counting not in get_args(Counting):
        raise ValueError(f"counting must be one of {', '.join(map(repr, get_args(Counting)))}, got {counting!r}")
    listed = [files] if isinstance(files, str | os.PathLike | FragmentFile) else list(files)
    if not listed:
        raise ValueError("there are no fragment files: expected at least one")
    opened = [
        file if isinstance(file, FragmentFile) else FragmentFile(file, barcodes=barcodes, genome=vocabulary.genome)
        for file in listed
    ]
    counter = _Counter(vocabulary, counting)
    with tqdm(
        total=sum(file.num_bytes for file in opened),
        desc="reading fragments",
        unit="B",
        unit_scale=True,
        delay=SECONDS_WITHOUT_PROGRESS,
        disable=None if show_progress else True,
    ) as progress:
        for file in opened:
            done = progress.n
            for batch in file:
                counter.add(batch, file)
                progress.update(done + file.num_bytes_read - progress.n)
            counter.close(file)
    counter.refuse_other_genome(check_genome)
    return counter.finish(min_fragments or 0)


class _Counter:
    """Counts batch by batch, file after file."""

    def __init__(self, vocabulary: PeakVocabulary, counting: Counting) -> None:
        self.vocabulary = vocabulary
        self.counting: Counting = counting
        self.finder = PeakFinder(vocabulary)
        self.store = CountStore(len(vocabulary))
        self.barcodes: list[str] = []  # of the files that are done
        self.num_lines = 0
        self.num_fragments = np.zeros(0, dtype=np.int64)
        self.num_in_peaks = np.zeros(0, dtype=np.int64)
        self.num_elsewhere: Counter[str] = Counter()
        self.overlap = OverlapByChance()

    def add(self, batch: FragmentBatch, file: FragmentFile) -> None:
        """Count the fragments of a batch."""
        self.num_lines += len(batch.starts)
        num_cells = len(self.barcodes) + len(file.barcodes)
        batch = _selected(batch, batch.barcode_ids >= 0)
        cells = batch.barcode_ids.astype(np.int64) + len(self.barcodes)
        self.num_fragments = added(self.num_fragments, np.bincount(cells, minlength=num_cells))
        codes = self.finder.chromosome_codes(file.chromosomes)[batch.chromosome_ids]
        is_elsewhere = codes < 0
        if is_elsewhere.any():
            self._count_elsewhere(batch.chromosome_ids[is_elsewhere], file)
            batch, cells, codes = _selected(batch, ~is_elsewhere), cells[~is_elsewhere], codes[~is_elsewhere]
        self.overlap.add(self.finder, codes, batch.starts, batch.ends)
        fragments, peaks = self._pairs(batch, codes)
        self.store.add(cells[fragments], peaks, num_cells)
        is_in_peak = np.zeros(len(cells), dtype=bool)
        is_in_peak[fragments] = True
        self.num_in_peaks = added(self.num_in_peaks, np.bincount(cells[is_in_peak], minlength=num_cells))

    def _pairs(self, batch: FragmentBatch, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which fragment counts in which peak; an insertion counts as a fragment of one base pair."""
        if self.counting == "fragment":
            return self.finder.pairs(codes, batch.starts, batch.ends)
        sites = np.concatenate([batch.starts, batch.ends - 1])
        insertions, peaks = self.finder.pairs(np.concatenate([codes, codes]), sites, sites + 1)
        return insertions % max(1, len(codes)), peaks

    def _count_elsewhere(self, chromosome_ids: NDArray[np.int32], file: FragmentFile) -> None:
        counts = np.bincount(chromosome_ids, minlength=len(file.chromosomes)).tolist()
        self.num_elsewhere.update({name: n for name, n in zip(file.chromosomes, counts, strict=True) if n})

    def close(self, file: FragmentFile) -> None:
        """Take over the barcodes of a file that was read to its end."""
        repeated = set(self.barcodes).intersection(file.barcodes)
        if repeated:
            raise ValueError(
                f"{len(repeated):,} barcodes of {file.path} also occur in a file before it, such as "
                f"{min(repeated)}: give each sample a prefix of its own (--prefix)"
            )
        self.barcodes += file.barcodes

    def refuse_other_genome(self, check_genome: bool) -> None:
        """Check that there are fragments in peaks, and more than by chance."""
        if not self.num_in_peaks.any():
            elsewhere = self.num_elsewhere.total()
            raise ValueError(
                f"none of the {self.num_fragments.sum():,} fragments overlaps a peak of the vocabulary "
                f"({self.vocabulary.genome}); {elsewhere:,} lie on chromosomes without a peak in it"
                f"{_most(self.num_elsewhere)}: check the genome and the names of the chromosomes"
            )
        if check_genome:
            refuse_other_genome(self.overlap, "fragments", self.vocabulary)

    def finish(self, min_fragments: int) -> VocabularyCounts:
        """Sort the counts of the cells that have enough fragments."""
        kept = np.flatnonzero(self.num_fragments >= min_fragments)
        if not kept.size:
            raise ValueError(
                f"no barcode has {min_fragments:,} fragments or more: the largest of {len(self.barcodes):,} has "
                f"{self.num_fragments.max(initial=0):,}"
            )
        num_fragments, num_in_peaks = self.num_fragments[kept], self.num_in_peaks[kept]
        report = FragmentReport(
            num_fragments=self.num_lines,
            num_barcodes=int((self.num_fragments > 0).sum()),
            num_wanted=int(num_fragments.sum()),
            num_in_peaks=int(num_in_peaks.sum()),
            num_elsewhere=dict(self.num_elsewhere),
            counting=self.counting,
        )
        barcodes = [self.barcodes[i] for i in kept.tolist()]
        store = self.store.finish(kept)
        return VocabularyCounts(
            self.vocabulary, barcodes, num_fragments, num_in_peaks, report, store, self.store.scratch
        )


def _most(num_elsewhere: Mapping[str, int]) -> str:
    if not num_elsewhere:
        return ""
    most = Counter(num_elsewhere).most_common(3)
    return ", such as " + ", ".join(f"{name} ({count:,})" for name, count in most)


def _selected(batch: FragmentBatch, is_selected: NDArray[np.bool_]) -> FragmentBatch:
    if is_selected.all():
        return batch
    return FragmentBatch(*(column[is_selected] for column in batch))
