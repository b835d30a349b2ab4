import hashlib
import re
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epifoundation.sharing import damaged_files, write_checksums
from epifoundation.sharing.checksums import read_checksums


@pytest.fixture
def some_files(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "data/b c.bin", "ä.md"):
        (tmp_path / name).write_bytes(name.encode())
    write_checksums(tmp_path, ["data/b c.bin", "a.txt", "ä.md", "checksums.sha256"])
    return tmp_path


def test_every_file_is_listed_with_its_sha256(some_files):
    expected = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.txt", "data/b c.bin", "ä.md")}
    assert read_checksums(some_files / "checksums.sha256") == expected
    assert damaged_files(some_files) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_reads_the_list(some_files):
    check = ["sha256sum", "--check", "--strict", "checksums.sha256"]
    assert subprocess.run(check, cwd=some_files, capture_output=True, check=False).returncode == 0
    (some_files / "a.txt").write_text("other")
    assert subprocess.run(check, cwd=some_files, capture_output=True, check=False).returncode != 0


def test_changed_and_missing_files_are_named(some_files):
    (some_files / "a.txt").write_text("other")
    (some_files / "ä.md").unlink()
    assert damaged_files(some_files) == ["a.txt", "ä.md"]
    (some_files / "checksums.sha256").unlink()
    assert damaged_files(some_files) is None


@pytest.mark.parametrize("line", ["hello", f"{'0' * 64}  ../x", f"{'0' * 64}  /etc/x", f"{'0' * 63}  x", "\0"])
def test_a_damaged_list_is_an_error_that_names_the_line(some_files, line):
    file = some_files / "checksums.sha256"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"line 4: expected a SHA-256 and the name of a file of this folder"):
        damaged_files(some_files)


@given(st.binary(max_size=200))
@example(b"\r")
def test_any_bytes_are_a_list_or_an_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("list") / "checksums.sha256"
    file.write_bytes(content)
    if set(content) <= set(b"\r\n"):
        assert read_checksums(file) == {}
    else:  # no 64 digits come about by chance
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_checksums(file)
