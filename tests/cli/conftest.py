"""A small random checkpoint, a file for it, and a way to run the command in this process."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from epifoundation import EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary
from epifoundation_cli.main import app

NAMES = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(40)]


@pytest.fixture(autouse=True)
def leave_transformers_as_it_was():
    """The commands silence Transformers in their own process; here the process goes on."""
    from transformers.utils import logging

    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(verbosity)
    if shows_bars:
        logging.enable_progress_bar()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(NAMES))
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    EpiFoundationForPeakToGeneAlignment(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def adata():
    values = np.random.default_rng(0).integers(0, 2, (12, 40)).astype(np.float32)
    return AnnData(csr_matrix(values), pd.DataFrame(index=[f"c{i}" for i in range(12)]), pd.DataFrame(index=NAMES))


@pytest.fixture
def peaks_file(adata, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def run():
    """Run the command line with these arguments; stdout and stderr apart, exceptions as they are."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def run_badly(run):
    """Run it expecting bad input; its one line comes back."""

    def run_badly(*arguments):
        result = run(*arguments)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    return run_badly
