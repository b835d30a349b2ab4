r"""Promoters of the SNARE cell lines, found by embeddings of regions in context: what was tried, and what it is worth.

    python benchmarks/promoters.py [--write]

The check is that of `epifoundation regions find`: a fifth of the known promoters of a cell type, held out, is told from
as many other regions by the cosine to the mean of the rest; the others are matched by their distance to a known
promoter, or by the number of cells in which they are open. Average precision, 0.5 by chance.

Pre-trainings, layers and ways to put embeddings together are compared on the odd chromosomes. What was best there, by
the mean over the cell types and both kinds of matches, is then told for the even ones beside the command as it stands,
the peak table and accessibility alone. Beside the cosine stands a logistic regression that learns from the kept
promoters and as many other regions: what an embedding holds, whether or not the cosine can read it.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import environment, file_name, kept, leave_results, table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epifoundation import EpiFoundationModel, PeakTokenizer
from epifoundation.dataset_builders import open_peak_file
from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files
from epifoundation.evaluation.promoters import WITHIN, distance_to_tss, held_out_recovery, matched_pairs, whitened
from epifoundation.inference.cell_run import prepare_run
from epifoundation.inference.regions import RegionEmbeddings, cell_groups, embed_regions
from epifoundation.tokenization import NUM_SPECIAL_TOKENS, parse_peaks
from epifoundation.tokenization.intervals_epifoundation import global_positions
from epifoundation.training.options import PretrainOptions, read_options
from epifoundation.training.runs import pretrain

HERE = Path(__file__).resolve().parent
SNARE = HERE.parent / "examples" / "data" / "snare_cell_lines"
SETTINGS = HERE.parent / "examples" / "settings" / "pretrain_small.yaml"
ATACFORMER = ["--objective", "replaced_peaks", "--encoder", "atacformer", "--num_train_epochs", "2"]
# Pre-training -> options besides those of the settings.
MODELS = {
    "peak-to-gene": [],
    "peak-to-gene, without chromosomes": ["--use_chromosome_embeddings", "false"],
    "Atacformer, replaced peaks": ATACFORMER,
    "Atacformer, replaced peaks, table learned": [*ATACFORMER, "--freeze_peak_table", "false", "--lazy_adam", "true"],
    "Atacformer, untrained": [*ATACFORMER, "--max_steps", "1", "--learning_rate", "0"],
}
AS_THE_COMMAND = (2, "whitened")  # layers and way, of whatever model
MIN_CELLS = 3
SEEDS = (0, 1, 2)
MATCHES = ("distance", "accessibility")
Scores = dict[str, dict[str, float]]  # cell type -> kind of match and of score -> average precision


class Regions(NamedTuple):
    """Regions that are open in cells of a type, on some of the chromosomes.

    Attributes:
        embeddings: (regions, numbers).
        table: (regions, hidden) rows of the peak table.
        num_cells: (regions,).
        is_promoter: (regions,) bool.
        positions: (regions,) global positions.
    """

    embeddings: np.ndarray
    table: np.ndarray
    num_cells: np.ndarray
    is_promoter: np.ndarray
    positions: np.ndarray


def main() -> None:
    """Compare, choose, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/promoters"), help="folder of cells and checkpoints")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    trials = {}
    for trial in trials_of(arguments.models):
        regions = chosen_regions(trial, arguments.work, is_odd=True)
        place = arguments.work / "trials" / file_name(*map(str, trial))
        trials[trial] = kept(place, lambda regions=regions: {name: scores(part) for name, part in regions})
        print(trial, {key: round(value, 3) for key, value in mean_of(trials[trial].values()).items()}, file=sys.stderr)
    best = max(trials, key=lambda trial: by_cosine(trials[trial]))
    final = {
        trial: {name: scores(regions) for name, regions in chosen_regions(trial, arguments.work, is_odd=False)}
        for trial in dict.fromkeys([*((model, *AS_THE_COMMAND) for model in arguments.models), best])
    }
    report: dict[str, Any] = {
        "environment": environment("scikit-learn"),
        "trials": [{"trial": trial, "cell_types": found} for trial, found in trials.items()],
        "even_chromosomes": [{"trial": trial, "cell_types": found} for trial, found in final.items()],
        "variance_between_chromosomes": {name: variance_share(name, arguments.work) for name in arguments.models},
    }
    lines = [*tables(trials, final), *variance_table(report["variance_between_chromosomes"])]
    notes = HERE / "notes_promoters.md"
    title = "Promoters of the SNARE cell lines, found by embeddings of regions in context"
    only = [] if arguments.models == list(MODELS) else ["--models", *arguments.models]
    words = shlex.join([*only, "--write"])
    leave_results("promoters_snare", title, report, lines, arguments.write, words, notes, script="promoters")


def trials_of(models: list[str]) -> Iterator[tuple[str, int, str]]:
    """Model, number of layers, and way to put embeddings together."""
    for model in models:
        for layers in (2, 1):
            yield from ((model, layers, way) for way in WAYS)
    yield from ((next(iter(MODELS)), 2, way) for way in TABLE_WAYS)


