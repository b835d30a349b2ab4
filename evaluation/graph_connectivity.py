"""Do the cells of a type hang together in the graph of neighbours?"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from .checks import checked_labels
from .neighbors import Neighbors

# scib's 15 count the cell itself.
GRAPH_NEIGHBORS = 14


def graph_connectivity(neighbors: Neighbors, cell_types: Any, num_neighbors: int = GRAPH_NEIGHBORS) -> float:
    """The GC in (0, 1]: share of a type's cells in its largest connected piece, averaged over types.

    Two cells are joined if either is among the nearest of the other, and paths stay within the type. As scib; the
    function of that name in scib-metrics follows neighbours one way only and gives lower values, and the paper's
    formula of that name is `knn_purity`.
    """
    codes, names = checked_labels(cell_types, len(neighbors.indices), "cell types")
    graph = _graph(neighbors.nearest(num_neighbors))
    shares = []
    for i in range(len(names)):
        of_type = np.flatnonzero(codes == i)
        _, pieces = connected_components(graph[of_type][:, of_type], directed=False)
        shares.append(np.bincount(pieces).max() / len(of_type))
    return float(np.mean(shares))


def _graph(neighbors: Neighbors) -> Any:
    num_cells, num_neighbors = neighbors.indices.shape
    starts = np.arange(num_cells + 1) * num_neighbors
    joined = np.ones(neighbors.indices.size, dtype=bool)
    return sp.csr_matrix((joined, neighbors.indices.ravel(), starts), shape=(num_cells, num_cells))
