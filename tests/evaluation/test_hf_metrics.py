import numpy as np
import pytest

from epifoundation.evaluation import (
    HF_METRICS,
    classification_scores,
    embedding_metrics,
    expression_scores,
    hf_metric_script,
)

evaluate = pytest.importorskip("evaluate")
RNG = np.random.default_rng(0)
TYPES = ["a", "b", "c"] * 8
PROBABILITIES = RNG.dirichlet([1, 1, 1], 24)


def test_embeddings_are_evaluated_offline() -> None:
    embedding, batches = RNG.normal(size=(24, 4)), ["x", "y"] * 12
    metric = evaluate.load(hf_metric_script("embedding_metrics"))
    found = metric.compute(embeddings=embedding, cell_types=TYPES, batches=batches, resolutions=[])
    assert found == pytest.approx(embedding_metrics(embedding, TYPES, batches, resolutions=[]))
    assert "graph of neighbours" in metric.description


def test_annotations_are_evaluated_in_batches() -> None:
    metric = evaluate.load(hf_metric_script("annotation_metrics"))
    for rows in (slice(0, 10), slice(10, 24)):
        metric.add_batch(predictions=PROBABILITIES[rows], references=TYPES[rows])
    found = metric.compute(classes=["a", "b", "c"])
    assert found == pytest.approx(classification_scores(TYPES, PROBABILITIES, ["a", "b", "c"]).titled())


def test_expression_is_evaluated() -> None:
    metric = evaluate.load(hf_metric_script("expression_metrics"))
    found = metric.compute(predictions=PROBABILITIES, references=PROBABILITIES**2)
    assert found == pytest.approx(expression_scores(PROBABILITIES**2, PROBABILITIES).titled())


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=f"expected one of {', '.join(HF_METRICS)}, got 'accuracy'"):
        hf_metric_script("accuracy")
