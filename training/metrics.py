"""What is reported about held-out cells while a model trains: one function for each objective."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor
from transformers import EvalPrediction

from epifoundation.training.collators import IGNORED_LABEL


def expression_score(logits: Tensor, labels: Tensor) -> Tensor:
    """(cells, genes, 2) -> (cells, genes), how much more likely expressed than not; all that metrics need."""
    return (logits[..., 1] - logits[..., 0]).float()


def predicted_class(logits: Tensor, labels: Tensor) -> Tensor:
    """(cells, labels) -> (cells,), the likeliest."""
    return logits.argmax(dim=-1)


def unchanged(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits in single precision."""
    return logits.float()


def alignment_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `expression_score`: how often it is on the right side of 0, and the area under its ROC curve.

    Both over all pairs of cell and gene; the area is left out if all genes are expressed or none is.
    """
    labels, scores = np.asarray(prediction.label_ids).ravel(), np.asarray(prediction.predictions).ravel()
    is_asked = labels != IGNORED_LABEL
    labels, scores = labels[is_asked], scores[is_asked]
    metrics = {"accuracy": float(((scores > 0) == labels).mean())}
    if 0 < labels.sum() < len(labels):
        metrics["roc_auc"] = float(roc_auc_score(labels, scores))
    return metrics


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `predicted_class`, over cells of known type: accuracy, macro and micro F1.

    The macro F1 is the mean over the types that occur among the cells or are predicted for one.
    """
    labels, predicted = np.asarray(prediction.label_ids), np.asarray(prediction.predictions)
    is_known = labels != IGNORED_LABEL
    labels, predicted = labels[is_known], predicted[is_known]
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "micro_f1": float(f1_score(labels, predicted, average="micro", zero_division=0)),
    }


def expression_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of predicted levels (cells, genes), the same genes for all cells: squared error and correlation.

    `mse` is over all pairs; `pearson` and `spearman` are taken per gene across cells, then averaged over the genes
    whose level differs among the cells. A gene that is predicted the same for all of them counts as 0.
    """
    labels, levels = np.asarray(prediction.label_ids), np.asarray(prediction.predictions)
    metrics = {"mse": float(((levels - labels) ** 2).mean())}
    varies = (labels != labels[0]).any(axis=0)
    if varies.any():
        labels, levels = labels[:, varies], levels[:, varies]
        metrics["pearson"] = float(_correlations(labels, levels).mean())
        metrics["spearman"] = float(_correlations(rankdata(labels, axis=0), rankdata(levels, axis=0)).mean())
    return metrics


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(rows, columns) twice -> (columns,) Pearson correlations; 0 where one does not vary."""
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norms, out=np.zeros(a.shape[1]), where=norms > 1e-12)


__all__ = [
    "alignment_metrics",
    "classification_metrics",
    "expression_metrics",
    "expression_score",
    "predicted_class",
    "unchanged",
]
