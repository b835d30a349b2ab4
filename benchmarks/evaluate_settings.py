r"""Settings of the small model that ``epifoundation evaluate`` trains, tried on validation cells.

    python benchmarks/evaluate_settings.py snare examples/data/snare_cell_lines/atac.h5ad \
        --rna examples/data/snare_cell_lines/rna.h5ad --seeds 0 1
    python benchmarks/evaluate_settings.py bone_marrow atac.hg38lift.h5ad --max-cells 2500
    python benchmarks/evaluate_settings.py cortex atac.h5ad --rna rna.h5ad --genome mm10 --no-types Mis --max-cells 2500

A fifth of the cells is held out as `evaluate` does, and not looked at. Of the others a fifth of each type serves to
validate on; the rest trains. Trials are added to benchmarks/results/evaluate_settings.json, those that are there
already are not repeated, and the table of all of them is benchmarks/results/evaluate_settings.md.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import environment

from epifoundation.evaluation.baselines import ANNOTATORS
from epifoundation.evaluation.classification import classification_scores
from epifoundation_cli.comparison.cells import drawn, read_data
from epifoundation_cli.comparison.models import SplitModels, annotated
from epifoundation_cli.comparison.runs import Options, Split, split_of

RESULTS = Path(__file__).resolve().parent / "results" / "evaluate_settings"
LAST = {"validation_share": 0, "eval_strategy": "no", "load_best_model_at_end": False}
OF_A_TENTH = {"validation_share": 0.1, "eval_strategy": "epoch", "metric_for_best_model": "macro_f1"}
BEST = {**OF_A_TENTH, "load_best_model_at_end": True}
FROZEN, TRAINED = {"freeze_peak_table": True}, {"freeze_peak_table": False}
# What differs from the settings of `evaluate`, and whether genes pre-train the model.
VARIANTS = {
    "pre-trained, frozen table, best of 6 epochs": (
        True,
        {**FROZEN, **BEST, "num_train_epochs": 6},
    ),
    "pre-trained, frozen table, 6 epochs": (True, {**FROZEN, **LAST, "num_train_epochs": 6}),
    "pre-trained, trained table, 3 epochs": (True, {**TRAINED, **LAST, "num_train_epochs": 3}),
    "pre-trained, trained table, 6 epochs": (True, {**TRAINED, **LAST, "num_train_epochs": 6}),
    "new, frozen table, 6 epochs": (False, {**FROZEN, **LAST, "num_train_epochs": 6}),
    "new, trained table, 3 epochs": (False, {**TRAINED, **LAST, "num_train_epochs": 3}),
    "new, trained table, 6 epochs": (False, {**TRAINED, **LAST, "num_train_epochs": 6}),
}
BASELINE = "LSI + logistic"


def main() -> None:
    """Try what was asked for, and write the table of all trials."""
    arguments = read_arguments()
    trials = json.loads(RESULTS.with_suffix(".json").read_text()) if RESULTS.with_suffix(".json").is_file() else []
    keys = {"genome": arguments.genome, "no_types": arguments.no_types}
    data = read_data(arguments.atac, arguments.rna, **keys)
    data = data if arguments.max_cells is None else drawn(data, arguments.max_cells)
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            split = split_of(data, Options(Path(folder), on_validation=True), seed)
            for name in [BASELINE, *(arguments.variants or VARIANTS)]:
                needs_genes = name in VARIANTS and VARIANTS[name][0]
                trial = {"data": arguments.name, "cells": data.num_cells, "seed": seed, "settings": name}
                is_done = any(trial.items() <= one.items() for one in trials)
                if is_done or (needs_genes and data.genes is None):
                    continue
                trials.append(trial | scored(name, split, Path(folder)) | environment())
                print(trials[-1], flush=True)
                write(trials)


def read_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="of the data")
    parser.add_argument("atac", type=Path)
    parser.add_argument("--rna", type=Path)
    parser.add_argument("--genome", default="hg38")
    parser.add_argument("--no-types", nargs="*", default=[], help="labels that name no cell type")
    parser.add_argument("--max-cells", type=int, help="draw so many cells")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="NAME")
    return parser.parse_args()


def scored(name: str, split: Split, folder: Path) -> dict[str, float]:
    """Accuracy and macro F1 on the validation cells, and what it took; pre-training is counted once."""
    started = time.process_time()
    if name == BASELINE:
        answer = ANNOTATORS["logistic"].run(split.cells, split.seed)
    else:
        has_genes, extra = VARIANTS[name]
        train = split.train if has_genes else replace(split.train, genes=None, gene_names=())
        place = folder / f"{split.seed}-{has_genes}"
        shutil.rmtree(place / "classification", ignore_errors=True)
        options = {"settings": {}, "extra": {"classification": extra}, "min_cells_per_gene": 20}
        answer = annotated(split.test, SplitModels("scratch", train, place, split.seed, **options).annotator)
    scores = classification_scores(split.test.cell_types, answer.values, [str(one) for one in answer.types]).titled()
    cost = {"cpu_seconds": round(time.process_time() - started, 1), "validation_cells": len(split.test_rows)}
    return {"accuracy": scores["ACC"], "macro_f1": scores["macro F1"]} | cost


def write(trials: list[dict[str, object]]) -> None:
    """The trials as JSON and as a table, the mean over seeds of each."""
    RESULTS.with_suffix(".json").write_text(json.dumps(trials, indent=1) + "\n")
    names = list(dict.fromkeys(str(one["data"]) for one in trials))
    title = "# Settings of the small model that `evaluate` trains, on validation cells"
    columns = [f"{name}, {kind}" for name in names for kind in ("accuracy", "macro F1", "CPU s")]
    lines = [title, "", "`python benchmarks/evaluate_settings.py` with the arguments in its first lines.", ""]
    lines += [f"| settings | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for settings in [name for name in (BASELINE, *VARIANTS) if any(one["settings"] == name for one in trials)]:
        cells = [settings]
        for name in names:
            found = [one for one in trials if (one["settings"], one["data"]) == (settings, name)]
            for key, form in (("accuracy", ".3f"), ("macro_f1", ".3f"), ("cpu_seconds", ".0f")):
                cells.append(f"{np.mean([one[key] for one in found]):{form}}" if found else "–")
        lines.append(f"| {' | '.join(cells)} |")
    sizes = {
        name: sorted({(one["seed"], one["validation_cells"]) for one in trials if one["data"] == name})
        for name in names
    }
    facts = [f"{name}: {len(found)} seed(s), {sum(n for _, n in found):,} cells" for name, found in sizes.items()]
    lines += [
        "",
        f"Validation cells: {'; '.join(facts)}. The first trial of a seed that is pre-trained counts that too.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
