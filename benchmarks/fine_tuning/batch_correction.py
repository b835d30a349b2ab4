r"""Batch correction: gradient reversal beside batch embeddings beside neither.

    python benchmarks/fine_tuning/batch_correction.py [--cortex atac.h5ad rna.h5ad] [--seeds 0] [--write]

Two data sets: the mouse cortex, whose twelve batches hardly differ to begin with, and the SNARE cell lines of
examples/data with a batch made up: half of the cells, drawn, lose four of ten peaks, always the same. There it is known
that nothing but the batch keeps these halves apart.

All cells are learned from, no type is seen. Some epochs of peak-to-gene alignment without and with an embedding of the
batch beside the cell's (EpiFoundation); then the former is fine-tuned by replaced peaks with an adversary that tells
batches apart, whose gradient reaches the encoder reversed: as `finetune batch-correction` does by default, as in the
paper (Atacformer), and with strength 0, the same training without correction. LSI and Harmony on LSI are beside them.
Types and batches are scored by the metrics of `epifoundation evaluate batch` over the cells of a known type; how well
batches can be told, by logistic regression on the standardised embedding, five-fold.

The cortex is that of scMoMaT (Chen et al. 2019). A run that is done is not repeated.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

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
SNARE = HERE.parent.parent / "examples" / "data" / "snare_cell_lines"
SHARE_OF_CELLS, SHARE_OF_PEAKS = 0.5, 0.4  # in the made-up batch; lost there
DATA = {
    "cortex": DATA_SETS["cortex"],
    "snare": dataclasses.replace(
        DATA_SETS["snare"],
        title="SNARE-seq cell lines with a batch made up: half of the cells lose four of ten peaks",
        batch_key="batch",
    ),
}
QUICKLY = ("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")
EPOCHS = {"cortex": ("2", "2"), "snare": ("3", "8")}  # of alignment and of correction
HARMONY = "LSI (30) + Harmony"
BASELINES = ("LSI (30)", HARMONY)
AS_IN_THE_PAPER = ("--standardize_adversary", "false", "--adversary_learning_rate", "1")
# Method -> options of batch correction.
CORRECTED = {
    "alignment, then replaced peaks without reversal": ("--gradient_reversal", "0"),
    "alignment, then gradient reversal": (),
    "alignment, then gradient reversal as in the paper": AS_IN_THE_PAPER,
    "alignment, then gradient reversal as in the paper × 10": (*AS_IN_THE_PAPER, "--gradient_reversal", "10"),
}
# Method -> options of its pre-training.
TRAINED: dict[str, list[str]] = {
    "alignment": [],
    "alignment with batch embeddings": ["--use_batch_embeddings", "true"],
    **{method: [] for method in CORRECTED},
}
SHOWN = ("batch told", "NMI", "ARI", "cASW", "cLISI", "purity", "bASW", "iLISI", "GC", "ISO")


def main() -> None:
    """Train what is missing, score and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cortex", nargs=2, metavar=("ATAC", "RNA"), help="its two .h5ad files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    methods = [*BASELINES, *TRAINED]
    parser.add_argument("--only", nargs="+", choices=methods, default=methods, metavar="METHOD")
    parser.add_argument("--work", type=Path, default=Path("runs/batch_correction"), help="of cells and checkpoints")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    scores = [
        row for name in DATA if name == "snare" or arguments.cortex
        for seed in arguments.seeds for row in scores_of(name, seed, arguments)
    ]  # fmt: skip
    cortex = ["--cortex atac.h5ad rna.h5ad"] if arguments.cortex else []
    leave_results(
        "batch_correction",
        "Batch correction",
        {"environment": environment("scikit-learn"), "scores": scores},
        lines_of(scores),
        arguments.write,
        words=" ".join([*cortex, "--seeds", *map(str, arguments.seeds), "--write"]),
        notes=HERE / "notes_batch_correction.md",
        script="fine_tuning/batch_correction",
    )


