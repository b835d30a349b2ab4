"""Models of one split: trained on its training cells when they are first asked for, and what they say of the others.

A training that was ended goes on from its last checkpoint, and a finished one is not repeated.
"""

import contextlib
import json
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders import gene_annotation, save_cells
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.evaluation.baselines import TypeProbabilities
from epifoundation.inference import annotate_cells, embed_cells, load_tokenizer, predict_expression
from epifoundation.inference.annotate import PROBABILITIES_KEY
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training.options import (
    NEW_MODEL,
    ClassificationOptions,
    ExpressionOptions,
    PretrainOptions,
    read_options,
)
from epifoundation.training.runs import finetune_classification, finetune_expression, pretrain

from .cells import EvaluationData

SCRATCH = "scratch"
RUNS: dict[str, tuple[Any, Any]] = {
    "pretrain": (PretrainOptions, pretrain),
    "classification": (ClassificationOptions, finetune_classification),
    "expression": (ExpressionOptions, finetune_expression),
}

_OPTIMISATION: dict[str, object] = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.0,
    "per_device_train_batch_size": 16,
    "save_total_limit": 1,
    "curves": False,
    "max_peaks": 400,
}
_ALL_CELLS: dict[str, object] = {"validation_share": 0, "eval_strategy": "no"}
_SIZES: dict[str, object] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.0,
    "pooling": "mean",
    "init_peak_embeddings": "lsi",
}
_GENES: dict[str, object] = {"max_genes": 2_000, "num_eval_genes": 500, "freeze_peak_table": True}
# Of the small model that is trained in minutes on a CPU, the same for all data. They were chosen on validation cells:
# benchmarks/results/evaluate_settings.md, beside it small_checkpoint.md for bone marrow and training_snare.md for
# expression. The peak table starts from the LSI of the training cells. Genes leave it as it is; types train it further,
# for few epochs. Both learn from all training cells, as the best of many epochs by a tenth of few cells is a matter of
# chance.
SMALL: dict[str, dict[str, object]] = {
    "pretrain": _OPTIMISATION
    | _SIZES
    | _GENES
    | _ALL_CELLS
    | {"num_train_epochs": 6, "use_gene_bias": True, "whiten_cells": True},
    "classification": _OPTIMISATION | _ALL_CELLS | {"num_train_epochs": 3, "freeze_peak_table": False},
    "expression": _OPTIMISATION
    | _GENES
    | {"learning_rate": 3e-3, "gene_draw": "uniform", "load_best_model_at_end": True, "metric_for_best_model": "mse"},
}
CELLS_FOR_EXPRESSION = 11_000  # of all epochs together: few cells are seen more often
FEWEST_EPOCHS, MOST_EPOCHS = 4, 30


def small_options(kind: str, num_cells: int) -> dict[str, object]:
    """The small settings of a run ("pretrain", "classification", "expression") on so many training cells."""
    if kind != "expression":
        return SMALL[kind]
    num_epochs = min(max(round(CELLS_FOR_EXPRESSION / num_cells), FEWEST_EPOCHS), MOST_EPOCHS)
    return SMALL[kind] | {"num_train_epochs": num_epochs}


