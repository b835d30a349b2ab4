"""Training runs of one split, and what their models say about held-out cells."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationModel,
    PeakTokenizer,
)
from epifoundation.training import ClassificationCollator, ExpressionCollator, expression_levels
from epifoundation.training.initialization import cell_embeddings
from epifoundation.training.options import (
    BatchCorrectionOptions,
    ClassificationOptions,
    ExpressionOptions,
    PretrainOptions,
    read_options,
)
from epifoundation.training.runs import (
    finetune_batch_correction,
    finetune_classification,
    finetune_expression,
    pretrain,
)

CELLS_PER_BATCH = 32
RUNS: dict[str, tuple[Any, Callable[..., dict[str, Any]]]] = {
    "pretrain": (PretrainOptions, pretrain),
    "classification": (ClassificationOptions, finetune_classification),
    "expression": (ExpressionOptions, finetune_expression),
    "batch_correction": (BatchCorrectionOptions, finetune_batch_correction),
}


def trained(task: str, words: list[str], folder: Path, **given: object) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a run and its record; a finished run with the same words is not repeated."""
    kind, run = RUNS[task]
    words = [*words, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]
    output = folder / f"{task}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}"
    return output, run(*read_options(kind, [*words, "--output_dir", str(output), "--disable_tqdm", "true"]))


def embeddings(folder: Path, cells: Dataset) -> np.ndarray:
    """(cells, hidden) by the encoder of a checkpoint, which reads all peaks of a cell."""
    return cell_embeddings(EpiFoundationModel.from_pretrained(folder), PeakTokenizer.from_pretrained(folder), cells)


@torch.inference_mode()
def type_probabilities(folder: Path, cells: Dataset, max_peaks: int | None = None) -> np.ndarray:
    """(cells, types)."""
    model = EpiFoundationForCellClassification.from_pretrained(folder).eval()
    collator = ClassificationCollator(PeakTokenizer.from_pretrained(folder), max_peaks=max_peaks, deterministic=True)
    return np.concatenate([batch.softmax(-1).numpy() for batch in _logits(model, collator, cells)])


@torch.inference_mode()
def predicted_levels(folder: Path, cells: Dataset, max_peaks: int | None = None) -> np.ndarray:
    """(cells, genes), for all genes of the tokenizer."""
    model = EpiFoundationForExpressionPrediction.from_pretrained(folder).eval()
    tokenizer = PeakTokenizer.from_pretrained(folder)
    ids = np.arange(4, len(tokenizer.gene_chromosome_ids))
    collator = ExpressionCollator(tokenizer, gene_ids=ids, max_peaks=max_peaks)
    return np.concatenate([batch.numpy() for batch in _logits(model, collator, cells)])


def measured_levels(cells: Dataset, num_genes: int, num_bins: int = 10) -> np.ndarray:
    """(cells, genes) levels of expression, as training has them."""
    levels = np.zeros((len(cells), num_genes), np.float32)
    for row, cell in zip(levels, cells.with_format("numpy").select_columns(["gene_ids", "gene_counts"]), strict=True):
        row[cell["gene_ids"] - 4] = expression_levels(cell["gene_counts"], num_bins)
    return levels


def _logits(model: Any, collator: Any, cells: Dataset) -> list[torch.Tensor]:
    columns = [name for name in ("input_ids", "gene_ids", "gene_counts", "cell_type") if name in cells.column_names]
    cells = cells.select_columns(columns).with_format("numpy")
    batches = (cells[begin : begin + CELLS_PER_BATCH] for begin in range(0, len(cells), CELLS_PER_BATCH))
    rows = (
        [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)] for batch in batches
    )
    return [model(**{k: v for k, v in collator(batch).items() if k != "labels"}).logits.float() for batch in rows]
