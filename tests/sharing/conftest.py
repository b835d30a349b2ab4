"""A Hub on this machine, and a small checkpoint and data set to bring there."""

import json

import huggingface_hub.constants
import pytest
import torch
from datasets import Dataset, DatasetDict

from epifoundation import EpiFoundationConfig, EpiFoundationForCellClassification
from epifoundation.dataset_builders.tokenized.features import cell_features
from epifoundation.dataset_builders.tokenized.stored_cells import save_cells
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

from .hub_server import serve

TOKEN, READ_ONLY, WRONG = "hf_" + "a" * 34, "hf_" + "r" * 34, "hf_" + "w" * 34
PEAKS = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(40)]
CELL_TYPES = ["B", "T"]
RUN = {
    "objective": "classification",
    "settings": {
        "options": {"model": "../elsewhere/base", "max_peaks": None, "lora": False},
        "arguments": {"learning_rate": 0.001, "seed": 7},
        "data": {"train": {"cells": 1200, "sha256": "1" * 64}, "held_out": {"cells": 300, "sha256": "2" * 64}},
        "peaks": "3" * 64,
    },
    "versions": {"python": "3.11", "epifoundation": "0.1.0"},
    "device": "cpu",
    "steps": 1500,
    "wall_seconds_since_start": 12.5,
    "metrics": {"eval_loss": 0.25, "eval_macro_f1": 0.875, "eval_roc_auc": float("nan")},
    "log": [],
}
TOKENIZED = {
    "genome": "hg38",
    "gene_vocabulary_size": 2,
    "num_entries": 2000,
    "num_matched_entries": 1500,
    "peaks_per_cell": [10.0, 763.0, 2000.0],
    "num_empty_cells": 3,
    "cell_types": {"B": 900, "T": 600},
    "split": {"rule": "cell", "seed": 5},
    "num_cells_of_split": {"train": 6, "validation": 2},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub that this process talks to, with a writing token and a cache of its own."""
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub") as hub:
        hub.tokens.update({TOKEN: True, READ_ONLY: False})
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()
        yield hub
    huggingface_hub.close_session()


@pytest.fixture(scope="session")
def tokenizer():
    genes = GeneVocabulary(["CD19", "CD3E"], ["ENSG00000000001", "ENSG00000000002"], ["chr1", "chr2"])
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes)


@pytest.fixture(scope="session")
def model(tokenizer):
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=dict(enumerate(CELL_TYPES)),
        label2id={name: i for i, name in enumerate(CELL_TYPES)},
    )
    torch.manual_seed(0)
    return EpiFoundationForCellClassification(config).eval()


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    """A checkpoint as training leaves it, with what does not belong to it."""
    folder = tmp_path / "annotator"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "tokenized.json").write_text(json.dumps(TOKENIZED))
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"half a model")
    return folder


@pytest.fixture
def cells_folder(tokenizer, tmp_path):
    """Tokenised cells as 'tokenize' leaves them."""
    rows = {
        "barcode": [f"cell{i}" for i in range(8)],
        "input_ids": [[2, 4 + i, 10 + i] for i in range(8)],
        "gene_ids": [[4]] * 8,
        "gene_counts": [[1.0]] * 8,
        "cell_type": [0, 1] * 4,
    }
    cells = Dataset.from_dict(rows, features=cell_features(cell_types=CELL_TYPES))
    folder = tmp_path / "cells"
    folder.mkdir()
    save_cells(DatasetDict(train=cells.select(range(6)), validation=cells.select([6, 7])), folder / "data")
    tokenizer.save_pretrained(folder)
    (folder / "tokenized.json").write_text(json.dumps(TOKENIZED))
    return folder
