from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.dataset_builders import split_cells
from epifoundation.dataset_builders.tokenized.splits import _sizes


def cells_of(num_cells=1000, num_types=3, num_batches=5):
    features = {
        "barcode": Value("string"),
        "cell_type": ClassLabel(names=[f"type{i}" for i in range(num_types)]),
        "batch": ClassLabel(names=[f"b{i}" for i in range(num_batches)]),
        "donor": Value("string"),
    }
    columns = {
        "barcode": [f"cell{i}" for i in range(num_cells)],
        "cell_type": [min(i % 10, num_types) - 1 for i in range(num_cells)],  # a tenth unknown, most of the last type
        "batch": [i % num_batches for i in range(num_cells)],
        "donor": [f"d{i % 7}" for i in range(num_cells)],
    }
    return Dataset.from_dict(columns, features=Features(features))


@pytest.fixture(scope="module")
def cells():
    return cells_of()


def barcodes(divided):
    return {name: part["barcode"][:] for name, part in divided.items()}


RULES = [{}, {"stratify_by": "cell_type"}, {"by": "batch"}, {"by": "donor", "test_groups": ["d3"]}]


@pytest.mark.parametrize("rule", RULES)
def test_each_cell_is_in_one_split_and_the_order_is_kept(cells, rule):
    divided = split_cells(cells, **rule)
    assert list(divided) == ["train", "validation", "test"]
    together = [name for part in barcodes(divided).values() for name in part]
    assert sorted(together) == sorted(cells["barcode"][:])
    for part in barcodes(divided).values():
        assert part == sorted(part, key=lambda name: int(name[4:]))


@pytest.mark.parametrize("rule", RULES)
def test_the_same_call_gives_the_same_and_another_seed_another(cells, rule):
    assert barcodes(split_cells(cells, **rule)) == barcodes(split_cells(cells, **rule))
    assert barcodes(split_cells(cells, **rule)) != barcodes(split_cells(cells, **rule, seed=1))


def test_the_division_is_the_same_on_every_machine():
    # Pinned: should this fail, users' test cells would move into their training cells.
    divided = split_cells(cells_of(30), test=0.2)
    assert divided["test"]["barcode"][:] == ["cell0", "cell26", "cell27", "cell29"]
    assert divided["validation"]["barcode"][:] == ["cell2", "cell7", "cell8", "cell14"]


def test_more_cells_do_not_move_those_that_were_there(cells):
    before, after = barcodes(split_cells(cells)), barcodes(split_cells(cells_of(1500)))
    for name, part in before.items():
        assert set(part) <= set(after[name])


def test_the_order_of_the_rows_does_not_matter(cells):
    reverse = cells.select(range(len(cells) - 1, -1, -1))
    for rule in RULES:
        first, second = barcodes(split_cells(cells, **rule)), barcodes(split_cells(reverse, **rule))
        assert {name: set(part) for name, part in first.items()} == {name: set(part) for name, part in second.items()}


def test_by_cell_the_shares_hold_up_to_chance(cells):
    divided = split_cells(cells, validation=0.2, test=0.3)
    assert abs(len(divided["validation"]) - 200) < 50  # four standard deviations
    assert abs(len(divided["test"]) - 300) < 60


def test_the_test_cells_do_not_depend_on_the_share_for_validation(cells):
    assert split_cells(cells)["test"]["barcode"][:] == split_cells(cells, validation=0.4)["test"]["barcode"][:]


def test_a_share_of_nothing_leaves_the_split_out(cells):
    assert list(split_cells(cells, validation=0)) == ["train", "test"]
    alone = split_cells(cells, validation=0, test=0)
    assert list(alone) == ["train"]
    assert len(alone["train"]) == 1000


def test_stratified_shares_are_exact_within_each_class(cells):
    divided = split_cells(cells, validation=0.1, test=0.2, stratify_by="cell_type")
    assert len(divided["test"]) == 200
    assert Counter(divided["test"]["cell_type"]) == {-1: 20, 0: 20, 1: 20, 2: 140}
    assert Counter(divided["validation"]["cell_type"]) == {-1: 10, 0: 10, 1: 10, 2: 70}


def test_each_class_is_in_every_split_however_small():
    cells = cells_of(30)  # 3 cells of type0 and of type1
    divided = split_cells(cells, validation=0.01, test=0.01, stratify_by="cell_type")
    for part in divided.values():
        assert {0, 1, 2} <= set(part["cell_type"])


def test_whole_groups_go_together(cells):
    divided = split_cells(cells, by="batch", validation=0.2, test=0.4)
    groups = [set(part["batch"]) for part in divided.values()]
    assert list(map(len, groups)) == [2, 1, 2]
    assert len(set.union(*groups)) == 5


def test_groups_can_be_named(cells):
    divided = split_cells(cells, by="batch", validation_groups=["b0", "b2"], test_groups=["b4"], validation=0, test=0)
    assert {name: set(part["batch"]) for name, part in divided.items()} == {
        "train": {1, 3},
        "validation": {0, 2},
        "test": {4},
    }
    held_out = split_cells(cells, by="donor", test_groups=["d6"], validation=0)
    assert list(held_out) == ["train", "test"]
    assert set(held_out["test"]["donor"]) == {"d6"}


@settings(max_examples=100, deadline=None)
@given(total=st.integers(3, 1000), shares=st.lists(st.floats(0.001, 1), min_size=3, max_size=3))
def test_sizes_add_up_and_follow_the_shares(total, shares):
    shares = np.array(shares)
    sizes = _sizes(total, shares, at_least_one=True)
    exact = total * shares / shares.sum()
    assert sizes.sum() == total
    assert (sizes >= 1).all()
    free = _sizes(total, shares, at_least_one=False)
    assert free.sum() == total
    assert (np.abs(free - exact) < 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 1.0}, "test must be a share from 0 to below 1, got 1.0"),
        ({"validation": -0.1}, "validation must be a share"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on: 0.5 \\+ 0.5"),
        ({"by": "site"}, "no column 'site': it has barcode, cell_type, batch, donor"),
        ({"by": "cell_type"}, "100 cells have no cell_type: drop them first"),
        ({"by": "batch", "stratify_by": "cell_type"}, "cannot be combined"),
        ({"test_groups": ["b1"]}, "need by="),
        ({"by": "batch", "test_groups": ["b9"]}, "no cell has the batch 'b9': there are b0, b1, b2, b3, b4"),
        ({"by": "batch", "test_groups": ["b1"], "validation_groups": ["b1"]}, "for validation and for test"),
        (
            {"by": "batch", "test_groups": ["b0", "b1", "b2", "b3"]},
            r"1 groups of batch \(b4\) are too few for train, v",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(cells, options, message):
    with pytest.raises(ValueError, match=message):
        split_cells(cells, **options)


def test_too_small_classes_and_data_sets_are_refused(cells):
    with pytest.raises(ValueError, match="2 cells of the cell_type 'type0' are too few to be in each of train, valid"):
        split_cells(cells_of(20), stratify_by="cell_type")
    with pytest.raises(ValueError, match=r"no cell falls into validation: 3 cells are too few for a share of 0\.01"):
        split_cells(cells_of(3), validation=0.01, test=0)


def test_other_things_than_a_data_set_are_refused(cells):
    with pytest.raises(TypeError, match="expected a Dataset, got DatasetDict: pass one split"):
        split_cells(DatasetDict(train=cells))
    with pytest.raises(TypeError, match="test_groups must be a list of names, got the text 'b1'"):
        split_cells(cells, by="batch", test_groups="b1")
