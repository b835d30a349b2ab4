"""Speed against quality: which peaks of a cell to keep when not all are read, and how many suffice.

    python benchmarks/max_peaks.py [--splits 2] [--epochs 0] [--write]

The SNARE-seq cell lines of examples/data are divided into training and held-out cells. A small mean-pooled model starts
from the LSI of the former and, with --epochs, is aligned to their genes (a minute an epoch). All cells are embedded
from part of their peaks: drawn as at inference (a random choice that follows from the cell), the rarest first, the
rarest of those open in five training cells or more first, or the commonest first. How common a peak is, only training
cells tell; peaks that none of them has open come last. Reported are the accuracy of 15 nearest training cells, embedded
alike, for the type of held-out cells, and the cosine similarity to the embedding from all peaks, both less the mean of
the training cells.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import torch
from anndata import AnnData
from measuring import RESULTS, leave_results, table
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from transformers import TrainingArguments, set_seed

from epifoundation import EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment, EpiFoundationModel, PeakTokenizer
from epifoundation.dataset_builders import gene_annotation
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.inference.batching import compute_batches, ready_for_inference
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.tokenization.tokenization_epifoundation import content_order
from epifoundation.training import AlignmentCollator, EpiFoundationTrainer, init_gene_bias, init_peak_embeddings

DATA = Path(__file__).parent.parent / "examples" / "data" / "snare_cell_lines"
LIMITS = (50, 100, 200, 400, 800)
ALL = 12_000
Choice = Callable[[np.ndarray, int], np.ndarray]


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    atac, rna = anndata.read_h5ad(DATA / "atac.h5ad"), anndata.read_h5ad(DATA / "rna.h5ad")
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(arguments.splits):
        for key, figures in one_split(atac, rna, seed, arguments.epochs).items():
            found.setdefault(key, []).append(figures)
    report(found, arguments)


def one_split(atac: AnnData, rna: AnnData, seed: int, epochs: int) -> dict[tuple[str, int], dict[str, float]]:
    """Figures of one split by choice and number of peaks."""
    labels = atac.obs["cell_type"].to_numpy()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    tokenizer = tokenizer_for(atac, rna, train)
    ids = PeakTokenizer(tokenizer.vocabulary)(atac)["input_ids"]
    choices = choices_of_peaks(ids, train, len(tokenizer))
    encoder = aligned(atac[train], rna[train], tokenizer, epochs, seed)
    whole, seconds = embed(encoder, tokenizer, ids, content_order, ALL)
    figures = {("all", ALL): quality(whole, whole, labels, train, test) | {"seconds": seconds}}
    for name, choice in choices.items():
        for limit in LIMITS:
            part, seconds = embed(encoder, tokenizer, ids, choice, limit)
            figures[name, limit] = quality(part, whole, labels, train, test) | {"seconds": seconds}
    return figures


def tokenizer_for(atac: AnnData, rna: AnnData, train: np.ndarray) -> PeakTokenizer:
    """All peaks, and the genes of ten training cells or more."""
    names = rna.var_names[np.asarray((rna.X[train] > 0).sum(axis=0)).ravel() >= 10]
    genes = GeneVocabulary.from_names(names, annotation=gene_annotation("hg38"))
    return PeakTokenizer(PeakVocabulary.from_anndata(atac, genome="hg38"), genes)


def aligned(atac: AnnData, rna: AnnData, tokenizer: PeakTokenizer, epochs: int, seed: int) -> EpiFoundationModel:
    """The encoder of a small model that starts from the LSI of these cells and is aligned to their genes."""
    cells = paired_cells(atac, rna, tokenizer)
    set_seed(seed)
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=len(tokenizer.gene_chromosome_ids),
        num_chromosomes=int(max(tokenizer.peak_chromosome_ids.max(), tokenizer.gene_chromosome_ids.max())) + 1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
        pooling="mean",
        use_gene_bias=True,
    )
    model = EpiFoundationForPeakToGeneAlignment(config)
    init_peak_embeddings(model, cells, seed)
    if epochs == 0:
        return model.epifoundation
    init_gene_bias(model, cells)
    model.get_input_embeddings().requires_grad_(False)
    arguments = TrainingArguments(
        output_dir="runs/max_peaks",
        num_train_epochs=epochs,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        warmup_steps=0.1,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
    )
    collator = AlignmentCollator(tokenizer, max_peaks=400, max_genes=1_000, packing=True)
    EpiFoundationTrainer(model, arguments, train_dataset=cells, data_collator=collator).train()
    return model.epifoundation


def choices_of_peaks(ids: list[np.ndarray], train: np.ndarray, num_ids: int) -> dict[str, Choice]:
    """Ways to put the peaks of a cell into an order of which the first are kept."""
    open_in = np.bincount(np.concatenate([ids[cell] for cell in train]), minlength=num_ids)
    seen = np.where(open_in > 0, open_in, np.iinfo(np.int64).max)
    common = np.where(open_in >= 5, open_in, seen + len(train))

    def by(rank: np.ndarray) -> Choice:
        return lambda peaks, limit: np.argsort(rank[peaks], kind="stable")

    return {"random": content_order, "rare": by(seen), "rare, 5 cells or more": by(common), "common": by(-open_in)}


def embed(
    encoder: EpiFoundationModel, tokenizer: PeakTokenizer, ids: list[np.ndarray], choice: Choice, limit: int
) -> tuple[np.ndarray, float]:
    """Embeddings of all cells from at most `limit` peaks, and the CPU seconds of the model."""
    kept = [cell if len(cell) <= limit + 1 else shortened(cell, choice, limit) for cell in ids]
    chromosome_ids = [tokenizer.peak_chromosome_ids[cell] for cell in kept]
    out = np.empty((len(ids), encoder.config.hidden_size), dtype=np.float32)
    started = time.process_time()

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        return encoder(**inputs, cell_embeddings_only=True).pooler_output

    with ready_for_inference(encoder):
        for batch, numbers in compute_batches(forward, encoder.device, kept, chromosome_ids, 32_768):
            out[batch] = numbers
    return out, time.process_time() - started


def shortened(cell: np.ndarray, choice: Choice, limit: int) -> np.ndarray:
    return np.r_[cell[:1], np.sort(cell[1:][choice(cell[1:], limit)[:limit]])]


def quality(
    part: np.ndarray, whole: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> dict[str, float]:
    """Accuracy of nearest neighbours, and likeness to the embedding from all peaks."""
    neighbours = KNeighborsClassifier(15, metric="cosine").fit(part[train] - part[train].mean(0), labels[train])
    predicted = neighbours.predict(part[test] - part[train].mean(0))
    a, b = (x[test] - x[train].mean(0) for x in (part, whole))
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return {
        "accuracy": float(accuracy_score(labels[test], predicted)),
        "balanced accuracy": float(balanced_accuracy_score(labels[test], predicted)),
        "cosine": float(cosine.mean()),
    }


def report(found: dict[tuple[str, int], list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """The table."""
    means = {
        key: {name: float(np.mean([run[name] for run in runs])) for name in runs[0]} for key, runs in found.items()
    }
    rows = [("all" if limit == ALL else limit, choice, *mean.values()) for (choice, limit), mean in means.items()]
    rows.sort(key=lambda row: ALL if row[0] == "all" else row[0])
    lines = [
        f"Means of {arguments.splits} splits, {arguments.epochs} epochs. One thread, 64 wide, 2 layers: at the paper's "
        "size the time falls faster, see embed.md.",
        "",
        *table(("peaks", "kept", "kNN accuracy", "balanced", "cosine to all", "CPU s"), rows),
    ]
    lines += ["", "![accuracy, likeness and time by peaks kept](max_peaks.png)"]
    if arguments.write:
        draw(means)
    named = {f"{choice}, {limit}": mean for (choice, limit), mean in means.items()}
    words = f"--splits {arguments.splits} --epochs {arguments.epochs} --write"
    leave_results(
        "max_peaks",
        "Fewer peaks per cell",
        {"runs": named},
        lines,
        arguments.write,
        words,
        notes=Path(__file__).with_name("notes_max_peaks.md"),
    )


def draw(means: dict[tuple[str, int], dict[str, float]]) -> None:
    """A curve for each choice, by the number of peaks kept."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    whole = means["all", ALL]
    choices = list(dict.fromkeys(choice for choice, _ in means if choice != "all"))
    panels = {"accuracy": "kNN accuracy", "cosine": "cosine to the embedding\nfrom all peaks"}
    for ax, (key, label) in zip(axes, panels.items(), strict=False):
        for choice, style, mark in zip(choices, ("-", "--", "-.", ":"), "osv^", strict=True):
            ax.plot(LIMITS, [means[choice, limit][key] for limit in LIMITS], style, marker=mark, label=choice)
        ax.axhline(whole[key], color="black", linewidth=0.8)
        ax.set_ylabel(label)
    speed = [whole["seconds"] / means[choices[0], limit]["seconds"] for limit in LIMITS]
    axes[2].plot(LIMITS, speed, "-o")
    axes[2].set(yscale="log", ylabel="times faster than from all peaks")
    axes[2].set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    for ax in axes:
        ax.set(xscale="log", xlabel="peaks kept of a cell")
        ax.set_xticks(LIMITS, map(str, LIMITS))
        ax.minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="kept first", loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("SNARE-seq cell lines, held-out cells; the black line is all peaks", fontsize="medium")
    figure.savefig(RESULTS / "max_peaks.png", dpi=150)


if __name__ == "__main__":
    main()
