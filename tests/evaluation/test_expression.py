import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from transformers import EvalPrediction

from epifoundation.evaluation import expression, expression_scores
from epifoundation.training.metrics import expression_metrics


def some_levels(num_cells: int = 40, num_genes: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Measured levels from 0 to 9, many of them 0, and predictions near them."""
    rng = np.random.default_rng(seed)
    measured = np.maximum(rng.integers(-8, 10, (num_cells, num_genes)), 0).astype(np.float32)
    return measured, (measured + rng.normal(0, 3, measured.shape)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_are_those_of_scipy(seed: int) -> None:
    measured, predicted = some_levels(seed=seed)
    scores = expression_scores(measured, predicted)
    a, b = measured.astype(float), predicted.astype(float)
    assert scores.mse == pytest.approx(((a - b) ** 2).mean())
    for ours, correlation, rows in (
        (scores.pearson_per_gene, pearsonr, (a.T, b.T)),
        (scores.spearman_per_gene, spearmanr, (a.T, b.T)),
        (scores.pearson_per_cell, pearsonr, (a, b)),
        (scores.spearman_per_cell, spearmanr, (a, b)),
    ):
        # scipy calls constant rows undefined with a warning; so rare here that they are left to the test below.
        theirs = [np.nan if len(set(x)) == 1 else correlation(x, y).statistic for x, y in zip(*rows, strict=True)]
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    assert scores.titled()["Pearson"] == pytest.approx(np.nanmean(scores.pearson_per_gene))


def test_constant_genes_are_left_out_and_given_up_ones_count_as_zero() -> None:
    measured = np.array([[1.0, 0, 3], [1, 1, 4], [1, 2, 6]])
    predicted = np.array([[0.0, 5, 3], [1, 5, 4], [2, 5, 6]])
    scores = expression_scores(measured, predicted)
    np.testing.assert_allclose(scores.pearson_per_gene, [np.nan, 0, 1])
    np.testing.assert_allclose(scores.spearman_per_gene, [np.nan, 0, 1])
    assert scores.num_constant_genes == 1
    assert scores.num_constant_cells == 0
    assert scores.titled()["Pearson"] == pytest.approx(0.5)
    assert scores.titled()["Spearman"] == pytest.approx(0.5)
    assert scores.mse == pytest.approx((1 + 0 + 1 + 25 + 16 + 9) / 9)


def test_where_nothing_varies_there_is_no_mean() -> None:
    titled = expression_scores(np.ones((3, 2)), np.zeros((3, 2))).titled()
    assert titled.pop("MSE") == 1
    assert all(np.isnan(value) for value in titled.values())


def test_a_sparse_matrix_and_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, predicted = some_levels()
    expected = expression_scores(measured, predicted)
    monkeypatch.setattr(expression, "ENTRIES_PER_BLOCK", 100)
    for truth in (measured, sp.csr_matrix(measured), sp.csc_matrix(measured)):
        scores = expression_scores(truth, predicted)
        assert scores.mse == pytest.approx(expected.mse)
        for name in ("pearson_per_gene", "spearman_per_gene", "pearson_per_cell", "spearman_per_cell"):
            np.testing.assert_allclose(getattr(scores, name), getattr(expected, name), atol=1e-12)


def test_the_definitions_are_those_of_training() -> None:
    measured, predicted = some_levels()
    measured[:, 3], predicted[:, 5] = 2, 1
    while_training = expression_metrics(EvalPrediction(predicted, measured))
    titled = expression_scores(measured, predicted).titled()
    assert while_training == pytest.approx(
        {"mse": titled["MSE"], "pearson": titled["Pearson"], "spearman": titled["Spearman"]}, abs=1e-6
    )


def test_shuffled_cells_fall_to_chance() -> None:
    measured, predicted = some_levels(num_cells=400)
    shuffled = np.random.default_rng(0).permutation(predicted)
    assert expression_scores(measured, predicted).titled()["Pearson"] > 0.5
    assert abs(expression_scores(measured, shuffled).titled()["Pearson"]) < 0.05


@pytest.mark.parametrize(
    ("measured", "predicted", "message"),
    [
        (np.zeros((3, 2)), np.zeros((2, 3)), r"same shape, got \(3, 2\) measured and \(2, 3\) predicted"),
        (np.zeros(3), np.zeros(3), r"two matrices \(cells, genes\)"),
        (np.zeros((1, 5)), np.zeros((1, 5)), "two cells and two genes at least, got 1 and 5"),
        (np.zeros((5, 1)), np.zeros((5, 1)), "two cells and two genes at least, got 5 and 1"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), "the predicted levels hold NaN or infinity"),
        (np.full((3, 2), np.inf), np.zeros((3, 2)), "the measured levels hold NaN or infinity"),
    ],
)
def test_levels_that_cannot_be_compared_are_refused(measured: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expression_scores(measured, predicted)
