"""Pre-training on each objective: what is left, what can be made of it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file

from epifoundation import (
    EpiFoundationForCombinedObjectives,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationForReplacedPeaks,
    EpiFoundationModel,
    PeakTokenizer,
)
from epifoundation.training.options import ExpressionOptions, PretrainOptions, read_options
from epifoundation.training.runs import finetune_expression, pretrain

from ..conftest import NUM_GENES, SMALL_MODEL, SMALL_RUN, words

RUN = SMALL_RUN | {"num_train_epochs": 1, "curves": "false"}
MODELS = {
    "peak_to_gene": EpiFoundationForPeakToGeneAlignment,
    "replaced_peaks": EpiFoundationForReplacedPeaks,
    "masked_peaks": EpiFoundationForMaskedPeaks,
    "combined": EpiFoundationForCombinedObjectives,
}


def run(data: Path, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"data": data, "output_dir": folder, "max_genes": 16}
    return pretrain(*read_options(PretrainOptions, words(**(own | SMALL_MODEL | RUN | options))))


@pytest.fixture(scope="module")
def atac_only(cells: Dataset, tokenizer: PeakTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atac") / "cells"
    cells.select_columns(["barcode", "input_ids"]).save_to_disk(folder)
    PeakTokenizer(tokenizer.vocabulary).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("encoder", ["epifoundation", "atacformer"])
@pytest.mark.parametrize("objective", ["replaced_peaks", "masked_peaks"])
def test_cells_without_genes_teach_their_peaks(objective: str, encoder: str, atac_only: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 0.03, "num_train_epochs": 25, "max_peaks": 80, "hidden_dropout_prob": 0}
    record = run(atac_only, tmp_path, objective=objective, encoder=encoder, **options)
    assert record["objective"] == objective
    losses = [entry["eval_loss"] for entry in record["log"] if "eval_loss" in entry]
    assert min(losses) < losses[0]
    assert 0 <= record["metrics"]["eval_roc_auc"] <= 1
    model = MODELS[objective].from_pretrained(tmp_path)
    assert model.config.use_chromosome_embeddings == (encoder == "epifoundation")


def test_options_of_genes_have_no_effect_without_genes(atac_only: Path, tmp_path: Path) -> None:
    options = {"use_gene_bias": "true", "whiten_cells": "true", "use_batch_embeddings": "true"}
    run(atac_only, tmp_path, objective="masked_peaks", init_peak_embeddings="lsi", **options)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert not [name for name in names if "gene" in name or "batch_embeddings" in name]


def test_the_sum_of_three_losses_leaves_a_checkpoint_for_each_head(data_folder: Path, tmp_path: Path) -> None:
    options = {"use_gene_bias": "true", "use_batch_embeddings": "true", "init_peak_embeddings": "lsi"}
    record = run(data_folder, tmp_path, objective="combined", masked_peaks_weight=0.5, **options)
    assert {"eval_roc_auc", "eval_replaced_peaks_roc_auc", "eval_masked_peaks_roc_auc"} <= record["metrics"].keys()
    whole = EpiFoundationForCombinedObjectives.from_pretrained(tmp_path)
    assert whole.config.masked_peaks_weight == 0.5
    assert whole.gene_bias.abs().max() > 0.1
    expected = whole.state_dict()
    for kind in (*MODELS.values(), EpiFoundationModel):
        model, found = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert not found["missing_keys"]
        prefix = "epifoundation." if kind is EpiFoundationModel else ""
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, expected[prefix + name]), name


@pytest.mark.parametrize("objective", MODELS)
def test_each_goes_on_from_any_other(objective: str, data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 0, "use_batch_embeddings": "true"}
    record = run(data_folder, tmp_path, objective=objective, model=pretrained, **options)
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path))
    same = [name for name in before if name.startswith("epifoundation.") and "input_norm" not in name]
    assert same
    assert all((before[name] == after[name]).all() for name in same)
    assert record["steps"] == 6


def test_a_model_of_peaks_alone_goes_on_with_genes(atac_only: Path, data_folder: Path, tmp_path: Path) -> None:
    run(atac_only, tmp_path / "peaks", objective="masked_peaks")
    run(data_folder, tmp_path / "genes", model=tmp_path / "peaks")
    model = EpiFoundationForPeakToGeneAlignment.from_pretrained(tmp_path / "genes")
    assert model.config.gene_vocab_size == NUM_GENES + 4
    folder = words(data=data_folder, model=tmp_path / "peaks", output_dir=tmp_path / "levels", max_genes=16)
    finetune_expression(*read_options(ExpressionOptions, [*folder, *words(**RUN)]))


def test_batches_must_be_those_of_the_checkpoint(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embeddings of 3 batches, this run needs 0: set use_batch_embeddings to true"):
        run(data_folder, tmp_path, model=pretrained)


@pytest.mark.parametrize("objective", ["peak_to_gene", "combined"])
def test_genes_are_needed_for_some(objective: str, atac_only: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no genes, which this run needs: tokenise the cells with their RNA"):
        run(atac_only, tmp_path, objective=objective)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "masked_peaks", "lazy_adam": "true"}, "lazy_adam does not go with masked_peaks"),
        ({"objective": "replaced_peaks", "replaced_share": 1}, "probability must lie between 0 and 1"),
        ({"objective": "both"}, "invalid choice: 'both'"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(data_folder, tmp_path, **options)
