"""All metrics of an embedding at once: each distance is computed once, each neighbour found once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .checks import checked_embedding, checked_labels
from .clustering import RESOLUTIONS, best_nmi, refuse_missing_libraries
from .distances import read_distances
from .graph_connectivity import graph_connectivity
from .knn_purity import knn_purity
from .lisi import batch_lisi, cell_type_lisi
from .neighbors import NearestReader
from .silhouette import (
    SilhouetteReader,
    batch_silhouette,
    cell_type_silhouette,
    isolated_label_silhouette,
    overall_batch_silhouette,
)

# Short title -> what it tells. All but ARI lie in [0, 1]; higher is better.
EMBEDDING_METRICS = {
    "ISO": "silhouette of the cell types found in the fewest batches, scaled to [0, 1] (scib)",
    "NMI": "mutual information of Leiden clusters and cell types, the best over resolutions (scib)",
    "ARI": "adjusted Rand index of these clusters; 0 is chance (scib)",
    "cASW": "silhouette of cell types, scaled to [0, 1] (scib)",
    "cLISI": "own cell type around a cell, by the inverse Simpson's index of 89 neighbours (scib-metrics)",
    "GC": "share of a cell type that hangs together in the graph of neighbours (scib)",
    "purity": "share of a cell's 15 neighbours that have its type (the paper's formula of GC)",
    "bASW": "1 - |silhouette by batch| within each cell type (scib)",
    "bASW all": "1 - |mean silhouette by batch| over all cells (the letter of the paper's bASW)",
    "iLISI": "batches around a cell, by the inverse Simpson's index of 89 neighbours (scib-metrics)",
}


def embedding_metrics(
    embedding: np.ndarray,
    cell_types: Any,
    batches: Any = None,
    *,
    resolutions: Sequence[float] = RESOLUTIONS,
    seed: int = 0,
    show_progress: bool = True,
) -> dict[str, float]:
    """The metrics of `EMBEDDING_METRICS`, by their short titles; without `batches` only those that need none.

    Exact: one pass over all distances, in which neighbours are found and silhouettes summed, and one within each cell
    type for bASW. Costs 2·cells²·dimensions operations: 8 minutes of CPU time and 1.7 GB beside the embedding for
    100,000 cells of 512 (`benchmarks/results/evaluation_scale.md`). NMI and ARI need the extra ``clustering``.

    Args:
        embedding: (cells, dimensions), at least 6 cells.
        cell_types: one per cell, two different ones or more.
        batches: one per cell, two different ones or more, or None.
        resolutions: of the Leiden clusters; empty to leave NMI and ARI out.
        seed: of the clusters.
        show_progress: whether to show progress bars on a terminal.

    Raises:
        ValueError: if the embedding holds NaN, labels do not fit it, or there are too few cells, types or batches.
        ImportError: if the extra is not installed.
    """
    if len(resolutions):
        refuse_missing_libraries()
    points = checked_embedding(embedding)
    type_codes, types = checked_labels(cell_types, len(points), "cell types", min_labels=2)
    nearest, by_type = NearestReader(len(points)), SilhouetteReader(type_codes, len(types))
    by_batch = None
    if batches is not None:
        batch_codes, batch_names = checked_labels(batches, len(points), "batches", min_labels=2)
        by_batch = SilhouetteReader(batch_codes, len(batch_names))
    readers = [reader for reader in (by_type, by_batch, nearest) if reader is not None]
    read_distances(points, *readers, show_progress=show_progress)

    neighbors, silhouettes = nearest.neighbors, by_type.silhouettes()
    metrics = {
        "cASW": cell_type_silhouette(points, type_codes, silhouettes=silhouettes),
        "cLISI": cell_type_lisi(neighbors, type_codes),
        "GC": graph_connectivity(neighbors, type_codes),
        "purity": knn_purity(neighbors, type_codes),
    }
    if by_batch is not None:
        metrics |= {
            "ISO": isolated_label_silhouette(points, type_codes, batch_codes, silhouettes=silhouettes),
            "bASW": batch_silhouette(points, type_codes, batch_codes, show_progress=show_progress),
            "bASW all": overall_batch_silhouette(points, batch_codes, silhouettes=by_batch.silhouettes()),
            "iLISI": batch_lisi(neighbors, batch_codes),
        }
    if len(resolutions):
        clusters = best_nmi(neighbors, type_codes, resolutions=resolutions, seed=seed, show_progress=show_progress)
        metrics |= {"NMI": clusters.nmi, "ARI": clusters.adjusted_rand}
    return {title: metrics[title] for title in EMBEDDING_METRICS if title in metrics}
