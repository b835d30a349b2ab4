"""How well two measurements of cells agree in one space: partners found, and labels carried from one to the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epifoundation.dataset_builders.clustering.nearest_cells import nearest_cells, squared_distances

from .checks import checked_embedding, checked_labels
from .classification import ClassificationScores, classification_scores
from .neighbors import nearest_neighbors

RECALL_AT = (1, 5, 10)
NUM_NEIGHBORS = 15
ROUNDING = 1e-12  # of squared lengths; distances that differ by less are equal
TIE_BREAK = 1e-6  # of a vote


@dataclass(frozen=True)
class MatchingScores:
    """How well cells are found again by their other measurement; all but `num_cells` in [0, 1].

    Each has two values: asked by ATAC among the cells by RNA, and by RNA among the cells by ATAC.

    Attributes:
        num_cells: number of pairs.
        foscttm: fraction of samples closer than the true match (Liu et al. 2019): share of the other cells that lie
            nearer to a cell than its own partner, equally near ones counting half; mean over the cells. 0 is perfect,
            chance is 0.5.
        recall: k -> share of the cells whose partner is among the k nearest. Where partner and others are equally
            near, the chance that a drawing of k of them holds it. Chance is k / cells.
    """

    num_cells: int
    foscttm: tuple[float, float]
    recall: dict[int, tuple[float, float]]

    def titled(self) -> dict[str, float]:
        """The means of both directions under their short titles."""
        recall = {f"recall@{k}": float(np.mean(values)) for k, values in self.recall.items()}
        return {"FOSCTTM": float(np.mean(self.foscttm)), **recall}


def matching_scores(atac: np.ndarray, rna: np.ndarray, recall_at: Sequence[int] = RECALL_AT) -> MatchingScores:
    """How well pairs are found by Euclidean distance, which orders vectors of unit length as the cosine does.

    Exact. Costs 2·cells²·dimensions operations and holds a block of 256 MiB: minutes for 100,000 cells.

    Args:
        atac: (cells, dimensions) embeddings by ATAC.
        rna: (cells, dimensions) by RNA; row i is the same cell as row i of `atac`.
        recall_at: how many of the nearest to look at.

    Raises:
        ValueError: if the embeddings differ in shape or are none (see `checked_embedding`), or a k is below 1.
    """
    atac, rna = checked_embedding(atac, "embedding by ATAC"), checked_embedding(rna, "embedding by RNA")
    if atac.shape != rna.shape:
        raise ValueError(f"expected the same cells in the same space, got {atac.shape} by ATAC and {rna.shape} by RNA")
    if min(recall_at) < 1:
        raise ValueError(f"recall is asked for at 1 or more neighbours, got {min(recall_at)}")
    sides = [_ranks(nearer, equal, len(atac), recall_at) for nearer, equal in _competitors(atac, rna)]
    (foscttm_of_atac, recall_of_atac), (foscttm_of_rna, recall_of_rna) = sides
    recall = dict(zip(recall_at, zip(recall_of_atac, recall_of_rna, strict=True), strict=True))
    return MatchingScores(len(atac), (foscttm_of_atac, foscttm_of_rna), recall)


def label_transfer_scores(
    cells: np.ndarray,
    labels: Any,
    references: np.ndarray,
    reference_labels: Any,
    num_neighbors: int = NUM_NEIGHBORS,
) -> ClassificationScores:
    """How often the labels of the nearest references are those of the cells; see `neighbor_votes`.

    Args:
        cells: (cells, dimensions) embeddings by one measurement.
        labels: one per cell.
        references: (references, dimensions) embeddings by the other.
        reference_labels: one per reference.
        num_neighbors: how many references vote.

    Raises:
        ValueError: if embeddings or labels cannot be used, or no cell has a label of the references.
    """
    votes, names = neighbor_votes(cells, references, reference_labels, num_neighbors)
    return classification_scores(labels, votes, names)


def neighbor_votes(
    cells: np.ndarray, references: np.ndarray, labels: Any, num_neighbors: int = NUM_NEIGHBORS
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(cells, labels) share of each label among the nearest references, and the labels, sorted.

    Between labels with as many votes the nearer neighbours decide.

    Args:
        cells: (cells, dimensions).
        references: (references, dimensions), in the same space.
        labels: one per reference.
        num_neighbors: how many vote.

    Raises:
        ValueError: if embeddings or labels cannot be used.
    """
    cells, references = checked_embedding(cells), checked_embedding(references)
    codes, found = checked_labels(labels, len(references), "labels")
    names = np.sort(found.astype(str))
    columns = np.searchsorted(names, found.astype(str))[codes]
    nearest = nearest_cells(cells, references, num_neighbors).indices
    num_voters = nearest.shape[1]
    weights = 1 + TIE_BREAK * np.arange(num_voters, 0, -1) / num_voters
    rows = np.repeat(np.arange(len(cells)), num_voters) * len(names)
    places = rows + columns[nearest].ravel()
    votes = np.bincount(places, np.tile(weights, len(cells)), minlength=len(cells) * len(names))
    return votes.reshape(len(cells), len(names)) / weights.sum(), tuple(names.tolist())


