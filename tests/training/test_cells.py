from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.tokenized.stored_cells import save_cells
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training.cells import (
    cells_with_a_label,
    check_ids,
    checkpoint_folder,
    tokenizer_of_run,
    training_and_held_out,
)
from epifoundation.training.options import RunOptions

COLUMNS = ("input_ids",)


@pytest.fixture
def options(data_folder: Path) -> RunOptions:
    return RunOptions(data=str(data_folder))


def test_parquet_files_are_read(cells: Dataset, options: RunOptions, tmp_path: Path) -> None:
    save_cells(cells, tmp_path / "cells")
    options = replace(options, data=str(tmp_path / "cells"), validation_share=0)
    train, held_out = training_and_held_out(options, 0, COLUMNS)
    assert (train[3], held_out) == (cells[3], None)
    assert train.features["cell_type"].names == ["a", "b", "c"]


def test_splits_are_found(cells: Dataset, options: RunOptions, tmp_path: Path) -> None:
    parts = DatasetDict(train=cells.select(range(20)), validation=cells.select(range(20, 25)))
    parts.save_to_disk(tmp_path)
    train, held_out = training_and_held_out(replace(options, data=str(tmp_path)), 0, COLUMNS)
    assert (train["barcode"][:], held_out["barcode"][:]) == (
        parts["train"]["barcode"][:],
        parts["validation"]["barcode"][:],
    )
    other, held_out = training_and_held_out(replace(options, validation_data=str(tmp_path)), 0, COLUMNS)
    assert (len(other), len(held_out)) == (30, 5)


def test_a_share_is_held_out_by_the_seed(cells: Dataset, options: RunOptions) -> None:
    options = replace(options, validation_share=0.2)
    train, held_out = training_and_held_out(options, 1, COLUMNS)
    assert len(held_out) == 6
    assert set(train["barcode"]) | set(held_out["barcode"]) == set(cells["barcode"])
    assert not set(train["barcode"]) & set(held_out["barcode"])
    assert training_and_held_out(options, 1, COLUMNS)[1]["barcode"][:] == held_out["barcode"][:]
    assert training_and_held_out(options, 2, COLUMNS)[1]["barcode"][:] != held_out["barcode"][:]
    assert training_and_held_out(replace(options, validation_share=0), 1, COLUMNS)[1] is None


def test_cells_of_unknown_type_are_left_out(cells: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    labels = [-1 if i % 3 == 0 else i % 3 for i in range(30)]
    some = cells.remove_columns("cell_type").add_column("cell_type", np.array(labels))
    assert cells_with_a_label(some, "training")["cell_type"][:] == [1, 2] * 10
    assert "10 of 30 training cells have no known cell_type" in caplog.text
    assert cells_with_a_label(cells, "training") is cells
    none = cells.remove_columns("cell_type").add_column("cell_type", np.full(30, -1))
    with pytest.raises(ValueError, match="no training cell has a known cell_type"):
        cells_with_a_label(none, "training")
    assert cells_with_a_label(none, "training", ("cell_type", "assay")) is none, "their assay is known"


@pytest.mark.parametrize(
    ("changes", "columns", "error", "message"),
    [
        ({"data": "nowhere"}, COLUMNS, FileNotFoundError, "nowhere does not exist"),
        ({}, ("input_ids", "donor"), ValueError, "lack donor.*they have barcode, input_ids"),
        ({"validation_share": 1.5}, COLUMNS, ValueError, r"validation_share must lie in \[0, 1\).*1.5 of 30 cells"),
        ({"validation_share": 0.99}, COLUMNS, ValueError, "leave cells to train on"),
    ],
)
def test_bad_data_is_refused(
    changes: dict, columns: tuple[str, ...], error: type[Exception], message: str, options: RunOptions
) -> None:
    with pytest.raises(error, match=message):
        training_and_held_out(replace(options, **changes), 0, columns)


def test_cells_with_other_labels_are_refused(cells: Dataset, options: RunOptions, tmp_path: Path) -> None:
    cells.cast_column("cell_type", ClassLabel(names=["c", "b", "a"])).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match="number cell_type differently"):
        training_and_held_out(replace(options, validation_data=str(tmp_path)), 0, COLUMNS)


def test_the_tokenizer_is_looked_for_in_order(options: RunOptions, tokenizer: PeakTokenizer, tmp_path: Path) -> None:
    PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=3).save_pretrained(tmp_path / "model")
    PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=4).save_pretrained(tmp_path / "named")
    model = str(tmp_path / "model")
    assert tokenizer_of_run(options, None, needs_genes=True).max_peaks == 12_000
    assert tokenizer_of_run(options, model, needs_genes=True).max_peaks == 3
    named = replace(options, tokenizer=str(tmp_path / "named"))
    assert tokenizer_of_run(named, model, needs_genes=True).max_peaks == 4


def test_a_tokenizer_that_does_not_fit_is_refused(
    options: RunOptions, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        tokenizer_of_run(options, str(tmp_path), needs_genes=False)
    other = PeakTokenizer(PeakVocabulary.from_names(["chr1:1-5", "chr1:8-9"]))
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenised with other peaks"):
        tokenizer_of_run(options, str(tmp_path), needs_genes=False)
    with pytest.raises(ValueError, match=r"input_ids up to .*, the tokenizer has ids below 6"):
        check_ids(cells, other)
    genes = GeneVocabulary(["A"], [""], ["chr1"])
    PeakTokenizer(tokenizer.vocabulary, genes).save_pretrained(tmp_path)
    assert tokenizer_of_run(options, str(tmp_path), needs_genes=False).genes is not None
    with pytest.raises(ValueError, match=r"the genes of .* are not those of"):
        tokenizer_of_run(options, str(tmp_path), needs_genes=True)


def test_a_model_without_genes_takes_those_of_the_data(
    options: RunOptions, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    PeakTokenizer(tokenizer.vocabulary, max_peaks=7).save_pretrained(tmp_path)
    assert tokenizer_of_run(options, str(tmp_path), needs_genes=False).genes is None
    found = tokenizer_of_run(options, str(tmp_path), needs_genes=True)
    assert (found.genes.symbols, found.max_peaks) == (tokenizer.genes.symbols, 7)


@pytest.mark.parametrize("name", ["nowhere", "./a/b", "/no/such/folder"])
def test_a_name_that_cannot_be_on_the_hub_is_not_asked_for(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .* cannot be a name on the Hub"):
        checkpoint_folder(name)


def test_a_model_that_is_nowhere_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nobody/nothing nor such a model"):
        checkpoint_folder("nobody/nothing")
