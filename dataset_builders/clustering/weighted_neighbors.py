"""Nearest neighbours by two measurements of the same cells, each weighted by how well it tells cells apart.

After Hao et al., Integrated analysis of multimodal single-cell data, Cell 184, 3573 (2021): "weighted nearest
neighbours" (WNN), with the parameters of Seurat. All neighbours are exact here.
"""

import numpy as np
import scipy.sparse as sp
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors

NUM_CANDIDATES = 200  # of each measurement
CELLS_AT_A_TIME = 256
_SMALL = 1e-4


def nearest_neighbors(embedding: np.ndarray, num_neighbors: int) -> np.ndarray:
    """(cells, dimensions) -> (cells, neighbours) int64 indices of the nearest others, the nearest first."""
    num_neighbors = min(num_neighbors, len(embedding) - 1)
    return np.asarray(NearestNeighbors(n_neighbors=num_neighbors).fit(embedding).kneighbors(return_distance=False))


def shared_neighbors(neighbors: np.ndarray) -> sp.csr_matrix:
    """(cells, cells) Jaccard index of the neighbourhoods of each two cells, a cell being its own neighbour."""
    num_cells, num_neighbors = len(neighbors), neighbors.shape[1] + 1
    members = np.c_[np.arange(num_cells), neighbors].ravel()
    bounds = np.arange(num_cells + 1) * num_neighbors
    graph = sp.csr_matrix((np.ones(len(members)), members, bounds), shape=(num_cells, num_cells))
    shared = (graph @ graph.T).tocsr()
    shared.data /= 2 * num_neighbors - shared.data
    return shared


def weighted_neighbors(first: np.ndarray, second: np.ndarray, num_neighbors: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The nearest neighbours of each cell by both measurements, and the weight of the first for each cell.

    Args:
        first: (cells, dimensions) one embedding, such as principal components of expression.
        second: (cells, dimensions) another of the same cells, such as LSI of accessibility.
        num_neighbors: how many.

    Returns:
        (cells, neighbours) int64 indices, and (cells,) weights from 0 to 1; the second has the rest.
    """
    embeddings = [_unit_length(first), _unit_length(second)]
    neighbors = [nearest_neighbors(embedding, num_neighbors) for embedding in embeddings]
    nearest = [_distances(x, x[near[:, 0]]) for x, near in zip(embeddings, neighbors, strict=True)]
    widths = [_bandwidths(x, near) - d for x, near, d in zip(embeddings, neighbors, nearest, strict=True)]
    widths = [np.maximum(width, np.finfo(float).tiny) for width in widths]
    ratios = []
    for i in (0, 1):
        own, cross = (
            _affinity(_distances(embeddings[i], embeddings[i][near].mean(axis=1)), nearest[i], widths[i])
            for near in (neighbors[i], neighbors[1 - i])
        )
        ratios.append(own / (cross + _SMALL))
    weight = expit(ratios[0] - ratios[1])
    candidates = [nearest_neighbors(embedding, NUM_CANDIDATES) for embedding in embeddings]
    joint = np.empty((len(weight), min(num_neighbors, len(weight) - 1)), dtype=np.int64)
    for start in range(0, len(weight), CELLS_AT_A_TIME):
        rows = np.arange(start, min(start + CELLS_AT_A_TIME, len(weight)))
        options = np.hstack([near[rows] for near in candidates])
        similarity = np.zeros(options.shape)
        for x, d, width, share in zip(embeddings, nearest, widths, (weight, 1 - weight), strict=True):
            distances = np.linalg.norm(x[options] - x[rows][:, None], axis=-1)
            similarity += share[rows, None] * _affinity(distances, d[rows, None], width[rows, None])
        joint[rows] = _best_distinct(options, similarity, joint.shape[1])
    return joint, weight


def _unit_length(embedding: np.ndarray) -> np.ndarray:
    return embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), np.finfo(float).tiny)


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - others, axis=1)


def _affinity(distances: np.ndarray, nearest: np.ndarray, widths: np.ndarray) -> np.ndarray:
    return np.exp(-np.maximum(distances - nearest, 0) / widths)


def _bandwidths(embedding: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Mean distance of each cell to the cells with which it shares fewest neighbours, but some; (cells,)."""
    shared = shared_neighbors(neighbors).tocoo()
    distances = _distances(embedding[shared.row], embedding[shared.col])
    order = np.lexsort((-distances, shared.data, shared.row))  # of equal overlap, the more distant first
    rows = shared.row[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    is_chosen = rank < neighbors.shape[1]
    rows, chosen = rows[is_chosen], distances[order][is_chosen]
    return np.bincount(rows, chosen) / np.bincount(rows)


def _best_distinct(options: np.ndarray, similarity: np.ndarray, num_chosen: int) -> np.ndarray:
    """The most similar options of each row, each once; ties go to the lower index."""
    by_index = np.argsort(options, axis=1, kind="stable")
    options, similarity = (np.take_along_axis(array, by_index, axis=1) for array in (options, similarity))
    similarity[:, 1:][options[:, 1:] == options[:, :-1]] = -np.inf
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :num_chosen]
    return np.take_along_axis(options, best, axis=1)
