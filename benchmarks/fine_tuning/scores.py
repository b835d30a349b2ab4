"""What is reported about annotation and expression."""

import numpy as np
from sklearn.metrics import roc_auc_score
from transformers import EvalPrediction

from epifoundation.training.metrics import classification_metrics, expression_metrics

Scores = dict[str, float]


def annotation_scores(types: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Of (cells,) known types and (cells, types) probabilities; see `classification_metrics`.

    ROC-AUC is one type against the rest, averaged over the types that occur.
    """
    of_labels = classification_metrics(EvalPrediction(probabilities.argmax(axis=1), types))
    areas = [roc_auc_score(types == one, probabilities[:, one]) for one in np.unique(types)]
    return of_labels | {"roc_auc": float(np.mean(areas))}


def expression_scores(levels: np.ndarray, predicted: np.ndarray) -> Scores:
    """Of (cells, genes) levels; see `expression_metrics` for the rule about genes that do not vary."""
    num_genes = (levels != levels[0]).any(axis=0).sum()
    return expression_metrics(EvalPrediction(predicted, levels)) | {"genes": float(num_genes)}
