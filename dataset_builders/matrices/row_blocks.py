"""Blocks of rows that hold a bounded number of entries."""

from collections.abc import Iterator

import numpy as np

ENTRIES_PER_BLOCK = 4_000_000  # stored entries: some 50 MB as CSR, a few times that while it is tokenised


def row_blocks(indptr: np.ndarray, max_entries: int) -> Iterator[tuple[int, int]]:
    """Bounds (start, stop) of blocks of rows with at most `max_entries` entries, or of a single row.

    Args:
        indptr: (rows + 1,) int64, entries before each row.
        max_entries: bound per block.
    """
    running = indptr + np.arange(len(indptr))  # rows without entries take memory too
    start = 0
    while start < len(indptr) - 1:
        stop = int(np.searchsorted(running, running[start] + max_entries, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop
