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


def test_hidden_peaks_by_hand() -> None:
    places = np.array([[1.0, -100, 0.25], [0.9995, 0.5, -100]])
    labels = np.where(places >= 0, 7, -100)
    found = metrics.masked_peaks_metrics(EvalPrediction(places, labels))
    assert found == pytest.approx({"roc_auc": 2.7495 / 4, "in_best_thousandth": 2 / 4})
    assert metrics.masked_peaks_metrics(EvalPrediction(places, np.full((2, 3), -100))) == {}


def test_the_sum_of_objectives_is_judged_part_by_part() -> None:
    rng = np.random.default_rng(0)
    logits = (torch.randn(4, 6, 2), torch.randn(4, 5), torch.rand(4, 5))
    labels = tuple(rng.integers(0, 2, shape) for shape in ((4, 6), (4, 5), (4, 5)))
    scores = tuple(part.numpy() for part in metrics.combined_scores(logits, labels))
    found = metrics.combined_metrics(EvalPrediction(scores, labels))
    assert found == {
        **metrics.alignment_metrics(EvalPrediction(metrics.expression_score(logits[0], None).numpy(), labels[0])),
        **{
            f"replaced_peaks_{name}": value
            for name, value in metrics.alignment_metrics(EvalPrediction(logits[1].numpy(), labels[1])).items()
        },
        **{
            f"masked_peaks_{name}": value
            for name, value in metrics.masked_peaks_metrics(EvalPrediction(logits[2].numpy(), labels[2])).items()
        },
    }


def test_triplets_and_silhouette_by_hand() -> None:
    # Cells of two types on a line: anchors 0, 1 and 10; what comes with the third is nearer to the other type.
    cells = torch.tensor([[0.0], [1.0], [10.0], [1.0], [0.0], [4.0], [10.0], [10.0], [9.0]])
    embeddings = metrics.triplets(cells, torch.tensor([0, 0, 1]))
    assert embeddings[:, :, 0].tolist() == [[0, 1, 10], [1, 0, 10], [10, 4, 9]]
    found = metrics.clustering_metrics(EvalPrediction(embeddings.numpy(), np.array([0, 0, 1])))
    assert found == pytest.approx({"triplet_accuracy": 2 / 3, "silhouette": (9 / 10 + 8 / 9 + 0) / 3})
    one_type = metrics.clustering_metrics(EvalPrediction(embeddings.numpy(), np.zeros(3)))
    assert set(one_type) == {"triplet_accuracy"}


def test_a_batch_that_can_be_told_is_told() -> None:
    rng = np.random.default_rng(0)
    batches = np.r_[np.arange(60) % 3 // 2, -100]
    replaced, labels = rng.normal(size=(61, 4)), rng.integers(0, 2, (61, 4))
    logits = np.tile([1.0, 0.0], (61, 1))
    told, not_told = (
        metrics.batch_correction_metrics(EvalPrediction((replaced, embeddings, logits), (labels, batches)))
        for embeddings in (batches[:, None] + 0.1 * rng.normal(size=(61, 3)), rng.normal(size=(61, 3)))
    )
    assert told["batch_accuracy"] == 1
    assert not_told["batch_accuracy"] < 0.8
    assert (told["adversary_accuracy"], told["largest_batch"]) == (40 / 60, 40 / 60)
    assert told["roc_auc"] == metrics.alignment_metrics(EvalPrediction(replaced, labels))["roc_auc"]


def test_matches_are_found_as_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "QUERIES_AT_A_TIME", 3)
    rng = np.random.default_rng(0)
    rna = rng.normal(size=(20, 4))
    rna /= np.linalg.norm(rna, axis=1, keepdims=True)
    atac = rna + 0.3 * rng.normal(size=(20, 4))
    atac /= np.linalg.norm(atac, axis=1, keepdims=True)
    found = metrics.contrastive_metrics(EvalPrediction((atac.astype(np.float32), rna.astype(np.float32)), None))
    products = atac @ rna.T
    ranks = [sum(row[j] > row[i] for j in range(20)) for p in (products, products.T) for i, row in enumerate(p)]
    assert found["foscttm"] == pytest.approx(np.mean(ranks) / 19)
    for k in (1, 5, 10):
        assert found[f"recall_at_{k}"] == np.mean([rank < k for rank in ranks])


def test_cells_all_in_one_place_match_by_chance() -> None:
    one_place = np.ones((5, 2), np.float32)
    found = metrics.contrastive_metrics(EvalPrediction((one_place, one_place), None))
    assert found == {"foscttm": 0.5, "recall_at_1": 0.0, "recall_at_5": 1.0, "recall_at_10": 1.0}


def test_both_labels_of_bulk_samples_are_judged() -> None:
    logits = (torch.tensor([[2.0, 0], [0, 1], [3, 1]]), torch.tensor([[0.0, 1], [0, 1], [0, 1]]))
    labels = (np.array([0, 1, 1]), np.array([1, 0, -100]))
    predicted = tuple(part.numpy() for part in metrics.predicted_classes(logits, labels))
    found = metrics.bulk_metrics(EvalPrediction(predicted, labels))
    assert (found["cell_type_accuracy"], found["assay_accuracy"]) == (2 / 3, 1 / 2)
    assert set(found) == {"cell_type_accuracy", "cell_type_macro_f1", "assay_accuracy", "assay_macro_f1"}
