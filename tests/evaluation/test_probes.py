import numpy as np
import pytest

from epifoundation.evaluation import cross_validated_probes, transferred_probes

LABELS = ["a"] * 40 + ["b"] * 40 + ["c"] * 40


def clouds(spread: float, seed: int = 0) -> np.ndarray:
    """Three clouds of cells around the axes of space."""
    rng = np.random.default_rng(seed)
    return np.repeat(np.eye(3) * 10, 40, axis=0) + rng.normal(0, spread, (120, 3))


def test_separate_types_score_one() -> None:
    assert cross_validated_probes(clouds(0.1), LABELS) == (1, 1, 1, 1)
    assert transferred_probes(clouds(0.1), LABELS, clouds(0.1, seed=1), LABELS) == (1, 1, 1, 1)


def test_noise_scores_chance() -> None:
    noise = np.random.default_rng(0).normal(size=(120, 3))
    scores = cross_validated_probes(noise, LABELS)
    assert scores.knn_accuracy < 0.5
    assert scores.logistic_accuracy < 0.5
    assert scores.nmi < 0.1


def test_neighbours_are_told_by_direction_and_not_by_length() -> None:
    lengths = np.random.default_rng(0).uniform(0.01, 100, (120, 1))
    assert cross_validated_probes(clouds(0.1) * lengths, LABELS).knn_accuracy == 1


def test_nmi_of_two_merged_types_is_the_hand_calculation() -> None:
    # k-means of 3 cuts the single cloud of b and c at random: only a against the rest can be told for sure.
    embedding = clouds(0.01)
    embedding[80:] = embedding[40:80]
    entropy = np.log(3)
    told = entropy - 2 / 3 * np.log(2)  # H(types) - H(types | cluster a or not)
    scores = cross_validated_probes(embedding, LABELS)
    # The two halves of the cut hold as many b as c, for their cells are the same points.
    halves = -sum(p * np.log(p) for p in np.bincount(_clusters(embedding)) / 120)
    assert scores.nmi == pytest.approx(2 * told / (entropy + halves), abs=1e-6)


def _clusters(embedding: np.ndarray) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    return KMeans(3, n_init=10, random_state=0).fit_predict(normalize(embedding))


def test_a_rare_type_weighs_as_much_as_a_common_one_in_macro_f1() -> None:
    # The 10 rare cells look like the 90 common ones: F1 is 0 for them and 2·0.9/(1 + 0.9) for the others.
    labels = ["common"] * 90 + ["rare"] * 10
    scores = cross_validated_probes(np.random.default_rng(0).normal(0, 1e-6, (100, 2)) + 1, labels)
    assert scores.logistic_accuracy == pytest.approx(0.9)
    assert scores.logistic_macro_f1 == pytest.approx((2 * 0.9 / 1.9) / 2)


def test_an_embedding_that_moves_new_cells_is_found_out_by_transfer() -> None:
    rotated = clouds(0.1, seed=1)[:, [1, 2, 0]]
    assert cross_validated_probes(rotated, LABELS).knn_accuracy == 1
    assert transferred_probes(clouds(0.1), LABELS, rotated, LABELS).knn_accuracy == 0
