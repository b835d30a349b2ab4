"""What training leaves is a whole checkpoint: it can be shared as it is, and its card tells of this very run."""

import json
from pathlib import Path

from epifoundation.sharing import contents, damaged_files, refuse_incomplete
from epifoundation.training.options import PretrainOptions, read_options
from epifoundation.training.runs import pretrain

from .conftest import SMALL_MODEL, SMALL_RUN, words


def test_the_folder_of_a_run_is_whole(pretrained: Path) -> None:
    refuse_incomplete(pretrained)
    assert damaged_files(pretrained) == []
    assert {"README.md", "LICENSE", "run.json", "checksums.sha256", "peaks.npz"} <= set(contents(pretrained))
    card = (pretrained / "README.md").read_text()
    run = json.loads((pretrained / "run.json").read_text())
    for name, value in run["metrics"].items():
        assert f"| {name.removeprefix('eval_').replace('_', ' ')} | {value:.4f} |" in card
    for data in run["settings"]["data"].values():
        assert f"`{data['sha256']}`" in card


def test_another_run_in_the_same_folder_gets_a_card_of_its_own(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("of an earlier model")
    own = words(data=data_folder, output_dir=tmp_path, max_genes=16, curves="false", seed=5)
    pretrain(*read_options(PretrainOptions, [*own, *words(**SMALL_MODEL, **SMALL_RUN), "--num_train_epochs", "1"]))
    assert "seed 5" in (tmp_path / "README.md").read_text()
    assert damaged_files(tmp_path) == []
