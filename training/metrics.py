"""What is reported about held-out cells while a model trains: one function for each objective."""

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import EvalPrediction

from epifoundation.training.collators import IGNORED_LABEL

RECALL_AT = (1, 5, 10)
QUERIES_AT_A_TIME = 1_000


def expression_score(logits: Tensor, labels: Tensor) -> Tensor:
    """(cells, genes, 2) -> (cells, genes), how much more likely expressed than not; all that metrics need."""
    return (logits[..., 1] - logits[..., 0]).float()


def predicted_class(logits: Tensor, labels: Tensor) -> Tensor:
    """(cells, labels) -> (cells,), the likeliest."""
    return logits.argmax(dim=-1)


def predicted_classes(logits: tuple[Tensor, ...], labels: Any) -> tuple[Tensor, ...]:
    """The likeliest class of each of several heads."""
    return tuple(of_head.argmax(dim=-1) for of_head in logits)


def unchanged(logits: Any, labels: Any) -> Any:
    """The logits in single precision, of one head or of several."""
    return logits.float() if isinstance(logits, Tensor) else tuple(part.float() for part in logits)


def combined_scores(logits: tuple[Tensor, Tensor, Tensor], labels: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What is needed of alignment, replaced peaks and masked peaks."""
    aligned, replaced, places = logits
    return expression_score(aligned, labels), replaced.float(), places


def triplets(embeddings: Tensor, labels: Tensor) -> Tensor:
    """(3 cells, hidden), anchors first -> (cells, 3, hidden)."""
    return embeddings.float().unflatten(0, (3, -1)).transpose(0, 1)


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


def masked_peaks_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `label_places`: how likely a hidden peak scores above any other, and how often among the best thousandth."""
    places = np.asarray(prediction.predictions)[np.asarray(prediction.label_ids) != IGNORED_LABEL]
    if not len(places):
        return {}
    return {"roc_auc": float(places.mean()), "in_best_thousandth": float((places >= 0.999).mean())}


def combined_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `combined_scores`: as for each objective alone; the latter two have their names before theirs."""
    of_each = (
        ("", alignment_metrics),
        ("replaced_peaks_", alignment_metrics),
        ("masked_peaks_", masked_peaks_metrics),
    )
    parts = [EvalPrediction(*pair) for pair in zip(prediction.predictions, prediction.label_ids, strict=True)]
    return {
        prefix + name: value
        for (prefix, measure), part in zip(of_each, parts, strict=True)
        for name, value in measure(part).items()
    }


def clustering_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `triplets` and the anchors' types: share of triplets in order, and the silhouette of the types."""
    anchors, positives, negatives = np.asarray(prediction.predictions).transpose(1, 0, 2)
    near, far = (np.linalg.norm(anchors - others, axis=1) for others in (positives, negatives))
    metrics = {"triplet_accuracy": float((near < far).mean())}
    types = np.asarray(prediction.label_ids)
    if 1 < len(np.unique(types)) < len(types):
        metrics["silhouette"] = float(silhouette_score(anchors, types))
    return metrics


def batch_correction_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of replaced peaks as in alignment; and how well batches can be told, which should be little.

    `batch_accuracy` is that of a new classifier of the cell embeddings (logistic regression, cross-validated), to be
    compared with `largest_batch`, the share of the largest; `adversary_accuracy` is that of the model's own, which the
    encoder has learned to mislead. Both are of cells with some peaks replaced, as in training; whole
    cells may tell more.
    """
    replaced, embeddings, batch_logits = map(np.asarray, prediction.predictions)
    labels, batches = map(np.asarray, prediction.label_ids)
    metrics = alignment_metrics(EvalPrediction(replaced, labels))
    is_known = batches >= 0
    embeddings, batches, guesses = embeddings[is_known], batches[is_known], batch_logits[is_known].argmax(axis=1)
    sizes = np.unique(batches, return_counts=True)[1]
    if len(sizes) > 1 and sizes.min() > 1:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        folds = StratifiedKFold(min(5, int(sizes.min())), shuffle=True, random_state=0)
        metrics["batch_accuracy"] = float(cross_val_score(probe, embeddings, batches, cv=folds).mean())
    if len(sizes):
        metrics["adversary_accuracy"] = float((guesses == batches).mean())
        metrics["largest_batch"] = float(sizes.max() / sizes.sum())
    return metrics


def contrastive_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of embeddings by ATAC and by RNA, row by row of the same cell: how well each finds the other among all cells.

    `foscttm` is the share of cells closer than the true match, `recall_at_k` how often it is among the k closest; both
    are means over both directions. Cells equally close count half in the former, and as closer in the latter.
    """
    atac, rna = (np.asarray(part, dtype=np.float32) for part in prediction.predictions)
    closer = np.concatenate([_closer_than_the_match(a, b) for a, b in ((atac, rna), (rna, atac))], axis=1)
    strictly, tied = closer
    metrics = {"foscttm": float((strictly + 0.5 * tied).mean() / max(1, len(atac) - 1))}
    for k in RECALL_AT:
        metrics[f"recall_at_{k}"] = float((strictly + tied < k).mean())
    return metrics


def bulk_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of `predicted_classes` of cell types and assays: as in classification, with the kind of label before the name."""
    pairs = zip(("cell_type", "assay"), prediction.predictions, prediction.label_ids, strict=True)
    return {
        f"{kind}_{name}": value
        for kind, predicted, labels in pairs
        for name, value in classification_metrics(EvalPrediction(predicted, labels)).items()
        if name != "micro_f1"  # is the accuracy
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


def _closer_than_the_match(queries: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(2, queries): how many cells have a larger product with query i than cell i has, and how many the same."""
    counts = np.zeros((2, len(queries)))
    for begin in range(0, len(queries), QUERIES_AT_A_TIME):
        products = queries[begin : begin + QUERIES_AT_A_TIME] @ cells.T
        rows = np.arange(len(products))
        of_match = products[rows, begin + rows][:, None]
        counts[0, begin + rows] = (products > of_match).sum(axis=1)
        counts[1, begin + rows] = (products == of_match).sum(axis=1) - 1
    return counts


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(rows, columns) twice -> (columns,) Pearson correlations; 0 where one does not vary."""
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (a, b))
    norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norms, out=np.zeros(a.shape[1]), where=norms > 1e-12)


__all__ = [
    "alignment_metrics",
    "batch_correction_metrics",
    "bulk_metrics",
    "classification_metrics",
    "clustering_metrics",
    "combined_metrics",
    "combined_scores",
    "contrastive_metrics",
    "expression_metrics",
    "expression_score",
    "masked_peaks_metrics",
    "predicted_class",
    "predicted_classes",
    "triplets",
    "unchanged",
]
