r"""Objectives of pre-training compared: from which embedding are the types of held-out cells read best?

    python benchmarks/fine_tuning/objectives.py --snare examples/data/snare_cell_lines/atac.h5ad \
        examples/data/snare_cell_lines/rna.h5ad --cortex atac.h5ad rna.h5ad [--seeds 0 1 2] [--write]

Peak-to-gene alignment, replaced peaks (0.45, Atacformer), masked peaks (0.15) and their sum learn from the same cells
for two epochs, else with the settings of benchmarks/settings/<data>_pretrain.yaml; peaks open in fewer
than five cells are left out. These settings were chosen for alignment (results/training_*_trials.json): the others had
no search of their own. All models start from a peak table set to the training cells' LSI, which is not learned. Beside
them stand that table before any training, LSI itself, and, for replaced peaks, the encoder of Atacformer (no
chromosomes, no norms of embeddings). Classifiers are fitted on the training cells and tested on cells that took no part
in anything.

The cortex is that of scMoMaT (Chen et al. 2019). A run that is done is not repeated.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from baselines import lsi  # noqa: E402
from data_sets import DATA_SETS, tokenised  # noqa: E402
from measuring import environment, file_name, kept, leave_results, table  # noqa: E402
from models import embeddings, trained  # noqa: E402

from epifoundation.dataset_builders.tokenized.paired_cells import peak_matrix  # noqa: E402
from epifoundation.evaluation import transferred_probes  # noqa: E402

SETTINGS = HERE.parent / "settings"
# Objective -> options besides those of the settings.
OBJECTIVES: dict[str, list[str]] = {
    "none: the peak table before training": ["--max_steps", "1", "--learning_rate", "0"],
    "peak-to-gene": [],
    "replaced peaks": ["--objective", "replaced_peaks"],
    "replaced peaks, Atacformer encoder": ["--objective", "replaced_peaks", "--encoder", "atacformer"],
    "masked peaks": ["--objective", "masked_peaks"],
    "sum of the three": ["--objective", "combined"],
}


LSI = {"LSI (30)": 30, "LSI (64)": 64}
EPOCHS = {"snare": ["--num_train_epochs", "2"], "cortex": ["--num_train_epochs", "2"]}


def main() -> None:
    """Train what is missing, and report what is there."""
    arguments = read_arguments()
    report: dict[str, Any] = {"environment": environment("scikit-learn"), "scores": []}
    for name in ("snare", "cortex"):
        for seed in arguments.seeds if getattr(arguments, name) else ():
            report["scores"] += scores_of(name, [Path(file) for file in getattr(arguments, name)], seed, arguments)
    files = "".join(f"--{name} atac.h5ad rna.h5ad " for name in ("snare", "cortex") if getattr(arguments, name))
    leave_results(
        "objectives",
        "Objectives of pre-training: cell types of held-out cells",
        report,
        lines_of(report["scores"]),
        arguments.write,
        words=f"{files}--seeds {' '.join(map(str, arguments.seeds))} --write",
        notes=HERE / "notes_objectives.md",
        script="fine_tuning/objectives",
    )


def read_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("snare", "cortex"):
        parser.add_argument(f"--{name}", nargs=2, metavar=("ATAC", "RNA"), help="its two .h5ad files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    methods = [*LSI, *OBJECTIVES]
    parser.add_argument("--only", nargs="+", choices=methods, default=methods, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=Path("runs/objectives"), help="folder of cells and checkpoints")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def scores_of(name: str, files: list[Path], seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores of every objective for one division of the cells; the seed decides on all that is drawn."""
    data = dataclasses.replace(DATA_SETS[name], min_cells_per_peak=5)
    folder = arguments.work / f"{name}-{seed}"
    [rule] = data.splits.values()
    cells, tokenizer = tokenised(data, files, dataclasses.replace(rule, seed=seed), folder / "cells")
    rows = []
    for method in arguments.only:

        def compute(method: str = method) -> dict[str, Any]:
            both, seconds = embedded(name, method, cells, len(tokenizer), folder, seed)
            types, asked = (np.asarray(cells[part]["cell_type"]) for part in ("train", "test"))
            known, new = (rows[labels >= 0] for rows, labels in zip(both, (types, asked), strict=True))
            probes = transferred_probes(known, types[types >= 0], new, asked[asked >= 0])
            return {"data": name, "seed": seed, "method": method, "seconds": seconds, **probes._asdict()}

        rows.append(kept(folder / "scores" / file_name(method), compute))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def embedded(
    name: str, method: str, cells: Any, num_tokens: int, folder: Path, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Training and test cells as a method has them, and the seconds it took to learn."""
    train, test = cells["train"], cells["test"]
    if method in LSI:
        return lsi(peak_matrix(train, num_tokens), peak_matrix(test, num_tokens), LSI[method]), 0.0
    settings = [str(SETTINGS / f"{name}_pretrain.yaml"), *EPOCHS[name], *OBJECTIVES[method]]
    settings += ["--eval_strategy", "no", "--save_strategy", "no"]
    output, record = trained("pretrain", settings, folder, data=folder / "cells", seed=seed)
    return (embeddings(output, train), embeddings(output, test)), float(record["wall_seconds_since_start"])


def lines_of(scores: list[dict[str, Any]]) -> list[str]:
    """Markdown: a table for each data set."""
    metrics = {"knn_accuracy": "kNN accuracy", "logistic_accuracy": "logistic accuracy"}
    metrics |= {"logistic_macro_f1": "logistic macro F1", "nmi": "NMI"}
    lines = []
    for name in dict.fromkeys(row["data"] for row in scores):
        of_data = [row for row in scores if row["data"] == name]
        seeds = sorted({row["seed"] for row in of_data})
        rows = []
        for method in dict.fromkeys(row["method"] for row in of_data):
            runs = [row for row in of_data if row["method"] == method]
            values = [np.array([run[metric] for run in runs]) for metric in (*metrics, "seconds")]
            rows.append([method, *(f"{v.mean():.3f} ± {v.std():.3f}" for v in values[:-1]), float(values[-1].mean())])
        title = f"## {DATA_SETS[name].title}: {next(iter(DATA_SETS[name].splits))}"
        lines += [title, "", *table(["pre-training", *metrics.values(), "seconds"], rows), ""]
        spread = "Mean ± standard deviation over" if len(seeds) > 1 else "One run,"
        lines += [f"{spread} seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}.", ""]
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
