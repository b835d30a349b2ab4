"""Tokenised cells as Arrow tables, a block of rows at a time."""

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from epifoundation.tokenization import Coverage, PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import LOW_COVERAGE, NUM_SPECIAL_TOKENS

from ..matrices.row_blocks import ENTRIES_PER_BLOCK
from .gene_counts import counts_by_gene
from .pairing import Pairing

MIN_BLOCKS = 16  # where there are as many cells: blocks are what processes and workers share among them
NO_LIMIT = int(np.iinfo(np.int64).max)


class RowReader(Protocol):
    """What rows are read from: a `MatrixFile`, a `MatrixTable` or a `RowStore`."""

    @property
    def indptr(self) -> np.ndarray:
        """(rows + 1,) int64, entries before each row."""
        ...

    @property
    def reads_any_order(self) -> bool:
        """Whether `rows` takes positions in any order, or only rising ones."""
        ...

    def rows(self, positions: np.ndarray) -> csr_matrix:
        """The rows at `positions`."""
        ...


class CellTables:
    """Makes tables of the cells of a pairing.

    Attributes:
        coverage: how much of the cells read so far the vocabulary could use; None before the first.
    """

    def __init__(
        self,
        pairing: Pairing,
        atac: RowReader,
        rna: RowReader | None,
        tokenizer: PeakTokenizer,
        allow_float_counts: bool = False,
    ) -> None:
        """Take what `pair` found and the sources it found it in.

        Args:
            pairing: the cells.
            atac: (cells, peaks) raw values.
            rna: (cells, genes) raw counts; it takes any order unless the cells have the same order in both.
            tokenizer: its peak vocabulary gives the ids.
            allow_float_counts: take counts that are not whole numbers.
        """
        self.pairing = pairing
        self.coverage: Coverage | None = None
        self._atac, self._rna = atac, rna
        # A tokenizer of our own: nothing is cut, and `coverage` of the caller's stays as it was.
        self._tokenizer = PeakTokenizer(tokenizer.vocabulary, max_peaks=NO_LIMIT)
        self._num_gene_ids = NUM_SPECIAL_TOKENS + len(tokenizer.genes or ())
        self._allow_float_counts = allow_float_counts

    def bounds(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[tuple[int, int]]:
        """Bounds (start, stop) of blocks of cells that read at most `max_entries` entries, or of a single cell.

        There are at least 16 blocks where there are as many cells.
        """
        starts, ends = _reading(self._atac, self.pairing.atac_rows)
        if self._rna is not None and self.pairing.rna_rows is not None:
            more = _reading(self._rna, self.pairing.rna_rows)
            starts, ends = starts + more[0], ends + more[1]
        num_cells = len(ends)
        ends = ends + np.arange(1, num_cells + 1)  # cells without entries take memory too
        starts = starts + np.arange(num_cells)
        max_cells = max(1, num_cells // MIN_BLOCKS)
        start = 0
        while start < num_cells:
            stop = int(np.searchsorted(ends, starts[start] + max_entries, side="right"))
            stop = min(max(stop, start + 1), start + max_cells)
            yield start, stop
            start = stop

    def table(self, start: int, stop: int) -> pa.Table:
        """The cells from `start` to `stop`, with all columns of the pairing's features.

        Raises:
            ValueError: if values are negative or not finite, or counts not whole, or a file is damaged.
        """
        cells, pairing = slice(start, stop), self.pairing
        columns: dict[str, Any] = {
            "barcode": pairing.barcodes[cells],
            "input_ids": self._input_ids(pairing.atac_rows[cells]),
            **{name: column[cells] for name, column in pairing.labels.items()},
        }
        if self._rna is not None and pairing.rna_rows is not None:
            columns["gene_ids"], columns["gene_counts"] = self._genes(self._rna, pairing.rna_rows[cells])
        return pa.table([columns[name] for name in pairing.features], schema=pairing.features.arrow_schema)

    def warn_if_low_coverage(self) -> None:
        """Warn if less than half of the open peaks read so far overlap a peak of the vocabulary."""
        if self.coverage is not None and self.coverage.entries_share < LOW_COVERAGE:
            warnings.warn(
                f"less than half of the open peaks can be used, so these cells teach little: {self.coverage.summary()} "
                "Check the genome, or count the fragments in the peaks of the vocabulary first.",
                stacklevel=3,
            )

    def _input_ids(self, positions: np.ndarray) -> pa.ListArray:
        cells = self._tokenizer(self._atac.rows(positions), peaks=self.pairing.peaks, check=False)["input_ids"]
        coverage = self._tokenizer.coverage
        self.coverage = coverage if self.coverage is None else self.coverage + coverage
        return _lists(np.concatenate(cells), np.cumsum([0, *map(len, cells)]))

    def _genes(self, rna: RowReader, positions: np.ndarray) -> tuple[pa.ListArray, pa.ListArray]:
        assert self.pairing.gene_ids is not None, "paired cells have genes"
        kept = counts_by_gene(rna.rows(positions), self.pairing.gene_ids, self._num_gene_ids, self._allow_float_counts)
        return _lists(kept.indices.astype(np.int32), kept.indptr), _lists(kept.data, kept.indptr)


def _reading(source: RowReader, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries passed before and after each of the cells, when they are read one after the other."""
    if not source.reads_any_order:
        return source.indptr[rows], source.indptr[rows + 1]
    lengths = source.indptr[rows + 1] - source.indptr[rows]
    ends = np.cumsum(lengths)
    return ends - lengths, ends


def _lists(values: np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))
