"""New models of a run: their sizes from the options and the tokenizer, their starting values from the cells."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationPreTrainedModel,
    PeakTokenizer,
)
from epifoundation.tokenization.tokenization_epifoundation import VOCAB_FILES_NAMES
from epifoundation.training.initialization import (
    cell_embeddings,
    init_cell_projection,
    init_gene_bias,
    init_peak_embeddings,
)
from epifoundation.training.options import FinetuneOptions, NewModelOptions, PretrainOptions

CELLS_TO_WHITEN = 5_000  # enough for the covariance of 512 dimensions
# What the encoder of Atacformer does without.
ATACFORMER = {
    "use_chromosome_embeddings": False,
    "use_embedding_norms": False,
    "use_input_norm": False,
    "use_final_norm": False,
    "use_cls_token": False,
    "pooling": "mean",
}


def new_config(options: NewModelOptions, tokenizer: PeakTokenizer, **given: Any) -> EpiFoundationConfig:
    """Sizes from the options and the tokenizer, and what is given."""
    names = {option.name for option in fields(options)} - {"max_peaks"}
    values = {name: getattr(options, name) for name in names if hasattr(EpiFoundationConfig, name)}
    sizes = {name: value for name, value in values.items() if value is not None}
    chromosome_ids, gene_chromosome_ids = tokenizer.peak_chromosome_ids, tokenizer.gene_chromosome_ids
    if gene_chromosome_ids is not None:
        sizes["gene_vocab_size"] = len(gene_chromosome_ids)
        chromosome_ids = np.r_[chromosome_ids, gene_chromosome_ids]
    of_encoder = ATACFORMER if options.encoder == "atacformer" else {}
    return EpiFoundationConfig(
        **(sizes | of_encoder | given),
        max_peaks=getattr(options, "max_peaks", None) or tokenizer.max_peaks,
        vocab_size=len(tokenizer),
        num_chromosomes=int(chromosome_ids.max()) + 1,
    )


def set_starting_values(
    model: EpiFoundationPreTrainedModel, options: PretrainOptions, tokenizer: PeakTokenizer, train: Dataset, seed: int
) -> None:
    """Learn the starting values that were asked for from the training cells; those of genes only where it has them."""
    if options.init_peak_embeddings == "lsi":
        init_peak_embeddings(model, train, seed)
    if not isinstance(model, EpiFoundationForPeakToGeneAlignment):
        return
    if options.use_gene_bias:
        init_gene_bias(model, train)
    if options.whiten_cells:
        init_cell_projection(model, cell_embeddings(model, tokenizer, some_cells(train, seed), options.max_peaks))


def some_cells(train: Dataset, seed: int) -> Dataset:
    """As many as it takes to tell how embeddings vary."""
    sample = np.random.default_rng(seed).permutation(len(train))[:CELLS_TO_WHITEN]
    return train.select(np.sort(sample), keep_in_memory=True)


def new_gene_table(folder: str, tokenizer: PeakTokenizer) -> dict[str, Any]:
    """Size of the gene table for a checkpoint that was trained without genes; nothing for one that has its own."""
    if tokenizer.gene_chromosome_ids is None or Path(folder, VOCAB_FILES_NAMES["genes_file"]).is_file():
        return {}
    return {"gene_vocab_size": len(tokenizer.gene_chromosome_ids)}


def dropouts(options: FinetuneOptions) -> dict[str, Any]:
    """Dropout of a checkpoint, where another one was asked for."""
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
