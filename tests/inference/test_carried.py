import pytest

from epifoundation.inference import default_checkpoint, load_model_and_tokenizer


def test_the_carried_checkpoint_of_a_task_loads(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("epifoundation.inference.carried.CARRIED", tmp_path)
    (tmp_path / "embedding").symlink_to(checkpoint)
    assert default_checkpoint("embedding") == tmp_path / "embedding"
    assert load_model_and_tokenizer(default_checkpoint("embedding"), device="cpu")


def test_where_none_is_carried_one_must_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr("epifoundation.inference.carried.CARRIED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"carries no checkpoint for annotation: name a folder .* \(--model\)"):
        default_checkpoint("annotation")
