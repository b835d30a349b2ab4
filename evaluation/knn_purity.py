"""Are the neighbours of a cell of its own type?"""

from typing import Any

from .checks import checked_labels
from .neighbors import Neighbors

PURITY_NEIGHBORS = 15


def knn_purity(neighbors: Neighbors, cell_types: Any, num_neighbors: int = PURITY_NEIGHBORS) -> float:
    """Share in [0, 1] of a cell's nearest other cells that have its type, averaged over cells.

    What appendix B.3 of the EpiFoundation paper calls graph connectivity; it does not say how many neighbours, nor
    whether cells or types are averaged. With one type it is 1.
    """
    codes, _ = checked_labels(cell_types, len(neighbors.indices), "cell types")
    return float((codes[neighbors.nearest(num_neighbors).indices] == codes[:, None]).mean())
