from dataclasses import fields
from pathlib import Path

import pytest

from epifoundation import EpiFoundationConfig
from epifoundation.training.options import (
    BatchCorrectionOptions,
    BulkOptions,
    ClassificationOptions,
    ClusteringOptions,
    ContrastiveOptions,
    ExpressionOptions,
    ImputationOptions,
    PretrainOptions,
    own_options,
    read_options,
)

SETTINGS = Path(__file__).resolve().parents[2] / "examples" / "settings"
KINDS = {
    "pretrain": PretrainOptions,
    "finetune_classification": ClassificationOptions,
    "finetune_expression": ExpressionOptions,
    "finetune_clustering": ClusteringOptions,
    "finetune_batch_correction": BatchCorrectionOptions,
    "finetune_contrastive": ContrastiveOptions,
    "finetune_imputation": ImputationOptions,
    "finetune_bulk": BulkOptions,
}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "max_genes: 12\nlearning_rate: 3.0e-4\nuse_batch_embeddings: true\nmax_peaks: null\nuse_cpu: true\n"
    )
    return file


def test_the_command_line_wins_over_the_file(settings: Path, tmp_path: Path) -> None:
    words = ["--data", "cells", "--output_dir", str(tmp_path), "--max_genes", "20", "--no_packing"]
    options, arguments = read_options(PretrainOptions, [str(settings), *words])
    assert (options.max_genes, options.use_batch_embeddings, options.max_peaks) == (20, True, None)
    assert not options.packing
    assert arguments.learning_rate == 3e-4
    assert not read_options(PretrainOptions, [str(settings), *words, "--use_batch_embeddings", "false"])[
        0
    ].use_batch_embeddings


@pytest.mark.parametrize("file", sorted(SETTINGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_settings_of_the_examples_are_read(file: Path, tmp_path: Path) -> None:
    kind = KINDS[file.stem.rsplit("_", 1)[0]]
    # bf16 is refused where there is no GPU, eval_strategy goes with the metric.
    words = ["--data", "cells", "--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false"]
    options, arguments = read_options(kind, [str(file), *words, *([] if kind is PretrainOptions else ["--model", "m"])])
    if arguments.metric_for_best_model in ("mse", "loss"):
        assert arguments.greater_is_better is False
    if "paper" in file.stem:
        assert arguments.learning_rate == 1e-4
        assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 160
        assert options.max_peaks == 12_000


def test_sizes_are_those_of_the_configuration() -> None:
    defaults = {f.name: f.default for f in fields(EpiFoundationConfig)}
    for name, default, _ in own_options(PretrainOptions):
        if name in defaults and name != "max_peaks":
            assert default == defaults[name], name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dta", "x"], "no option --dta; is --data meant?"),
        (["cells"], r"expected a settings file \(.yaml\) or options like --data cells, got 'cells'"),
        (["--data", "x"], "required: --model"),
        (["--data", "x", "--model", "m", "--learning_rate", "fast"], "--learning_rate.*invalid float value: 'fast'"),
        (["--data", "x", "--model", "m", "--class_weights", "some"], "class_weights.*invalid choice: 'some'"),
    ],
)
def test_bad_options_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_options(ClassificationOptions, words)


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "expected lines like .* got list"), ("a: [1\n", "is not YAML"), ("dat: 1", "--data meant")],
)
def test_bad_settings_are_explained(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_options(ClassificationOptions, [str(file)])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no settings file nowhere\.yaml"):
        read_options(ClassificationOptions, ["nowhere.yaml"])
