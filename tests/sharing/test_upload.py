import pytest
from huggingface_hub import HfApi

from epifoundation import EpiFoundationForCellClassification, EpiFoundationModel
from epifoundation.sharing import damaged_files, push_folder
from epifoundation.tokenization import PeakTokenizer

TOKEN, READ_ONLY, WRONG = "hf_" + "a" * 34, "hf_" + "r" * 34, "hf_" + "w" * 34
NAME = "ann/annotator"


def test_what_is_there_is_the_checkpoint_and_nothing_else(hub, folder):
    pushed = push_folder(folder, NAME)
    there = hub.files(NAME)
    assert sorted(there) == sorted([*pushed.files, ".gitattributes"])
    assert all(there[name] == (folder / name).read_bytes() for name in pushed.files)
    needed = {"config.json", "model.safetensors", "peaks.npz", "genes.tsv", "run.json", "README.md", "LICENSE"}
    assert needed | {"checksums.sha256", "modeling_epifoundation.py", "tokenization_epifoundation.py"} <= set(there)
    assert "training_args.bin" not in there
    assert damaged_files(folder) == []
    assert (pushed.is_private, pushed.kind) == (True, "model")
    assert hub.repositories["model", NAME].private
    assert pushed.url == f"{hub.endpoint}/{NAME}"
    assert hub.repositories["model", NAME].revisions["main"] == pushed.commit
    assert sorted(HfApi().list_repo_files(NAME)) == sorted(there)


def test_the_token_is_in_no_file(hub, folder):
    push_folder(folder, NAME)
    for file in [*folder.rglob("*"), *hub.folder.iterdir()]:
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


def test_a_public_repository_is_made_on_request_alone_and_kept_as_it_is(hub, folder):
    assert push_folder(folder, NAME, private=False).is_private is False
    assert push_folder(folder, NAME).is_private is False
    assert not hub.repositories["model", NAME].private


def test_a_branch_and_a_pull_request_leave_the_main_branch_alone(hub, folder):
    first = push_folder(folder, NAME)
    (folder / "about.yaml").write_text("description: Another.\n")
    branch = push_folder(folder, NAME, revision="better")
    assert "about.yaml" in hub.files(NAME, "better")
    assert branch.commit != first.commit
    request = push_folder(folder, NAME, create_pr=True)
    assert request.url.endswith("/discussions/1")
    assert "about.yaml" in hub.files(NAME, "refs/pr/1")
    assert "about.yaml" not in hub.files(NAME)
    with pytest.raises(ValueError, match="a pull request goes to the main branch"):
        push_folder(folder, NAME, create_pr=True, revision="better")


def test_files_of_an_earlier_state_go_and_those_of_others_stay(hub, folder):
    push_folder(folder, NAME)
    repository = hub.repositories["model", NAME]
    files = repository.commits[repository.revisions["main"]]
    stored = hub.store(b"old")
    repository.commit("main", {**files, "model-00001-of-00002.safetensors": stored, "notes.txt": stored})
    push_folder(folder, NAME)
    assert "notes.txt" in hub.files(NAME)
    assert "model-00001-of-00002.safetensors" not in hub.files(NAME)


def test_an_interrupted_upload_goes_on_and_shows_nothing_before_its_end(hub, folder):
    hub.uploads_allowed = 1
    with pytest.raises(OSError, match=r"Error while uploading .* what has arrived is not sent again"):
        push_folder(folder, NAME)
    assert sorted(hub.files(NAME)) == [".gitattributes"]
    [received] = hub.uploads
    hub.uploads_allowed = None
    push_folder(folder, NAME)
    assert hub.uploads.count(received) == 1
    assert len(hub.uploads) == 2
    assert "model.safetensors" in hub.files(NAME)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (WRONG, "the Hub does not accept the token: log in with 'hf auth login', or set HF_TOKEN"),
        (READ_ONLY, "the token may not do this: it needs the right to write"),
    ],
)
def test_a_token_that_will_not_do_is_an_error(hub, folder, token, message):
    with pytest.raises(OSError, match=message) as caught:
        push_folder(folder, NAME, token=token)
    assert token not in str(caught.value)
    assert not hub.repositories


def test_an_incomplete_folder_does_not_go_up(hub, folder):
    (folder / "peaks.npz").unlink()
    (folder / "modeling_epifoundation.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks modeling_epifoundation\.py, peaks\.npz; save model"):
        push_folder(folder, NAME)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        push_folder(folder / "none", NAME)
    assert not hub.requests


def test_a_file_with_a_token_does_not_go_up(hub, folder):
    (folder / "about.yaml").write_text(f"description: uses {TOKEN}\n")
    with pytest.raises(ValueError, match=r"README\.md contains what looks like an access token: take it out"):
        push_folder(folder, NAME)
    assert not hub.requests


def test_a_name_that_is_none_and_a_hub_that_is_not_there(hub, folder, monkeypatch):
    with pytest.raises(ValueError, match="expected user/name"):
        push_folder(folder, "a/b/c")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"the Hub \(http://127.0.0.1:9\) cannot be reached: .*; nothing is lost"):
        push_folder(folder, NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, NAME)


def test_push_to_hub_of_any_class_gives_the_same_repository(hub, folder):
    push_folder(folder, NAME)
    url = EpiFoundationForCellClassification.from_pretrained(folder).push_to_hub("ann/same")
    assert url == f"{hub.endpoint}/ann/same"
    assert hub.repositories["model", "ann/same"].private
    one, other = hub.files(NAME), hub.files("ann/same")
    assert set(one) == set(other)
    assert {name for name in one if one[name] != other[name]} <= {"config.json", "checksums.sha256"}
    encoder = EpiFoundationModel.from_pretrained(folder)
    encoder.push_to_hub("ann/encoder", private=False)
    # Other weights: card and record of the classifier are not theirs.
    assert set(one) - set(hub.files("ann/encoder")) == {"run.json", "tokenized.json"}
    assert b"`EpiFoundationModel`" in hub.files("ann/encoder")["README.md"]


def test_a_model_made_in_memory_needs_its_tokenizer(hub, model, tokenizer):
    copy = EpiFoundationForCellClassification(model.config)
    copy.config._name_or_path = ""
    with pytest.raises(ValueError, match="pass tokenizer="):
        copy.push_to_hub(NAME)
    copy.push_to_hub(NAME, tokenizer=tokenizer)
    assert hub.files(NAME)["genes.tsv"]


def test_tokenised_cells_become_a_data_set(hub, cells_folder):
    pushed = push_folder(cells_folder, "ann/cells")
    assert pushed.kind == "dataset"
    assert pushed.url == f"{hub.endpoint}/datasets/ann/cells"
    there = hub.files("ann/cells", kind="dataset")
    assert {"data/train-00000-of-00001.parquet", "peaks.npz", "tokenized.json", "README.md"} <= set(there)


def test_the_tokenizer_of_a_pushed_checkpoint_loads_by_its_name(hub, folder, tokenizer):
    push_folder(folder, NAME)
    assert PeakTokenizer.from_pretrained(NAME).vocabulary == tokenizer.vocabulary
