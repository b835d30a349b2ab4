"""Fine-tuning of the cell embedding: by triplets, and against the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from epifoundation import EpiFoundationForBatchCorrection, EpiFoundationForCellClustering, PeakTokenizer
from epifoundation.training.options import BatchCorrectionOptions, ClusteringOptions, read_options
from epifoundation.training.runs import finetune_batch_correction, finetune_clustering

from ..conftest import SMALL_RUN, words

RUN = SMALL_RUN | {"num_train_epochs": 1, "curves": "false", "max_peaks": 80}


def cluster(data: Path, model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"data": data, "model": model, "output_dir": folder}
    return finetune_clustering(*read_options(ClusteringOptions, words(**(own | RUN | options))))


def correct(data: Path, model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    own = {"data": data, "model": model, "output_dir": folder}
    return finetune_batch_correction(*read_options(BatchCorrectionOptions, words(**(own | RUN | options))))


@pytest.fixture
def stored(tokenizer: PeakTokenizer, tmp_path: Path) -> Any:
    def stored(cells: Dataset) -> Path:
        cells.save_to_disk(tmp_path / "cells")
        tokenizer.save_pretrained(tmp_path / "cells")
        return tmp_path / "cells"

    return stored


def test_triplets_bring_types_together(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    options = {"learning_rate": 0.003, "num_train_epochs": 15, "hidden_dropout_prob": 0}
    record = cluster(data_folder, pretrained, tmp_path, **options)
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert -1 <= record["metrics"]["eval_silhouette"] <= 1
    assert 0 <= record["metrics"]["eval_triplet_accuracy"] <= 1
    EpiFoundationForCellClustering.from_pretrained(tmp_path)


def test_triplets_need_types(cells: Dataset, stored: Any, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lack cell_type, which this run needs"):
        cluster(stored(cells.remove_columns("cell_type")), pretrained, tmp_path / "out")


def test_triplets_need_two_types(cells: Dataset, stored: Any, pretrained: Path, tmp_path: Path) -> None:
    one = cells.filter(lambda row: row["cell_type"] == 1, load_from_cache_file=False)
    with pytest.raises(ValueError, match="at least two known types, got 1"):
        cluster(stored(one), pretrained, tmp_path / "out")


def test_held_out_cells_must_be_of_two_types(
    cells: Dataset, stored: Any, data_folder: Path, pretrained: Path, tmp_path: Path
) -> None:
    one = stored(cells.filter(lambda row: row["cell_type"] == 1, load_from_cache_file=False))
    with pytest.raises(ValueError, match="the held-out cells are all of one type"):
        cluster(data_folder, pretrained, tmp_path / "out", validation_data=one)


def test_the_checkpoint_keeps_how_it_was_corrected(data_folder: Path, pretrained: Path, tmp_path: Path) -> None:
    record = correct(data_folder, pretrained, tmp_path, adversarial_weight=0.5, gradient_reversal=0.3)
    config = EpiFoundationForBatchCorrection.from_pretrained(tmp_path).config
    assert (config.num_batches, config.adversarial_weight, config.gradient_reversal) == (3, 0.5, 0.3)
    assert {"eval_roc_auc", "eval_adversary_accuracy", "eval_largest_batch"} <= record["metrics"].keys()


def test_batches_are_needed(cells: Dataset, stored: Any, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lack batch, which this run needs"):
        correct(stored(cells.remove_columns("batch")), pretrained, tmp_path / "out")


def test_one_batch_is_too_few(cells: Dataset, stored: Any, pretrained: Path, tmp_path: Path) -> None:
    one = cells.filter(lambda row: row["batch"] == 1, load_from_cache_file=False)
    with pytest.raises(ValueError, match="are of one batch: there is nothing to correct"):
        correct(stored(one), pretrained, tmp_path / "out")
