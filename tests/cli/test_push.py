import huggingface_hub.constants
import pytest

from ..sharing.hub_server import serve

TOKEN = "hf_" + "a" * 34
NAME = "ann/base"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    constants = huggingface_hub.constants
    with serve(tmp_path / "hub") as hub:
        hub.tokens[TOKEN] = True
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()
        yield hub
    huggingface_hub.close_session()


def test_push_pull_and_embed_name_the_same_commit(run, hub, checkpoint, peaks_file, tmp_path):
    pushed = run("push", checkpoint, NAME)
    assert pushed.exit_code == 0, pushed.stderr
    commit = pushed.stdout.split()[-1]
    assert f"{hub.endpoint}/{NAME} (private model): " in pushed.stdout
    pulled = run("pull", NAME, "--revision", commit, "--output", tmp_path / "copy")
    assert pulled.exit_code == 0, pulled.stderr
    assert pulled.stdout == (f"{tmp_path / 'copy'}: {NAME} at {commit}; files agree with their checksums\n")
    assert not any(file.is_symlink() for file in (tmp_path / "copy").iterdir())
    for model in (tmp_path / "copy", NAME):
        embedded = run("embed", peaks_file, "-m", model, "-o", tmp_path / "out.parquet", "--overwrite")
        assert embedded.exit_code == 0, embedded.stderr
    assert TOKEN not in pushed.output + pulled.output


def test_bad_folders_and_names_are_one_line(run_badly, hub, checkpoint, tmp_path):
    assert "does not exist" in run_badly("push", tmp_path / "none", NAME)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text('{"model_type": "epifoundation"}')
    assert "is not a complete checkpoint" in run_badly("push", tmp_path / "half", NAME)
    assert "expected user/name" in run_badly("push", checkpoint, "a/b/c")
    assert "there is no ann/none on the Hub" in run_badly("pull", "ann/none")
    assert "leave revision out" in run_badly("push", checkpoint, NAME, "--create-pr", "--revision", "x")


def test_a_checkpoint_that_does_not_load_does_not_go_up(run_badly, hub, checkpoint, tmp_path):
    import shutil

    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"cut")
    assert "are damaged" in run_badly("push", broken, NAME)
    assert not hub.repositories


def test_an_interruption_says_how_to_go_on(run, hub, checkpoint, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("epifoundation.sharing.upload.HfApi.create_commit", interrupted)
    result = run("push", checkpoint, NAME)
    assert result.exit_code == 130
    assert result.stderr == "interrupted; given again, the command goes on with what is missing\n"


def test_a_card_is_written_beside_the_weights_or_elsewhere(run, run_badly, checkpoint, tmp_path):
    (tmp_path / "about.yaml").write_text("name: Mine\n")
    result = run("card", checkpoint, "--about", tmp_path / "about.yaml", "--output", tmp_path / "mine.md")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'mine.md'}: written\n")
    assert "# Mine" in (tmp_path / "mine.md").read_text()
    assert "--overwrite" in run_badly("card", checkpoint, "--output", tmp_path / "mine.md")
    assert "does not exist" in run_badly("card", checkpoint, "--about", tmp_path / "no.yaml")
    assert "neither a checkpoint" in run_badly("card", tmp_path)
