"""A small random model with its tokenizer, and cells for it."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForCellClassification,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
)
from epifoundation.contrastive_alignment_epifoundation import default_gene_encoder
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

NAMES = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(60)]


@pytest.fixture(scope="session")
def tokenizer():
    return PeakTokenizer(PeakVocabulary.from_names(NAMES))


@pytest.fixture(scope="session")
def trained_model(tokenizer):
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=6,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    torch.manual_seed(0)
    model = EpiFoundationForPeakToGeneAlignment(config)
    norm = model.epifoundation.input_norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="session")
def checkpoint(trained_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    trained_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adata():
    """40 cells with between 0 and all of 60 peaks, a tenth of which the vocabulary lacks."""
    generator = np.random.default_rng(0)
    is_open = generator.random((40, 60)) < generator.uniform(0, 1, (40, 1))
    is_open[7] = False
    values = csr_matrix((is_open * generator.integers(1, 4, (40, 60))).astype(np.float32))
    names = [name if i % 10 else f"chr1:{10**7 + i}-{10**7 + i + 1}" for i, name in enumerate(NAMES)]
    # Coordinates shifted by 100 overlap the vocabulary without being the same.
    names = [
        f"{n.split(':')[0]}-{int(n.split(':')[1].split('-')[0]) + 100}-{n.split('-')[1]}" if i % 10 else n
        for i, n in enumerate(names)
    ]
    obs = pd.DataFrame({"kind": ["a", "b"] * 20}, index=[f"cell{i}" for i in range(40)])
    return AnnData(values, obs, pd.DataFrame(index=names), uns={"kept": 1}, obsm={"X_other": np.ones((40, 2))})


@pytest.fixture
def peaks_file(adata, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


CELL_TYPES = ["B/plasma", "T", "NK"]


def sized(tokenizer, **sizes):
    num_genes = 6 if tokenizer.genes is None else 4 + len(tokenizer.genes)
    return EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=num_genes,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        **sizes,
    )


@pytest.fixture(scope="session")
def classifier(tokenizer):
    config = sized(tokenizer, id2label=dict(enumerate(CELL_TYPES)), label2id={n: i for i, n in enumerate(CELL_TYPES)})
    torch.manual_seed(1)
    model = EpiFoundationForCellClassification(config).eval()
    cells = [tokenizer.vocabulary.names()[i : i + 5] for i in range(0, 60, 5)]
    with torch.no_grad():  # no type is the likeliest of all cells
        logits = model(**tokenizer(cells, return_tensors="pt")).logits
        model.classifier.output.bias -= logits.mean(dim=0)
    return model


@pytest.fixture(scope="session")
def classifier_checkpoint(classifier, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gene_tokenizer(tokenizer):
    symbols = ["GATA1", "CD19", "CD3E", "MATR3", "MATR3"]
    ids = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004", "ENSG00000000005"]
    chromosomes = ["chrX", "chr1", "unknown", "chr2", "chr3"]
    return PeakTokenizer(tokenizer.vocabulary, GeneVocabulary(symbols, ids, chromosomes))


@pytest.fixture(scope="session")
def predictor(gene_tokenizer):
    torch.manual_seed(2)
    return EpiFoundationForExpressionPrediction(sized(gene_tokenizer, num_chromosomes=28)).eval()


@pytest.fixture(scope="session")
def predictor_checkpoint(predictor, gene_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    predictor.save_pretrained(folder)
    gene_tokenizer.save_pretrained(folder)
    return folder


RNA_NAMES = ["ENSG00000000003.4", "CD19", "UNKNOWN", "GATA1", "ENSG00000000004", "OTHER"]


@pytest.fixture
def rna():
    """30 cells by RNA; of 6 genes the model knows 4, half of them by Ensembl id. Cell 3 expresses none of these."""
    generator = np.random.default_rng(1)
    values = generator.poisson(1.5, (30, 6)).astype(np.float32)
    values[3] = [0, 0, 5, 0, 0, 1]
    obs = pd.DataFrame({"kind": ["b", "c", "a"] * 10}, index=[f"cell{i}" for i in range(5, 35)])
    return AnnData(csr_matrix(values), obs, pd.DataFrame(index=RNA_NAMES))


@pytest.fixture
def rna_file(rna, tmp_path):
    path = tmp_path / "rna.h5ad"
    rna.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def aligner(gene_tokenizer):
    encoder = default_gene_encoder(9, max_genes=3) | {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    config = sized(
        gene_tokenizer,
        num_chromosomes=28,
        gene_encoder=encoder,
        projection_size=6,
        use_typical_gene_counts=True,
        initializer_range=0.5,
    )
    torch.manual_seed(3)
    model = EpiFoundationForContrastiveAlignment(config).eval()
    with torch.no_grad():
        model.typical_gene_counts[4:] = torch.tensor([1.0, 4.0, 2.0, 1.0, 1.0])
    return model


@pytest.fixture(scope="session")
def aligner_checkpoint(aligner, gene_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligner")
    aligner.save_pretrained(folder)
    gene_tokenizer.save_pretrained(folder)
    return folder
