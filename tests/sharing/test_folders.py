import json

import pytest

from epifoundation.sharing import complete_checkpoint, contents, damaged_files, kind_of, refuse_incomplete


def test_a_checkpoint_is_completed_once_and_its_card_kept(folder):
    files = complete_checkpoint(folder)
    assert {"README.md", "LICENSE", "checksums.sha256"} <= set(files)
    assert files == contents(folder)
    assert "Apache License" in (folder / "LICENSE").read_text()
    (folder / "README.md").write_text("my own card")
    complete_checkpoint(folder)
    assert (folder / "README.md").read_text() == "my own card"
    assert damaged_files(folder) == []


def test_only_files_of_the_product_belong_to_it(folder):
    for name in ("settings.json", "optimizer.pt", ".env", "notes.md"):
        (folder / name).write_text("x")
    assert not {"settings.json", "optimizer.pt", ".env", "notes.md", "training_args.bin"} & set(contents(folder))
    assert not any("/" in name for name in contents(folder))


def test_the_report_of_the_cells_comes_along(folder, cells_folder):
    (folder / "tokenized.json").unlink()
    assert "tokenized.json" in complete_checkpoint(folder, cells_folder)


def test_what_a_folder_holds_is_told(folder, cells_folder, tmp_path):
    assert kind_of(folder) == "model"
    assert kind_of(cells_folder) == "dataset"
    refuse_incomplete(cells_folder)
    with pytest.raises(ValueError, match=r"neither a checkpoint \(config.json\) nor tokenised cells"):
        kind_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        kind_of(tmp_path / "none")


def test_incomplete_and_damaged_checkpoints_are_refused(folder):
    refuse_incomplete(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"lacks model-1\.safetensors"):
        refuse_incomplete(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match="a model of the type 'bert'"):
        refuse_incomplete(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged: it is not JSON"):
        refuse_incomplete(folder)
