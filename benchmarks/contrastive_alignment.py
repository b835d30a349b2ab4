r"""RNA and ATAC in one space (CRAFT) on the SNARE cell lines: partners found, labels carried over, RNA imputed.

    python benchmarks/contrastive_alignment.py examples/data/snare_cell_lines/atac.h5ad \
        examples/data/snare_cell_lines/rna.h5ad [--seeds 0 1 2] [--write]

Everything is learned from the training cells of a split alone; the cells scored took no part in anything. A run starts
from the checkpoint of benchmarks/settings/snare_pretrain.yaml, whose peak table is the training cells' LSI and stays as
it is, goes on with snare_contrastive.yaml, and from there with snare_imputation.yaml. Settings were chosen on
validation cells, by such trials as

    python benchmarks/contrastive_alignment.py ... --trial "learning rate 3e-4" --contrastive "--learning_rate 3e-4"

Imputed levels are compared with log(1 + counts per 10,000). The expression head of `finetune expression` predicts
quantiles within the cell, so that only its ranks can be compared. A run that is done is not repeated.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "fine_tuning"))

import models  # noqa: E402
from baselines import gene_activity, gene_mean, lsi, ridge  # noqa: E402
from data_sets import DATA_SETS  # noqa: E402
from measuring import RESULTS, leave_results  # noqa: E402
from run import SETTINGS, Run  # noqa: E402

from epifoundation.dataset_builders.clustering.expression import log_normalized  # noqa: E402
from epifoundation.dataset_builders.tokenized.paired_cells import count_matrix  # noqa: E402
from epifoundation.evaluation.expression import column_correlations  # noqa: E402
from epifoundation.evaluation.matching import label_transfer_scores, matching_scores  # noqa: E402
from epifoundation.inference import align_cells, impute_expression  # noqa: E402
from epifoundation.inference.alignment import KEY_ADDED  # noqa: E402
from epifoundation.tokenization import NUM_SPECIAL_TOKENS  # noqa: E402
from epifoundation.training.options import ContrastiveOptions, ImputationOptions  # noqa: E402
from epifoundation.training.runs import finetune_contrastive, finetune_imputation  # noqa: E402

models.RUNS |= {
    "contrastive": (ContrastiveOptions, finetune_contrastive),
    "imputation": (ImputationOptions, finetune_imputation),
}
TASKS = ("pretrain", "contrastive", "imputation", "expression")
PARTS = ("matching", "oracle", "imputation", "frozen")
TRIALS = RESULTS / "contrastive_alignment_trials.json"
NUM_COMPONENTS = 20  # of expression
NEIGHBORS = (50,)  # reference cells that imputed levels are the mean of
Scores = dict[str, dict[str, float]]


def main() -> None:
    """Run all seeds and write the report, or a trial."""
    arguments = read_arguments()
    files, started = [arguments.atac, arguments.rna], time.perf_counter()
    data = DATA_SETS["snare"]
    runs = [AlignmentRun("snare", data, files, "cells held out", seed, arguments) for seed in arguments.seeds]
    found = [{"seed": run.seed, **{part: run.scores(part) for part in arguments.parts}} for run in runs]
    if arguments.trial is not None:
        add_trial(arguments, found, round(time.perf_counter() - started))
    else:
        settings = {task: SETTINGS.joinpath(f"snare_{task}.yaml").read_text() for task in TASKS}
        leave_results(
            "contrastive_alignment",
            "RNA and ATAC in one space: SNARE-seq, four human cell lines",
            {"num_test_cells": len(runs[0].test), "settings": settings, "scores": found, "trials": trials()},
            lines_of(found, len(runs[0].test)),
            arguments.write,
            words=" ".join(["atac.h5ad rna.h5ad --seeds", *map(str, arguments.seeds), "--write"]),
            notes=HERE / "contrastive_alignment_notes.md",
        )


def read_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("atac", type=Path)
    parser.add_argument("rna", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--work", type=Path, default=Path("runs/fine_tuning"), help="folder of cells and checkpoints")
    parser.add_argument("--trial", help="score on validation cells, and add a line of this name to the trials")
    parser.add_argument("--write", action="store_true")
    for task in TASKS:
        parser.add_argument(
            f"--{task}", default="", metavar="OPTIONS", help="options that replace those of the settings"
        )
    return parser.parse_args()


class AlignmentRun(Run):
    """One seed: its split, its checkpoints, and what they say of held-out cells."""

    def __init__(self, name: str, data: Any, files: list[Path], split: str, seed: int, arguments: Any) -> None:
        super().__init__(name, data, files, split, seed, arguments)
        self._done: dict[Any, tuple[Path, dict[str, Any]]] = {}
        atac, rna = (anndata.read_h5ad(file) for file in files)
        rna = rna[:, self.tokenizer.genes.names]
        self.atac = [atac[part["barcode"]].copy() for part in (self.train, self.test)]
        self.rna = [rna[part["barcode"]].copy() for part in (self.train, self.test)]
        num_ids = NUM_SPECIAL_TOKENS + len(self.tokenizer.genes)
        counts = [count_matrix(part, num_ids)[:, NUM_SPECIAL_TOKENS:] for part in (self.train, self.test)]
        self.levels = [log_normalized(part) for part in counts]

    def scores(self, part: str) -> Scores:
        """Those of a part, kept in the folder of the run."""
        words = [SETTINGS.joinpath(f"{self.name}_{task}.yaml").read_text() for task in TASKS]
        words += [getattr(self.arguments, task) for task in TASKS] + [str(self.arguments.trial is None)]
        file = self.folder / f"{part}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}.json"
        if not file.is_file():
            file.write_text(json.dumps(getattr(self, part)()))
        found: Scores = json.loads(file.read_text())
        return found

    def matching(self) -> Scores:
        """Partners and labels of held-out cells, by the towers and by a line from LSI to components of expression."""
        atac, rna = (cells[1] for cells in (self.atac, self.rna))
        align_cells(atac, rna, self.aligned(), show_progress=False)
        spaces = {"EpiFoundation, CRAFT": (atac.obsm[KEY_ADDED], rna.obsm[KEY_ADDED]), **self._linear_space()}
        types = self.test.features["cell_type"].int2str(self.test["cell_type"])
        order = np.random.default_rng(self.seed).permutation(len(types))
        found: Scores = {}
        for method, (by_atac, by_rna) in spaces.items():
            transfers = {
                "labels RNA to ATAC": label_transfer_scores(by_atac, types, by_rna, types).accuracy,
                "labels ATAC to RNA": label_transfer_scores(by_rna, types, by_atac, types).accuracy,
            }
            found[method] = matching_scores(by_atac, by_rna).titled() | transfers
            found[f"{method}, pairs shuffled"] = matching_scores(by_atac, by_rna[order]).titled() | {
                "labels RNA to ATAC": label_transfer_scores(by_atac, types, by_rna, np.array(types)[order]).accuracy,
                "labels ATAC to RNA": label_transfer_scores(by_rna, types, by_atac, np.array(types)[order]).accuracy,
            }
        return self._told("matching", found)

    def oracle(self) -> Scores:
        """Partners of held-out cells by one who knows the cell line of each, and nothing else."""
        lines = np.eye(len(self.test.features["cell_type"].names))[self.test["cell_type"]]
        perfect = {"labels RNA to ATAC": 1.0, "labels ATAC to RNA": 1.0}
        return self._told("matching", {"the cell line, known": matching_scores(lines, lines).titled() | perfect})

    def imputation(self) -> Scores:
        """How levels of expression imputed for held-out cells correlate with those measured."""
        learned, measured = (levels.toarray() for levels in self.levels)
        said = {"per-gene mean": gene_mean(learned, len(measured))}
        said["gene activity, a line per gene"] = gene_activity(
            self.peaks[0], learned, self.peaks[1], self.tokenizer, self.data.genome
        )
        for size in (30, 64):
            train, test = lsi(*self.peaks, size)
            said[f"LSI ({size}) + ridge regression"] = ridge(train, learned, test)
        for neighbors in NEIGHBORS:
            said[f"EpiFoundation, nearest {neighbors} cells by RNA"] = self.by_neighbors(neighbors)
        if not self.arguments.trial:
            folder, _ = self.run("expression", model=self.pretrained())
            said["EpiFoundation, expression head"] = models.predicted_levels(folder, self.test)
        folder, _ = self.run("imputation", model=self.aligned())
        said["EpiFoundation, imputation head"] = impute_expression(self.atac[1], folder, show_progress=False).X
        order = np.random.default_rng(self.seed).permutation(len(measured))
        said["EpiFoundation, imputation head, cells shuffled"] = said["EpiFoundation, imputation head"][order]
        return self._told("imputation", {method: level_scores(measured, levels) for method, levels in said.items()})

    def frozen(self) -> Scores:
        """The same of a line from the embeddings by ATAC as contrastive alignment leaves them."""
        learned, measured = (levels.toarray() for levels in self.levels)
        for cells in self.atac:
            align_cells(cells, None, self.aligned(), show_progress=False)
        train, test = (cells.obsm[KEY_ADDED] for cells in self.atac)
        levels = ridge(train, learned, test)
        return self._told("imputation", {"EpiFoundation, CRAFT + ridge regression": level_scores(measured, levels)})

    def by_neighbors(self, num_neighbors: int) -> np.ndarray:
        """(cells, genes) means of the training cells by RNA that lie nearest to each cell by ATAC."""
        options = {"num_neighbors": num_neighbors, "reference": self.rna[0], "show_progress": False}
        return np.asarray(impute_expression(self.atac[1], self.aligned(), **options).X)

    def aligned(self) -> Path:
        """The checkpoint of both towers."""
        return self.run("contrastive", model=self.pretrained())[0]

    def run(self, task: str, **given: Any) -> tuple[Path, dict[str, Any]]:
        """As of its base, once: even a run that is done takes time to be found so."""
        key = (task, *sorted(given.items()))
        if key not in self._done:
            self._done[key] = super().run(task, **given)
        return self._done[key]

    def _linear_space(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Principal components of expression, and what a ridge regression on LSI says of them."""
        learned, measured = (levels.toarray() for levels in self.levels)
        components = PCA(NUM_COMPONENTS, random_state=self.seed).fit(learned)
        train, test = lsi(*self.peaks, 30)
        by_atac = ridge(train, components.transform(learned), test)
        return {"LSI (30) + ridge to expression": (normalize(by_atac), normalize(components.transform(measured)))}

    def _told(self, task: str, scores: Scores) -> Scores:
        for method, values in scores.items():
            print(f"seed {self.seed}, {task}: {method}:", {k: round(v, 4) for k, v in values.items()}, flush=True)
        return scores


