import itertools
import math
from collections import Counter

import numpy as np
import pytest

from epifoundation.evaluation import best_nmi, clustering, nearest_neighbors
from epifoundation.evaluation.clustering import RESOLUTIONS, leiden_clusters, umap_graph

pytest.importorskip("graspologic_native", reason="the extra `clustering` is not installed")


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Embedding and types: six clouds, two of them one type, two others almost on one another."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 6, 600)
    centres = 8 * rng.normal(size=(6, 10))
    centres[5] = centres[4] + 0.3
    return centres[places] + rng.normal(size=(600, 10)), np.array([0, 0, 1, 2, 3, 4])[places]


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """2·I / (H + H) by counting."""

    def entropy(labels: list[object]) -> float:
        return -sum(n / len(labels) * math.log(n / len(labels)) for n in Counter(labels).values())

    both = entropy(list(zip(a.tolist(), b.tolist(), strict=True)))
    total = entropy(a.tolist()) + entropy(b.tolist())
    return 2 * (total - both) / total


def rand_index(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index by going through all pairs of cells."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    same_a, same_b = (np.array([x[i] == x[j] for i, j in pairs]) for x in (a, b))
    by_chance = same_a.sum() * same_b.sum() / len(pairs)
    return ((same_a & same_b).sum() - by_chance) / ((same_a.sum() + same_b.sum()) / 2 - by_chance)


def test_scores_are_those_of_the_clusters(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    embedding, types = clouds
    neighbors = nearest_neighbors(embedding, 14)
    scores = best_nmi(neighbors, types, resolutions=(0.1, 1, 3))
    assert [point[0] for point in scores.curve] == [0.1, 1, 3]
    for resolution, nmi, rand, num_clusters in scores.curve:
        clusters = leiden_clusters(umap_graph(neighbors), resolution)
        assert nmi == pytest.approx(mutual_information(types, clusters))
        assert rand == pytest.approx(rand_index(types, clusters))
        assert num_clusters == len(set(clusters))
    assert scores.nmi == max(point[1] for point in scores.curve)
    assert (scores.resolution, scores.nmi, scores.adjusted_rand) in [point[:3] for point in scores.curve]


def test_higher_resolutions_give_more_clusters(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    scores = best_nmi(nearest_neighbors(clouds[0], 14), clouds[1], resolutions=(0.1, 1, 5))
    numbers = [point[3] for point in scores.curve]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]
    assert scores.nmi > 0.8


def test_the_same_seed_gives_the_same_clusters(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    graph = umap_graph(nearest_neighbors(clouds[0], 14))
    np.testing.assert_array_equal(leiden_clusters(graph, 1, seed=3), leiden_clusters(graph, 1, seed=3))


def test_clusters_are_as_modular_as_those_of_igraph(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    igraph = pytest.importorskip("igraph")
    rng = np.random.default_rng(1)
    graph = umap_graph(nearest_neighbors(rng.normal(size=(500, 5)), 14))
    theirs = igraph.Graph.Weighted_Adjacency(graph, mode="max")
    for resolution in RESOLUTIONS[::3]:
        options = {"weights": "weight", "resolution": resolution}
        clusters = theirs.community_leiden(objective_function="modularity", n_iterations=5, **options).membership
        ours = leiden_clusters(graph, resolution).tolist()
        assert theirs.modularity(ours, **options) > theirs.modularity(clusters, **options) - 0.02


def test_a_single_type_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 different cell types"):
        best_nmi(nearest_neighbors(np.eye(5)), ["a"] * 5)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'need umap-learn and graspologic-native: pip install "epifoundation\[clustering\]"'
    ):
        best_nmi(nearest_neighbors(np.eye(5)), list("aabbc"))
