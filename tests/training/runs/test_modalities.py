"""RNA and ATAC in one space, and expression imputed from one side of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModel

from epifoundation import (
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    PeakTokenizer,
)
from epifoundation.dataset_builders.tokenized.gene_ranks import typical_gene_counts
from epifoundation.training.contrastive import ContrastiveCollator
from epifoundation.training.options import ContrastiveOptions, ImputationOptions, PretrainOptions, read_options
from epifoundation.training.runs import finetune_contrastive, finetune_imputation, pretrain

from ..conftest import NUM_GENES, SMALL_GENE_ENCODER, SMALL_MODEL, SMALL_RUN, words

RUN = SMALL_RUN | {"num_train_epochs": 1, "curves": "false"}


def align(data: Path, model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"data": data, "model": model, "output_dir": folder}
    return finetune_contrastive(*read_options(ContrastiveOptions, words(**(own | SMALL_GENE_ENCODER | RUN | options))))


def impute(data: Path, model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"data": data, "model": model, "output_dir": folder}
    return finetune_imputation(*read_options(ImputationOptions, words(**(own | RUN | options))))


def saved_encoder(folder: Path, vocab_size: int) -> Path:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = AutoConfig.for_model("bert", vocab_size=vocab_size, max_position_embeddings=20, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_alignment_keeps_what_inference_needs(
    data_folder: Path, pretrained: Path, cells: Dataset, tmp_path: Path
) -> None:
    options = {"learning_rate": 0.01, "num_train_epochs": 20, "max_peaks": 80, "per_device_train_batch_size": 24}
    record = align(data_folder, pretrained, tmp_path, hidden_dropout_prob=0, **options)
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert 0 <= record["metrics"]["eval_foscttm"] <= 1
    assert {"eval_recall_at_1", "eval_recall_at_5", "eval_recall_at_10"} <= record["metrics"].keys()
    model = EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path)
    assert model.max_ranked_genes == 16
    assert model.gene_encoder.config.hidden_size == 16
    held_out = np.random.default_rng(42).permutation(len(cells))[:6]
    train = cells.select([i for i in range(len(cells)) if i not in held_out])
    expected = torch.from_numpy(typical_gene_counts(train, NUM_GENES + 4)).float()
    assert torch.equal(model.typical_gene_counts, expected)


def test_held_out_cells_are_told_from_as_many_others_as_in_training(
    data_folder: Path, pretrained: Path, cells: Dataset, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    options = {"per_device_train_batch_size": 24, "validation_share": 0.6, "max_peaks": 80}
    record = align(data_folder, pretrained, tmp_path, use_typical_gene_counts="false", **options)
    model = EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path).eval()
    held_out = np.sort(np.random.default_rng(42).permutation(len(cells))[:18])
    collator = ContrastiveCollator(tokenizer, max_genes=16, deterministic=True)
    with torch.no_grad():
        loss = model(**collator([cells[int(i)] for i in held_out])).loss
    assert record["metrics"]["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_genes_can_be_ranked_by_their_counts_alone(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    align(data_folder, pretrained, tmp_path, use_typical_gene_counts="false")
    assert EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path).typical_gene_counts is None


def test_an_encoder_of_genes_can_be_given(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    tower = saved_encoder(tmp_path / "genes", NUM_GENES + 4)
    align(data_folder, pretrained, tmp_path / "out", gene_encoder=tower, learning_rate=0, max_genes=50)
    model = EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path / "out")
    assert model.max_ranked_genes == 20, "it has no more positions"
    given = load_file(tower / "model.safetensors")
    for name, weight in model.gene_encoder.state_dict().items():
        assert (weight.numpy() == given[name]).all(), name


def test_an_encoder_of_other_genes_is_refused(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    tower = saved_encoder(tmp_path / "genes", 12)
    with pytest.raises(ValueError, match="knows 12 ids of genes, the tokenizer has 29"):
        align(data_folder, pretrained, tmp_path / "out", gene_encoder=tower)


def test_an_aligned_model_goes_on_with_its_own_sizes(data_folder: Path, aligned: Path, tmp_path: Path) -> None:
    own = words(data=data_folder, model=aligned, output_dir=tmp_path, learning_rate=0, gene_hidden_size=32)
    finetune_contrastive(*read_options(ContrastiveOptions, [*words(**RUN), *own]))
    before, after = (load_file(folder / "model.safetensors") for folder in (aligned, tmp_path))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before if "input_norm" not in name)


def test_a_model_of_atac_alone_takes_the_genes_of_the_data(
    cells: Dataset, tokenizer: PeakTokenizer, data_folder: Path, tmp_path: Path
) -> None:
    cells.select_columns(["barcode", "input_ids"]).save_to_disk(tmp_path / "atac")
    PeakTokenizer(tokenizer.vocabulary).save_pretrained(tmp_path / "atac")
    own = {"data": tmp_path / "atac", "output_dir": tmp_path / "pretrained", "objective": "replaced_peaks"}
    pretrain(*read_options(PretrainOptions, words(**(own | SMALL_MODEL | RUN))))
    align(data_folder, tmp_path / "pretrained", tmp_path / "out")
    assert PeakTokenizer.from_pretrained(tmp_path / "out").genes is not None
    assert EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path / "out").config.gene_vocab_size == 29


def test_rna_is_needed(
    cells: Dataset, tokenizer: PeakTokenizer, pretrained: Path, aligned: Path, tmp_path: Path
) -> None:
    cells.remove_columns(["gene_ids", "gene_counts"]).save_to_disk(tmp_path / "cells")
    for run, model in ((align, pretrained), (impute, aligned)):
        with pytest.raises(ValueError, match="lack gene_ids, gene_counts, which this run needs"):
            run(tmp_path / "cells", model, tmp_path / "out")


def test_expression_is_imputed_for_every_gene(data_folder: Path, aligned: Path, cells: Dataset, tmp_path: Path) -> None:
    options = {"learning_rate": 1e-3, "num_train_epochs": 60, "max_peaks": 80, "hidden_dropout_prob": 0}
    record = impute(data_folder, aligned, tmp_path, **options)
    assert record["metrics"]["eval_mse"] == pytest.approx(record["metrics"]["eval_loss"], rel=1e-4)
    errors = [entry["eval_mse"] for entry in record["log"] if "eval_mse" in entry]
    assert min(errors) < 0.8 * errors[0]
    assert {"eval_pearson", "eval_spearman"} <= record["metrics"].keys()
    model = EpiFoundationForExpressionImputation.from_pretrained(tmp_path)
    assert model.imputation[2].out_features == NUM_GENES


def test_imputation_starts_at_the_mean_level_of_each_gene(
    data_folder: Path, aligned: Path, cells: Dataset, tmp_path: Path
) -> None:
    impute(data_folder, aligned, tmp_path / "once", learning_rate=0, validation_share=0, eval_strategy="no")
    levels = np.zeros((len(cells), NUM_GENES))
    for values, row in zip(levels, cells, strict=True):
        counts = np.array(row["gene_counts"])
        values[np.array(row["gene_ids"]) - 4] = np.log1p(counts * 10_000 / counts.sum())
    start = EpiFoundationForExpressionImputation.from_pretrained(tmp_path / "once").imputation[-1].bias
    np.testing.assert_allclose(start.detach().numpy(), levels.mean(axis=0), rtol=1e-5)
    impute(data_folder, tmp_path / "once", tmp_path / "twice", learning_rate=0)
    again = EpiFoundationForExpressionImputation.from_pretrained(tmp_path / "twice").imputation[-1].bias
    assert torch.equal(start, again), "what was learned is kept"


def test_imputation_needs_an_aligned_model(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint of 'finetune contrastive'"):
        impute(data_folder, pretrained, tmp_path)
