r"""Fine-tuning on real data: cell types and expression, beside simple methods on the same cells.

    python benchmarks/fine_tuning/run.py --data snare examples/data/snare_cell_lines/atac.h5ad \
        examples/data/snare_cell_lines/rna.h5ad --seeds 0 1 2
    python benchmarks/fine_tuning/run.py --data bone_marrow atac.hg38lift.h5ad --seeds 0 1 2
    python benchmarks/fine_tuning/run.py --data cortex atac.h5ad rna.h5ad --seeds 0 1 2

Every method learns from the training cells of a split alone, and is scored on cells held out from all of them. The
settings are those of benchmarks/settings; they were chosen on validation cells, by such trials as

    python benchmarks/fine_tuning/run.py --data snare ... --trial "lr 3e-4" --classification "--learning_rate 3e-4"

Results go to benchmarks/results/training_<data>.md and .json, or to another folder (--output): with another --work,
that is how to see whether a second run gives the same figures. The SNARE cell lines come with the project; bone marrow
is the file of Granja et al. 2019 in the repository epiCHAOS, lifted to hg38; the cortex is that of scMoMaT (Chen et
al. 2019).
"""

import argparse
import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import gene_activity, gene_mean, logistic_probabilities, lsi, ridge
from data_sets import DATA_SETS, DataSet, tokenised
from models import embeddings, measured_levels, predicted_levels, trained, type_probabilities
from report import Result, add_trial, write_report
from scores import annotation_scores, expression_scores

from epifoundation.dataset_builders.tokenized.paired_cells import peak_matrix
from epifoundation.evaluation import transferred_probes

HERE = Path(__file__).resolve().parent
SETTINGS, RESULTS = HERE.parent / "settings", HERE.parent / "results"
TASKS = ("embedding", "classification", "expression")
LSI_DIMENSIONS = (30, 64)


def main() -> None:
    """Run all seeds and splits, and write the report; or one trial."""
    arguments = read_arguments()
    name, *files = arguments.data
    data, started, results = DATA_SETS[name], time.perf_counter(), []
    for seed in arguments.seeds:
        for split in [name for i, name in enumerate(data.splits) if i in (arguments.splits or (i,))]:
            run = Run(name, data, [Path(file) for file in files], split, seed, arguments)
            results += run.results()
    seconds = time.perf_counter() - started
    place = arguments.output / f"training_{name}"
    if arguments.trial is not None:
        trials = place.with_name(f"{place.name}_trials.json")
        add_trial(trials, arguments.trial, words_of_trial(arguments), results, seconds)
    else:
        write_report(place, data, sys.argv[1:], results, seconds)


def read_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="WORD", help="snare, bone_marrow or cortex; files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", type=int, help="numbers of the splits, from 0; by default all")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--work", type=Path, default=Path("runs/fine_tuning"), help="folder of cells and checkpoints")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the report")
    parser.add_argument("--trial", help="score on validation cells, and add a line of this name to the trials")
    for task in ("pretrain", "classification", "expression"):
        parser.add_argument(
            f"--{task}", default="", metavar="OPTIONS", help="options that replace those of the settings"
        )
    return parser.parse_args()


def words_of_trial(arguments: argparse.Namespace) -> dict[str, str]:
    """What a trial does differently, by task."""
    words = {task: getattr(arguments, task) for task in ("pretrain", "classification", "expression")}
    return {task: text for task, text in words.items() if text}


