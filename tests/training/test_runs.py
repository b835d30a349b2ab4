"""Whole runs, from a folder of cells to a checkpoint, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset
from safetensors.numpy import load_file

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    PeakTokenizer,
)
from epifoundation.dataset_builders.tokenized.paired_cells import peak_matrix
from epifoundation.training.options import (
    ClassificationOptions,
    ExpressionOptions,
    PretrainOptions,
    read_options,
)
from epifoundation.training.runs import finetune_classification, finetune_expression, pretrain, summary

from .conftest import SMALL_MODEL, SMALL_RUN, words

RUN = SMALL_RUN | {"num_train_epochs": 1, "curves": "false"}


def pretrain_words(data: Path, folder: Path, **options: Any) -> list[str]:
    return words(**({"data": data, "output_dir": folder, "max_genes": 16} | SMALL_MODEL | RUN | options))


def finetune_words(data: Path, model: Path | str, folder: Path, **options: Any) -> list[str]:
    return words(**({"data": data, "model": model, "output_dir": folder} | RUN | options))


def test_pretraining_leaves_a_checkpoint_and_a_record(data_folder: Path, tmp_path: Path) -> None:
    options = {"use_gene_bias": "true", "init_peak_embeddings": "lsi", "curves": "true", "use_batch_embeddings": "true"}
    record = pretrain(*read_options(PretrainOptions, pretrain_words(data_folder, tmp_path, **options)))
    model = EpiFoundationForPeakToGeneAlignment.from_pretrained(tmp_path)
    assert (model.config.use_batch_embeddings, model.config.num_batches) == (True, 3)
    assert model.gene_bias.abs().max() > 0.1
    assert len(PeakTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    assert json.loads((tmp_path / "run.json").read_text()) == json.loads(json.dumps(record))
    assert record["steps"] == 6
    assert record["settings"]["data"]["train"]["cells"] == 24
    assert record["settings"]["arguments"]["seed"] == 42
    assert record["tokens_per_second"] > 0
    assert set(record["metrics"]) == {"eval_loss", "eval_accuracy", "eval_roc_auc"}
    assert "alignment, 6 steps; on held-out cells: loss 0." in summary(record)


def test_the_same_seed_gives_the_same_model(data_folder: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pretrain(*read_options(PretrainOptions, pretrain_words(data_folder, tmp_path / name, seed=seed)))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert not all((weights[0][name] == weights[2][name]).all() for name in weights[0])


def test_ablations_are_options(data_folder: Path, tmp_path: Path) -> None:
    options = pretrain_words(data_folder, tmp_path, use_chromosome_embeddings="false", freeze_peak_table="true")
    pretrain(*read_options(PretrainOptions, [*options, "--bf16", "true", "--activation_checkpointing", "true"]))
    names = load_file(tmp_path / "model.safetensors").keys()
    assert not [name for name in names if "chromosome" in name or "batch_embeddings" in name]


def test_a_decoder_may_start_on_whitened_cells(data_folder: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("true", "false"):
        options = pretrain_words(data_folder, tmp_path / name, whiten_cells=name, pooling="mean", learning_rate=0)
        pretrain(*read_options(PretrainOptions, options))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    changed = {name for name in weights[0] if "norm" not in name and (weights[0][name] != weights[1][name]).any()}
    assert changed == {"alignment_decoder.cell_proj.weight", "alignment_decoder.query_proj.bias"}


def test_pretraining_goes_on_from_a_model(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    options = pretrain_words(data_folder, tmp_path, model=pretrained, learning_rate=0, use_batch_embeddings="true")
    pretrain(*read_options(PretrainOptions, options))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path))
    assert all((before[name] == after[name]).all() for name in before if "norm" not in name)


def test_a_classifier_knows_the_names_of_the_data(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    options = {
        "load_best_model_at_end": "true",
        "early_stopping_patience": 2,
        "learning_rate": 0.01,
        "num_train_epochs": 30,
        "hidden_dropout_prob": 0.0,
        "save_total_limit": 1,
        "max_peaks": 50,
    }
    record = finetune_classification(
        *read_options(ClassificationOptions, finetune_words(data_folder, pretrained, tmp_path, **options))
    )
    model = EpiFoundationForCellClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.hidden_dropout_prob == 0
    scores = [entry["eval_macro_f1"] for entry in record["log"] if "eval_macro_f1" in entry]
    assert record["metrics"]["eval_macro_f1"] == max(scores), "the best checkpoint is kept"
    assert len(scores) < 31, "it stops early"


@pytest.mark.parametrize("start", ["random", "lsi"])
def test_cells_without_genes_get_a_classifier_without_pretraining(
    start: str, cells: Dataset, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    cells.remove_columns(["gene_ids", "gene_counts"]).save_to_disk(tmp_path / "cells")
    PeakTokenizer(tokenizer.vocabulary).save_pretrained(tmp_path / "cells")
    options = SMALL_MODEL | {"init_peak_embeddings": start, "learning_rate": 0}
    finetune_classification(
        *read_options(ClassificationOptions, finetune_words(tmp_path / "cells", "new", tmp_path / "out", **options))
    )
    model = EpiFoundationForCellClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert (model.config.hidden_size, model.config.hidden_dropout_prob) == (16, 0.1)
    spread = model.get_input_embeddings().weight[4:].square().mean(dim=0)
    # Each LSI dimension has the same spread over the peaks; what is drawn has not.
    assert (spread.max() / spread.min() < 1.5) == (start == "lsi")


def test_another_set_of_types_starts_a_new_classifier(
    cells: Dataset, tokenizer: PeakTokenizer, data_folder: Path, pretrained: Path, tmp_path: Path
) -> None:
    finetune_classification(
        *read_options(ClassificationOptions, finetune_words(data_folder, pretrained, tmp_path / "three"))
    )
    two = cells.filter(lambda row: row["cell_type"] < 2, load_from_cache_file=False)
    two.cast_column("cell_type", ClassLabel(names=["a", "b"])).save_to_disk(tmp_path / "cells")
    finetune_classification(
        *read_options(
            ClassificationOptions,
            finetune_words(tmp_path / "cells", tmp_path / "three", tmp_path / "two", overwrite="true"),
        )
    )
    assert EpiFoundationForCellClassification.from_pretrained(tmp_path / "two").config.num_labels == 2


def test_expression_is_learned_without_batches(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    record = finetune_expression(
        *read_options(
            ExpressionOptions,
            finetune_words(data_folder, pretrained, tmp_path, num_expression_bins=6, gene_draw="uniform"),
        )
    )
    model = EpiFoundationForExpressionPrediction.from_pretrained(tmp_path)
    assert (model.config.num_expression_bins, model.batch_embeddings) == (6, None)
    assert {"eval_mse", "eval_pearson", "eval_spearman"} <= record["metrics"].keys()
    assert record["metrics"]["eval_mse"] == pytest.approx(record["metrics"]["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("freeze", ["true", "false"])
def test_lora_trains_updates_embeddings_and_head(
    freeze: str, cells: Dataset, data_folder: Path, pretrained: Path, tmp_path: Path
) -> None:
    options = finetune_words(data_folder, pretrained, tmp_path, lora="true", lora_rank=2, freeze_peak_table=freeze)
    finetune_classification(*read_options(ClassificationOptions, options))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path))
    change = {name: after[name] - before[name] for name in before if name in after}
    for layer in ("attention.qkv_proj", "attention.o_proj", "up_proj", "down_proj"):
        update = torch.from_numpy(change[f"epifoundation.layers.0.{layer}.weight"])
        assert 1 <= torch.linalg.matrix_rank(update, atol=1e-6) <= 2
    table = change["epifoundation.peak_embeddings.embedding.weight"]
    is_open = peak_matrix(cells, len(table)).sum(axis=0) > 0
    assert table.any() == (freeze == "false")
    assert is_open.any()
    for name in change:
        if "input_norm" in name or name.endswith("attention_norm.weight"):
            assert not change[name].any(), name
    assert change["epifoundation.chromosome_embeddings.embedding.weight"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping_patience": 2}, "early_stopping_patience needs load_best_model_at_end"),
        ({"validation_share": 0}, "no held-out cells to evaluate on"),
    ],
)
def test_options_that_contradict_each_other(options: dict, message: str, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(*read_options(PretrainOptions, pretrain_words(data_folder, tmp_path, **options)))


def test_a_model_for_other_genes_is_refused(
    tokenizer: PeakTokenizer, data_folder: Path, pretrained: Path, tmp_path: Path
) -> None:
    model = EpiFoundationForPeakToGeneAlignment.from_pretrained(pretrained)
    model.resize_gene_embeddings(12)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = finetune_words(data_folder, tmp_path / "model", tmp_path / "out")
    with pytest.raises(ValueError, match="the model has 12 gene ids, the tokenizer 29"):
        finetune_expression(*read_options(ExpressionOptions, options))


def test_data_without_labels_is_refused(cells: Dataset, pretrained: Path, tmp_path: Path) -> None:
    cells.remove_columns("cell_type").save_to_disk(tmp_path / "cells")
    options = finetune_words(tmp_path / "cells", pretrained, tmp_path / "out")
    with pytest.raises(ValueError, match="lack cell_type, which this run needs"):
        finetune_classification(*read_options(ClassificationOptions, options))


def test_a_run_is_only_resumed_with_its_own_settings(data_folder: Path, tmp_path: Path) -> None:
    def start(**options: Any) -> dict[str, Any]:
        return pretrain(*read_options(PretrainOptions, pretrain_words(data_folder, tmp_path, **options)))

    start()
    assert start(logging_steps=1)["resumed_from_step"] == 6
    with pytest.raises(
        ValueError, match=r"other settings.*max_genes \(16 before, now 8\).*learning_rate \(0.003 before"
    ):
        start(max_genes=8, learning_rate=0.01)
    with pytest.raises(ValueError, match=r"train .*before, now"):
        start(validation_share=0.5)
    assert start(max_genes=8, overwrite="true")["resumed_from_step"] is None


def test_a_run_of_an_older_version_is_resumed_where_a_new_option_has_its_default(
    data_folder: Path, tmp_path: Path
) -> None:
    def start(**options: Any) -> dict[str, Any]:
        return pretrain(*read_options(PretrainOptions, pretrain_words(data_folder, tmp_path, **options)))

    start()
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["options"]["whiten_cells"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert start()["resumed_from_step"] == 6
    with pytest.raises(ValueError, match=r"whiten_cells \(False before, now True\)"):
        start(whiten_cells="true")
