"""Peaks as stretches of the genome: reading their names and finding which of them overlap.

Coordinates are base pairs, 0-based, end not included, as in BED. Many peaks at once are held as columns
(`PeakColumns`), because a data set has up to a million of them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .genomes_epifoundation import canonical_chromosome

MAX_COORDINATE = int(np.iinfo(np.int32).max)
PEAK_FORMS = "'chr1:100-200', 'chr1-100-200' or 'chr1_100_200', with or without 'chr'"

# The last two numbers are the coordinates, whatever comes before is the chromosome: names of scaffolds hold
# separators themselves (chr1_KI270706v1_random-100-200). The chromosome may not end with a separator, or a
# negative start would be read as part of it. Ten digits hold every int32. Reading the chromosome lazily takes
# a third of the time.
_PEAK_NAME = re.compile(r"^(\S*?[^\s:_-])[:_-]([0-9]{1,10})[_-]([0-9]{1,10})$", re.MULTILINE)

# Names are read in blocks: the strings cut out of a million names at once take some 250 MB, and a block that
# stays in the processor's cache is read faster.
_BLOCK = 10_000


class Peak(NamedTuple):
    """A stretch of the genome in base pairs: 0-based, end not included."""

    chromosome: str
    start: int
    end: int


class PeakColumns(NamedTuple):
    """Many peaks as columns.

    Attributes:
        chromosomes: canonical names, in order of first appearance.
        codes: (peaks,) int32, index of each peak's chromosome in `chromosomes`.
        starts: (peaks,) int32.
        ends: (peaks,) int32, not included.
    """

    chromosomes: tuple[str, ...]
    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def parse_peak(name: str) -> Peak:
    """Read one peak name such as ``chr1:100-200``; the chromosome comes back in canonical spelling.

    Raises:
        ValueError: if the name has another form, the peak is empty or lies beyond what int32 can hold.
    """
    columns = parse_peaks([name])
    return Peak(columns.chromosomes[0], int(columns.starts[0]), int(columns.ends[0]))


def parse_peaks(names: Iterable[str]) -> PeakColumns:
    """Read many peak names, each in any of the accepted forms.

    Raises:
        TypeError: if `names` is a single text, or holds something other than texts.
        ValueError: naming the first bad names, if a name has another form, a peak is empty (its start does
            not lie before its end), or a coordinate exceeds `MAX_COORDINATE`.
    """
    if isinstance(names, str):
        raise TypeError(f"expected a list of peak names, got the single text {names!r}: put it in a list")
    listed = list(names)
    reader = _ColumnReader()
    for begin in range(0, len(listed), _BLOCK):
        reader.add(_match_block(listed[begin : begin + _BLOCK]))
    columns = reader.columns()
    _refuse_bad_intervals(columns, listed)
    return columns


def columns_of_fields(blocks: Iterable[list[tuple[str, str, str]]]) -> PeakColumns:
    """Columns of (chromosome, start, end) texts that come in blocks; coordinates are not checked."""
    reader = _ColumnReader()
    for block in blocks:
        reader.add(block)
    return reader.columns()


class _ColumnReader:
    """Gathers (chromosome, start, end) texts into columns."""

    def __init__(self) -> None:
        self._code_of_spelling: dict[str, int] = {}
        self._code_of_name: dict[str, int] = {}
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, fields: list[tuple[str, str, str]]) -> None:
        if not fields:
            return
        spellings = [spelling for spelling, _, _ in fields]
        for spelling in dict.fromkeys(spellings):
            if spelling not in self._code_of_spelling:
                name = canonical_chromosome(spelling)
                self._code_of_spelling[spelling] = self._code_of_name.setdefault(name, len(self._code_of_name))
        size = len(fields)
        codes = np.fromiter(map(self._code_of_spelling.__getitem__, spellings), dtype=np.int32, count=size)
        # int64 first, so that a coordinate beyond int32 is seen instead of wrapping round
        self._parts.append(
            (
                codes,
                np.fromiter((int(start) for _, start, _ in fields), dtype=np.int64, count=size),
                np.fromiter((int(end) for _, _, end in fields), dtype=np.int64, count=size),
            )
        )

    def columns(self) -> PeakColumns:
        if not self._parts:
            empty = np.zeros(0, dtype=np.int32)
            return PeakColumns((), empty, empty.copy(), empty.copy())
        codes, starts, ends = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return PeakColumns(tuple(self._code_of_name), codes, _narrow(starts), _narrow(ends))


def _narrow(coordinates: np.ndarray) -> np.ndarray:
    """The coordinates as int32 if all fit, else as they are, for the check that follows to refuse."""
    return coordinates.astype(np.int32) if coordinates.max() <= MAX_COORDINATE else coordinates


def _match_block(names: list[str]) -> list[tuple[str, str, str]]:
    """The three parts of each name; one regular expression reads the whole block."""
    try:
        text = "\n".join(names)
    except TypeError:
        odd = next(name for name in names if not isinstance(name, str))
        raise TypeError(f"expected peak names as text, got {odd!r} of type {type(odd).__name__}") from None
    fields: list[tuple[str, str, str]] = _PEAK_NAME.findall(text)
    # a line matches once at most, so equal counts mean that every name was read
    if len(fields) != len(names) or text.count("\n") != len(names) - 1:
        bad = [name for name in names if "\n" in name or _PEAK_NAME.fullmatch(name) is None]
        raise ValueError(
            f"cannot read {_listed(bad)} as peaks: expected names like {PEAK_FORMS}, with coordinates in "
            f"base pairs from 0 to {MAX_COORDINATE:,}; if the table also holds genes, select its peaks first"
        )
    return fields


def _refuse_bad_intervals(columns: PeakColumns, names: Sequence[str]) -> None:
    too_far = np.flatnonzero((columns.starts > MAX_COORDINATE) | (columns.ends > MAX_COORDINATE))
    if too_far.size:
        shown = _listed([names[i] for i in too_far[:4]], too_far.size)
        raise ValueError(f"coordinates of {shown} exceed {MAX_COORDINATE:,}: expected base pairs on a chromosome")
    empty = np.flatnonzero(columns.starts >= columns.ends)
    if empty.size:
        shown = _listed([names[i] for i in empty[:4]], empty.size)
        raise ValueError(f"empty: {shown}; the start of a peak must lie before its end")


def _listed(names: Sequence[str], count: int | None = None) -> str:
    """The first three of the names in quotes, and how many more there are."""
    count = len(names) if count is None else count
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown} and {count - 3:,} more" if count > 3 else shown


def global_positions(codes: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """One int64 per position that sorts by chromosome code, then by position."""
    return (codes.astype(np.int64) << 32) | positions.astype(np.int64)


def overlapping_pairs(
    query_starts: np.ndarray, query_ends: np.ndarray, reference_starts: np.ndarray, reference_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a query and a reference interval that share at least one base pair.

    References may overlap each other, and so may queries. Of two intervals that overlap, one starts inside
    the other. So the pairs are the references that start inside a query, and the queries that start inside a
    reference (strictly, to count each pair once): two binary searches, and work in proportion to the pairs
    found, however long the longest interval is.

    Args:
        query_starts: (queries,) global positions (see `global_positions`); the others likewise.
        query_ends: (queries,) not included; every interval holds at least one base pair.
        reference_starts: (references,)
        reference_ends: (references,)

    Returns:
        query indices (pairs,), reference indices (pairs,), shared base pairs (pairs,); in no particular
        order.
    """
    first = _pairs_starting_inside(reference_starts, query_starts, query_ends, "left")
    second = _pairs_starting_inside(query_starts, reference_starts, reference_ends, "right")
    queries = np.concatenate([first[1], second[0]])
    references = np.concatenate([first[0], second[1]])
    overlap = np.minimum(query_ends[queries], reference_ends[references])
    overlap -= np.maximum(query_starts[queries], reference_starts[references])
    return queries, references, overlap


