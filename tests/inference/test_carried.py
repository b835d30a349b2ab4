import json
from pathlib import Path

import anndata
import pytest

from epifoundation.evaluation.agreement import agreement
from epifoundation.inference import annotate_cells, carried, default_checkpoint, embed_cells
from epifoundation.inference.carried import is_held_out

CELLS = Path(__file__).parents[2] / "examples" / "data" / "snare_cell_lines" / "atac.h5ad"


def test_its_card_tells_what_it_does_on_cells_it_never_saw():
    cells = anndata.read_h5ad(CELLS)
    cells = cells[is_held_out(default_checkpoint(), cells.obs_names)].copy()
    assert cells.n_obs == 210
    annotate_cells(cells, default_checkpoint(), show_progress=False, device="cpu")
    scores = agreement(cells.obs["cell_type"], cells.obs["epifoundation_cell_type"])
    stated = json.loads((default_checkpoint() / "run.json").read_text())["metrics"]
    for name, value in scores.items():
        # one cell more or less, as sums round differently elsewhere
        assert value == pytest.approx(stated[f"SNARE_cell_lines_{name}"], abs=0.006)
        assert f"| SNARE cell lines {name.replace('_', ' ')} |" in (default_checkpoint() / "README.md").read_text()


def test_it_embeds():
    cells = anndata.read_h5ad(CELLS)[:5].copy()
    embed_cells(cells, default_checkpoint(), show_progress=False, device="cpu")
    assert cells.obsm["X_epifoundation"].shape == (5, 64)


def test_a_checkpoint_need_not_tell_its_held_out_cells(tmp_path):
    assert is_held_out(tmp_path, ["a"]) is None
    (tmp_path / "held_out.json").write_text('{"cells": ["b"], "more": ["c"]}')
    assert is_held_out(tmp_path, ["a"]) is None
    assert is_held_out(tmp_path, ["c", "a", "b"]).tolist() == [True, False, True]


def test_where_none_is_carried_one_must_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr(carried, "CARRIED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"carries no checkpoint: name a folder .* \(--model\)"):
        default_checkpoint()
