r"""Batches of the mouse cortex: gradient reversal beside batch embeddings beside neither.

    python benchmarks/fine_tuning/batch_correction.py --cortex atac.h5ad rna.h5ad [--seeds 0] [--write]

All cells are learned from, no type is seen. Two epochs of peak-to-gene alignment, by the settings of
cortex_pretrain.yaml, without and with an embedding of the batch beside the cell's (EpiFoundation); then the former is
fine-tuned for two epochs of replaced peaks with an adversary that tells batches apart (Atacformer), whose gradient
reaches the encoder reversed with several strengths, 0 among them: the same training without correction. LSI and
Harmony on LSI are beside them. Types and batches are scored by the metrics of `epifoundation evaluate batch` over the
cells of a known type.

The cortex is that of scMoMaT (Chen et al. 2019). A run that is done is not repeated.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import normalize

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from data_sets import DATA_SETS, tokenised  # noqa: E402
from measuring import environment, file_name, kept, leave_results, table  # noqa: E402
from models import embeddings, trained  # noqa: E402

from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex  # noqa: E402
from epifoundation.dataset_builders.tokenized.paired_cells import peak_matrix  # noqa: E402
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split  # noqa: E402
from epifoundation.evaluation import embedding_metrics  # noqa: E402
from epifoundation.evaluation.baselines import MeasuredCells  # noqa: E402
from epifoundation.evaluation.integration_baselines import embed_harmony  # noqa: E402

SETTINGS = HERE.parent / "settings"
QUICKLY = ("--eval_strategy", "no", "--save_strategy", "no")
ALIGNMENT = (str(SETTINGS / "cortex_pretrain.yaml"), "--num_train_epochs", "2", *QUICKLY[:2])
HARMONY = "LSI (30) + Harmony"
BASELINES = ("LSI (30)", HARMONY)
STRENGTHS = {f"alignment, then gradient reversal × {strength}": strength for strength in (0, 1, 10)}
# Method -> options of its pre-training.
TRAINED = {
    "alignment": [],
    "alignment with batch embeddings": ["--use_batch_embeddings", "true"],
    **{method: [] for method in STRENGTHS},
}
SHOWN = ("NMI", "ARI", "cASW", "cLISI", "purity", "bASW", "iLISI", "GC", "ISO")


def main() -> None:
    """Train what is missing, score and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cortex", nargs=2, metavar=("ATAC", "RNA"), required=True, help="its two .h5ad files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    methods = [*BASELINES, *TRAINED]
    parser.add_argument("--only", nargs="+", choices=methods, default=methods, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=Path("runs/batch_correction"), help="of cells and checkpoints")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    scores = [row for seed in arguments.seeds for row in scores_of(seed, arguments)]
    leave_results(
        "batch_correction",
        "Batches of the mouse cortex",
        {"environment": environment("scikit-learn"), "scores": scores},
        lines_of(scores),
        arguments.write,
        words=" ".join(["--cortex atac.h5ad rna.h5ad --seeds", *map(str, arguments.seeds), "--write"]),
        notes=HERE / "notes_batch_correction.md",
        script="fine_tuning/batch_correction",
    )


def scores_of(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The metrics of every method."""
    folder = arguments.work / f"cortex-{seed}"
    rule = Split(rule="cell", validation=0.01, test=0, seed=seed)
    parts, tokenizer = tokenised(DATA_SETS["cortex"], [Path(file) for file in arguments.cortex], rule, folder / "cells")
    cells = parts["train"]  # 99 of 100: the others only show how training goes
    types, batches = np.asarray(cells["cell_type"]), np.asarray(cells["batch"])
    known = types >= 0
    rows = []
    for method in arguments.only:

        def compute(method: str = method) -> dict[str, Any]:
            embedding = embedded(method, cells, len(tokenizer), folder, seed)
            metrics = embedding_metrics(embedding[known], types[known], batches[known], show_progress=False, seed=seed)
            return {"seed": seed, "method": method, **metrics}

        rows.append(kept(folder / "scores" / file_name(method), compute))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def embedded(method: str, cells: Any, num_tokens: int, folder: Path, seed: int) -> np.ndarray:
    """The cells as a method has them."""
    if method in BASELINES:
        peaks = peak_matrix(cells, num_tokens)
        if method == HARMONY:
            is_train = np.arange(len(cells)) > 0  # LSI of all cells but one: the interface wants one held out
            return embed_harmony(MeasuredCells(peaks, is_train, np.asarray(cells["batch"])), seed)
        return normalize(LatentSemanticIndex.fit(peaks, 30).transform(peaks))
    given = {"data": folder / "cells", "seed": seed}
    aligned, _ = trained("pretrain", [*ALIGNMENT, *TRAINED[method]], folder, **given)
    if method in STRENGTHS:
        words = [str(SETTINGS / "cortex_batch_correction.yaml"), "--gradient_reversal", str(STRENGTHS[method])]
        aligned, _ = trained("batch_correction", [*words, *QUICKLY], folder, model=aligned, **given)
    return embeddings(aligned, cells)


def lines_of(scores: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    rows = []
    for method in dict.fromkeys(row["method"] for row in scores):
        runs = [row for row in scores if row["method"] == method]
        values = np.array([[run[metric] for metric in SHOWN] for run in runs])
        spreads = [f" ± {spread:.3f}" for spread in values.std(axis=0, ddof=1)] if len(runs) > 1 else [""] * len(SHOWN)
        rows.append([method, *(f"{mean:.3f}{spread}" for mean, spread in zip(values.mean(0), spreads, strict=True))])
    seeds = sorted({row["seed"] for row in scores})
    lines = [*table(["method", *SHOWN], rows), "", f"Seeds: {', '.join(map(str, seeds))}. Higher is better in all; "]
    lines[-1] += "bASW and iLISI tell how well batches mix, the others how well types are kept apart."
    return [*lines, ""]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
