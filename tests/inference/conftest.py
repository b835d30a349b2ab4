"""A small random model with its tokenizer, and cells for it."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary

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
