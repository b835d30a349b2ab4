import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsClassifier

from epifoundation.dataset_builders.clustering import nearest_cells
from epifoundation.evaluation.matching import label_transfer_scores, matching_scores, modality_mixing, neighbor_votes


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    atac = generator.normal(size=(50, 4))
    return atac, atac + generator.normal(size=(50, 4))


def by_hand(distances):
    """FOSCTTM and recalls of rows, as their definitions say, where no two distances are equal."""
    own = np.diag(distances)[:, None]
    ranks = (distances < own).sum(axis=1)
    return (ranks / (len(ranks) - 1)).mean(), [(ranks < k).mean() for k in (1, 5, 10)]


@pytest.mark.parametrize("rows_per_block", [1, 7, 50])
def test_scores_are_those_of_the_whole_matrix_of_distances(pairs, rows_per_block, monkeypatch):
    monkeypatch.setattr(nearest_cells, "BYTES_PER_BLOCK", 8 * 50 * rows_per_block)
    found = matching_scores(*pairs)
    distances = cdist(*pairs)
    for side, rows in enumerate((distances, distances.T)):
        foscttm, recalls = by_hand(rows)
        assert found.foscttm[side] == pytest.approx(foscttm)
        assert [values[side] for values in found.recall.values()] == pytest.approx(recalls)
    assert found.foscttm[0] != found.foscttm[1]
    assert found.titled()["FOSCTTM"] == pytest.approx(np.mean(found.foscttm))
    assert list(found.titled()) == ["FOSCTTM", "recall@1", "recall@5", "recall@10"]


def test_three_cells_by_hand():
    # On a line: by ATAC at 0, 1 and 5, by RNA at 1.6, 0.9 and 5.
    found = matching_scores(np.array([[0.0], [1.0], [5.0]]), np.array([[1.6], [0.9], [5.0]]), recall_at=(1, 2))
    # ATAC 0 has the RNA of cell 1 nearer than its own (1 of 2 others); RNA 1.6 has the ATAC at 1 nearer.
    assert found.foscttm == (pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert found.recall == {1: (pytest.approx(2 / 3), pytest.approx(2 / 3)), 2: (1.0, 1.0)}


def test_cells_that_cannot_be_told_apart_score_as_chance():
    same = np.ones((20, 3))
    found = matching_scores(same, same)
    assert found.foscttm == (0.5, 0.5)
    assert found.recall == {k: pytest.approx((k / 20, k / 20)) for k in (1, 5, 10)}
    # Likewise where equal vectors come from different blocks of a product of matrices.
    twice = np.tile(np.random.default_rng(0).normal(size=(1, 97)), (31, 1))
    assert matching_scores(twice, -twice).foscttm == (0.5, 0.5)


def test_perfect_and_shuffled_pairs():
    cells = np.random.default_rng(0).normal(size=(400, 8))
    perfect = matching_scores(cells, cells)
    assert perfect.foscttm == (0, 0)
    assert set(perfect.recall.values()) == {(1, 1)}
    shuffled = matching_scores(cells, cells[np.random.default_rng(1).permutation(400)])
    assert shuffled.foscttm[0] == pytest.approx(0.5, abs=0.05)
    assert max(shuffled.recall[10]) < 0.06


def test_more_neighbours_than_cells_hold_every_partner(pairs):
    assert matching_scores(*pairs, recall_at=(50, 1000)).recall == {50: (1, 1), 1000: (1, 1)}


def test_what_are_no_pairs_is_refused(pairs):
    atac, rna = pairs
    with pytest.raises(ValueError, match=r"the same cells in the same space, got \(50, 4\) by ATAC and \(49, 4\)"):
        matching_scores(atac, rna[:49])
    with pytest.raises(ValueError, match="1 or more neighbours, got 0"):
        matching_scores(atac, rna, recall_at=(0, 1))
    rna[3, 2] = np.nan
    with pytest.raises(ValueError, match="have NaN or infinity in the embedding by RNA, the first in row 3"):
        matching_scores(atac, rna)


def test_votes_are_those_of_scikit_learn(pairs):
    atac, rna = pairs
    labels = np.random.default_rng(2).choice(["b", "a", "c"], 50)
    votes, names = neighbor_votes(atac, rna, labels, 6)
    expected = KNeighborsClassifier(6).fit(rna, labels).predict_proba(atac)
    assert names == ("a", "b", "c")
    np.testing.assert_allclose(votes, expected, atol=1e-5)
    np.testing.assert_allclose(votes.sum(axis=1), 1)


def test_the_nearer_neighbours_decide_between_equal_votes():
    references = np.array([[1.0], [2.0], [3.0], [4.0]])
    votes, names = neighbor_votes(np.array([[0.0], [5.0], [9.0]]), references, ["b", "b", "a", "a"], 4)
    assert [names[column] for column in votes.argmax(axis=1)] == ["b", "a", "a"]


def test_labels_that_are_right_nearby_are_carried_over(pairs):
    atac, rna = np.zeros((6, 2)), np.zeros((6, 2))
    labels = ["x", "y", "z"] * 2
    for row, label in enumerate(labels):
        atac[row] = rna[row] = {"x": (0, 0), "y": (9, 0), "z": (0, 9)}[label]
    right = label_transfer_scores(atac, labels, rna, labels, 2)
    assert (right.accuracy, right.macro_f1) == (1, 1)
    swapped = label_transfer_scores(atac, labels, rna, ["y", "x", "z"] * 2, 2)
    assert swapped.accuracy == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="none of the cell types"):
        label_transfer_scores(atac, labels, rna, ["p", "q", "r"] * 2, 2)


def test_modalities_mix_or_keep_to_themselves():
    generator = np.random.default_rng(0)
    atac, rna = generator.normal(size=(300, 3)), generator.normal(size=(200, 3))
    assert modality_mixing(atac, rna) > 0.95
    assert modality_mixing(atac, rna + 100) == 0
    line = np.array([[0.0], [1.1], [20.0], [21.0]]), np.array([[1.0], [30.0], [31.0]])
    # Nearest: r, r, a, a by ATAC; a, r, r by RNA. Expected 3 of 6 and 4 of 6.
    assert modality_mixing(*line, num_neighbors=1) == pytest.approx((2 / (3 / 6) + 1 / (4 / 6)) / 7)
