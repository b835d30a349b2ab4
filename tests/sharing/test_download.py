import json
import os
import subprocess
import sys

import numpy as np
import pytest
from datasets import load_dataset
from transformers import AutoTokenizer

from epifoundation import EpiFoundationModel
from epifoundation.inference import load_model_and_tokenizer
from epifoundation.sharing import pull, push_folder

NAME = "ann/annotator"
CELLS = [["chr1:1000-1500", "chr2:2000-2500"], ["chr3:3000-3500"]]

# What a stranger runs: first where the package cannot be imported, with the code of the repository; then with it.
ELSEWHERE = """
import json, sys
import numpy as np

job = json.loads(sys.argv[1])
if not job["with_package"]:
    sys.modules["epifoundation"] = None
else:
    import epifoundation
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

trust = {} if job["with_package"] else {"trust_remote_code": True}
place = {"revision": job["revision"], **trust}
tokenizer = AutoTokenizer.from_pretrained(job["name"], **place)
inputs = tokenizer(job["cells"], return_tensors="pt")
with torch.no_grad():
    cells = AutoModel.from_pretrained(job["name"], **place)(**inputs).pooler_output
    logits = AutoModelForSequenceClassification.from_pretrained(job["name"], **place)(**inputs).logits
np.savez(job["output"], cells=cells.numpy(), logits=logits.numpy())
print(type(tokenizer).__module__)
"""


def commit_changed(hub, path, content, revision="main"):
    """Another state of the repository, in which one file has this content."""
    repository = hub.repositories["model", NAME]
    files = repository.commits[repository.revisions["main"]]
    return repository.commit(revision, {**files, path: hub.store(content)})


def test_what_was_pushed_comes_back_and_is_verified(hub, folder):
    pushed = push_folder(folder, NAME)
    pulled = pull(NAME)
    assert pulled.commit == pushed.commit
    assert pulled.is_verified
    for name in pushed.files:
        assert (pulled.folder / name).read_bytes() == (folder / name).read_bytes()


def test_a_revision_is_pinned_whatever_comes_later(hub, folder):
    first = push_folder(folder, NAME)
    (folder / "about.yaml").write_text("description: Another.\n")
    second = push_folder(folder, NAME)
    assert not (pull(NAME, first.commit).folder / "about.yaml").exists()
    assert pull(NAME).commit == second.commit
    push_folder(folder, NAME, revision="v1")
    assert pull(NAME, "v1").is_verified
    with pytest.raises(FileNotFoundError, match="has no revision 'v2' on the Hub"):
        pull(NAME, "v2")


def test_pickles_are_not_fetched(hub, folder):
    push_folder(folder, NAME)
    commit_changed(hub, "pytorch_model.bin", b"a pickle")
    pulled = pull(NAME)
    assert not (pulled.folder / "pytorch_model.bin").exists()
    assert not any("pytorch_model.bin" in path for _, path in hub.requests)


def test_a_corrupted_file_is_fetched_anew_and_then_refused(hub, folder):
    push_folder(folder, NAME)
    original = (folder / "model.safetensors").read_bytes()
    hub.tampered["model.safetensors"] = original[:-1] + bytes([original[-1] ^ 1])
    with pytest.raises(ValueError, match=r"model\.safetensors differ from their checksums, also when fetched anew"):
        pull(NAME)
    hub.tampered.clear()  # it was the way, not the Hub
    assert (pull(NAME).folder / "model.safetensors").read_bytes() == original


def test_a_missing_file_is_named(hub, folder):
    push_folder(folder, NAME)
    repository = hub.repositories["model", NAME]
    files = dict(repository.commits[repository.revisions["main"]])
    del files["peaks.npz"]
    repository.commit("main", files)
    with pytest.raises(FileNotFoundError, match="lacks a file on the Hub"):
        pull(NAME)


def test_without_checksums_nothing_is_claimed(hub, folder):
    push_folder(folder, NAME)
    repository = hub.repositories["model", NAME]
    files = dict(repository.commits[repository.revisions["main"]])
    del files["checksums.sha256"]
    repository.commit("main", files)
    assert not pull(NAME).is_verified


@pytest.mark.parametrize(
    ("name", "message"),
    [("ann/none", "there is no ann/none on the Hub that you may see"), ("a b", "cannot be a name on the Hub")],
)
def test_names_that_are_not_there_are_errors(hub, name, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        pull(name)


def test_a_private_repository_is_not_seen_without_a_token(hub, folder, monkeypatch):
    push_folder(folder, NAME)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FileNotFoundError, match="if it is private, log in"):
        pull(NAME)
    with pytest.raises(OSError, match="does not accept the token"):
        pull(NAME, token="hf_" + "w" * 34)


def test_offline_the_cache_suffices_and_says_so_where_not(hub, folder, monkeypatch):
    push_folder(folder, NAME)
    pulled = pull(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert pull(NAME) == pulled
    model, _ = load_model_and_tokenizer(NAME, device="cpu")
    assert isinstance(model, EpiFoundationModel)
    with pytest.raises(FileNotFoundError, match=r"ann/other is not in the cache, and the Hub \(http.*\) cannot be"):
        pull("ann/other")
    assert len(hub.requests) == before


def test_a_data_set_comes_back_and_load_dataset_reads_it(hub, cells_folder, tmp_path):
    push_folder(cells_folder, "ann/cells")
    pulled = pull("ann/cells", kind="dataset")
    assert pulled.is_verified
    for place in (str(pulled.folder), str(cells_folder)):
        cells = load_dataset(place, cache_dir=tmp_path / "datasets")
        assert {name: len(part) for name, part in cells.items()} == {"train": 6, "validation": 2}
        assert cells["train"].features["cell_type"].names == ["B", "T"]
        assert cells["train"][0]["input_ids"] == [2, 4, 10]


@pytest.mark.slow
def test_strangers_get_equal_numbers_with_and_without_the_package_from_a_mirror(hub, folder, tmp_path, tokenizer):
    pushed = push_folder(folder, NAME)
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
    }
    runs = {}
    for with_package in (False, True):  # side by side: most of their time goes into imports
        job = {"name": NAME, "revision": pushed.commit, "cells": CELLS, "with_package": with_package}
        job["output"] = str(tmp_path / f"{with_package}.npz")
        command = [sys.executable, "-c", ELSEWHERE, json.dumps(job)]
        own_home = environment | {"HF_HOME": str(tmp_path / f"home {with_package}")}
        runs[with_package] = subprocess.Popen(
            command, cwd=tmp_path, env=own_home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for with_package, run in runs.items():
        shown, errors = run.communicate()
        assert run.returncode == 0, errors
        assert shown.split()[-1].startswith("epifoundation." if with_package else "transformers_modules.")
    found = [np.load(tmp_path / f"{with_package}.npz") for with_package in runs]
    model, own = load_model_and_tokenizer(folder, device="cpu")
    expected = model(**own(CELLS, return_tensors="pt")).pooler_output.detach()
    for numbers in found:
        np.testing.assert_allclose(numbers["cells"], expected, atol=1e-6)
    np.testing.assert_array_equal(found[0]["logits"], found[1]["logits"])
    assert type(AutoTokenizer.from_pretrained(folder)).__module__.startswith("epifoundation.")
