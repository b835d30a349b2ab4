"""What `epifoundation regions find` does with embedded regions: scores, a check, and files for each cell type."""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from epifoundation.evaluation.promoters import PromoterScores, Recovery
    from epifoundation.inference.regions import RegionEmbeddings
    from epifoundation.tokenization import PeakVocabulary

SECONDS_WITHOUT_PROGRESS = 3
FDR = 0.05
REGIONS_IN_PICTURE = 3_000  # UMAP of more takes minutes and shows no more
BED_HEADER = "#chrom\tstart\tend\tname\tscore\tstrand\tsimilarity\tp_value\tfdr\tnum_cells\tdistance_to_tss"


class Annotation(NamedTuple):
    """The regions of a vocabulary beside the genes.

    Attributes:
        vocabulary: the regions.
        distance: (regions,) base pairs to the next start of transcription.
    """

    vocabulary: "PeakVocabulary"
    distance: np.ndarray


class TypeResult(NamedTuple):
    """One cell type: its regions, which of them are promoters, and what was found.

    Attributes:
        places: (regions,) in the vocabulary, counted from 0.
        is_promoter: (regions,) bool.
        embeddings: (regions, hidden) in context, whitened.
        num_cells: (regions,) in which each is open.
        scores: of all regions.
        recovery: the check on held-out promoters.
    """

    places: np.ndarray
    is_promoter: np.ndarray
    embeddings: np.ndarray
    num_cells: np.ndarray
    scores: "PromoterScores"
    recovery: "list[Recovery]"


def promoters_of_genome(vocabulary: "PeakVocabulary", genome: str | None) -> Annotation:
    """Where the regions of a vocabulary lie beside the genes.

    Raises:
        ValueError: if the genome is another one than that of the vocabulary, or has no table of genes.
    """
    from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
    from epifoundation.evaluation.promoters import distance_to_tss
    from epifoundation.tokenization import canonical_genome, parse_peaks

    genome = vocabulary.genome if genome is None else canonical_genome(genome)
    if genome != vocabulary.genome:
        raise ValueError(f"the regions of the model are of {vocabulary.genome}, not of {genome}: leave --genome out")
    return Annotation(vocabulary, distance_to_tss(parse_peaks(vocabulary.names()), gene_coordinates(genome)))


def search_promoters(
    found: "RegionEmbeddings",
    annotation: Annotation,
    folder: Path,
    min_cells: int,
    seed: int,
    *,
    show_progress: bool = True,
) -> list[str]:
    """Write the files of each cell type and ``recovery.csv`` into a folder; a line of report for each type comes back.

    Raises:
        ValueError: if a type has too few known promoters, or other regions.
    """
    from tqdm.auto import tqdm

    lines, rows = [], []
    stems = _file_names(found.groups)
    disable = None if show_progress else True
    for group, name in enumerate(tqdm(found.groups, "scoring", delay=SECONDS_WITHOUT_PROGRESS, disable=disable)):
        result = _search_type(found, group, annotation, min_cells, seed)
        _write_bed(folder / f"{stems[group]}.bed", result, annotation)
        _draw(folder / f"{stems[group]}.png", name, result, seed)
        rows += [{"cell_type": name, **recovery._asdict()} for recovery in result.recovery]
        lines.append(_line(name, result))
    with (folder / "recovery.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return lines


def _search_type(
    found: "RegionEmbeddings", group: int, annotation: Annotation, min_cells: int, seed: int
) -> TypeResult:
    from epifoundation.evaluation.promoters import WITHIN, held_out_recovery, promoter_scores, whitened
    from epifoundation.tokenization import NUM_SPECIAL_TOKENS
    from epifoundation.tokenization.intervals_epifoundation import global_positions

    is_seen = found.num_cells[group] >= min_cells
    places = found.ids[is_seen] - NUM_SPECIAL_TOKENS
    is_promoter = annotation.distance[places] <= WITHIN
    num_cells = found.num_cells[group, is_seen]
    embeddings, table = whitened(found.contextual[group, is_seen]), whitened(found.table[is_seen])
    generator = np.random.default_rng(seed)
    try:
        scores = promoter_scores(embeddings, is_promoter, generator)
    except ValueError as error:
        raise ValueError(f"cell type {found.groups[group]!r}: {error}") from error
    vocabulary = annotation.vocabulary
    positions = global_positions(vocabulary.chromosome_codes[places], vocabulary.starts[places])
    recovery = held_out_recovery(embeddings, table, num_cells, is_promoter, positions, generator)
    return TypeResult(places, is_promoter, embeddings, num_cells, scores, recovery)


def _write_bed(path: Path, result: TypeResult, annotation: Annotation) -> None:
    """Regions that are no known promoters, the most similar first; the score is 1,000 times a cosine above 0."""
    vocabulary, scores = annotation.vocabulary, result.scores
    others = np.flatnonzero(~result.is_promoter)
    order = others[np.argsort(-scores.similarity[others], kind="stable")]
    with path.open("w", encoding="utf-8") as file:
        file.write(BED_HEADER + "\n")
        for region, name in zip(order.tolist(), vocabulary.names(result.places[order]), strict=True):
            peak = vocabulary.peak(result.places[region])
            similarity = float(scores.similarity[region])
            fields = (
                *(peak.chromosome, peak.start, peak.end, name, round(1000 * min(max(similarity, 0.0), 1.0)), "."),
                *(f"{similarity:.6f}", f"{scores.p_value[region]:.4g}", f"{scores.fdr[region]:.4g}"),
                *(result.num_cells[region], annotation.distance[result.places[region]]),
            )
            file.write("\t".join(map(str, fields)) + "\n")


def _draw(path: Path, name: str, result: TypeResult, seed: int) -> None:
    from matplotlib.figure import Figure

    from epifoundation.evaluation.plots import plot_cells, umap

    size = min(REGIONS_IN_PICTURE, len(result.places))
    shown = np.sort(np.random.default_rng(seed).choice(len(result.places), size, replace=False))
    is_found = np.nan_to_num(result.scores.fdr, nan=1) <= FDR
    kinds = np.where(result.is_promoter, "known promoter", np.where(is_found, f"FDR up to {FDR:g}", "other region"))
    figure: Any = Figure(figsize=(7, 6), layout="constrained")
    axes = plot_cells(
        umap(result.embeddings[shown], seed), kinds[shown].tolist(), figure.subplots(), f"{name}: regions"
    )
    axes.legend(loc="best", fontsize="small")
    figure.savefig(path, dpi=150, format="png")


def _line(name: str, result: TypeResult) -> str:
    num_found = int((np.nan_to_num(result.scores.fdr, nan=1) <= FDR).sum())
    checks = "; ".join(
        f"matched by {r.matched_on} {r.contextual:.3f} (peak table {r.table:.3f}, accessibility {r.accessibility:.3f})"
        for r in result.recovery
    )
    num_promoters, num_others = int(result.is_promoter.sum()), int((~result.is_promoter).sum())
    return (
        f"{name}: {num_promoters:,} known promoters; {num_found:,} of {num_others:,} other regions at FDR {FDR:g}; "
        f"average precision on held-out promoters: {checks}"
    )


def _file_names(groups: list[str]) -> list[str]:
    """A name of its own for the files of each group, of letters that every file system takes."""
    names = [re.sub(r"[^\w.+-]+", "_", group).strip("._") or "type" for group in groups]
    is_alone = {name.lower(): [n.lower() for n in names].count(name.lower()) == 1 for name in names}
    return [name if is_alone[name.lower()] else f"{name}.{place + 1}" for place, name in enumerate(names)]
