import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.training.batches import CellBatchSampler, CellsToDraw, Draw, token_lengths
from epifoundation.training.collators import DRAW_SEED

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80).map(np.array)
LIMITS = st.tuples(st.none() | st.integers(1, 200), st.none() | st.integers(1, 20)).filter(any)


def num_tokens(lengths: np.ndarray, is_packed: bool) -> int:
    return int(lengths.sum() if is_packed else lengths.max() * len(lengths))


@settings(max_examples=200)
@given(LENGTHS, LIMITS, st.booleans(), st.none() | st.integers(1, 30), st.integers(1, 4), st.integers(1, 3))
def test_every_cell_is_seen_once_and_every_process_has_as_many_batches(
    lengths: np.ndarray,
    limits: tuple[int | None, int | None],
    is_packed: bool,
    pool_size: int | None,
    num_processes: int,
    num_epochs: int,
) -> None:
    max_tokens, max_cells = limits
    if len(lengths) < num_processes:
        return
    samplers = [
        CellBatchSampler(
            lengths,
            max_tokens=max_tokens,
            max_cells=max_cells,
            is_packed=is_packed,
            pool_size=pool_size,
            process_index=process,
            num_processes=num_processes,
        )
        for process in range(num_processes)
    ]
    for sampler in samplers:
        sampler.fit_epochs(num_epochs)
    for epoch in range(num_epochs):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        of_process = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in of_process} == {len(samplers[0])}
        batches = [batch for process in of_process for batch in process]
        assert sorted(draw.cell for batch in batches for draw in batch) == list(range(len(lengths)))
        assert {draw.epoch for batch in batches for draw in batch} == {epoch}
        if len(lengths) % num_processes == 0:  # otherwise cells may have to be joined
            for batch in batches:
                cells = [draw.cell for draw in batch]
                assert len(cells) <= (max_cells or len(lengths))
                assert len(cells) == 1 or num_tokens(lengths[cells], is_packed) <= (max_tokens or np.inf)


def test_plans_follow_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in CellBatchSampler(lengths, max_tokens=200, seed=seed).plan(epoch)]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(1, 1)
    assert plan(1, 0) != plan(2, 0)


def test_the_processes_share_out_one_plan() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    whole = list(CellBatchSampler(lengths, max_cells=5))
    halves = [list(CellBatchSampler(lengths, max_cells=5, process_index=i, num_processes=2)) for i in range(2)]
    assert [batch for pair in zip(*halves, strict=True) for batch in pair] == whole


def test_sorting_saves_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(3, 1, 2000).astype(int) + 1

    def padded(pool_size: int | None) -> int:
        sampler = CellBatchSampler(lengths, max_tokens=500, pool_size=pool_size)
        return sum(num_tokens(lengths[batch], is_packed=False) for batch in sampler.plan(0))

    assert padded(None) < 1.1 * lengths.sum()
    assert padded(1) > 1.3 * lengths.sum()


def test_batches_of_four_are_the_quarters_of_batches_of_sixteen() -> None:
    lengths = np.ones(64, dtype=int)
    four, sixteen = (CellBatchSampler(lengths, max_cells=n).plan(0) for n in (4, 16))
    np.testing.assert_array_equal(np.concatenate(four), np.concatenate(sixteen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected max_tokens or max_cells"),
        ({"max_cells": 0}, "max_cells must be at least 1, got 0"),
        ({"max_cells": 2, "num_processes": 4}, "3 training cells cannot be shared among 4 processes"),
    ],
)
def test_bad_limits_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellBatchSampler(np.array([1, 2, 3]), **options)


def test_lengths_are_those_that_are_read(cells: Dataset) -> None:
    chosen = cells.select([5, 3, 20])
    expected = [min(len(ids), 13) for ids in chosen["input_ids"]]
    assert token_lengths(chosen, max_peaks=12).tolist() == expected


def test_rows_are_those_of_the_data_with_their_seed(cells: Dataset) -> None:
    chosen = cells.select([5, 3, 20, 4])
    rows = CellsToDraw(chosen).__getitems__([Draw(7, 1, 2), Draw(7, 1, 0)])
    for row, expected in zip(rows, [chosen[2], chosen[0]], strict=True):
        assert {name: np.asarray(value).tolist() for name, value in row.items() if name != DRAW_SEED} == expected
    assert [row[DRAW_SEED] for row in rows] == [[7, 1, 2], [7, 1, 0]]
    assert CellsToDraw(chosen)[Draw(7, 1, 3)]["barcode"] == chosen[3]["barcode"]
