"""Do clusters found without labels match the cell types?"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from tqdm.auto import tqdm

from .checks import checked_labels
from .distances import SECONDS_WITHOUT_PROGRESS
from .graph_connectivity import GRAPH_NEIGHBORS
from .neighbors import Neighbors

RESOLUTIONS = tuple(round(0.2 * i, 1) for i in range(1, 11))  # scib's
LIBRARIES = {"umap": "umap-learn", "graspologic_native": "graspologic-native"}  # import name -> name on PyPI


class ClusteringScores(NamedTuple):
    """How well Leiden clusters match cell types.

    Attributes:
        nmi: normalised mutual information 2·I / (H + H) in [0, 1], the highest over resolutions.
        adjusted_rand: adjusted Rand index of the same clusters, at most 1; 0 is chance.
        resolution: at which `nmi` is reached; the lowest of equals.
        curve: (resolution, NMI, adjusted Rand index, number of clusters) of each resolution tried.
    """

    nmi: float
    adjusted_rand: float
    resolution: float
    curve: tuple[tuple[float, float, float, int], ...]


def best_nmi(
    neighbors: Neighbors,
    cell_types: Any,
    *,
    resolutions: Sequence[float] = RESOLUTIONS,
    seed: int = 0,
    show_progress: bool = False,
) -> ClusteringScores:
    """Cluster at each resolution and compare with the cell types; scib's NMI and ARI, with Leiden clusters.

    The choice looks at the labels, so the best NMI is what a reader who knew them could reach. Costs seconds per
    resolution for 100,000 cells; needs the extra ``clustering``.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if the types do not fit the cells, or are all the same.
    """
    codes, _ = checked_labels(cell_types, len(neighbors.indices), "cell types", min_labels=2)
    graph = umap_graph(neighbors)
    curve = []
    disable = None if show_progress else True
    for resolution in tqdm(resolutions, "clustering", delay=SECONDS_WITHOUT_PROGRESS, disable=disable):
        clusters = leiden_clusters(graph, resolution, seed)
        nmi = float(normalized_mutual_info_score(codes, clusters))
        rand = float(adjusted_rand_score(codes, clusters))
        curve.append((float(resolution), nmi, rand, len(np.unique(clusters))))
    resolution, nmi, rand, _ = max(curve, key=lambda point: point[1])
    return ClusteringScores(nmi, rand, resolution, tuple(curve))


def umap_graph(neighbors: Neighbors, num_neighbors: int = GRAPH_NEIGHBORS) -> Any:
    """(cells, cells) CSR of the weights UMAP gives to neighbours, symmetric; what scanpy calls connectivities."""
    refuse_missing_libraries()
    from umap.umap_ import fuzzy_simplicial_set

    indices, distances = neighbors.nearest(num_neighbors).with_itself()
    graph, _, _ = fuzzy_simplicial_set(
        sp.coo_matrix((len(indices), 1)), indices.shape[1], None, None, knn_indices=indices, knn_dists=distances
    )
    return graph.tocsr()


def leiden_clusters(graph: Any, resolution: float, seed: int = 0) -> np.ndarray:
    """(cells,) numbers of clusters: Leiden (Traag et al. 2019) on modularity, by graspologic-native (MIT).

    igraph and leidenalg, which scanpy uses, are GPL; the modularity reached is the same, memberships of single
    cells differ as they do between seeds.

    Args:
        graph: (cells, cells) symmetric CSR of weights.
        resolution: higher for more clusters.
        seed: of the order in which cells are visited.
    """
    refuse_missing_libraries()
    from graspologic_native import leiden_csr

    parts = graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data.astype(np.float64)
    _, cluster_of = leiden_csr(*parts, graph.shape[0], resolution=float(resolution), iterations=2, seed=seed)
    return np.array([cluster_of[cell] for cell in range(graph.shape[0])])


def refuse_missing_libraries() -> None:
    """Check that the extra ``clustering`` is installed, without importing it.

    Raises:
        ImportError: if it is not; the message tells the command that installs it.
    """
    missing = [package for name, package in LIBRARIES.items() if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'Leiden clusters (NMI, ARI) need {" and ".join(missing)}: pip install "epifoundation[clustering]"'
        )
