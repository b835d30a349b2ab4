"""A saved folder opens in another process, from its own code, where this package cannot be imported."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForBatchCorrection,
    EpiFoundationForBulkClassification,
    EpiFoundationForCellClassification,
    EpiFoundationForCellClustering,
    EpiFoundationForCombinedObjectives,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationForReplacedPeaks,
    EpiFoundationModel,
)
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

PEAKS = [f"chr{1 + i // 10}:{1000 * i}-{1000 * i + 500}" for i in range(30)]
CELLS = [PEAKS[:7], [], PEAKS[5:25:3]]
# Class -> the Auto class that opens it; some have none.
AUTO_CLASSES = {
    EpiFoundationModel: AutoModel,
    EpiFoundationForPeakToGeneAlignment: AutoModelForPreTraining,
    EpiFoundationForCellClassification: AutoModelForSequenceClassification,
    EpiFoundationForExpressionPrediction: None,
    EpiFoundationForMaskedPeaks: AutoModelForMaskedLM,
    EpiFoundationForReplacedPeaks: None,
    EpiFoundationForCellClustering: None,
    EpiFoundationForBatchCorrection: None,
    EpiFoundationForContrastiveAlignment: None,
    EpiFoundationForExpressionImputation: None,
    EpiFoundationForCombinedObjectives: None,
    EpiFoundationForBulkClassification: None,
}
GENE_ENCODER = {"model_type": "bert", "vocab_size": 7, "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 9}  # fmt: skip

# Opens each folder once as its class and once as a bare encoder, then saves it again from the code found there.
ELSEWHERE = """
import json, sys
import numpy as np

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "epifoundation":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import torch, transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

job = json.loads(sys.argv[1])
for folder, auto_class, name, again in job["folders"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer.pad(tokenizer(job["cells"]), return_tensors="pt")
    encoder = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
    if auto_class:
        model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True)
    else:
        model = get_class_from_dynamic_module(name, folder).from_pretrained(folder)
    genes = {"gene_chromosome_ids": torch.as_tensor(tokenizer.gene_chromosome_ids[4:]).long()}
    with torch.no_grad():
        out = model(**inputs, **(genes if hasattr(model, "gene_embeddings") else {}))
        cells = encoder(**inputs).pooler_output
    np.savez(folder + "/numbers.npz", main=out.get("logits", out[0]).numpy(), cells=cells.numpy())
    if again:
        model.save_pretrained(again)
        tokenizer.save_pretrained(again)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
assert not any(name.partition(".")[0] == "epifoundation" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def tokenizer():
    genes = GeneVocabulary(["A", "B", "C"], ["", "", ""], ["chr2", "unknown", "chr1"])
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes)


@pytest.fixture(scope="module")
def folders(make_model, tokenizer, tmp_path_factory):
    """A folder of each class, with its tokenizer."""
    sizes = {"vocab_size": len(PEAKS) + 4, "gene_vocab_size": 3 + 4, "num_chromosomes": 28, "num_batches": 2}
    sizes |= {"gene_encoder": GENE_ENCODER, "assay_names": ["ATAC", "DNase"]}
    saved = {}
    for model_class in AUTO_CLASSES:
        saved[model_class] = tmp_path_factory.mktemp(model_class.__name__)
        make_model(model_class, **sizes).save_pretrained(saved[model_class])
        tokenizer.save_pretrained(saved[model_class])
    return saved


@pytest.fixture(scope="module")
def expected(folders, tokenizer):
    """Class -> the main output and the cell embeddings with the package at hand."""
    inputs = tokenizer.pad(tokenizer(CELLS), return_tensors="pt")
    genes = {"gene_chromosome_ids": torch.as_tensor(tokenizer.gene_chromosome_ids[4:]).long()}
    numbers = {}
    with torch.no_grad():
        for model_class, folder in folders.items():
            model = model_class.from_pretrained(folder)
            out = model(**inputs, **(genes if hasattr(model, "gene_embeddings") else {}))
            cells = EpiFoundationModel.from_pretrained(folder)(**inputs).pooler_output
            numbers[model_class] = (out.get("logits", out[0]).numpy(), cells.numpy())
    return numbers


def name_of(model_class):
    """The class as a saved folder names it."""
    return f"{model_class.__module__.rpartition('.')[2]}.{model_class.__name__}"


def run_elsewhere(jobs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    folders = [
        [str(f), auto.__name__ if auto else None, name_of(c), str(again) if again else None]
        for c, f, auto, again in jobs
    ]
    run = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps({"cells": CELLS, "folders": folders})],
        cwd=elsewhere,
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def assert_numbers(folder, expected):
    numbers = np.load(folder / "numbers.npz")
    for name, value in zip(("main", "cells"), expected, strict=True):
        assert numbers[name].shape == value.shape
        np.testing.assert_allclose(numbers[name], value, rtol=1e-6, atol=1e-6)


def test_saved_folders_open_where_the_package_is_not_installed(folders, expected, tmp_path):
    again = {model_class: tmp_path / model_class.__name__ for model_class in folders}
    run_elsewhere([(c, folders[c], auto, again[c]) for c, auto in AUTO_CLASSES.items()], tmp_path)
    for model_class, folder in folders.items():
        assert_numbers(folder, expected[model_class])
        # What was saved there is whole: same files, same numbers, and it opens with the package too.
        assert {p.name for p in folder.iterdir()} - {"numbers.npz"} == {p.name for p in again[model_class].iterdir()}
        loaded = model_class.from_pretrained(again[model_class]).state_dict()
        for name, value in model_class.from_pretrained(folder).state_dict().items():
            assert torch.equal(loaded[name], value), name
    # And once more from there, as a stranger would open it.
    some = [EpiFoundationModel, EpiFoundationForExpressionPrediction, EpiFoundationForBatchCorrection]
    run_elsewhere([(c, again[c], AUTO_CLASSES[c], None) for c in some], tmp_path)
    for model_class in some:
        assert_numbers(again[model_class], expected[model_class])


@pytest.mark.wheel
def test_with_the_package_the_auto_classes_need_no_trust(folders, expected):
    for model_class, auto_class in AUTO_CLASSES.items():
        folder = folders[model_class]
        assert type(AutoConfig.from_pretrained(folder)) is EpiFoundationConfig
        assert type(AutoTokenizer.from_pretrained(folder)) is PeakTokenizer
        assert type(AutoModel.from_pretrained(folder)) is EpiFoundationModel
        if auto_class is not None:
            assert type(auto_class.from_pretrained(folder)) is model_class


def test_with_the_package_its_own_code_is_used_even_where_remote_code_is_trusted(folders):
    folder = folders[EpiFoundationModel]
    assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)) is EpiFoundationModel


def test_every_folder_names_its_class(folders):
    for model_class, folder in folders.items():
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert name_of(model_class) in auto_map.values()
        for name in auto_map.values():
            assert (folder / f"{name.partition('.')[0]}.py").is_file()


def test_auto_classes_build_from_a_configuration(make_config):
    for model_class, auto_class in AUTO_CLASSES.items():
        if auto_class is not None:
            assert type(auto_class.from_config(make_config())) is model_class
