import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.dataset_builders.curation import sealed_folders
from epifoundation.dataset_builders.curation.sealed_folders import (
    SEAL,
    file_digest,
    is_sealed,
    sealed_folder,
    text_digest,
)

RECIPE = {"version": 1, "input": "abc", "sizes": (1, 2)}


def make(folder, recipe=RECIPE, text="done"):
    with sealed_folder(folder, recipe) as partial:
        (partial / "a.txt").write_text(text)


def test_a_folder_appears_when_its_work_is_done(tmp_path):
    folder = tmp_path / "deep" / "work"
    assert not is_sealed(folder, RECIPE)
    with sealed_folder(folder, RECIPE) as partial:
        (partial / "a.txt").write_text("x")
        assert not folder.exists()
    assert is_sealed(folder, RECIPE)
    assert sorted(entry.name for entry in folder.iterdir()) == ["a.txt", SEAL]
    assert [entry.name for entry in folder.parent.iterdir()] == ["work"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing_and_keeps_what_was_there(tmp_path, error):
    folder = tmp_path / "work"
    make(folder, text="before")
    with pytest.raises(error), sealed_folder(folder, RECIPE) as partial:  # noqa: PT012 (the block is the test)
        (partial / "a.txt").write_text("half")
        raise error
    assert (folder / "a.txt").read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]


def test_another_recipe_is_told_by_name(tmp_path):
    make(tmp_path / "work")
    other = {**RECIPE, "input": "xyz", "more": 1}
    with pytest.raises(FileExistsError, match=r"work was made with another input and more: choose another output"):
        is_sealed(tmp_path / "work", other)
    assert not is_sealed(tmp_path / "work", other, overwrite=True)
    make(tmp_path / "work", other, "again")
    assert is_sealed(tmp_path / "work", other)
    assert (tmp_path / "work" / "a.txt").read_text() == "again"


def test_a_part_of_the_recipe_may_grow(tmp_path):
    make(tmp_path / "work")
    assert not is_sealed(tmp_path / "work", {**RECIPE, "input": "abcd"}, may_grow="input")
    with pytest.raises(FileExistsError, match="another input and version"):
        is_sealed(tmp_path / "work", {**RECIPE, "input": "abcd", "version": 2}, may_grow="input")


def test_a_folder_of_something_else_is_never_taken_or_replaced(tmp_path):
    (tmp_path / "work").mkdir()
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="was not written by this command"):
            is_sealed(tmp_path / "work", RECIPE, overwrite=overwrite)
    (tmp_path / "work" / SEAL).write_text("{")
    with pytest.raises(FileExistsError, match="was not written by this command"):
        is_sealed(tmp_path / "work", RECIPE)


KILLED = """
import os, signal, sys
from pathlib import Path
from epifoundation.dataset_builders.curation.sealed_folders import sealed_folder
with sealed_folder(Path(sys.argv[1]), {}) as partial:
    (partial / "a.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path):
    ran = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "work"], check=False)
    assert ran.returncode == -9
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".work.")
    make(tmp_path / "work")
    assert [entry.name for entry in tmp_path.iterdir()] == ["work"]


def test_the_seal_can_be_read(tmp_path):
    make(tmp_path / "work")
    assert json.loads((tmp_path / "work" / SEAL).read_text()) == {**RECIPE, "sizes": [1, 2]}


@settings(deadline=None)
@given(content=st.binary(min_size=1, max_size=300), place=st.integers(0, 299))
def test_any_change_of_a_small_file_changes_its_digest(tmp_path_factory, content, place):
    path = tmp_path_factory.mktemp("digest") / "f"
    path.write_bytes(content)
    before = file_digest(path)
    assert before == file_digest(path)
    place %= len(content)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert file_digest(path) != before
    path.write_bytes(content + b"x")
    assert file_digest(path) != before


@pytest.mark.parametrize("size", [64, 65, 100, 640])
def test_of_a_large_file_both_ends_count(tmp_path, monkeypatch, size):
    monkeypatch.setattr(sealed_folders, "BYTES_PER_SAMPLE", 1)
    digests = set()
    for place in (None, 0, size - 1):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        (tmp_path / "f").write_bytes(content)
        digests.add(file_digest(tmp_path / "f"))
    assert len(digests) == 3


def test_texts_have_digests():
    assert text_digest("a") != text_digest("b")
