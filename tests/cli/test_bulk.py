"""Bulk samples by command: from BED files to a model with two heads, and what it says of other files."""

import pytest

from epifoundation import EpiFoundationForBulkClassification, EpiFoundationForCellClassification

from .conftest import NAMES

SMALL = [
    *("--hidden_size", 16, "--num_hidden_layers", 1, "--num_attention_heads", 2, "--intermediate_size", 16),
    *(
        "--num_train_epochs",
        40,
        "--learning_rate",
        1e-2,
        "--per_device_train_batch_size",
        4,
        "--hidden_dropout_prob",
        0,
    ),
    *("--use_cpu", "--curves", "false", "--disable_tqdm", "true", "--eval_strategy", "epoch", "--save_strategy", "no"),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Sixteen samples: the cell type decides on one half of the peaks, the assay on the other."""
    folder = tmp_path_factory.mktemp("samples")
    half = len(NAMES) // 2
    lines = ["file\tcell_type\tassay"]
    for i in range(16):
        kind, assay = i % 2, i // 2 % 2
        names = [*NAMES[kind:half:2], *NAMES[half + assay :: 2]]
        names.remove(names[i // 4])  # no two alike
        text = "".join("\t".join([n.split(":")[0], *n.split(":")[1].split("-")]) + "\n" for n in names)
        (folder / f"s{i}.bed").write_text(text)
        lines.append(f"s{i}.bed\t{['T', 'B'][kind]}\t{['ATAC', 'DNase'][assay]}")
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n")
    (folder / "peaks.bed").write_text(
        "".join("\t".join([n.split(":")[0], *n.split(":")[1].split("-")]) + "\n" for n in NAMES)
    )
    return folder


def tokenize_words(samples, output):
    return [samples, "--labels", samples / "labels.tsv", "--tokenizer", samples / "peaks.bed", "-o", output]


@pytest.fixture(scope="module")
def tokenized(samples, run, tmp_path_factory):
    output = tmp_path_factory.mktemp("tokenized") / "samples"
    result = run(
        "tokenize", *tokenize_words(samples, output), "--validation", 0.25, "--test", 0, "--split", "stratified"
    )
    assert result.exit_code == 0, result.stderr
    assert "16 cells tokenised" in result.stdout
    return output


@pytest.fixture(scope="module")
def model(tokenized, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk") / "model"
    result = run("finetune", "bulk", "--model", "new", "--data", tokenized, "--output_dir", folder, *SMALL)
    assert result.exit_code == 0, result.stderr
    assert f"{folder}: bulk, 120 steps; on held-out cells: loss" in result.stdout
    assert "cell_type_accuracy" in result.stdout
    return folder


def test_both_labels_are_named(model, samples, run, tmp_path):
    files = [samples / f"s{i}.bed" for i in range(4)]
    result = run("bulk", *files, "--model", model)
    assert result.exit_code == 0, result.stderr
    header, *rows = [line.split("\t") for line in result.stdout.strip().split("\n")]
    assert header == [
        *("sample", "cell_type", "cell_type_probability", "assay", "assay_probability", "share_in_peaks"),
    ]
    assert [(row[0], row[1], row[3], row[5]) for row in rows] == [
        ("s0", "T", "ATAC", "1.0000"),
        ("s1", "B", "ATAC", "1.0000"),
        ("s2", "T", "DNase", "1.0000"),
        ("s3", "B", "DNase", "1.0000"),
    ]
    table = tmp_path / "labels.tsv"
    assert "4 samples" in run("bulk", *files, "--model", model, "--output", table).stdout
    assert table.read_text() == result.stdout


def test_the_classifier_of_cell_types_serves_single_cells_too(model):
    config = EpiFoundationForCellClassification.from_pretrained(model).config
    assert config.id2label == {0: "B", 1: "T"}
    assert EpiFoundationForBulkClassification.from_pretrained(model).config.assay_names == ["ATAC", "DNase"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rna", "x.h5ad"], "error: --rna and --labels cannot be combined"),
        (["--cell-type-key", "x"], "error: --cell-type-key and --labels cannot be combined"),
    ],
)
def test_options_that_bulk_samples_do_not_have(words, message, samples, run_badly, tmp_path):
    assert message in run_badly("tokenize", *tokenize_words(samples, tmp_path / "out"), *words)


def test_bulk_samples_need_common_peaks(samples, run_badly, tmp_path):
    words = [samples, "--labels", samples / "labels.tsv", "-o", tmp_path / "out"]
    assert "name common ones by --tokenizer" in run_badly("tokenize", *words)


def test_samples_without_an_assay_are_refused(tokenized, run_badly, tmp_path):
    from epifoundation.dataset_builders import load_cells, save_cells

    save_cells(load_cells(tokenized, "train").remove_columns("assay"), tmp_path / "cells")
    words = ["--model", "new", "--data", tmp_path / "cells", "--tokenizer", tokenized, "--output_dir", tmp_path / "out"]
    assert "lack assay, which this run needs" in run_badly("finetune", "bulk", *words, "--use_cpu")


def test_another_model_is_refused(checkpoint, samples, model, run_badly, tmp_path):
    assert "a model of 'finetune bulk'" in run_badly("bulk", samples / "s0.bed", "--model", checkpoint)
    assert "nowhere.bed does not exist" in run_badly("bulk", tmp_path / "nowhere.bed", "--model", model)