def level_scores(measured: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    """Correlations per gene, over genes whose level varies among the cells, and per cell."""
    varies = (measured != measured[0]).any(axis=0)
    measured, levels = measured[:, varies], np.asarray(levels, dtype=np.float64)[:, varies]
    ranks, guessed = rankdata(measured, axis=0), rankdata(levels, axis=0)
    of_cells = column_correlations(rankdata(measured, axis=1).T, rankdata(levels, axis=1).T)
    return {
        "Spearman per gene": float(column_correlations(ranks, guessed).mean()),
        "Pearson per gene": float(column_correlations(measured, levels).mean()),
        "Spearman per cell": float(of_cells.mean()),
        "genes": int(varies.sum()),
    }


def add_trial(arguments: argparse.Namespace, found: list[dict[str, Any]], seconds: int) -> None:
    """Add a trial, in place of an earlier one of the same name."""
    options = {task: getattr(arguments, task) for task in TASKS if getattr(arguments, task)}
    trial = {"name": arguments.trial, "options": options, "seconds": seconds, "scores": found}
    TRIALS.write_text(json.dumps([*(t for t in trials() if t["name"] != trial["name"]), trial], indent=1) + "\n")


def trials() -> list[dict[str, Any]]:
    """What was tried on validation cells."""
    return json.loads(TRIALS.read_text()) if TRIALS.is_file() else []


def lines_of(found: list[dict[str, Any]], num_cells: int) -> list[str]:
    """The Markdown of the report."""
    seeds = ", ".join(str(one["seed"]) for one in found)
    averaged = f"mean ± standard deviation over the seeds {seeds}, each with a split of its own"
    averaged = averaged if len(found) > 1 else f"one split and seed ({seeds})"
    lines = [
        f"{num_cells} held-out cells; {averaged}. FOSCTTM: share of other cells nearer than the partner, 0.5 by "
        f"chance. Recall by chance: {1 / num_cells:.4f}, {5 / num_cells:.4f}, {10 / num_cells:.4f}.",
        "",
    ]
    found = [
        {"matching": one["matching"] | one["oracle"], "imputation": one["imputation"] | one["frozen"]} for one in found
    ]
    for task, title in (("matching", "Partners and labels"), ("imputation", "Imputed expression")):
        columns = [name for name in next(iter(found[0][task].values())) if name != "genes"]
        lines += [f"## {title}", "", f"| method | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
        for method in found[0][task]:
            values = np.array([[one[task][method][column] for column in columns] for one in found])
            spreads = [f" ± {deviation:.3f}" if len(found) > 1 else "" for deviation in values.std(0)]
            shown = [f"{mean:.3f}{spread}" for mean, spread in zip(values.mean(0), spreads, strict=True)]
            lines.append(f"| {method} | {' | '.join(shown)} |")
        lines.append("")
    return [*lines, *trial_lines()]


def trial_lines() -> list[str]:
    """The Markdown of the trials."""
    lines = ["## Trials, on validation cells", ""]
    lines += ["| what was changed | options | FOSCTTM | recall@10 | Spearman per gene, nearest 50 | head |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for trial in trials():
        options = "; ".join(f"{task}: `{words}`" for task, words in trial["options"].items())
        imputation = trial["scores"][0].get("imputation", {})
        craft = trial["scores"][0]["matching"]["EpiFoundation, CRAFT"]
        rows = ("EpiFoundation, nearest 50 cells by RNA", "EpiFoundation, imputation head")
        spearman = [imputation.get(row, {}).get("Spearman per gene", float("nan")) for row in rows]
        numbers = " | ".join(f"{value:.3f}" for value in (craft["FOSCTTM"], craft["recall@10"], *spearman))
        lines.append(f"| {trial['name']} | {options or 'none'} | {numbers} |")
    return [*lines, ""]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