class Run:
    """One split with one seed."""

    def __init__(
        self, name: str, data: DataSet, files: list[Path], split: str, seed: int, arguments: argparse.Namespace
    ) -> None:
        self.name, self.data, self.split, self.seed, self.arguments = name, data, split, seed, arguments
        self.folder = arguments.work / name / f"{list(data.splits).index(split)}-{seed}"
        rule = dataclasses.replace(data.splits[split], seed=seed)
        self.cells_folder = self.folder / "cells"
        cells, self.tokenizer = tokenised(data, files, rule, self.cells_folder)
        self.train = cells["train"]
        self.test = cells["validation" if arguments.trial is not None else "test"]
        self.peaks = [peak_matrix(part, len(self.tokenizer)) for part in (self.train, self.test)]

    def results(self) -> list[Result]:
        """Scores of every method in every task that the data allows."""
        tasks = [task for task in self.arguments.tasks if self.data.is_paired or task == "classification"]
        found: list[Result] = []
        for task in tasks:
            for method, scores in getattr(self, task)().items():
                found.append(Result(task, self.split, self.seed, method, scores))
                print(f"{self.name}, {self.split}, seed {self.seed}, {task}: {method}:", scores, flush=True)
        return found

    def classification(self) -> dict[str, dict[str, float]]:
        """Cell types of held-out cells."""
        types, asked = (np.asarray(part["cell_type"]) for part in (self.train, self.test))
        known, num_types = asked >= 0, len(self.train.features["cell_type"].names)
        said = {}
        for size in LSI_DIMENSIONS:
            learned, new = lsi(*self.peaks, size)
            said[f"LSI ({size}) + logistic regression"] = logistic_probabilities(learned, types, new, num_types)
        model = {"model": self.pretrained()} if self.data.is_paired else {}
        folder, _ = self.run("classification", **model)
        said["EpiFoundation"] = type_probabilities(folder, self.test)
        return {method: annotation_scores(asked[known], values[known]) for method, values in said.items()}

    def expression(self) -> dict[str, dict[str, float]]:
        """Levels of expression in held-out cells."""
        levels, asked = (measured_levels(part, len(self.tokenizer.genes)) for part in (self.train, self.test))
        said = {"per-gene mean": gene_mean(levels, len(asked))}
        if self.data.has_gene_positions:
            said["gene activity"] = gene_activity(
                self.peaks[0], levels, self.peaks[1], self.tokenizer, self.data.genome
            )
        for size in LSI_DIMENSIONS:
            learned, new = lsi(*self.peaks, size)
            said[f"LSI ({size}) + ridge regression"] = ridge(learned, levels, new)
        folder, _ = self.run("expression", model=self.pretrained())
        said["EpiFoundation"] = predicted_levels(folder, self.test)
        order = np.random.default_rng(self.seed).permutation(len(asked))
        said["EpiFoundation, cells shuffled"] = said["EpiFoundation"][order]
        return {method: expression_scores(asked, values) for method, values in said.items()}

    def embedding(self) -> dict[str, dict[str, float]]:
        """Types of held-out cells from embeddings that were learned without types."""
        types, asked = (np.asarray(part["cell_type"]) for part in (self.train, self.test))
        found = {f"LSI ({size})": lsi(*self.peaks, size) for size in LSI_DIMENSIONS}
        start, _ = self.run("pretrain", max_steps=1, learning_rate=0, load_best_model_at_end="false")
        for method, folder in (("peak table before alignment", start), ("EpiFoundation, aligned", self.pretrained())):
            found[method] = embeddings(folder, self.train), embeddings(folder, self.test)
        return {
            method: transferred_probes(a[types >= 0], types[types >= 0], b[asked >= 0], asked[asked >= 0])._asdict()
            for method, (a, b) in found.items()
        }

    def pretrained(self) -> Path:
        """The checkpoint that fine-tuning starts from."""
        return self.run("pretrain")[0]

    def run(self, task: str, **given: Any) -> tuple[Path, dict[str, Any]]:
        """Train by the settings of the data set."""
        words = [str(SETTINGS / f"{self.name}_{task}.yaml"), *shlex.split(getattr(self.arguments, task))]
        if "--model" in words:  # of a trial, which the checkpoint at hand would replace: the last one counts
            given.pop("model", None)
        return trained(task, words, self.folder, **({"data": self.cells_folder, "seed": self.seed} | given))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