class SplitModels:
    """The models of one split.

    Args:
        model: the folder of a checkpoint, a name on the Hub, or "scratch" for a small one trained here.
        train: the training cells.
        folder: for tokenised cells and checkpoints.
        seed: of all training.
        settings: by run ("pretrain", "classification", "expression"), a YAML file in place of the small settings.
        extra: by run, further options, which win over the settings.
        min_cells_per_gene: a model trained from scratch knows the genes that so many training cells express.
    """

    def __init__(
        self,
        model: str,
        train: EvaluationData,
        folder: Path,
        seed: int,
        *,
        settings: Mapping[str, Path],
        extra: Mapping[str, Mapping[str, object]],
        min_cells_per_gene: int,
    ) -> None:
        self.model, self.train, self.folder, self.seed = model, train, folder, seed
        self.settings, self.extra, self.min_cells_per_gene = settings, extra, min_cells_per_gene

    @property
    def is_scratch(self) -> bool:
        """Whether the model is trained here from nothing."""
        return self.model == SCRATCH

    @cached_property
    def pretrained(self) -> str:
        """The checkpoint that nothing but peaks and genes has taught.

        Raises:
            ValueError: if it is to be trained here and there are no genes.
        """
        if not self.is_scratch:
            return self.model
        if self.train.genes is None:
            raise ValueError("without measured genes (--rna) a new model cannot be pre-trained")
        return self._run("pretrain")

    @cached_property
    def annotator(self) -> str:
        """The checkpoint fine-tuned on the cell types of the training cells."""
        if self.is_scratch and self.train.genes is None:
            sizes = {} if "classification" in self.settings else _SIZES  # a settings file has its own
            return self._run("classification", sizes | {"model": NEW_MODEL})
        return self._run("classification", {"model": self.pretrained})

    @cached_property
    def predictor(self) -> str:
        """The checkpoint fine-tuned on the expression of the training cells."""
        return self._run("expression", {"model": self.pretrained})

    def tokenizer(self) -> PeakTokenizer:
        """That of the checkpoint, or one of the peaks and genes of these cells."""
        if not self.is_scratch:
            return load_tokenizer(self.model)
        peaks = PeakVocabulary.from_names(self.train.peak_names, self.train.genome)
        if self.train.genes is None:
            return PeakTokenizer(peaks)
        num_cells = np.asarray((self.train.genes > 0).sum(axis=0)).ravel()
        names = [self.train.gene_names[i] for i in np.flatnonzero(num_cells >= self.min_cells_per_gene)]
        return PeakTokenizer(peaks, GeneVocabulary.from_names(names, _annotation(self.train.genome)))

    def _run(self, kind: str, given: Mapping[str, object] | None = None) -> str:
        output = self.folder / kind
        options_class, run = RUNS[kind]
        small = small_options(kind, self.train.num_cells)
        words = [str(self.settings[kind])] if kind in self.settings else words_of(small)
        options = {**(given or {}), **self.extra.get(kind, {}), "seed": self.seed, "disable_tqdm": True}
        options["dataloader_pin_memory"] = torch.cuda.is_available()  # it warns where there is nothing to pin for
        words += words_of({**options, "data": self._cells(), "output_dir": output})
        record = self.folder / f"{kind}.json"
        is_same = record.is_file() and json.loads(record.read_text(encoding="utf-8")) == words
        if is_same and (output / "run.json").is_file():  # written last
            return str(output)
        record.write_text(json.dumps(words), encoding="utf-8")
        # Losses belong into a file beside the run, not between the lines of the comparison.
        with (self.folder / f"{kind}.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            run(*read_options(options_class, words if is_same else [*words, "--overwrite", "True"]))
        return str(output)

    def _cells(self) -> Path:
        folder = self.folder / "cells"
        if (folder / "peaks.npz").is_file():  # written last
            return folder
        tokenizer = self.tokenizer()
        genes = None if tokenizer.genes is None else self.train.rna()
        cells = paired_cells(
            self.train.atac(), genes, tokenizer, cell_type_key="cell_type", batch_key="batch", allow_float_counts=True
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*"):  # of a run that was ended
            file.unlink()
        save_cells(cells, folder)
        tokenizer.save_pretrained(folder)
        return folder


def embedded(cells: EvaluationData, checkpoint: str) -> np.ndarray:
    """(cells, hidden) embeddings."""
    data = cells.atac()
    embed_cells(data, checkpoint, show_progress=False)
    return np.asarray(data.obsm["X_epifoundation"])


def annotated(cells: EvaluationData, checkpoint: str) -> TypeProbabilities:
    """Probabilities of the types of the checkpoint."""
    data = cells.atac()
    annotate_cells(data, checkpoint, add_probabilities=True, show_progress=False)
    types = np.array(data.uns["epifoundation_cell_type"]["cell_types"], dtype=str)
    order = np.argsort(types)
    return TypeProbabilities(types[order], np.asarray(data.obsm[PROBABILITIES_KEY], dtype=np.float64)[:, order])


def predicted(cells: EvaluationData, checkpoint: str, genes: list[str]) -> np.ndarray:
    """(cells, genes) levels of expression."""
    levels: AnnData = predict_expression(cells.atac(), checkpoint, genes=genes, show_progress=False)
    return np.asarray(levels.X)


def words_of(options: Mapping[str, object]) -> list[str]:
    """Options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _annotation(genome: str) -> GeneVocabulary | None:
    try:
        return gene_annotation(genome)
    except ValueError:
        warnings.warn(f"no table of genes for {genome}: the chromosomes of the genes stay unknown", stacklevel=2)
        return None
