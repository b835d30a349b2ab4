import numpy as np
import pytest
from scipy.spatial.distance import cdist

from epifoundation.dataset_builders.clustering import nearest_cells as module
from epifoundation.dataset_builders.clustering.nearest_cells import nearest_cells, squared_distances


@pytest.fixture
def sets():
    generator = np.random.default_rng(0)
    # Far from the origin: squares of length would swallow the distances.
    return (generator.normal(size=(23, 5)) + 1e6).astype(np.float64), generator.normal(size=(17, 5)) + 1e6


@pytest.mark.parametrize("rows_per_block", [1, 4, 100])
def test_neighbours_are_those_of_all_distances(sets, rows_per_block, monkeypatch):
    monkeypatch.setattr(module, "BYTES_PER_BLOCK", 8 * 17 * rows_per_block)
    cells, references = sets
    expected = cdist(cells, references)
    found = nearest_cells(cells, references, 4)
    np.testing.assert_array_equal(found.indices, np.argsort(expected, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :4], rtol=1e-6)
    blocks = [(start, squares.numpy().copy()) for start, squares in squared_distances(cells, references)]
    assert [start for start, _ in blocks] == list(range(0, 23, min(rows_per_block, 23)))
    np.testing.assert_allclose(np.concatenate([squares for _, squares in blocks]), expected**2, rtol=1e-6)


def test_there_are_no_more_neighbours_than_references(sets):
    cells, references = sets
    assert nearest_cells(cells, references, 99).indices.shape == (23, 17)
    same = nearest_cells(references, references, 1)
    np.testing.assert_array_equal(same.indices[:, 0], np.arange(17))
    np.testing.assert_allclose(same.distances, 0, atol=1e-6)


def test_sets_of_another_space_are_refused(sets):
    cells, references = sets
    with pytest.raises(ValueError, match=r"in the same space.* got \(23, 5\) and \(17, 4\)"):
        nearest_cells(cells, references[:, :4], 2)
    with pytest.raises(ValueError, match="at least one neighbour, got 0"):
        nearest_cells(cells, references, 0)
