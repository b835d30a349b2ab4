"""Clusters of cells from accessibility, expression or both, as in the appendix of the EpiFoundation paper."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
import scipy.sparse as sp

from .expression import log_normalized, most_variable, principal_components
from .lsi import LatentSemanticIndex
from .weighted_neighbors import nearest_neighbors, shared_neighbors, weighted_neighbors

NUM_DIMENSIONS = 50
NUM_NEIGHBORS = 20
NUM_VARIABLE_GENES = 2_000
FEWEST_CELLS_OF_PEAK = 5  # a peak of fewer cells says nothing about clusters
SMALLEST_OVERLAP = 1 / 15  # of neighbourhoods, below which cells are not joined, as in Seurat
FEWEST_CELLS = 10


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of cells, and what they were found by.

    Attributes:
        of_cell: (cells,) int64 number of each cell's cluster, 0 for the largest.
        embeddings: (cells, dimensions) by name: "X_lsi" and, of paired cells, "X_pca".
        rna_weight: (cells,) weight of expression among paired cells; else None.
    """

    of_cell: np.ndarray
    embeddings: dict[str, np.ndarray]
    rna_weight: np.ndarray | None = None


def cluster_cells(
    peak_counts: sp.csr_matrix,
    gene_counts: sp.csr_matrix | None = None,
    *,
    resolution: float = 1.0,
    seed: int = 0,
) -> Clusters:
    """Cluster cells by Louvain's method on their shared nearest neighbours.

    Accessibility: TF-IDF and LSI of the peaks open in at least 5 cells, 50 dimensions, without the first, which
    follows the depth. Expression: log-normalised counts, 2,000 variable genes, scaled, 50 principal components. With
    both, neighbours are weighted (`weighted_neighbors`). The same data give the same clusters.

    Args:
        peak_counts: (cells, peaks), of which only zero or not zero is used.
        gene_counts: (cells, genes) raw counts of the same cells.
        resolution: higher gives more clusters.
        seed: order in which Louvain's method visits the cells.

    Raises:
        ValueError: if there are fewer than 10 cells, or too few peaks.
    """
    num_cells = peak_counts.shape[0]
    if num_cells < FEWEST_CELLS:
        raise ValueError(f"{num_cells} cells are too few for clusters: expected at least {FEWEST_CELLS}")
    embeddings = {"X_lsi": accessibility_embedding(peak_counts, seed)}
    weight = None
    if gene_counts is None:
        neighbors = nearest_neighbors(embeddings["X_lsi"], NUM_NEIGHBORS)
    else:
        embeddings["X_pca"] = expression_embedding(gene_counts, seed)
        neighbors, weight = weighted_neighbors(embeddings["X_pca"], embeddings["X_lsi"], NUM_NEIGHBORS)
    return Clusters(louvain(shared_neighbors(neighbors), resolution, seed), embeddings, weight)


def accessibility_embedding(peak_counts: sp.csr_matrix, seed: int = 0) -> np.ndarray:
    """(cells, peaks) -> (cells, up to 49) LSI without its first dimension.

    Raises:
        ValueError: if fewer than 4 peaks are open in at least 5 cells.
    """
    is_seen = np.bincount(peak_counts.indices[peak_counts.data != 0], minlength=peak_counts.shape[1])
    matrix = peak_counts[:, is_seen >= FEWEST_CELLS_OF_PEAK]
    num_dimensions = min(NUM_DIMENSIONS, min(matrix.shape) - 1)
    if num_dimensions < 3:
        raise ValueError(
            f"only {matrix.shape[1]:,} of {peak_counts.shape[1]:,} peaks are open in {FEWEST_CELLS_OF_PEAK} cells or "
            "more: too few for clusters"
        )
    return LatentSemanticIndex.fit(matrix, num_dimensions, seed).transform(matrix)[:, 1:]


def expression_embedding(gene_counts: sp.csr_matrix, seed: int = 0) -> np.ndarray:
    """(cells, genes) raw counts -> (cells, up to 50) principal components of the 2,000 most variable genes."""
    normalized = log_normalized(gene_counts)
    return principal_components(normalized[:, most_variable(normalized, NUM_VARIABLE_GENES)], NUM_DIMENSIONS, seed)


def louvain(similarity: sp.csr_matrix, resolution: float = 1.0, seed: int = 0) -> np.ndarray:
    """Clusters of a graph, (cells,) int64, numbered from the largest to the smallest.

    Args:
        similarity: (cells, cells) symmetric; pairs below 1/15 are not joined.
        resolution: higher gives more clusters.
        seed: order in which cells are visited.
    """
    upper = sp.triu(similarity, k=1).tocoo()
    is_joined = upper.data >= SMALLEST_OVERLAP
    edges = (array[is_joined].tolist() for array in (upper.row, upper.col, upper.data))
    graph = nx.Graph()
    graph.add_nodes_from(range(similarity.shape[0]))
    graph.add_weighted_edges_from(zip(*edges, strict=True))
    found = nx.community.louvain_communities(graph, resolution=resolution, seed=seed)
    clusters = np.empty(similarity.shape[0], dtype=np.int64)
    for number, members in enumerate(sorted(found, key=lambda cells: (-len(cells), min(cells)))):
        clusters[list(members)] = number
    return clusters