def _pairs_starting_inside(
    inner_starts: np.ndarray, outer_starts: np.ndarray, outer_ends: np.ndarray, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (inner, outer) where inner starts inside outer; a common start counts if `side` is "left"."""
    order = np.argsort(inner_starts, kind="stable")
    ordered = inner_starts[order]
    begin = np.searchsorted(ordered, outer_starts, side="left" if side == "left" else "right")
    end = np.searchsorted(ordered, outer_ends, side="left")
    counts = np.maximum(end - begin, 0)
    outer = np.repeat(np.arange(len(outer_starts)), counts)
    # the n-th pair of an outer interval is begin + n: count all pairs through, less those before it
    before = np.cumsum(counts) - counts
    inner = np.arange(len(outer)) - np.repeat(before - begin, counts)
    return order[inner], outer


def best_overlap(
    query_starts: np.ndarray, query_ends: np.ndarray, reference_starts: np.ndarray, reference_ends: np.ndarray
) -> np.ndarray:
    """One reference for each query: the one that shares most base pairs with it.

    Ties go to the higher reciprocal overlap (shared base pairs over the length of the longer of the two),
    then to the lower index; so a reference with the very coordinates of the query always wins. Arguments as
    in `overlapping_pairs`.

    Returns:
        (queries,) int64 index of the reference, -1 where none overlaps.
    """
    queries, references, overlap = overlapping_pairs(query_starts, query_ends, reference_starts, reference_ends)
    best = np.full(len(query_starts), -1, dtype=np.int64)
    # With the overlap tied, the higher reciprocal overlap is the shorter of the two longer intervals: no
    # division.
    longer = np.maximum(
        query_ends[queries] - query_starts[queries], reference_ends[references] - reference_starts[references]
    )
    worst_first = np.lexsort((-references, -longer, overlap))
    # with repeated indices the last assignment stays, that of the best pair
    best[queries[worst_first]] = references[worst_first]
    return best
