import json
from pathlib import Path

import numpy as np
from datasets import Dataset

from epifoundation.training.record import data_digest, plot_curves, save_curves, versions, write_json

LOG = [
    {"loss": 2.0, "step": 2},
    {"loss": 1.0, "step": 4},
    {"eval_loss": 1.5, "eval_accuracy": 0.5, "step": 4},
    {"train_loss": 1.5, "step": 4},
]


def test_the_digest_is_of_the_content(cells: Dataset, data_folder: Path, tmp_path: Path) -> None:
    cells.to_parquet(tmp_path / "cells.parquet")
    again = Dataset.from_parquet(str(tmp_path / "cells.parquet"), cache_dir=str(tmp_path))
    assert data_digest(again) == data_digest(cells) == data_digest(Dataset.load_from_disk(data_folder))
    assert data_digest(cells.select(range(30))) == data_digest(cells)
    order = np.arange(30)
    order[:2] = 1, 0
    assert data_digest(cells.select(order)) != data_digest(cells)
    counts = [list(row) for row in cells["gene_counts"]]
    counts[3][0] += 1
    changed = cells.remove_columns("gene_counts").add_column(
        "gene_counts", counts, feature=cells.features["gene_counts"]
    )
    assert data_digest(changed) != data_digest(cells)


def test_moving_a_peak_to_the_next_cell_changes_the_digest() -> None:
    one, other = (Dataset.from_dict({"input_ids": ids}) for ids in ([[2, 4], [2]], [[2], [4, 2]]))
    assert data_digest(one) != data_digest(other)


def test_curves_hold_what_was_logged(tmp_path: Path) -> None:
    ax = plot_curves(LOG, "eval_accuracy")
    lines = [line.get_xydata().tolist() for each in ax.figure.axes for line in each.get_lines()]
    assert lines == [[[2, 2], [4, 1]], [[4, 1.5]], [[4, 0.5]]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training cells", "held-out cells", "accuracy"]
    assert ax.get_xlabel() == "optimiser steps"
    save_curves([], None, tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").stat().st_size > 0


def test_versions_and_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"versions": versions()})
    assert {"python", "torch", "transformers"} <= json.loads((tmp_path / "a.json").read_text())["versions"].keys()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
