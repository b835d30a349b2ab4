"""``push_to_hub`` and ``load_dataset`` of the datasets library itself, for tokenised cells."""

import datasets
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from datasets import load_dataset
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders import PairedCells, load_cells

from .conftest import PEAKS


@pytest.fixture
def hub_of_datasets(hub, tmp_path, monkeypatch):
    """The library keeps the place of the Hub in constants of its own."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return hub


def test_cells_pushed_by_datasets_come_back_the_same(hub_of_datasets, cells_folder):
    cells = load_cells(cells_folder)
    cells.push_to_hub("ann/cells", private=True)
    assert hub_of_datasets.repositories["dataset", "ann/cells"].private
    back = load_dataset("ann/cells")
    assert {name: part.to_list() for name, part in back.items()} == {n: part.to_list() for n, part in cells.items()}
    assert back["train"].features == cells["train"].features
    assert load_dataset("ann/cells", split="validation").to_list() == cells["validation"].to_list()


def test_the_output_of_a_builder_can_be_pushed(hub_of_datasets, tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"cell_type": ["B", "T"] * 5}, index=[f"cell{i}" for i in range(10)])
    for name, columns in (("atac", PEAKS), ("rna", ["CD19", "CD3E"])):
        counts = csr_matrix(rng.integers(0, 3, (10, len(columns))))
        AnnData(counts, obs, pd.DataFrame(index=columns)).write_h5ad(tmp_path / f"{name}.h5ad")
    files = tmp_path / "atac.h5ad", tmp_path / "rna.h5ad"
    builder = PairedCells(*files, tokenizer=tokenizer, cell_type_key="cell_type", cache_dir=tmp_path / "built")
    builder.download_and_prepare()
    cells = builder.as_dataset("train")
    cells.push_to_hub("ann/built")
    back = load_dataset("ann/built", split="train")
    assert back.to_list() == cells.to_list()
    assert back.features == cells.features
