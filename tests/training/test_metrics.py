import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from transformers import EvalPrediction

from epifoundation.training import metrics


def test_alignment_is_judged_over_pairs_that_are_asked_for() -> None:
    logits = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [0.5, 0.0], [9.0, 0.0]]])
    labels = np.array([[1, 0, 0], [1, 1, -100]])
    scores = metrics.expression_score(logits, torch.from_numpy(labels)).numpy()
    found = metrics.alignment_metrics(EvalPrediction(scores, labels))
    # Scores 2, 1 and -.5 of expressed genes; -1 and 3 of others: 3 of 6 pairs are in order, 3 of 5 signs are right.
    assert found == pytest.approx({"accuracy": 3 / 5, "roc_auc": 3 / 6})


def test_an_area_needs_both_kinds() -> None:
    assert metrics.alignment_metrics(EvalPrediction(np.array([[1.0, -1.0]]), np.array([[1, 1]]))) == {"accuracy": 0.5}


def test_classification_by_hand() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 2, 0], [2, 1, 0], [0, 0, 9]])
    labels = np.array([0, 1, 1, -100])
    predicted = metrics.predicted_class(logits, torch.from_numpy(labels)).numpy()
    # Class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/2. The cell of unknown type does not count.
    found = metrics.classification_metrics(EvalPrediction(predicted, labels))
    assert found == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3, "micro_f1": 2 / 3})


def test_expression_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (20, 5)).astype(np.float32)
    levels = labels + rng.normal(size=labels.shape).astype(np.float32)
    found = metrics.expression_metrics(EvalPrediction(levels, labels))
    assert found["mse"] == pytest.approx(((levels - labels) ** 2).mean())
    pairs = list(zip(labels.T, levels.T, strict=True))
    assert found["pearson"] == pytest.approx(np.mean([pearsonr(*pair)[0] for pair in pairs]), abs=1e-6)
    assert found["spearman"] == pytest.approx(np.mean([spearmanr(*pair)[0] for pair in pairs]), abs=1e-6)


def test_genes_that_never_change() -> None:
    labels = np.array([[1.0, 0, 2], [1, 1, 3], [1, 2, 4]])
    levels = np.array([[0.0, 5, 1], [1, 5, 2], [2, 5, 3]])
    # The first gene is left out, the second, always predicted the same, counts as 0, the third as 1.
    found = metrics.expression_metrics(EvalPrediction(levels, labels))
    assert (found["pearson"], found["spearman"]) == (0.5, 0.5)
    assert set(metrics.expression_metrics(EvalPrediction(levels, np.ones((3, 3))))) == {"mse"}