def checkpoint(model: str, work: Path) -> Path:
    """Pre-trained on the cells, of which no label is read, unless it is there."""
    cells = work / "cells"
    if not cells.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        tokenize_files(SNARE / "atac.h5ad", SNARE / "rna.h5ad", cells, split=Split(rule="cell", validation=0.1, test=0))
    output = work / model.replace(" ", "_").replace(",", "")
    if not (output / "run.json").is_file():
        words = [str(SETTINGS), *MODELS[model], "--data", str(cells), "--output_dir", str(output)]
        words += ["--disable_tqdm", "true", "--save_strategy", "no", "--eval_strategy", "no", "--curves", "false"]
        pretrain(*read_options(PretrainOptions, words))
    return output


@cache
def embedded(model: str, layers: int, work: Path) -> RegionEmbeddings:
    """All regions in context, by the first layers of a model; they are kept in a file."""
    folder = checkpoint(model, work)
    place = folder / f"regions{layers}.npz"
    if place.is_file():
        with np.load(place) as file:
            return RegionEmbeddings(**dict(file.items()) | {"groups": file["groups"].tolist()})
    encoder = EpiFoundationModel.from_pretrained(folder)
    encoder.layers = torch.nn.ModuleList(list(encoder.layers)[:layers])
    run = prepare_run(encoder, PeakTokenizer.from_pretrained(folder), show_progress=False)
    with open_peak_file(SNARE / "atac.h5ad") as file:
        found, _ = embed_regions(file, run, cell_groups(file, "cell_type"))
    np.savez(place, **found._asdict())
    return found


