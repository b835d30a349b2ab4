"""Fine-tuning of the cell embedding: by triplets, and against the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from datasets import Dataset
from sklearn.neighbors import NearestNeighbors

from epifoundation import (
    EpiFoundationForBatchCorrection,
    EpiFoundationForCellClustering,
    EpiFoundationModel,
    PeakTokenizer,
)
from epifoundation.dataset_builders import load_cells
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files
from epifoundation.training.initialization import cell_embeddings
from epifoundation.training.options import BatchCorrectionOptions, ClusteringOptions, PretrainOptions, read_options
from epifoundation.training.runs import finetune_batch_correction, finetune_clustering, pretrain

from ..conftest import SMALL_MODEL, SMALL_RUN, words

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


def two_batches(folder: Path) -> Path:
    """Tokenised cells of two types, of which half, whatever their type, see none of a fifth of the peaks."""
    rng = np.random.default_rng(0)
    is_second, has_other_type = (rng.random(240) < 0.5 for _ in range(2))
    peak = np.arange(120)
    chance = np.where((peak % 2 == has_other_type[:, None]), 0.5, 0.2)
    chance = np.where((peak % 5 == 0) & is_second[:, None], 0.0, chance)
    atac = AnnData(sp.csr_matrix(rng.random(chance.shape) < chance, dtype=np.float32))
    atac.var_names = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in peak]
    atac.obs["type"] = np.where(has_other_type, "a", "b")
    atac.obs["batch"] = np.where(is_second, "second", "first")
    split = Split(rule="cell", validation=0, test=0)
    atac.write_h5ad(folder / "atac.h5ad")
    keys = {"cell_type_key": "type", "batch_key": "batch"}
    tokenize_files(folder / "atac.h5ad", None, folder / "cells", split=split, genome="hg38", **keys)
    return folder / "cells"


def neighbours_of_the_other_batch(folder: Path, cells: Dataset) -> float:
    """Share of the 10 nearest cells that are of the other batch: a half if batches mix."""
    model, tokenizer = EpiFoundationModel.from_pretrained(folder), PeakTokenizer.from_pretrained(folder)
    embeddings, batches = cell_embeddings(model, tokenizer, cells), np.array(cells["batch"])
    nearest = NearestNeighbors(n_neighbors=10).fit(embeddings).kneighbors(return_distance=False)
    return float((batches[nearest] != batches[:, None]).mean())


def test_a_batch_that_keeps_cells_apart_is_hidden(tmp_path: Path) -> None:
    data = two_batches(tmp_path)
    own = SMALL_MODEL | RUN | {"init_peak_embeddings": "lsi", "objective": "replaced_peaks", "num_train_epochs": 2}
    own |= {"data": data, "output_dir": tmp_path / "model", "pooling": "mean", "max_peaks": 120}
    pretrain(*read_options(PretrainOptions, words(**own)))
    options = {"num_train_epochs": 12, "per_device_train_batch_size": 24, "max_peaks": 120, "learning_rate": 1e-3}
    options |= {"eval_strategy": "no", "validation_share": 0}
    cells = load_cells(data)
    mixing = {}
    for strength in (0, 1):
        correct(data, tmp_path / "model", tmp_path / f"{strength}", gradient_reversal=strength, **options)
        mixing[strength] = neighbours_of_the_other_batch(tmp_path / f"{strength}", cells)
    assert mixing[0] < 0.2, "there is something to correct"
    assert mixing[1] > mixing[0] + 0.12
