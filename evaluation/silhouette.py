"""Silhouettes: is a cell nearer to cells of its own label than to those of the next one?

Silhouettes are those of Rousseeuw (1987), the scores from them those of scib (Luecken et al. 2022), whose definitions
appendix B.3 of the EpiFoundation paper repeats.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .checks import checked_embedding, checked_labels, types_of_one_batch
from .distances import SECONDS_WITHOUT_PROGRESS, read_distances


def silhouette_samples(embedding: np.ndarray, labels: Any, *, show_progress: bool = False) -> np.ndarray:
    """(cells,) silhouettes in [-1, 1]: (b - a) / max(a, b), a and b the mean distances to own and next label.

    a leaves the cell itself out; b is that to the other label with the smallest mean. A cell that is the only one of
    its label gets 0, as does one with a = b = 0. Costs 2·cells²·(dimensions + labels) operations and 8 bytes per cell
    and label beside what `read_distances` needs.

    Args:
        embedding: (cells, dimensions).
        labels: one per cell, two different ones or more.
        show_progress: whether to show a progress bar on a terminal.

    Raises:
        ValueError: see `checked_embedding` and `checked_labels`.
    """
    points = checked_embedding(embedding)
    codes, names = checked_labels(labels, len(points), "labels", min_labels=2)
    reader = SilhouetteReader(codes, len(names))
    read_distances(points, reader, show_progress=show_progress)
    return reader.silhouettes()


def cell_type_silhouette(embedding: np.ndarray, cell_types: Any, *, silhouettes: np.ndarray | None = None) -> float:
    """The cASW in [0, 1]: (mean silhouette by cell type + 1) / 2; higher, the better types are apart.

    Args:
        embedding: (cells, dimensions).
        cell_types: one per cell.
        silhouettes: `silhouette_samples` of both, if known already.
    """
    if silhouettes is None:
        silhouettes = silhouette_samples(embedding, cell_types)
    return float((silhouettes.mean() + 1) / 2)


def isolated_label_silhouette(
    embedding: np.ndarray, cell_types: Any, batches: Any, *, silhouettes: np.ndarray | None = None
) -> float:
    """The ISO in [0, 1]: (mean silhouette + 1) / 2 of each isolated cell type, averaged over these types.

    Isolated are the types found in the fewest batches. If all types are in equally many, all count, as in
    scib-metrics and by the words of the paper; scib itself returns nothing if they are in all batches.

    Args:
        embedding: (cells, dimensions).
        cell_types: one per cell.
        batches: one per cell.
        silhouettes: `silhouette_samples` of embedding and types, if known already.
    """
    type_codes, types = checked_labels(cell_types, len(embedding), "cell types", min_labels=2)
    batch_codes, _ = checked_labels(batches, len(embedding), "batches")
    if silhouettes is None:
        silhouettes = silhouette_samples(embedding, cell_types)
    num_batches = np.array([len(np.unique(batch_codes[type_codes == i])) for i in range(len(types))])
    isolated = np.flatnonzero(num_batches == num_batches.min())
    return float(np.mean([(silhouettes[type_codes == i].mean() + 1) / 2 for i in isolated]))


def batch_silhouette(embedding: np.ndarray, cell_types: Any, batches: Any, *, show_progress: bool = False) -> float:
    """The bASW in [0, 1]: mean 1 - |silhouette by batch| within each cell type, averaged over types; 1 is well mixed.

    Types of a single batch do not count (`types_of_one_batch` names them), nor do those with as many batches as
    cells. This is scib's; for 1 - |ASW_batch| taken by the letter see `overall_batch_silhouette`. Costs
    2·cells²·dimensions operations per type.

    Raises:
        ValueError: if no type is left.
    """
    points = checked_embedding(embedding)
    type_codes, types = checked_labels(cell_types, len(points), "cell types")
    batch_codes, _ = checked_labels(batches, len(points), "batches", min_labels=2)
    scores = []
    disable = None if show_progress else True
    for i in tqdm(range(len(types)), "batches by type", delay=SECONDS_WITHOUT_PROGRESS, disable=disable):
        of_type = type_codes == i
        if 1 < len(np.unique(batch_codes[of_type])) < of_type.sum():
            scores.append(1 - np.abs(silhouette_samples(points[of_type], batch_codes[of_type])).mean())
    if not scores:
        alone = len(types_of_one_batch(cell_types, batches))
        raise ValueError(
            f"no cell type can tell how batches mix: {alone} of {len(types)} are found in one batch only, the others "
            "have a single cell per batch; expected a type with several cells in two batches or more"
        )
    return float(np.mean(scores))


def overall_batch_silhouette(embedding: np.ndarray, batches: Any, *, silhouettes: np.ndarray | None = None) -> float:
    """1 - |mean silhouette by batch| in [0, 1] over all cells, whatever their type; 1 is well mixed.

    The letter of the paper's bASW = 1 - |ASW_batch|. Unlike `batch_silhouette` it is low where batches hold different
    types, and positive and negative silhouettes cancel; report it beside the other, not in its place.

    Args:
        embedding: (cells, dimensions).
        batches: one per cell, two different ones or more.
        silhouettes: `silhouette_samples` of both, if known already.
    """
    if silhouettes is None:
        silhouettes = silhouette_samples(embedding, batches)
    return float(1 - abs(silhouettes.mean()))


class SilhouetteReader:
    """Sums each cell's distances to the cells of each label while distances are read."""

    def __init__(self, codes: np.ndarray, num_labels: int) -> None:
        self.codes = codes
        self.sizes = np.bincount(codes, minlength=num_labels)
        self.sums = np.empty((len(codes), num_labels))
        self._is_label = torch.nn.functional.one_hot(torch.from_numpy(codes).long(), num_labels).double()

    def read(self, start: int, distances: Tensor) -> None:
        """See `DistanceReader`."""
        self.sums[start : start + len(distances)] = (distances @ self._is_label).numpy()

    def silhouettes(self) -> np.ndarray:
        """(cells,), once all distances are read."""
        own = np.arange(len(self.codes)), self.codes
        num_others = self.sizes[self.codes] - 1
        within = self.sums[own] / np.maximum(num_others, 1)
        means = self.sums / self.sizes
        means[own] = np.inf
        nearest = means.min(axis=1)
        longer = np.maximum(within, nearest)
        is_told = (longer > 0) & (num_others > 0)
        return np.divide(nearest - within, longer, out=np.zeros(len(longer)), where=is_told)
