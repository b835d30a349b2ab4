"""Batches whose labels come from the cells themselves: masked and replaced peaks."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.tokenization import NUM_SPECIAL_TOKENS, PeakTokenizer
from epifoundation.training.collators import IGNORED_LABEL, AlignmentCollator, CellCollator, Row

# Of the peaks to be predicted, as for BERT (Devlin et al. 2019): hidden, replaced by any other, left as they are.
HIDDEN, REPLACED = 0.8, 0.1


class CorruptionCollator(CellCollator):
    """What both have in common: some peaks of a cell are changed, and the model is asked about them.

    Args:
        tokenizer: as for `CellCollator`.
        probability: with which each peak is chosen, independently.
        **kwargs: as for `CellCollator`. With `deterministic` what is chosen follows from the cell's own peaks, so that
            evaluation asks the same each time.

    Raises:
        ValueError: if the probability does not lie in (0, 1).
    """

    def __init__(self, tokenizer: PeakTokenizer, *, probability: float, **kwargs: Any) -> None:
        if not 0 < probability < 1:
            raise ValueError(f"probability must lie between 0 and 1, got {probability}")
        super().__init__(tokenizer, **kwargs)
        self.probability = probability

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch of `rows`."""
        rngs = self._rngs(rows)
        cells = self._drawn(rows, rngs)
        if self.deterministic:
            rngs = [rng_of_content(cell) for cell in cells]
        return self.corrupted_batch(cells, rngs) | self._targets(rows, rngs)

    def corrupted_batch(self, cells: list[np.ndarray], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """The cells, corrupted, with their `labels`; `cells` are ids of the peaks that are read."""
        corrupted, asked = zip(*(self.corrupted(cell, rng) for cell, rng in zip(cells, rngs, strict=True)), strict=True)
        return self._joined(list(corrupted)) | {"labels": self._joined_labels([torch.from_numpy(ids) for ids in asked])}

    @abstractmethod
    def corrupted(self, cell: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a cell with some changed, and a label for each, -100 where nothing is asked."""

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        return {}

    def _joined_labels(self, labels: list[Tensor]) -> Tensor:
        if self.packing:
            return torch.cat(labels)[None]
        return torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)

    def _is_chosen(self, cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (rng.random(len(cell)) < self.probability) & (cell >= NUM_SPECIAL_TOKENS)

    def _any_peaks(self, num_peaks: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(NUM_SPECIAL_TOKENS, len(self.tokenizer), num_peaks)


class MaskedPeaksCollator(CorruptionCollator):
    """Batches for `EpiFoundationForMaskedPeaks`: chosen peaks are to be named.

    Four of five chosen peaks are hidden behind ``[MASK]``, without their chromosome; one in ten is replaced by any
    peak of the vocabulary and one in ten left (BERT).

    Args:
        tokenizer: as for `CellCollator`.
        probability: share of peaks chosen.
        **kwargs: as for `CorruptionCollator`.
    """

    def __init__(self, tokenizer: PeakTokenizer, *, probability: float = 0.15, **kwargs: Any) -> None:
        super().__init__(tokenizer, probability=probability, **kwargs)

    def corrupted(self, cell: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See the base class; a label is the id of the peak that was there."""
        is_chosen, what = self._is_chosen(cell, rng), rng.random(len(cell))
        ids = cell.astype(np.int64)
        labels = np.where(is_chosen, ids, IGNORED_LABEL)
        ids[is_chosen & (what < HIDDEN)] = self.tokenizer.mask_token_id
        is_replaced = is_chosen & (what >= HIDDEN) & (what < HIDDEN + REPLACED)
        ids[is_replaced] = self._any_peaks(int(is_replaced.sum()), rng)
        return ids, labels


class ReplacedPeaksCollator(CorruptionCollator):
    """Batches for `EpiFoundationForReplacedPeaks` and `EpiFoundationForBatchCorrection`: chosen peaks are replaced.

    Each chosen peak gives way to one drawn from the whole vocabulary, with equal chances and whatever else the cell
    holds. Where the draw hits the peak itself, it counts as the cell's own (Atacformer).

    Args:
        tokenizer: as for `CellCollator`.
        probability: share of peaks chosen (paper: 0.45; the default of the official code is 0.15).
        use_batches: pass on the `batch` of each row as `batch_ids`, -100 where it is unknown (-1).
        **kwargs: as for `CorruptionCollator`.
    """

    def __init__(
        self, tokenizer: PeakTokenizer, *, probability: float = 0.45, use_batches: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(tokenizer, probability=probability, **kwargs)
        self.use_batches = use_batches

    def corrupted(self, cell: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See the base class; a label is 1 at another peak, 0 at the cell's own, -100 at special tokens."""
        is_chosen, ids = self._is_chosen(cell, rng), cell.astype(np.int64)
        ids[is_chosen] = self._any_peaks(int(is_chosen.sum()), rng)
        labels = np.where(cell >= NUM_SPECIAL_TOKENS, (ids != cell).astype(np.int64), IGNORED_LABEL)
        return ids, labels

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        if not self.use_batches:
            return {}
        batches = torch.tensor([int(row["batch"]) for row in rows])
        return {"batch_ids": batches.masked_fill(batches < 0, IGNORED_LABEL)}


class CombinedCollator(AlignmentCollator):
    """Batches for `EpiFoundationForCombinedObjectives`: those of alignment, and the same cells corrupted in two ways.

    The same peaks of a cell are read in all three; see `ReplacedPeaksCollator` and `MaskedPeaksCollator`.

    Args:
        tokenizer: as for `AlignmentCollator`.
        replaced_share: share of peaks that are replaced.
        masked_share: share of peaks that are to be named.
        **kwargs: as for `AlignmentCollator`.
    """

    def __init__(
        self, tokenizer: PeakTokenizer, *, replaced_share: float = 0.45, masked_share: float = 0.15, **kwargs: Any
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.corruptions = {
            "replaced": ReplacedPeaksCollator(tokenizer, probability=replaced_share, packing=self.packing),
            "masked": MaskedPeaksCollator(tokenizer, probability=masked_share, packing=self.packing),
        }

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch of `rows`."""
        rngs = self._rngs(rows)
        cells = self._drawn(rows, rngs)
        batch = self._joined(cells) | self._targets(rows, rngs)
        if self.deterministic:
            rngs = [rng_of_content(cell) for cell in cells]
        for name, corruption in self.corruptions.items():
            of_this = corruption.corrupted_batch(cells, rngs)
            batch |= {f"{name}_{part}": of_this[part] for part in ("input_ids", "chromosome_ids", "labels")}
        return batch


def rng_of_content(input_ids: Any) -> np.random.Generator:
    """A source of draws that follows from the ids alone, the same on every machine."""
    return np.random.default_rng(zlib.crc32(np.asarray(input_ids).astype("<i8").tobytes()))
