import numpy as np
import pytest

from epifoundation.dataset_builders.clustering.weighted_neighbors import (
    nearest_neighbors,
    shared_neighbors,
    weighted_neighbors,
)

NUM_CELLS = 120


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_neighbours_are_the_nearest_others(rng):
    points = rng.normal(size=(30, 4))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(nearest_neighbors(points, 5), np.argsort(distances, axis=1)[:, :5])
    assert nearest_neighbors(points, 99).shape == (30, 29)


def test_shared_neighbours_are_the_jaccard_index(rng):
    neighbors = nearest_neighbors(rng.normal(size=(25, 3)), 4)
    sets = [{i, *near} for i, near in enumerate(neighbors.tolist())]
    expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    np.testing.assert_allclose(shared_neighbors(neighbors).toarray(), expected)


def test_the_measurement_that_tells_cells_apart_gets_the_weight(rng):
    groups = np.arange(NUM_CELLS) % 3
    informative = rng.normal(size=(3, 10))[groups] * 5 + rng.normal(size=(NUM_CELLS, 10)) * 0.1
    noise = rng.normal(size=(NUM_CELLS, 10))
    neighbors, weight = weighted_neighbors(informative, noise, 10)
    assert neighbors.shape == (NUM_CELLS, 10)
    assert weight.mean() > 0.6
    assert (groups[neighbors] == groups[:, None]).mean() > 0.95
    swapped, other = weighted_neighbors(noise, informative, 10)
    np.testing.assert_allclose(other, 1 - weight)
    np.testing.assert_array_equal(swapped, neighbors)


def test_a_cell_is_not_its_own_neighbour_and_none_repeats(rng):
    neighbors, _ = weighted_neighbors(rng.normal(size=(40, 5)), rng.normal(size=(40, 6)), 20)
    for i, near in enumerate(neighbors.tolist()):
        assert i not in near
        assert len(set(near)) == 20


def test_two_equal_measurements_weigh_the_same(rng):
    points = rng.normal(size=(50, 5))
    neighbors, weight = weighted_neighbors(points, points, 6)
    np.testing.assert_allclose(weight, 0.5)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert [set(near) for near in neighbors.tolist()] == [set(near) for near in nearest_neighbors(unit, 6).tolist()]
