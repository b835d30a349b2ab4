import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from epifoundation.evaluation import knn_purity, nearest_neighbors


def test_share_of_neighbours_of_the_own_type_by_hand() -> None:
    neighbors = nearest_neighbors(np.array([[0.0], [1], [2.5], [4.5]]), 2)
    # Nearest two of each: (1, 2.5), (0, 2.5), (1, 4.5), (2.5, 1).
    assert knn_purity(neighbors, list("aabb"), 2) == pytest.approx((1 + 1 + 1 + 1) / 8)
    assert knn_purity(neighbors, list("aabb"), 1) == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert knn_purity(neighbors, list("aaaa")) == 1


def test_it_is_the_mean_vote_for_the_own_type() -> None:
    rng = np.random.default_rng(0)
    embedding, types = rng.normal(size=(150, 4)), rng.integers(0, 3, 150)
    votes = KNeighborsClassifier(15).fit(embedding, types)
    # scikit-learn leaves a cell out of its own neighbours only when asked for none in particular.
    indices = votes.kneighbors(return_distance=False)
    assert knn_purity(nearest_neighbors(embedding), types) == pytest.approx((types[indices] == types[:, None]).mean())


def test_types_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one of the cell types for each of the 4 cells"):
        knn_purity(nearest_neighbors(np.eye(4)), ["a"])