def scores_of(name: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The metrics of every method."""
    folder = arguments.work / f"{name}-{seed}"
    files = with_batch(folder, seed) if name == "snare" else [Path(file) for file in arguments.cortex]
    rule = Split(rule="cell", validation=0.01, test=0, seed=seed)
    parts, tokenizer = tokenised(DATA[name], files, rule, folder / "cells")
    cells = parts["train"]  # 99 of 100: the others only show how training goes
    types, batches = np.asarray(cells["cell_type"]), np.asarray(cells["batch"])
    known = types >= 0
    rows = []
    for method in arguments.only:

        def compute(method: str = method) -> dict[str, Any]:
            embedding = embedded(name, method, cells, len(tokenizer), folder, seed)[known]
            metrics = embedding_metrics(embedding, types[known], batches[known], show_progress=False, seed=seed)
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
            told = float(cross_val_score(probe, embedding, batches[known], cv=5).mean())
            return {"data": name, "seed": seed, "method": method, "batch told": told, **metrics}

        rows.append(kept(folder / "scores" / file_name(method), compute))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def with_batch(folder: Path, seed: int) -> list[Path]:
    """The files of the cell lines, with the batch made up."""
    place = folder / "atac.h5ad"
    if not place.is_file():
        generator = np.random.default_rng(seed)
        atac = anndata.read_h5ad(SNARE / "atac.h5ad")
        is_second = generator.random(atac.n_obs) < SHARE_OF_CELLS
        is_lost = generator.random(atac.n_vars) < SHARE_OF_PEAKS
        entries = sp.coo_matrix(atac.X)
        kept_ones = ~(is_second[entries.row] & is_lost[entries.col])
        rows, columns, values = (part[kept_ones] for part in (entries.row, entries.col, entries.data))
        atac.X = sp.csr_matrix((values, (rows, columns)), shape=atac.shape)
        atac.obs["batch"] = np.where(is_second, "fewer peaks", "all peaks")
        folder.mkdir(parents=True, exist_ok=True)
        atac.write_h5ad(place)
    return [place, SNARE / "rna.h5ad"]


def embedded(name: str, method: str, cells: Any, num_tokens: int, folder: Path, seed: int) -> np.ndarray:
    """The cells as a method has them."""
    if method in BASELINES:
        peaks = peak_matrix(cells, num_tokens)
        if method == HARMONY:
            is_train = np.arange(len(cells)) > 0  # LSI of all cells but one: the interface wants one held out
            return embed_harmony(MeasuredCells(peaks, is_train, np.asarray(cells["batch"])), seed)
        return normalize(LatentSemanticIndex.fit(peaks, 30).transform(peaks))
    given = {"data": folder / "cells", "seed": seed}
    epochs, of_correction = (("--num_train_epochs", count, *QUICKLY) for count in EPOCHS[name])
    settings = [str(SETTINGS / f"{name}_pretrain.yaml"), *epochs, *TRAINED[method]]
    model, _ = trained("pretrain", settings, folder, **given)
    if method in CORRECTED:
        words = [str(SETTINGS / "cortex_batch_correction.yaml"), *of_correction, *CORRECTED[method]]
        model, _ = trained("batch_correction", words, folder, model=model, **given)
    return embeddings(model, cells)


def lines_of(scores: list[dict[str, Any]]) -> list[str]:
    """Markdown: a table for each data set."""
    lines = []
    for name in dict.fromkeys(row["data"] for row in scores):
        of_data = [row for row in scores if row["data"] == name]
        rows = []
        for method in dict.fromkeys(row["method"] for row in of_data):
            values = np.array([[row[metric] for metric in SHOWN] for row in of_data if row["method"] == method])
            means = [f"{mean:.3f}" for mean in values.mean(axis=0)]
            if len(values) > 1:
                spreads = values.std(axis=0, ddof=1)
                means = [f"{mean} ± {spread:.3f}" for mean, spread in zip(means, spreads, strict=True)]
            rows.append([method, *means])
        lines += [f"## {DATA[name].title}", "", *table(["method", *SHOWN], rows), ""]
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in scores}))
    return [
        *lines,
        f'Seeds: {seeds}. "Batch told" is an accuracy, lower is better; all else is the better the higher. bASW and '
        "iLISI tell how well batches mix, the others how well types are kept apart.",
        "",
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
