import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from epifoundation.evaluation import distances, nearest_neighbors


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    theirs = NearestNeighbors(n_neighbors=40, algorithm="brute").fit(embedding.astype(float)).kneighbors()
    for bytes_per_block in (distances.BYTES_PER_BLOCK, 8 * 300 * 11):
        monkeypatch.setattr(distances, "BYTES_PER_BLOCK", bytes_per_block)
        found = nearest_neighbors(embedding, 40)
        np.testing.assert_array_equal(found.indices, theirs[1])
        np.testing.assert_allclose(found.distances, theirs[0], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(1, 20), st.integers(0, 10_000))
def test_each_cell_has_others_only_nearest_first(num_cells: int, num_neighbors: int, seed: int) -> None:
    # Few whole numbers: many cells at the same place.
    embedding = np.random.default_rng(seed).integers(0, 3, (num_cells, 2)).astype(float)
    indices, apart = nearest_neighbors(embedding, num_neighbors)
    assert indices.shape == (num_cells, min(num_neighbors, num_cells - 1))
    for cell in range(num_cells):
        assert cell not in indices[cell]
        assert len(set(indices[cell])) == len(indices[cell])
        others = np.linalg.norm(np.delete(embedding, cell, axis=0) - embedding[cell], axis=1)
        # 1e-7: in double precision the square of a distance of 0 is known to 1e-15.
        np.testing.assert_allclose(apart[cell], np.sort(others)[: len(apart[cell])], atol=1e-7)


def test_the_nearest_of_the_nearest_are_the_first() -> None:
    found = nearest_neighbors(np.random.default_rng(0).normal(size=(20, 3)), 10)
    np.testing.assert_array_equal(found.nearest(4).indices, found.indices[:, :4])
    np.testing.assert_array_equal(found.nearest(4).distances, found.distances[:, :4])
    assert found.nearest(99).indices.shape == (20, 10)


def test_a_number_of_neighbours_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one neighbour, got 0"):
        nearest_neighbors(np.eye(4), 0)
