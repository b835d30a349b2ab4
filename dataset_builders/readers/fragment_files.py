"""Fragment files, as Cell Ranger and its kin write them, read in blocks of lines.

A line is a stretch of DNA that was sequenced in one cell: chromosome, start, end, barcode, and number of reads,
separated by tabs. Coordinates are base pairs, 0-based, end not included, as 10x defines them for its
``fragments.tsv.gz``: the first and the last base pair of a fragment are the two cut sites of the transposase.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, csv

from epifoundation.tokenization.genomes_epifoundation import (
    CHROMOSOME_LENGTHS,
    canonical_chromosome,
    canonical_genome,
)
from epifoundation.tokenization.intervals_epifoundation import MAX_COORDINATE

from .text_files import Block, TextFile

BLOCK_BYTES = 1 << 22  # of text, some 90,000 lines: with more, columns and keys leave the processor's cache
LINE_FORM = "chromosome, start, end, barcode and number of reads, separated by tabs"

NUM_SHOWN = 3  # names in a message
_NAMES = ("chromosome", "start", "end", "barcode", "count")
_TEXTS = pa.dictionary(pa.int32(), pa.string())
_TYPES = {"chromosome": _TEXTS, "start": pa.int32(), "end": pa.int32(), "barcode": _TEXTS, "count": pa.int32()}
_LANE = re.compile(r"-[0-9]+$")  # what Cell Ranger puts behind a barcode


class FragmentBatch(NamedTuple):
    """The fragments of one block of lines, in the order of the file, as columns of equal length.

    Attributes:
        chromosome_ids: (fragments,) index into `FragmentFile.chromosomes`.
        starts: (fragments,) base pairs, 0-based.
        ends: (fragments,) not included.
        barcode_ids: (fragments,) index into `FragmentFile.barcodes`; -1 if the barcode is not wanted.
        counts: (fragments,) reads that gave the fragment; 1 where the file has no fifth column.
    """

    chromosome_ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    barcode_ids: NDArray[np.int32]
    counts: NDArray[np.int32]


class FragmentFile:
    """A file of fragments, plain, gzip or bgzip; iterating over it gives one `FragmentBatch` after another.

    The lines may stand in any order. Comments (``#``), empty lines, Windows line ends and columns after the fifth are
    passed over; no index is needed. It can be read more than once.

    Attributes:
        path: the file.
        chromosomes: names as written in the file, in the order of their appearance; grows while reading.
        barcodes: with the prefix; the wanted ones, or all in the order of their appearance, growing while reading.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        barcodes: Sequence[str] | None = None,
        prefix: str = "",
        genome: str | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        """Look at the first line of a file; the others are read by iterating.

        Args:
            path: the file.
            barcodes: the wanted ones, with the prefix; those that do not begin with it belong to other samples. By
                default all are wanted.
            prefix: put before each barcode, to tell the cells of several samples apart.
            genome: refuse fragments that end beyond a chromosome of this assembly, if its lengths are known here.
            block_bytes: text read at a time.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no fragments, or no wanted barcode begins with the prefix.
        """
        self._text = TextFile(path)
        self.path = self._text.path
        self.chromosomes: list[str] = []
        self.barcodes = [] if barcodes is None else _of_sample(barcodes, prefix, self.path)
        self._wants_all = barcodes is None
        self._unwanted: list[str] = []
        self._prefix = prefix
        self._block_bytes = block_bytes
        self._genome = canonical_genome(genome) if genome is not None else ""
        self._chromosome_ids: dict[str, int] = {}
        self._barcode_ids = {name.removeprefix(prefix): i for i, name in enumerate(self.barcodes)}
        self._wanted = None if self._wants_all else pa.array(list(self._barcode_ids), pa.string())
        self._num_columns = _num_columns(self._text)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._text.num_bytes

    @property
    def num_bytes_read(self) -> int:
        """How much of the file was read so far, for a progress bar."""
        return self._text.num_bytes_read

    def __iter__(self) -> Iterator[FragmentBatch]:
        """Read the file from its beginning.

        Raises:
            ValueError: naming the line, if a line is no fragment or ends beyond its chromosome; if the file is
                truncated or damaged, or holds none of the wanted barcodes.
        """
        has_wanted = self._wants_all
        for block in self._text.blocks(self._block_bytes):
            batch = self._batch(block)
            has_wanted = has_wanted or bool((batch.barcode_ids >= 0).any())
            if len(batch.starts):
                yield batch
        if not has_wanted:
            raise ValueError(self._no_wanted_barcode())

    def _batch(self, block: Block) -> FragmentBatch:
        try:
            table = self._table(block.text)
        except pa.ArrowInvalid as error:
            raise self._explained(block, str(error)) from error
        chromosome_ids = self._known_chromosomes(table["chromosome"])
        starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
        counts = table["count"].to_numpy() if self._num_columns > 4 else np.ones(len(starts), np.int32)
        batch = FragmentBatch(chromosome_ids, starts, ends, self._known_barcodes(table["barcode"]), counts)
        if len(starts) and not self._is_sound(batch):
            raise self._explained(block, "")
        return batch

    def _table(self, text: bytes) -> pa.Table:
        """The first five columns, those with texts as a dictionary and indices."""
        try:
            table = self._parsed(text)
            # a comment may look like a fragment, but for its first character
            if not any(name.startswith("#") for name in _dictionary(table["chromosome"])):
                return table
        except pa.ArrowInvalid:
            pass
        return self._parsed(_without_comments(text))

    def _parsed(self, text: bytes) -> pa.Table:
        num_columns = self._num_columns
        names = [*_NAMES, *(f"extra {i}" for i in range(num_columns))][:num_columns]
        wanted = list(_NAMES[:num_columns])
        if not text:
            return pa.table({name: pa.array([], _TYPES[name]) for name in wanted})
        return csv.read_csv(
            pa.BufferReader(text),
            # one chunk, in one thread: reading several files at once uses the processors better
            read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types={name: _TYPES[name] for name in wanted},
                include_columns=wanted,
                null_values=[],
                strings_can_be_null=False,
            ),
        )

    def _known_chromosomes(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        names = _dictionary(column)
        for name in names:
            if name not in self._chromosome_ids:
                self._chromosome_ids[name] = len(self.chromosomes)
                self.chromosomes.append(name)
        return _ids(column, names, self._chromosome_ids)

    def _known_barcodes(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        if self._wanted is not None and len(column):
            # the same as below without a Python object for every text
            table = compute.index_in(column.chunk(0).dictionary, value_set=self._wanted).fill_null(-1).to_numpy()
            if len(self._unwanted) < NUM_SHOWN:
                unwanted = column.chunk(0).dictionary.filter(pa.array(table < 0)).slice(0, NUM_SHOWN).to_pylist()
                self._unwanted = list(dict.fromkeys([*self._unwanted, *unwanted]))[:NUM_SHOWN]
            ids: NDArray[np.int32] = table[column.chunk(0).indices.to_numpy()]
            return ids
        names = _dictionary(column)
        for name in names:
            if name not in self._barcode_ids:
                self._barcode_ids[name] = len(self.barcodes)
                self.barcodes.append(self._prefix + name)
        return _ids(column, names, self._barcode_ids)

    def _is_sound(self, batch: FragmentBatch) -> bool:
        """Whether all numbers and names of a batch make sense."""
        limits = np.array([self._length(name) for name in self.chromosomes], dtype=np.int32)
        return bool(
            batch.starts.min() >= 0
            and (batch.starts < batch.ends).all()
            and (batch.ends <= limits[batch.chromosome_ids]).all()
            and batch.counts.min() >= 1
            and "" not in self._chromosome_ids
            and "" not in self._barcode_ids
        )

    def _length(self, chromosome: str) -> int:
        lengths = CHROMOSOME_LENGTHS.get(self._genome, {})
        return lengths.get(canonical_chromosome(chromosome), MAX_COORDINATE)

    def _explained(self, block: Block, reason: str) -> ValueError:
        """The error that names the first bad line of a block."""
        before = self._text.line_number(block.offset)
        for number, line in enumerate(block.text.split(b"\n"), start=before):
            problem = "" if _is_passed_over(line) else self._problem(line.rstrip(b"\r").decode(errors="replace"))
            if problem:
                return ValueError(f"{self.path}, line {number:,}: {problem}")
        return ValueError(f"{self.path}, from line {before:,}: {reason}")

    def _problem(self, line: str) -> str:
        """What is wrong with a line; nothing if all is well."""
        fields = line.split("\t")
        if len(fields) != self._num_columns:
            return f"expected {self._num_columns} columns as in the first line, got {len(fields)}: {line[:80]!r}"
        numbers = [fields[1], fields[2], *fields[4:5]]
        if not all(re.fullmatch(r"-?[0-9]+", number) for number in numbers):
            return f"expected {LINE_FORM}, got {line[:80]!r}"
        start, end, count = int(fields[1]), int(fields[2]), int(fields[4]) if len(fields) > 4 else 1
        length = self._length(fields[0])
        if not fields[0] or not fields[3]:
            return f"there is no {'barcode' if fields[0] else 'chromosome'}: {line[:80]!r}"
        if not 0 <= start < end:
            return f"expected 0 <= start < end, got the start {start:,} and the end {end:,}"
        if end > length:
            return f"the fragment ends at {end:,}, beyond {self._end_of(fields[0], length)}"
        if not 1 <= count <= MAX_COORDINATE:
            return f"expected at least 1 read, got {count:,}"
        return ""

    def _end_of(self, chromosome: str, length: int) -> str:
        if length == MAX_COORDINATE:
            return "what a chromosome can measure"
        return (
            f"the {length:,} base pairs of {chromosome} in {self._genome}: check the genome; only fragments of "
            f"{self._genome} can be used here"
        )

    def _no_wanted_barcode(self) -> str:
        wanted = list(self._barcode_ids)
        text = (
            f"{self.path} has none of the {len(wanted):,} wanted barcodes: it has barcodes like "
            f"{', '.join(self._unwanted[:NUM_SHOWN])}, wanted are ones like {', '.join(wanted[:NUM_SHOWN])}"
        )
        have_lane = [all(_LANE.search(name) for name in names) for names in (self._unwanted, wanted)]
        if have_lane[0] != have_lane[1]:
            return f"{text}; only {'these' if have_lane[1] else 'those'} end with a number after '-': add or remove it"
        return f"{text}; check that both are of one sample, and the ending such as '-1'"


def _of_sample(barcodes: Sequence[str], prefix: str, path: Path) -> list[str]:
    """The wanted barcodes that begin with the prefix, each once."""
    if isinstance(barcodes, str):
        raise TypeError(f"expected a list of barcodes, got the single text {barcodes!r}: put it in a list")
    chosen = list(dict.fromkeys(name for name in map(str, barcodes) if name.startswith(prefix)))
    if not chosen:
        shown = ", ".join(map(str, barcodes[:NUM_SHOWN])) or "none at all"
        raise ValueError(f"no wanted barcode of {path} begins with its prefix {prefix!r}: they are {shown}")
    return chosen


def _num_columns(text: TextFile) -> int:
    """Number of columns of the first line that is no comment."""
    for block in text.blocks(1 << 16):
        for line in block.text.split(b"\n"):
            if _is_passed_over(line):
                continue
            fields = line.rstrip(b"\r").decode(errors="replace").split("\t")
            if len(fields) > 3:
                return len(fields)
            shown = "\t".join(fields)[:80]
            if len(fields) == 3:
                raise ValueError(
                    f"{text.path} has no barcodes: expected {LINE_FORM}, got three columns ({shown!r}); if it is "
                    "bulk data, a file for each sample, let its name end with .bed (count_bed_files)"
                )
            raise ValueError(f"{text.path} is no fragment file: expected {LINE_FORM}, got {shown!r}")
    raise ValueError(f"{text.path} holds no fragments: expected lines of {LINE_FORM}")


def _dictionary(column: pa.ChunkedArray) -> list[str]:
    """The distinct texts of a column, in the order of their appearance."""
    names: list[str] = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    return names


def _ids(column: pa.ChunkedArray, names: list[str], id_of: dict[str, int]) -> NDArray[np.int32]:
    """The id of each row, -1 where the text has none."""
    if not len(column):
        return np.zeros(0, dtype=np.int32)
    table = np.fromiter((id_of.get(name, -1) for name in names), dtype=np.int32, count=len(names))
    ids: NDArray[np.int32] = table[column.chunk(0).indices.to_numpy()]
    return ids


def _is_passed_over(line: bytes) -> bool:
    return line.startswith(b"#") or not line.strip()


def _without_comments(text: bytes) -> bytes:
    return b"\n".join(line for line in text.split(b"\n") if not _is_passed_over(line))
