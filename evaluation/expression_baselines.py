"""Expression by simple means: each gene's mean, a linear map of LSI, and gene activity."""

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.preprocessing import StandardScaler

from epifoundation.dataset_builders.clustering.expression import log_normalized
from epifoundation.dataset_builders.clustering.gene_activity import distance_activity, gene_activity
from epifoundation.dataset_builders.genome.gene_coordinates import positions_of

from .baselines import MeasuredCells
from .calibration import calibrated
from .linear_baselines import NUM_TO_PREDICT, embed_lsi


def predict_gene_mean(cells: MeasuredCells, seed: int = 0) -> np.ndarray:
    """(held-out cells, genes) the mean level of each gene in the training cells, the same for all cells."""
    assert cells.gene_levels is not None
    mean = np.asarray(cells.gene_levels[cells.is_train].mean(axis=0), dtype=np.float32).ravel()
    return np.tile(mean, (len(cells.is_train) - cells.num_train, 1))


def predict_lsi_ridge(cells: MeasuredCells, seed: int) -> np.ndarray:
    """(held-out cells, genes) levels by ridge regression on standardised LSI dimensions of unit length.

    The penalty is a tenth of the number of training cells. The levels of training cells stay sparse.
    """
    assert cells.gene_levels is not None
    embedding = embed_lsi(cells, seed, NUM_TO_PREDICT)
    scaler = StandardScaler().fit(embedding[cells.is_train])
    train, test = scaler.transform(embedding[cells.is_train]), scaler.transform(embedding[~cells.is_train])
    levels = cells.gene_levels[cells.is_train]
    covariance = train.T @ train + cells.num_train / 10 * np.eye(train.shape[1])
    slopes = np.linalg.solve(covariance, np.asarray((levels.T @ train).T))
    mean = np.asarray(levels.mean(axis=0)).ravel()
    return (test @ slopes + mean).astype(np.float32)


def predict_gene_activity(cells: MeasuredCells, seed: int = 0) -> np.ndarray:
    """(held-out cells, genes) levels from counts in gene bodies and 2,000 base pairs upstream.

    Activities are log-normalised within each cell, then put on a line per gene fitted on training cells.

    Raises:
        ValueError: if no gene has a known position, or no peak lies in a gene.
    """
    genes = positions_of(cells.gene_names, cells.genome)
    return _predicted(cells, gene_activity(cells.peaks, cells.peak_names, genes))


def predict_distance_activity(cells: MeasuredCells, seed: int = 0) -> np.ndarray:
    """(held-out cells, genes) levels from counts within 100,000 base pairs, weighted by distance; otherwise the same.

    Raises:
        ValueError: if no gene has a known position.
    """
    genes = positions_of(cells.gene_names, cells.genome)
    return _predicted(cells, distance_activity(cells.peaks, cells.peak_names, genes))


def _predicted(cells: MeasuredCells, activity: csr_matrix) -> np.ndarray:
    assert cells.gene_levels is not None
    scores = log_normalized(activity)
    return calibrated(scores[cells.is_train], cells.gene_levels[cells.is_train], scores[~cells.is_train])