@cache
def annotation(work: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the next start of transcription, chromosome, and position of each region of the vocabulary."""
    vocabulary = PeakTokenizer.from_pretrained(work / "cells").vocabulary
    peaks = parse_peaks(vocabulary.names())
    numbers = np.array([int(name.removeprefix("chr")) if name[3:].isdigit() else 0 for name in peaks.chromosomes])
    distance = distance_to_tss(peaks, gene_coordinates("hg38"))
    return distance, numbers[peaks.codes], global_positions(peaks.codes, peaks.starts)


def chosen_regions(trial: tuple[str, int, str], work: Path, is_odd: bool) -> Iterator[tuple[str, Regions]]:
    """Name of each cell type and its regions on odd or even autosomes."""
    model, layers, way = trial
    found = embedded(model, layers, work)
    distance, chromosome, positions = annotation(work)
    places = found.ids - NUM_SPECIAL_TOKENS
    is_asked = (chromosome[places] > 0) & (chromosome[places] % 2 == is_odd)
    for group, name in enumerate(found.groups):
        rows = np.flatnonzero(is_asked & (found.num_cells[group] >= MIN_CELLS))
        at = places[rows]
        table_rows = found.table[rows]
        embeddings = (WAYS | TABLE_WAYS)[way](found.contextual[group, rows], table_rows, chromosome[at])
        is_promoter = distance[at] <= WITHIN
        yield name, Regions(embeddings, table_rows, found.num_cells[group, rows], is_promoter, positions[at])


def less_chromosome_means(contextual: np.ndarray, _: np.ndarray, chromosomes: np.ndarray) -> np.ndarray:
    """Embeddings in context, less the mean of those on the same chromosome."""
    result = contextual.copy()
    for chromosome in np.unique(chromosomes):
        result[chromosomes == chromosome] -= contextual[chromosomes == chromosome].mean(axis=0)
    return result


def beside_the_table(contextual: np.ndarray, table_rows: np.ndarray, chromosomes: np.ndarray) -> np.ndarray:
    """The same, joined with the row of the peak table, both scaled to the same spread."""
    parts = less_chromosome_means(contextual, table_rows, chromosomes), table_rows - table_rows.mean(axis=0)
    return np.concatenate([part / part.std() for part in parts], axis=1)


def beyond_the_table(contextual: np.ndarray, table_rows: np.ndarray, chromosomes: np.ndarray) -> np.ndarray:
    """What of an embedding in context no linear map of the peak table tells: the part that context adds."""
    part = less_chromosome_means(contextual, table_rows, chromosomes)
    known = np.column_stack([table_rows, np.ones(len(table_rows))])
    return part - known @ np.linalg.lstsq(known, part, rcond=None)[0]


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "in context": lambda contextual, _table, _chromosomes: contextual,
    "less the mean of the chromosome": less_chromosome_means,
    "joined with the peak table": beside_the_table,
    "what the peak table does not tell": beyond_the_table,
    "whitened": lambda contextual, _table, _chromosomes: whitened(contextual),
    "joined with the peak table, whitened": lambda *parts: whitened(beside_the_table(*parts)),
}
# The same without context: they need no model but the first.
TABLE_WAYS = {
    "peak table alone": lambda _contextual, table_rows, _chromosomes: table_rows,
    "peak table alone, whitened": lambda _contextual, table_rows, _chromosomes: whitened(table_rows),
}


def scores(regions: Regions) -> dict[str, float]:
    """Average precisions, by kind of match and of score; those of cosines over three draws of what is held out."""
    found: dict[str, list[float]] = {}
    table = whitened(regions.table)
    for seed in SEEDS:
        recoveries = held_out_recovery(
            regions.embeddings,
            table,
            regions.num_cells,
            regions.is_promoter,
            regions.positions,
            np.random.default_rng(seed),
        )
        for recovery in recoveries:
            said = zip(("cosine", "peak table", "accessibility"), recovery[2:], strict=True)
            for name, value in said:
                found.setdefault(f"{recovery.matched_on}, {name}", []).append(value)
    learned = {f"{match}, logistic": value for match, value in logistic_recovery(regions).items()}
    return {name: float(np.mean(values)) for name, values in found.items()} | learned


def logistic_recovery(regions: Regions) -> dict[str, float]:
    """Average precision of a logistic regression on half of the regions, tested on the other half, by match.

    The two halves are drawn; promoters of each are matched with as many other regions of the same half.
    """
    generator = np.random.default_rng(SEEDS[0])
    is_first = generator.random(len(regions.positions)) < 0.5
    distance = distance_to_promoter(regions)
    found = {}
    for match, values in (("distance", distance), ("accessibility", regions.num_cells)):
        halves = []
        for half in (is_first, ~is_first):
            promoters, others = np.flatnonzero(half & regions.is_promoter), np.flatnonzero(half & ~regions.is_promoter)
            ours, theirs = matched_pairs(values[promoters], values[others], generator)
            halves.append(np.concatenate([promoters[ours], others[theirs]]))
        learn, ask = halves
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.1))
        model.fit(regions.embeddings[learn], regions.is_promoter[learn])
        said = model.decision_function(regions.embeddings[ask])
        found[match] = float(average_precision_score(regions.is_promoter[ask], said))
    return found


def distance_to_promoter(regions: Regions) -> np.ndarray:
    """(regions,) base pairs to the next other promoter."""
    marks = np.sort(regions.positions[regions.is_promoter])
    before = np.searchsorted(marks, regions.positions, side="left") - 1
    behind = np.minimum(np.searchsorted(marks, regions.positions, side="right"), len(marks) - 1)
    return np.minimum(
        np.abs(regions.positions - marks[np.maximum(before, 0)]), np.abs(marks[behind] - regions.positions)
    )


def variance_share(model: str, work: Path) -> float:
    """Share of the variance of embeddings in context that lies between chromosomes, the mean over cell types."""
    found = embedded(model, 2, work)
    chromosome = annotation(work)[1][found.ids - NUM_SPECIAL_TOKENS]
    shares = []
    for group in range(len(found.groups)):
        rows = (found.num_cells[group] >= MIN_CELLS) & (chromosome > 0)
        values = found.contextual[group, rows]
        within = less_chromosome_means(values, values, chromosome[rows])
        shares.append(1 - within.var(axis=0).sum() / values.var(axis=0).sum())
    return float(np.mean(shares))


def by_cosine(found: Scores) -> float:
    """Mean average precision over cell types and both kinds of matches."""
    mean = mean_of(found.values())
    return float(np.mean([mean[f"{match}, cosine"] for match in MATCHES]))


def mean_of(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """Over cell types."""
    listed = list(found)
    return {key: float(np.mean([one[key] for one in listed])) for key in listed[0]}


def tables(trials: dict[Any, Scores], final: dict[Any, Scores]) -> list[str]:
    """Markdown of the trials and of the even chromosomes."""
    kinds = [f"{match}, {name}" for match in MATCHES for name in ("cosine", "logistic")]
    rows = [[*trial, *(f"{mean_of(found.values())[kind]:.3f}" for kind in kinds)] for trial, found in trials.items()]
    others = mean_of(next(iter(trials.values())).values())
    values = [f"{others[f'{match}, accessibility']:.3f}" for match in MATCHES]
    rows.append(["accessibility alone", "", "", values[0], "", values[1], ""])
    heads = ["pre-training", "layers", "embeddings", *(f"by {kind}" for kind in kinds)]
    lines = ["## Trials: odd chromosomes, mean over the cell types", "", *table(heads, rows), ""]
    for trial, found in final.items():
        title = f"{trial[0]}, {trial[1]} layer{'s' * (trial[1] > 1)}, {trial[2]}"
        lines += [f"## Even chromosomes: {title}{' (as the command)' * (trial[1:] == AS_THE_COMMAND)}", ""]
        heads = ["cell type", "matched by", "cosine", "peak table, whitened", "accessibility", "logistic"]
        names = ["cosine", "peak table", "accessibility", "logistic"]
        body = [
            [name, match, *(f"{one[f'{match}, {kind}']:.3f}" for kind in names)]
            for name, one in found.items()
            for match in MATCHES
        ]
        lines += [*table(heads, body), ""]
    return lines


def variance_table(shares: dict[str, float]) -> list[str]:
    """Markdown."""
    rows = [[name, f"{share:.1%}"] for name, share in shares.items()]
    return [*table(["pre-training", "variance between chromosomes"], rows), ""]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
