"""Linear methods on counts of peaks: PCA, TF-IDF + LSI, and simple classifiers on top of the latter."""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from epifoundation.dataset_builders.clustering.expression import log_normalized
from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex

from .baselines import MeasuredCells, TypeProbabilities

NUM_DIMENSIONS = 30
NUM_TO_PREDICT = 64  # linear maps of LSI gain by more dimensions than neighbours and clusters do
NUM_NEIGHBOURS = 15


def embed_pca(cells: MeasuredCells, seed: int, num_dimensions: int = NUM_DIMENSIONS) -> np.ndarray:
    """(cells, dimensions) principal components of log-normalised peak counts, learned from training cells.

    The decomposition centres implicitly, so that nothing is made dense.
    """
    # Not the randomised solver: it would make the matrix dense.
    pca = PCA(_dimensions(num_dimensions, cells.train_peaks), svd_solver="arpack", random_state=seed)
    pca.fit(log_normalized(cells.train_peaks))
    return np.asarray(pca.transform(log_normalized(cells.peaks)))


def embed_lsi(cells: MeasuredCells, seed: int, num_dimensions: int = NUM_DIMENSIONS) -> np.ndarray:
    """(cells, dimensions) TF-IDF + LSI learned from training cells; rows have unit length.

    Unit length takes out most of the sequencing depth, for which others leave out the first dimension.
    """
    index = LatentSemanticIndex.fit(cells.train_peaks, _dimensions(num_dimensions, cells.train_peaks), seed)
    return np.asarray(Normalizer().fit_transform(index.transform(cells.peaks)))


def annotate_logistic(cells: MeasuredCells, seed: int, num_dimensions: int = NUM_TO_PREDICT) -> TypeProbabilities:
    """A logistic regression on standardised LSI dimensions."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return _annotated(classifier, cells, embed_lsi(cells, seed, num_dimensions))


def annotate_knn(cells: MeasuredCells, seed: int, num_dimensions: int = NUM_DIMENSIONS) -> TypeProbabilities:
    """Shares of the types among the 15 nearest training cells by LSI (of unit length, so by angle)."""
    neighbours = KNeighborsClassifier(min(NUM_NEIGHBOURS, cells.num_train))
    return _annotated(neighbours, cells, embed_lsi(cells, seed, num_dimensions))


def _annotated(classifier: Any, cells: MeasuredCells, embedding: np.ndarray) -> TypeProbabilities:
    types = np.unique(cells.train_types)
    if len(types) < 2:
        raise ValueError(f"the training cells are all of the type {str(types[0])!r}: there is nothing to tell apart")
    classifier.fit(embedding[cells.is_train], cells.train_types.astype(str))
    return TypeProbabilities(classifier.classes_, classifier.predict_proba(embedding[~cells.is_train]))


def _dimensions(wanted: int, matrix: csr_matrix) -> int:
    return min(wanted, min(matrix.shape) - 1)
