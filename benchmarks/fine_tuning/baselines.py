"""What the model is compared with, fitted on the training cells alone."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from epifoundation.dataset_builders.clustering.gene_activity import gene_activity as activity_of_genes
from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex
from epifoundation.dataset_builders.genome.gene_coordinates import positions_of
from epifoundation.tokenization import PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import NUM_SPECIAL_TOKENS


def lsi(train: sp.csr_matrix, test: sp.csr_matrix, num_dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """TF-IDF and LSI of both, learned from `train`."""
    index = LatentSemanticIndex.fit(train, num_dimensions)
    return index.transform(train), index.transform(test)


def logistic_probabilities(train: np.ndarray, types: np.ndarray, test: np.ndarray, num_types: int) -> np.ndarray:
    """(cells, types) by logistic regression on vectors of unit length whose dimensions are standardised."""
    model = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(max_iter=5000))
    known = types >= 0
    probabilities = np.zeros((len(test), num_types))
    probabilities[:, np.unique(types[known])] = model.fit(train[known], types[known]).predict_proba(test)
    return probabilities


def ridge(train: np.ndarray, levels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(cells, genes) levels, linear in vectors of unit length whose dimensions are standardised."""
    return make_pipeline(Normalizer(), StandardScaler(), Ridge(alpha=len(train) / 10)).fit(train, levels).predict(test)


def gene_mean(levels: np.ndarray, num_cells: int) -> np.ndarray:
    """(cells, genes) mean level of each gene, the same for all cells."""
    return np.repeat(levels.mean(axis=0, keepdims=True), num_cells, axis=0)


def gene_activity(
    train: sp.csr_matrix, levels: np.ndarray, test: sp.csr_matrix, tokenizer: PeakTokenizer, genome: str
) -> np.ndarray:
    """(cells, genes) levels, linear in log(1 + open peaks in the gene body and 2,000 base pairs upstream, per 10,000).

    The line of each gene is fitted by least squares; a gene without a place or a peak gets its mean.
    """
    genes = tokenizer.genes
    assert genes is not None
    peak_names, places = tokenizer.vocabulary.names(), positions_of(genes.names, genome)
    fitted, asked = (_activity(cells[:, NUM_SPECIAL_TOKENS:], peak_names, places) for cells in (train, test))
    centre, mean = fitted.mean(axis=0), levels.mean(axis=0)
    variance = ((fitted - centre) ** 2).sum(axis=0)
    covariance = ((fitted - centre) * (levels - mean)).sum(axis=0)
    slope = np.divide(covariance, variance, out=np.zeros_like(mean), where=variance > 1e-9)
    return mean + (asked - centre) * slope


def _activity(cells: sp.csr_matrix, peak_names: list[str], places: pd.DataFrame) -> np.ndarray:
    activity = activity_of_genes(cells, peak_names, places).toarray()
    return np.log1p(1e4 * activity / np.maximum(np.asarray(cells.sum(axis=1)), 1))
