"""Bulk samples: sets of peaks in BED, narrowPeak or broadPeak files, of which each stands for one cell."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from epifoundation.tokenization import PeakVocabulary
from epifoundation.tokenization.intervals_epifoundation import MAX_COORDINATE, PeakColumns, columns_of_fields

from ..genome.genome_check import OverlapByChance, refuse_other_genome
from ..genome.peak_finder import PeakFinder
from ..matrices.count_store import CountStore
from .fragment_counts import SECONDS_WITHOUT_PROGRESS, FragmentReport, VocabularyCounts
from .text_files import Block, TextFile

BLOCK_BYTES = 1 << 22
ENDINGS = (".bed", ".narrowPeak", ".broadPeak")  # each also with .gz behind it
_LINE = re.compile(r"^(\S+)[ \t]+([0-9]{1,10})[ \t]+([0-9]{1,10})(?:[ \t\r].*)?$", re.MULTILINE)
_PASSED_OVER = re.compile(r"^(?:\s*|(?:#|track|browser).*)$")


def is_bed_file(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends as those of BED files do."""
    return Path(path).name.removesuffix(".gz").endswith(ENDINGS)


def read_bed_file(path: str | os.PathLike[str]) -> PeakColumns:
    """The intervals of a BED file, plain or gzip; names, scores and further columns are passed over.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if one is no interval; if there are none.
    """
    file = TextFile(path)
    columns = columns_of_fields(_fields(file, block) for block in file.blocks(BLOCK_BYTES))
    if not len(columns.starts):
        raise ValueError(f"{file.path} holds no intervals: expected lines of chromosome, start and end")
    bad = np.flatnonzero((columns.starts >= columns.ends) | (columns.ends > MAX_COORDINATE))
    if bad.size:
        start, end = int(columns.starts[bad[0]]), int(columns.ends[bad[0]])
        line = _line_of(file, start, end)
        raise ValueError(
            f"{file.path}, line {line:,}: expected start < end, got the start {start:,} and the end {end:,}"
        )
    return columns


def count_bed_files(
    files: Sequence[str | os.PathLike[str]],
    vocabulary: PeakVocabulary,
    *,
    names: Sequence[str] | None = None,
    check_genome: bool = True,
    show_progress: bool = True,
) -> VocabularyCounts:
    """Find the peaks of a vocabulary that are open in bulk samples.

    Args:
        files: one BED, narrowPeak or broadPeak file for each sample.
        vocabulary: the peaks.
        names: of the samples, which become the rows; by default the names of the files without their endings.
        check_genome: refuse intervals that lie in the peaks no more than by chance, as those of another genome do.
        show_progress: show a progress bar on a terminal if the work takes more than a few seconds.

    Returns:
        (samples, peaks) number of intervals that overlap each peak, as `count_fragments` gives them.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: as `read_bed_file`; if two samples have one name, or the intervals are of another genome.
    """
    names = [_stem(path) for path in files] if names is None else list(names)
    if not names or len(set(names)) != len(files):
        raise ValueError(f"expected a name of its own for each of {len(files):,} files, got {', '.join(names[:3])}")
    finder, store, overlap = PeakFinder(vocabulary), CountStore(len(vocabulary)), OverlapByChance()
    num_intervals, num_in_peaks = np.zeros((2, len(names)), dtype=np.int64)
    disable = None if show_progress else True
    for row, path in enumerate(tqdm(files, "reading files", delay=SECONDS_WITHOUT_PROGRESS, disable=disable)):
        columns = read_bed_file(path)
        codes = finder.chromosome_codes(columns.chromosomes)[columns.codes]
        is_known = codes >= 0
        known = (codes[is_known], columns.starts[is_known], columns.ends[is_known])
        intervals, peaks = finder.pairs(*known)
        overlap.add(finder, *known)
        store.add(np.full(len(peaks), row), peaks, len(names))
        num_intervals[row], num_in_peaks[row] = len(columns.starts), len(np.unique(intervals))
    if check_genome:
        refuse_other_genome(overlap, "intervals", vocabulary)
    total = int(num_intervals.sum())
    report = FragmentReport(total, len(names), total, int(num_in_peaks.sum()), {}, "interval")
    rows = store.finish(np.arange(len(names)))
    return VocabularyCounts(vocabulary, names, num_intervals, num_in_peaks, report, rows, store.scratch)


def _line_of(file: TextFile, start: int, end: int) -> int:
    """Number of the first line with these coordinates."""
    for block in file.blocks(BLOCK_BYTES):
        for number, line in enumerate(block.text.decode(errors="replace").split("\n")):
            match = _LINE.match(line)
            if match and (int(match[2]), int(match[3])) == (start, end):
                return file.line_number(block.offset) + number
    raise AssertionError("the line was read a moment ago")


def _stem(path: str | os.PathLike[str]) -> str:
    name = Path(path).name.removesuffix(".gz")
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def _fields(file: TextFile, block: Block) -> list[tuple[str, str, str]]:
    text = block.text.decode(errors="replace")
    fields: list[tuple[str, str, str]] = _LINE.findall(text)
    lines = text.split("\n")
    if len(fields) != len(lines) - lines.count(""):  # comments, or bad lines
        for number, line in enumerate(lines):
            if not _PASSED_OVER.match(line) and not _LINE.match(line):
                at = file.line_number(block.offset) + number
                raise ValueError(
                    f"{file.path}, line {at:,}: expected chromosome, start and end, separated by tabs, "
                    f"got {line[:80]!r}"
                )
    return [field for field in fields if not field[0].startswith(("#", "track", "browser"))]
