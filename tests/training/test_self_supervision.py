import numpy as np
import pytest
import torch
from datasets import Dataset

from epifoundation import PeakTokenizer
from epifoundation.training.batches import CellsToDraw, Draw
from epifoundation.training.collators import AlignmentCollator
from epifoundation.training.self_supervision import CombinedCollator, MaskedPeaksCollator, ReplacedPeaksCollator

from .conftest import NUM_PEAKS

LONG = {"input_ids": np.r_[2, np.tile(np.arange(4, 4 + NUM_PEAKS), 500)]}  # 40,000 peaks, to count in


def rows_of(cells: Dataset, epoch: int = 0, places: tuple[int, ...] = (0, 1, 2, 3)) -> list[dict]:
    return CellsToDraw(cells).__getitems__([Draw(7, epoch, place) for place in places])


def share(values: np.ndarray) -> float:
    return float(np.mean(values))


def test_of_the_chosen_peaks_four_in_five_are_hidden_and_one_in_ten_replaced(tokenizer: PeakTokenizer) -> None:
    collator = MaskedPeaksCollator(tokenizer, probability=0.3, max_peaks=10**6)
    batch = collator([LONG])
    ids, labels, before = batch["input_ids"][0].numpy(), batch["labels"][0].numpy(), LONG["input_ids"]
    is_chosen = labels != -100
    assert (labels[is_chosen] == before[is_chosen]).all()
    assert (ids[~is_chosen] == before[~is_chosen]).all()
    assert not is_chosen[0]
    assert share(is_chosen[1:]) == pytest.approx(0.3, abs=0.01)
    assert share(ids[is_chosen] == 1) == pytest.approx(0.8, abs=0.02)
    # Of the replaced ones one in eighty is drawn as it was.
    assert share(ids[is_chosen] == before[is_chosen]) == pytest.approx(0.1 + 0.1 / NUM_PEAKS, abs=0.01)
    replaced = ids[is_chosen & (ids != 1) & (ids != before)]
    assert set(replaced) == set(range(4, 4 + NUM_PEAKS))


def test_chosen_peaks_are_replaced_by_any_and_a_draw_of_the_same_counts_as_its_own(tokenizer: PeakTokenizer) -> None:
    collator = ReplacedPeaksCollator(tokenizer, max_peaks=10**6)
    batch = collator([LONG])
    ids, labels, before = batch["input_ids"][0].numpy(), batch["labels"][0].numpy(), LONG["input_ids"]
    assert labels[0] == -100
    assert ids[0] == 2
    assert (labels[1:] == (ids != before)[1:]).all()
    expected = 0.45 * (1 - 1 / NUM_PEAKS)
    assert share(labels[1:]) == pytest.approx(expected, abs=0.01)
    counts = np.bincount(ids[labels == 1], minlength=4 + NUM_PEAKS)
    assert counts[:4].sum() == 0
    # With equal chances: each within five standard deviations of the mean.
    assert np.abs(counts[4:] - counts[4:].mean()).max() < 5 * np.sqrt(counts[4:].mean())


@pytest.mark.parametrize("kind", [MaskedPeaksCollator, ReplacedPeaksCollator])
def test_draws_follow_seed_epoch_and_cell_alone(kind: type, cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator = kind(tokenizer, max_peaks=10)
    together = collator(rows_of(cells))
    torch.manual_seed(99)
    for place in range(4):
        alone = collator(rows_of(cells, places=(place,)))
        length = alone["input_ids"].shape[1]
        for key, values in alone.items():
            assert torch.equal(values[0], together[key][place, :length]), key
    assert not torch.equal(collator(rows_of(cells, epoch=1))["labels"], together["labels"])


@pytest.mark.parametrize("kind", [MaskedPeaksCollator, ReplacedPeaksCollator])
def test_padded_and_packed_batches_hold_the_same(kind: type, cells: Dataset, tokenizer: PeakTokenizer) -> None:
    padded, packed = (kind(tokenizer, packing=packing)(rows_of(cells)) for packing in (False, True))
    is_token = padded["attention_mask"].bool()
    for key in ("input_ids", "chromosome_ids", "labels"):
        assert torch.equal(packed[key][0], padded[key][is_token]), key
    assert packed["cu_seq_lens_q"].diff().tolist() == is_token.sum(dim=1).tolist()
    assert padded["labels"][~is_token].eq(-100).all()
    # A hidden peak does not tell its chromosome, a replaced one that of the other.
    assert (padded["chromosome_ids"].numpy() == tokenizer.peak_chromosome_ids[padded["input_ids"].numpy()]).all()


def test_evaluation_asks_the_same_each_time(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)]
    collator = ReplacedPeaksCollator(tokenizer, deterministic=True, max_peaks=10)
    first, again, reversed_ = collator(rows), collator(rows), collator(rows[::-1])
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert torch.equal(first["labels"], reversed_["labels"].flip(0))


def test_batches_come_along(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [dict(cells[i]) for i in range(3)] + [dict(cells[3]) | {"batch": -1}]
    batch = ReplacedPeaksCollator(tokenizer, use_batches=True)(rows)
    assert batch["batch_ids"].tolist() == [row["batch"] for row in rows[:3]] + [-100]


@pytest.mark.parametrize("probability", [0, 1, -0.1])
def test_an_impossible_probability_is_refused(probability: float, tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
        MaskedPeaksCollator(tokenizer, probability=probability)


@pytest.mark.parametrize("packing", [False, True])
def test_three_objectives_read_the_same_peaks(packing: bool, cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = rows_of(cells)
    collator = CombinedCollator(tokenizer, max_peaks=20, max_genes=10, packing=packing)
    batch, aligned = collator(rows), AlignmentCollator(tokenizer, max_peaks=20, max_genes=10, packing=packing)(rows)
    for name, values in aligned.items():
        assert torch.equal(batch[name], values), name
    ids, replaced, masked = (batch[f"{view}input_ids"] for view in ("", "replaced_", "masked_"))
    is_replaced, is_asked = batch["replaced_labels"] == 1, batch["masked_labels"] != -100
    assert torch.equal(ids != replaced, is_replaced)
    assert torch.equal(batch["masked_labels"][is_asked], ids[is_asked])
    assert torch.equal(ids[~is_asked], masked[~is_asked])
    is_peak = ids >= 4
    assert 0.3 < is_replaced.sum() / is_peak.sum() < 0.6
    assert 0.05 < is_asked.sum() / is_peak.sum() < 0.3
    for view in ("replaced", "masked"):
        chromosomes = tokenizer.peak_chromosome_ids[batch[f"{view}_input_ids"].numpy()]
        assert (batch[f"{view}_chromosome_ids"].numpy() == chromosomes).all()


def test_evaluation_of_three_objectives_asks_the_same_each_time(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator = CombinedCollator(tokenizer, gene_ids=[4, 7], max_peaks=10)
    rows = [cells[i] for i in range(4)]
    first, again = collator(rows), collator(rows)
    assert all(torch.equal(first[name], again[name]) for name in first)
    replaced = ReplacedPeaksCollator(tokenizer, deterministic=True, max_peaks=10)(rows)
    assert torch.equal(first["replaced_labels"], replaced["labels"])
