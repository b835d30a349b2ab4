import numpy as np
import pytest
from sklearn.metrics import silhouette_samples as of_sklearn

from epifoundation.evaluation import (
    batch_silhouette,
    cell_type_silhouette,
    distances,
    isolated_label_silhouette,
    overall_batch_silhouette,
    silhouette_samples,
)


@pytest.mark.parametrize("rows_per_block", [1000, 7])
def test_silhouettes_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, rows_per_block: int) -> None:
    monkeypatch.setattr(distances, "BYTES_PER_BLOCK", 8 * 200 * rows_per_block)
    rng = np.random.default_rng(0)
    embedding, labels = rng.normal(size=(200, 5)), rng.integers(0, 6, 200)
    labels[0] = 6  # the only one of its label
    np.testing.assert_allclose(silhouette_samples(embedding, labels), of_sklearn(embedding, labels), atol=1e-12)


def test_four_cells_on_a_line_by_hand() -> None:
    # At 0, 1 | 4, 8: a = 1, 1, 4, 4 and b = 6, 5, 3.5, 7.5.
    line = np.array([[0.0], [1], [4], [8]])
    expected = np.array([5 / 6, 4 / 5, -0.5 / 4, 3.5 / 7.5])
    np.testing.assert_allclose(silhouette_samples(line, ["a", "a", "b", "b"]), expected)
    assert cell_type_silhouette(line, ["a", "a", "b", "b"]) == pytest.approx((expected.mean() + 1) / 2)


def test_cells_at_one_place_have_silhouette_zero() -> None:
    np.testing.assert_array_equal(silhouette_samples(np.full((6, 3), 7.0), list("aabbcc")), np.zeros(6))


def test_isolated_types_are_those_in_the_fewest_batches() -> None:
    rng = np.random.default_rng(0)
    embedding, types = rng.normal(size=(60, 3)), np.repeat(["a", "b", "c"], 20)
    batches = np.tile([0, 1], 30)
    batches[types == "c"] = 0
    silhouettes = of_sklearn(embedding, types)
    scaled = {name: (silhouettes[types == name].mean() + 1) / 2 for name in "abc"}
    assert isolated_label_silhouette(embedding, types, batches) == pytest.approx(scaled["c"])
    # All in one batch: all are in equally few.
    assert isolated_label_silhouette(embedding, types, [0] * 60) == pytest.approx(np.mean(list(scaled.values())))


def test_batches_are_compared_within_types_that_have_several() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(62, 3))
    types = np.array(["a"] * 20 + ["b"] * 20 + ["one batch"] * 20 + ["a cell per batch"] * 2)
    batches = np.tile([0, 1], 31)
    batches[types == "one batch"] = 0
    within = [1 - np.abs(of_sklearn(embedding[types == name], batches[types == name])).mean() for name in "ab"]
    assert batch_silhouette(embedding, types, batches) == pytest.approx(np.mean(within))
    assert overall_batch_silhouette(embedding, batches) == pytest.approx(1 - abs(of_sklearn(embedding, batches).mean()))


def test_moved_batches_lower_both_scores_and_batches_of_other_types_the_overall_one_alone() -> None:
    rng = np.random.default_rng(0)
    embedding, types, batches = rng.normal(size=(400, 4)), np.repeat(["a", "b"], 200), np.tile([0, 1], 200)
    moved = embedding + 20 * batches[:, None]
    assert batch_silhouette(embedding, types, batches) > 0.9
    assert batch_silhouette(moved, types, batches) < 0.2
    assert overall_batch_silhouette(moved, batches) < 0.2
    # Batch 1 holds mostly type b, which lies elsewhere: no fault of the batches.
    biased = np.where(rng.random(400) < 0.95, types == "b", types != "b").astype(int)
    apart = embedding + 20 * (types == "b")[:, None]
    assert batch_silhouette(apart, types, biased) > 0.85
    assert overall_batch_silhouette(apart, biased) < 0.3


def test_what_cannot_be_told_is_an_error() -> None:
    embedding = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(ValueError, match="at least 2 different labels, all 6 cells have 'a'"):
        silhouette_samples(embedding, ["a"] * 6)
    with pytest.raises(ValueError, match="at least 2 different batches"):
        batch_silhouette(embedding, list("aabbcc"), [1] * 6)
    with pytest.raises(ValueError, match=r"no cell type can tell how batches mix: 2 of 3 are found in one batch only"):
        batch_silhouette(embedding, list("aabbcc"), [1, 1, 2, 2, 1, 2])
    with pytest.raises(ValueError, match="at least three cells"):
        cell_type_silhouette(embedding[:2], ["a", "b"])
