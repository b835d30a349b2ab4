from pathlib import Path

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from epifoundation.training.expression import expression_levels, log_normalized

OFFICIAL = Path(__file__).resolve().parents[1] / "reference" / "official_data" / "binning.safetensors"
COUNTS = st.lists(st.integers(0, 40), max_size=60).map(np.array)


@pytest.mark.parametrize("num_bins", [2, 5])
def test_legacy_levels_are_the_official_ones(num_bins: int) -> None:
    official = load_file(OFFICIAL)
    levels = [expression_levels(counts, num_bins, legacy=True) for counts in official["counts"]]
    np.testing.assert_array_equal(levels, official[f"binned_{num_bins}"])


@given(COUNTS, st.integers(2, 12))
def test_levels_follow_the_order_and_leave_no_gap(counts: np.ndarray, num_bins: int) -> None:
    levels = expression_levels(counts, num_bins)
    assert ((levels == 0) == (counts == 0)).all()
    for value in set(counts.tolist()):
        assert len(set(levels[counts == value])) == 1, "equal counts share a level"
    by_count = levels[np.argsort(counts, kind="stable")]
    assert (np.diff(by_count) >= 0).all()
    num_different = len(set(counts[counts > 0].tolist()))
    assert set(levels[levels > 0].tolist()) == set(range(1, min(num_bins - 1, num_different) + 1))


@given(COUNTS, st.integers(2, 12))
def test_only_the_order_of_counts_matters(counts: np.ndarray, num_bins: int) -> None:
    levels = expression_levels(counts, num_bins)
    np.testing.assert_array_equal(expression_levels(log_normalized(counts), num_bins), levels)
    np.testing.assert_array_equal(expression_levels(counts**3 * 7, num_bins), levels)


@given(st.integers(1, 9), st.integers(1, 20))
def test_without_ties_levels_are_equally_large(num_levels: int, num_genes_each: int) -> None:
    counts = np.random.default_rng(0).permutation(num_levels * num_genes_each) + 1
    levels = expression_levels(counts, num_levels + 1)
    assert np.bincount(levels, minlength=num_levels + 1)[1:].tolist() == [num_genes_each] * num_levels


def test_a_worked_example() -> None:
    # Ten genes, three levels: mid-ranks .35, .75, .85, .95 want the levels 2, 3, 3, 3. The smallest count must have
    # level 1, the next may then have 2 at most, and so on.
    counts = np.array([1] * 7 + [2, 3, 9, 0])
    assert expression_levels(counts, 4).tolist() == [1] * 7 + [2, 3, 3, 0]
    # The official edges, at the quantiles 0, .5 and 1 of the counts, are 1, 1 and 9: no gene has level 1.
    assert expression_levels(counts, 4, legacy=True).tolist() == [2] * 7 + [2, 2, 3, 0]


def test_normalisation_is_that_of_scanpy() -> None:
    counts = np.random.default_rng(0).poisson(2.0, (5, 30)).astype(np.float64)
    cells = AnnData(counts.copy())
    sc.pp.normalize_total(cells, target_sum=10_000)
    sc.pp.log1p(cells)
    np.testing.assert_allclose([log_normalized(cell) for cell in counts], cells.X)


def test_a_cell_without_counts_has_no_levels() -> None:
    assert log_normalized(np.zeros(3)).tolist() == [0, 0, 0]
    assert expression_levels(np.zeros(3), 10).tolist() == [0, 0, 0]


def test_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 levels.*num_bins=1"):
        expression_levels(np.ones(2), 1)
