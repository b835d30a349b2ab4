"""A report on cells of two modalities in one space: partners found, labels carried over, a control, a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from epifoundation.dataset_builders.tokenized.pairing import match_names

from .comparison_plots import draw_cells
from .matching import NUM_NEIGHBORS, RECALL_AT, MatchingScores, label_transfer_scores, matching_scores, modality_mixing
from .plots import umap
from .result_store import json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ATAC, RNA = "ATAC", "RNA"
MOST_DRAWN = 10_000  # cells of a modality, of which mixing is told too
LEGEND_ROWS = 22


class EmbeddedCells(NamedTuple):
    """Cells of a modality.

    Attributes:
        barcodes: (cells,) names.
        embeddings: (cells, dimensions).
        labels: (cells,) texts, None where a cell has none; None where there are no labels.
    """

    barcodes: Sequence[str]
    embeddings: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class LabelTransfer:
    """How well labels are carried from one modality to the other.

    Attributes:
        source: the modality whose labels vote.
        target: the modality whose cells get them.
        num_cells: labelled cells of the target.
        accuracy: share of these that are given their own label.
        macro_f1: F1 averaged over labels.
        shuffled_accuracy: accuracy when the labels of the source are shuffled among its cells.
        most_frequent: accuracy of giving all cells the label that is the most frequent in the target.
    """

    source: str
    target: str
    num_cells: int
    accuracy: float
    macro_f1: float
    shuffled_accuracy: float
    most_frequent: float


@dataclass(frozen=True)
class MatchingReport:
    """What a comparison of two modalities gives.

    Attributes:
        facts: name -> what was compared on what.
        pairs: scores of the cells measured by both; None if there are none.
        shuffled: the same when partners are shuffled.
        mixing: of the modalities in the space, see `modality_mixing`.
        transfers: of labels, one for each direction; empty without labels.
    """

    facts: Mapping[str, Any]
    pairs: MatchingScores | None
    shuffled: MatchingScores | None
    mixing: float
    transfers: tuple[LabelTransfer, ...]

    def markdown(self) -> str:
        """Facts and tables."""
        lines = ["# Cells of two modalities in one space", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        lines.append(f"- mixing of the modalities (0: each keeps to itself, 1: as by chance): {self.mixing:.4f}")
        if self.pairs is not None and self.shuffled is not None:
            lines += ["", *_matching_table(self.pairs, self.shuffled)]
        if self.transfers:
            lines += ["", *_transfer_table(self.transfers)]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """All of it; what is not there is null."""
        content = {name: None if part is None else asdict(part) for name, part in self._parts().items()}
        transfers = [asdict(transfer) for transfer in self.transfers]
        return json_text({"facts": dict(self.facts), **content, "mixing": self.mixing, "transfers": transfers})

    def _parts(self) -> dict[str, MatchingScores | None]:
        return {"pairs": self.pairs, "shuffled": self.shuffled}


def matching_report(
    atac: EmbeddedCells,
    rna: EmbeddedCells,
    *,
    recall_at: Sequence[int] = RECALL_AT,
    num_neighbors: int = NUM_NEIGHBORS,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> MatchingReport:
    """Compare the cells of two modalities: pairs by barcode, and labels, where there are any.

    A cell without a label gets that of its partner; a cell that then has none takes no part in carrying labels over.

    Args:
        atac: cells by ATAC.
        rna: cells by RNA, in the same space.
        recall_at: how many of the nearest cells to look at for the partner.
        num_neighbors: how many cells vote on a label.
        seed: of the control, for which partners and labels are shuffled.
        facts: further facts for the report.

    Raises:
        ValueError: if barcodes repeat within a modality, there are neither pairs nor labels, a modality has no label,
            or the modalities share none.
    """
    generator = np.random.default_rng(seed)
    has_labels = atac.labels is not None or rna.labels is not None
    pairs = shuffled = None
    labels = [_known(cells) for cells in (atac, rna)]
    if not has_labels or set(atac.barcodes) & set(rna.barcodes):
        _, rows, rna_rows, _ = match_names(atac.barcodes, rna.barcodes)
        found, partners = atac.embeddings[rows], rna.embeddings[rna_rows]
        pairs = matching_scores(found, partners, recall_at)
        shuffled = matching_scores(found, partners[generator.permutation(len(rows))], recall_at)
        of_pairs = [labels[0][rows], labels[1][rna_rows]]
        labels[0][rows], labels[1][rna_rows] = (
            np.where(pd.isna(own), other, own) for own, other in (of_pairs, of_pairs[::-1])
        )
    all_facts = {
        "cells": f"{len(atac.barcodes):,} by ATAC, {len(rna.barcodes):,} by RNA",
        "measured by both (same barcode)": 0 if pairs is None else pairs.num_cells,
        **({"labels": f"carried over from the {num_neighbors} nearest cells"} if has_labels else {}),
        "seed of the shuffled control": seed,
    }
    sides = [(ATAC, atac.embeddings, labels[0]), (RNA, rna.embeddings, labels[1])]
    directions = (sides[::-1], sides) if has_labels else ()
    some, some_rna = (_sample(cells, generator).embeddings for cells in (atac, rna))
    mixing = modality_mixing(some, some_rna, num_neighbors)
    transfers = tuple(_transfer(source, target, num_neighbors, generator) for source, target in directions)
    return MatchingReport({**(facts or {}), **all_facts}, pairs, shuffled, mixing, transfers)


def plot_modalities(atac: EmbeddedCells, rna: EmbeddedCells, seed: int = 0, title: str = "") -> "Figure":
    """One map (UMAP) of the cells of both, coloured by modality, and beside it by label where there are any.

    Of more than 10,000 cells of a modality so many are drawn by chance. Needs the extra ``plot``.
    """
    from matplotlib.figure import Figure

    generator = np.random.default_rng(seed)
    drawn = [_sample(cells, generator) for cells in (atac, rna)]
    points = umap(np.concatenate([cells.embeddings for cells in drawn]), seed)
    modalities = np.repeat([ATAC, RNA], [len(cells.barcodes) for cells in drawn])
    panels = [("modality", modalities)]
    if atac.labels is not None or rna.labels is not None:
        labels = np.concatenate([_known(cells) for cells in drawn])
        panels.append(("label", np.where(pd.isna(labels), "none", labels).astype(str)))
    figure = Figure(figsize=(5.8 * len(panels), 4.2), layout="constrained")
    for ax, (name, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw_cells(points, values, ax)
        ax.set(xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[], title=title if name == "modality" else "")
        columns = -(-len(set(values)) // LEGEND_ROWS)
        legend = ax.legend(
            title=f"{name} (cells)", loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, ncols=columns
        )
        for handle in legend.legend_handles:
            handle.set_sizes([24])
    return figure


def _transfer(
    source: tuple[str, np.ndarray, np.ndarray],
    target: tuple[str, np.ndarray, np.ndarray],
    num_neighbors: int,
    generator: np.random.Generator,
) -> LabelTransfer:
    (from_name, references, votes), (to_name, cells, truth) = source, target
    for name, labels in ((from_name, votes), (to_name, truth)):
        if pd.isna(labels).all():
            raise ValueError(f"no cell by {name} has a label: name a column of obs that both modalities have")
    has_vote, has_truth = ~pd.isna(votes), ~pd.isna(truth)
    references, votes, cells, truth = references[has_vote], votes[has_vote], cells[has_truth], truth[has_truth]
    found = label_transfer_scores(cells, truth, references, votes, num_neighbors)
    shuffled = label_transfer_scores(cells, truth, references, generator.permutation(votes), num_neighbors)
    frequent = pd.Series(truth).value_counts(normalize=True).iloc[0]
    return LabelTransfer(
        from_name, to_name, len(cells), found.accuracy, found.macro_f1, shuffled.accuracy, float(frequent)
    )


def _known(cells: EmbeddedCells) -> np.ndarray:
    """(cells,) labels, an array of its own."""
    if cells.labels is None:
        return np.full(len(cells.barcodes), None, dtype=object)
    return np.array(cells.labels, dtype=object)


def _sample(cells: EmbeddedCells, generator: np.random.Generator) -> EmbeddedCells:
    if len(cells.barcodes) <= MOST_DRAWN:
        return cells
    rows = np.sort(generator.choice(len(cells.barcodes), MOST_DRAWN, replace=False))
    labels = None if cells.labels is None else cells.labels[rows]
    return EmbeddedCells([cells.barcodes[i] for i in rows], cells.embeddings[rows], labels)


def _matching_table(pairs: MatchingScores, shuffled: MatchingScores) -> list[str]:
    titles = [f"{name} {'↓' if name == 'FOSCTTM' else '↑'}" for name in pairs.titled()]
    rows = {
        f"cells by {name} look for theirs": [pairs.foscttm[side], *(values[side] for values in pairs.recall.values())]
        for side, name in enumerate((ATAC, RNA))
    }
    rows |= {"mean of both": list(pairs.titled().values()), "mean, pairs shuffled": list(shuffled.titled().values())}
    rows["expected by chance"] = [0.5, *(min(1.0, k / pairs.num_cells) for k in pairs.recall)]
    return [
        f"## Partners found among {pairs.num_cells:,}",
        "",
        f"| | {' | '.join(titles)} |",
        "| --- " * (len(titles) + 1) + "|",
        *(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |" for name, values in rows.items()),
    ]


def _transfer_table(transfers: Sequence[LabelTransfer]) -> list[str]:
    lines = [
        "## Labels carried over",
        "",
        "| labels of → cells by | labelled cells | accuracy ↑ | macro F1 ↑ | accuracy, labels shuffled "
        "| accuracy of the most frequent label |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in transfers:
        values = (one.accuracy, one.macro_f1, one.shuffled_accuracy, one.most_frequent)
        numbers = " | ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {one.source} → {one.target} | {one.num_cells:,} | {numbers} |")
    return lines
