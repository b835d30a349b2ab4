"""Batches of triplets: cells, others of the same type, others of another type."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.collators import CellCollator, Row
from epifoundation.training.self_supervision import rng_of_content


class TripletCollator(CellCollator):
    """Batches for `EpiFoundationForCellClustering`.

    The rows of a batch are the anchors. For each a positive is drawn from the other cells of its type, and a negative
    from all cells of other types, each with equal chances; a cell that is alone of its type is its own positive.
    A batch holds three times as many cells as rows: anchors, positives, negatives; `labels` are the anchors' types.
    With `deterministic` the partners follow from the anchor's peaks.

    Args:
        tokenizer: as for `CellCollator`.
        cells: the tokenised cells to draw partners from, of training or of evaluation, with their `cell_type`.
        **kwargs: as for `CellCollator`.

    Raises:
        ValueError: if there are fewer than two types.
    """

    def __init__(self, tokenizer: PeakTokenizer, cells: Dataset, **kwargs: Any) -> None:
        super().__init__(tokenizer, **kwargs)
        types = np.asarray(cells.with_format("numpy")["cell_type"][:], dtype=np.int64)
        self.types = np.unique(types[types >= 0])
        if len(self.types) < 2:
            raise ValueError(f"triplets need cells of at least two known types, got {len(self.types)}")
        self.cells = cells.select_columns("input_ids").with_format("numpy")
        # The cells in the order of their types; those of type t begin at starts[t].
        self.order = np.argsort(types, kind="stable")[(types < 0).sum() :]
        self.starts = dict(zip(self.types.tolist(), np.searchsorted(types[self.order], self.types), strict=True))
        self.counts = {t: int((types == t).sum()) for t in self.types.tolist()}

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch of `rows` and their partners.

        Raises:
            ValueError: if the type of a row is unknown, or no partner is of it.
        """
        rngs = self._rngs(rows)
        anchors = self._drawn(rows, rngs)
        if self.deterministic:
            rngs = [rng_of_content(row["input_ids"]) for row in rows]
        places = [place for row, rng in zip(rows, rngs, strict=True) for place in self._partners(row, rng)]
        read = self.cells[places]["input_ids"]
        # The anchor itself is known by its peaks.
        positives = [
            second if np.array_equal(first, row["input_ids"]) else first
            for row, first, second in zip(rows, read[::3], read[1::3], strict=True)
        ]
        others = self._drawn([{"input_ids": ids} for ids in (*positives, *read[2::3])], [*rngs, *rngs])
        return self._joined([*anchors, *others]) | self._targets(rows, rngs)

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        return {"labels": torch.tensor([int(row["cell_type"]) for row in rows])}

    def _partners(self, row: Row, rng: np.random.Generator) -> tuple[int, int, int]:
        """Places among `cells` of two of the row's type, different ones if there are, and of one of another type."""
        kind = int(row["cell_type"])
        if kind not in self.starts:
            raise ValueError(
                f"a cell is of type {kind}, of which there is none to draw from; leave cells of unknown type out"
            )
        start, count = self.starts[kind], self.counts[kind]
        first = rng.integers(count)
        second = (first + rng.integers(1, count)) % count if count > 1 else first
        other = rng.integers(len(self.order) - count)
        other = other if other < start else other + count
        return int(self.order[start + first]), int(self.order[start + second]), int(self.order[other])
