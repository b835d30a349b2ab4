from collections import Counter

import pytest
import torch
from datasets import Dataset

from epifoundation import PeakTokenizer
from epifoundation.training.batches import CellsToDraw, Draw
from epifoundation.training.triplets import TripletCollator


def batch_of(collator: TripletCollator, cells: Dataset, places: list[int], epoch: int = 0) -> list[tuple[int, ...]]:
    batch = collator(CellsToDraw(cells).__getitems__([Draw(5, epoch, place) for place in places]))
    return [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(*list(batch.values())[::2], strict=True)]


@pytest.fixture(scope="module")
def place_of(cells: Dataset) -> dict[tuple[int, ...], int]:
    places = {tuple(ids): i for i, ids in enumerate(cells["input_ids"])}
    assert len(places) == len(cells)
    return places


def test_partners_are_of_the_same_and_of_other_types(cells: Dataset, tokenizer: PeakTokenizer, place_of: dict) -> None:
    collator, types = TripletCollator(tokenizer, cells), cells["cell_type"][:]
    positives, negatives = Counter(), Counter()
    for epoch in range(60):
        found = [place_of[ids] for ids in batch_of(collator, cells, list(range(30)), epoch)]
        anchors, same, other = found[:30], found[30:60], found[60:]
        assert anchors == list(range(30))
        assert all(a != p and types[a] == types[p] for a, p in zip(anchors, same, strict=True))
        assert all(types[a] != types[n] for a, n in zip(anchors, other, strict=True))
        positives.update((a, p) for a, p in zip(anchors, same, strict=True))
        negatives.update(other)
    # Each of the nine others of its type is met, and all cells are negatives about equally often.
    assert len(positives) > 0.95 * 30 * 9
    assert min(negatives.values()) > 30
    assert max(negatives.values()) < 100


def test_draws_follow_seed_epoch_and_cell_alone(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator = TripletCollator(tokenizer, cells, max_peaks=8)
    together = batch_of(collator, cells, [4, 9, 2])
    for i, place in enumerate([4, 9, 2]):
        assert batch_of(collator, cells, [place]) == together[i::3]
    assert batch_of(collator, cells, [4, 9, 2], epoch=1) != together


def test_packed_batches_hold_the_same(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = CellsToDraw(cells).__getitems__([Draw(5, 0, place) for place in (4, 9)])
    padded, packed = (TripletCollator(tokenizer, cells, packing=packing)(rows) for packing in (False, True))
    assert torch.equal(packed["input_ids"][0], padded["input_ids"][padded["attention_mask"].bool()])
    assert len(packed["cu_seq_lens_q"]) == 7


def test_evaluation_draws_the_same_partners_each_time(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator, rows = TripletCollator(tokenizer, cells, deterministic=True), [cells[i] for i in range(5)]
    assert torch.equal(collator(rows)["input_ids"], collator(rows)["input_ids"])


def test_cells_of_unknown_type_are_no_partners_and_no_anchors(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    types = [0] + [1, -1] * 10 + [-1] * 9
    some = cells.remove_columns("cell_type").add_column("cell_type", types)
    collator = TripletCollator(tokenizer, some)
    rows = [some[0], some[1]]
    batch = collator(rows)
    sets = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert sets[2] == some[0]["input_ids"]  # alone of its type
    known = [some[i]["input_ids"] for i in range(30) if types[i] >= 0]
    assert all(ids in known for ids in sets)
    with pytest.raises(ValueError, match="of type -1, of which there is none to draw from"):
        collator([some[2]])


def test_one_type_is_too_few(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match="at least two known types, got 1"):
        TripletCollator(tokenizer, cells.filter(lambda row: row["cell_type"] == 0))