def modality_mixing(atac: np.ndarray, rna: np.ndarray, num_neighbors: int = NUM_NEIGHBORS) -> float:
    """Share of cells of the other modality among the nearest of each cell, over what it is by chance, at most 1.

    1 where modalities mix, 0 where each keeps to itself: the modality gap of contrastive learning (Liang et al. 2022),
    which does not keep partners from being found, but both from being clustered together.

    Args:
        atac: (cells, dimensions) embeddings by ATAC.
        rna: (cells, dimensions) by RNA, of these or other cells.
        num_neighbors: how many neighbours of each cell are looked at, itself not counted.

    Raises:
        ValueError: if embeddings cannot be used.
    """
    atac, rna = checked_embedding(atac, "embedding by ATAC"), checked_embedding(rna, "embedding by RNA")
    cells = np.concatenate([atac, rna])
    is_rna = np.arange(len(cells)) >= len(atac)
    nearest = nearest_neighbors(cells, num_neighbors).indices
    found = (is_rna[nearest] != is_rna[:, None]).mean(axis=1)
    expected = np.where(is_rna, len(atac), len(rna)) / (len(cells) - 1)
    return float(min(1.0, (found / expected).mean()))


def _competitors(atac: np.ndarray, rna: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For the cells by ATAC, then by RNA: (cells,) how many others are nearer than the partner, and equally near."""
    num_cells = len(atac)
    origin = rna.mean(axis=0)
    longest = max(np.square(points - origin).sum(axis=1).max() for points in (atac, rna))
    slack = 2 * ROUNDING * longest
    own = np.square(atac - rna).sum(axis=1)
    nearer_atac, near_atac, nearer_rna, near_rna = np.zeros((4, num_cells), dtype=np.int64)
    for start, block in squared_distances(atac, rna):
        squares = block.numpy()  # which counts what is true ten times as fast as torch
        rows = slice(start, start + len(squares))
        for bound, nearer, near, axis in (
            (own[rows, None], nearer_atac[rows], near_atac[rows], 1),
            (own[None, :], nearer_rna, near_rna, 0),
        ):
            nearer += np.count_nonzero(squares < bound - slack, axis=axis)
            near += np.count_nonzero(squares <= bound + slack, axis=axis)
    # The partner itself is always among those that are near.
    return [(nearer, near - nearer - 1) for nearer, near in ((nearer_atac, near_atac), (nearer_rna, near_rna))]


def _ranks(
    nearer: np.ndarray, equal: np.ndarray, num_cells: int, recall_at: Sequence[int]
) -> tuple[float, list[float]]:
    """FOSCTTM, and the recalls."""
    foscttm = float(((nearer + equal / 2) / (num_cells - 1)).mean())
    return foscttm, [float(np.clip((k - nearer) / (equal + 1), 0, 1).mean()) for k in recall_at]
