"""How much about cell types an embedding tells: simple classifiers and clusters on top of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler, normalize

NUM_NEIGHBOURS = 15
NUM_FOLDS = 5


class ProbeScores(NamedTuple):
    """Scores of an embedding, each in [0, 1], higher is better.

    Attributes:
        knn_accuracy: share of cells whose type is the most frequent among their 15 nearest (cosine) neighbours.
        logistic_accuracy: share of cells a logistic regression gets right, on vectors of unit length whose dimensions
            are standardised. Unit length takes out most of the sequencing depth; it helps LSI above all.
        logistic_macro_f1: its F1, averaged over cell types.
        nmi: normalised mutual information between cell types and as many k-means clusters of unit-length vectors.
    """

    knn_accuracy: float
    logistic_accuracy: float
    logistic_macro_f1: float
    nmi: float


def cross_validated_probes(embedding: np.ndarray, labels: Sequence[str], seed: int = 0) -> ProbeScores:
    """Fit and test the classifiers within these cells, by 5 stratified folds.

    Args:
        embedding: (cells, dimensions).
        labels: cell type of each cell; each type has at least 5 cells.
        seed: of folds and clusters.
    """
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    knn, logistic = (cross_val_predict(model, embedding, labels, cv=folds) for model in _classifiers())
    return _scores(embedding, labels, knn, logistic, seed)


def transferred_probes(
    train_embedding: np.ndarray,
    train_labels: Sequence[str],
    embedding: np.ndarray,
    labels: Sequence[str],
    seed: int = 0,
) -> ProbeScores:
    """Fit the classifiers on the cells the embedding was learned from, and test them on others.

    Stricter than `cross_validated_probes`: an embedding that memorised its training cells places new ones elsewhere.
    """
    knn, logistic = (model.fit(train_embedding, train_labels).predict(embedding) for model in _classifiers())
    return _scores(embedding, labels, knn, logistic, seed)


def _classifiers() -> tuple[ClassifierMixin, ClassifierMixin]:
    return (
        KNeighborsClassifier(NUM_NEIGHBOURS, metric="cosine"),
        make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(max_iter=5000)),
    )


def _scores(
    embedding: np.ndarray, labels: Sequence[str], knn: np.ndarray, logistic: np.ndarray, seed: int
) -> ProbeScores:
    clusters = KMeans(len(set(labels)), n_init=10, random_state=seed).fit_predict(normalize(embedding))
    return ProbeScores(
        knn_accuracy=accuracy_score(labels, knn),
        logistic_accuracy=accuracy_score(labels, logistic),
        logistic_macro_f1=f1_score(labels, logistic, average="macro"),
        nmi=normalized_mutual_info_score(labels, clusters),
    )
