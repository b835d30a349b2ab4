"""A few cells with peaks and genes, tokenised."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from datasets import ClassLabel, Dataset

from epifoundation import EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training.options import ContrastiveOptions, PretrainOptions, read_options
from epifoundation.training.runs import finetune_contrastive, pretrain

NUM_CELLS, NUM_PEAKS, NUM_GENES = 30, 80, 25


@pytest.fixture(scope="session")
def modalities() -> tuple[AnnData, AnnData]:
    rng = np.random.default_rng(0)
    # Every third peak is open, and every third gene expressed, mostly in cells of one of three types.
    cell_type = np.arange(NUM_CELLS)[:, None] % 3
    peaks = rng.random((NUM_CELLS, NUM_PEAKS)) < np.where(np.arange(NUM_PEAKS) % 3 == cell_type, 0.5, 0.2)
    genes = rng.poisson(np.where(np.arange(NUM_GENES) % 3 == cell_type, 2.0, 0.1))
    peaks, genes = sp.csr_matrix(peaks, dtype=np.float32), sp.csr_matrix(genes, dtype=np.float32)
    atac, rna = AnnData(peaks), AnnData(genes)
    atac.obs_names = rna.obs_names = [f"cell{i}" for i in range(NUM_CELLS)]
    atac.var_names = [f"chr{1 + i % 3}:{1000 * i}-{1000 * i + 500}" for i in range(NUM_PEAKS)]
    rna.var_names = [f"GENE{i}" for i in range(NUM_GENES)]
    atac.obs["type"] = ["a", "b", "c"] * 10
    return atac, rna


@pytest.fixture(scope="session")
def tokenizer(modalities: tuple[AnnData, AnnData]) -> PeakTokenizer:
    atac, rna = modalities
    chromosomes = ["chr1", "chr2", "unknown"] * 9
    symbols = rna.var_names.tolist()
    genes = GeneVocabulary(symbols, [""] * len(symbols), chromosomes[: len(symbols)])
    return PeakTokenizer(PeakVocabulary.from_anndata(atac), genes)


@pytest.fixture(scope="session")
def cells(modalities: tuple[AnnData, AnnData], tokenizer: PeakTokenizer) -> Dataset:
    paired = paired_cells(*modalities, tokenizer, cell_type_key="type", batch_key="type")
    # Cells of two assays, as those of bulk samples are.
    assays = [i % 2 for i in range(NUM_CELLS)]
    return paired.add_column("assay", assays, feature=ClassLabel(names=["ATAC", "DNase"]))


@pytest.fixture
def model(tokenizer: PeakTokenizer) -> EpiFoundationForPeakToGeneAlignment:
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=NUM_GENES + 4,
        num_chromosomes=7,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pooling="mean",
        use_gene_bias=True,
    )
    torch.manual_seed(0)
    return EpiFoundationForPeakToGeneAlignment(config)


SMALL_MODEL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
SMALL_GENE_ENCODER = {
    "gene_hidden_size": 16,
    "gene_layers": 1,
    "gene_attention_heads": 2,
    "gene_intermediate_size": 16,
    "max_genes": 16,
    "projection_size": 8,
}
# Peaks are drawn, and dropout is on: a lost state of random numbers would show.
SMALL_RUN = {
    "max_peaks": 12,
    "use_cpu": "true",
    "disable_tqdm": "true",
    "per_device_train_batch_size": 4,
    "num_train_epochs": 3,
    "learning_rate": 3e-3,
    "logging_steps": 3,
    "dataloader_pin_memory": "false",
    "validation_share": 0.2,
}


def words(**options: object) -> list[str]:
    """Options as they stand on a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def data_folder(cells: Dataset, tokenizer: PeakTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cells"
    cells.save_to_disk(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model, pre-trained for a moment."""
    folder = tmp_path_factory.mktemp("pretrained")
    own = words(data=data_folder, output_dir=folder, max_genes=16, use_batch_embeddings="true", curves="false")
    pretrain(*read_options(PretrainOptions, [*own, *words(**SMALL_MODEL, **SMALL_RUN), "--num_train_epochs", "1"]))
    return folder


@pytest.fixture(scope="session")
def aligned(data_folder: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of RNA and ATAC, trained for a moment."""
    folder = tmp_path_factory.mktemp("aligned")
    own = words(data=data_folder, model=pretrained, output_dir=folder, curves="false")
    options = words(**SMALL_GENE_ENCODER, **SMALL_RUN)
    finetune_contrastive(*read_options(ContrastiveOptions, [*own, *options, "--num_train_epochs", "1"]))
    return folder


@pytest.fixture(scope="session")
def starts(pretrained: Path, aligned: Path) -> dict[str, Path]:
    """The checkpoint that each fine-tuning starts from."""
    fine_tunings = ("classification", "expression", "clustering", "batch_correction", "contrastive", "bulk")
    return dict.fromkeys(fine_tunings, pretrained) | {"imputation": aligned}
