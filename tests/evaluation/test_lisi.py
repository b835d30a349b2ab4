import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import entropy

from epifoundation.evaluation import Neighbors, batch_lisi, cell_type_lisi, lisi, nearest_neighbors


def test_weights_have_the_perplexity_asked_for() -> None:
    """Another way to the same number: the root of the entropy, cell by cell."""
    rng = np.random.default_rng(0)
    embedding, labels = rng.normal(size=(120, 4)), rng.integers(0, 3, 120)
    neighbors = nearest_neighbors(embedding, 59)

    def index_of(cell: int) -> float:
        apart = neighbors.distances[cell]
        beta = brentq(lambda b: entropy(np.exp(-b * apart)) - np.log(20), 1e-6, 100, xtol=1e-14)
        weights = np.exp(-beta * apart) / np.exp(-beta * apart).sum()
        return 1 / sum(weights[labels[neighbors.indices[cell]] == label].sum() ** 2 for label in range(3))

    # The bisection of LISI's authors ends within 1e-5 of the entropy.
    np.testing.assert_allclose(lisi(neighbors, labels), [index_of(cell) for cell in range(120)], rtol=1e-4)


def test_equal_distances_count_neighbours_alike() -> None:
    # Corners of a simplex: every other cell is at the same distance.
    neighbors = nearest_neighbors(np.eye(12), 11)
    labels = ["a"] * 6 + ["b"] * 6
    shares = np.array([5, 6]) / 11
    np.testing.assert_allclose(lisi(neighbors, labels), 1 / (shares**2).sum())
    assert batch_lisi(neighbors, labels) == pytest.approx(1 / (shares**2).sum() - 1)
    assert cell_type_lisi(neighbors, labels) == pytest.approx(2 - 1 / (shares**2).sum())


def test_scale_and_distance_of_the_cloud_do_not_break_the_weights() -> None:
    rng = np.random.default_rng(0)
    embedding, labels = rng.normal(size=(100, 3)), rng.integers(0, 2, 100)
    expected = lisi(nearest_neighbors(embedding, 29), labels)
    for scale in (1e-4, 1e5):
        np.testing.assert_allclose(lisi(nearest_neighbors(scale * embedding, 29), labels), expected, rtol=1e-3)
    indices, distances = nearest_neighbors(embedding, 29)
    np.testing.assert_allclose(lisi(Neighbors(indices, distances + 1e5), labels), expected, rtol=1e-3)


def test_cells_at_one_place_are_no_trouble() -> None:
    neighbors = nearest_neighbors(np.zeros((30, 2)), 20)
    assert np.isfinite(lisi(neighbors, ["a", "b"] * 15)).all()


def test_types_apart_score_one_and_mixed_batches_too() -> None:
    rng = np.random.default_rng(0)
    types, batches = np.repeat(["a", "b"], 150), np.tile(["x", "y", "z"], 100)
    neighbors = nearest_neighbors(rng.normal(size=(300, 2)) + 100 * (types == "b")[:, None])
    assert cell_type_lisi(neighbors, types) == pytest.approx(1)
    assert batch_lisi(neighbors, types) == pytest.approx(0, abs=1e-9)
    assert batch_lisi(neighbors, batches) > 0.85


def test_too_few_cells_or_labels_are_refused() -> None:
    neighbors = nearest_neighbors(np.eye(5))
    with pytest.raises(ValueError, match=r"at least 5 neighbours \(of 6 cells\), got 4"):
        lisi(neighbors, list("aabbc"))
    with pytest.raises(ValueError, match="at least 2 different batches"):
        batch_lisi(neighbors, ["x"] * 5)
    with pytest.raises(ValueError, match="at least 2 different cell types"):
        cell_type_lisi(neighbors, ["x"] * 5)
