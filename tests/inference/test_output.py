import pytest

from epifoundation.inference.output import new_file, new_folder, refuse_full_disk


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_when_the_block_ends_well(tmp_path):
    output = tmp_path / "out"
    with new_file(output) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert not output.exists()
    assert names(tmp_path) == ["out"]
    assert output.read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_error_everything_is_as_before(tmp_path, error):
    output = tmp_path / "out"
    output.write_text("old")

    def write_a_file():
        with new_file(output, overwrite=True) as partial:
            partial.write_text("new")
            raise error

    def write_a_folder():
        with new_folder(tmp_path / "folder") as partial:
            (partial / "config.json").write_text("{}")
            raise error

    for write in (write_a_file, write_a_folder):
        with pytest.raises(error):
            write()
    assert names(tmp_path) == ["out"]
    assert output.read_text() == "old"


def test_what_is_there_is_replaced_on_request_alone(tmp_path):
    output = tmp_path / "out"
    output.write_text("old")
    with pytest.raises(FileExistsError, match=r"exists: .*--overwrite"), new_file(output):
        pass
    with new_file(output, overwrite=True) as partial:
        partial.write_text("new")
    assert output.read_text() == "new"


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "real")
    with new_file(tmp_path / "link", overwrite=True) as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "real").read_text() == "new"


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none" / "out", tmp_path / "file" / "out"):
        with pytest.raises(FileNotFoundError, match="is not a folder; make it first"), new_file(place):
            pass
    with pytest.raises(IsADirectoryError, match="is a folder"), new_file(tmp_path):
        pass
    with pytest.raises(OSError, match="cannot write into"), new_file(tmp_path / ("x" * 250)):
        pass
    with pytest.raises(NotADirectoryError, match="is a file"), new_folder(tmp_path / "file"):
        pass


def test_only_a_checkpoint_is_replaced_by_a_folder(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with new_folder(output) as partial:  # an empty folder is as good as none
        (partial / "config.json").write_text("old")
    with pytest.raises(FileExistsError, match="--overwrite"), new_folder(output):
        pass
    with new_folder(output, overwrite=True) as partial:
        (partial / "config.json").write_text("new")
    assert (output / "config.json").read_text() == "new"
    (output / "config.json").rename(output / "thesis.txt")
    with pytest.raises(FileExistsError, match=r"other things than a checkpoint \(thesis\.txt\)"):
        new_folder(output, overwrite=True).__enter__()
    assert names(tmp_path) == ["out"]


def test_a_full_disk_is_told_before(tmp_path):
    refuse_full_disk(tmp_path, 1)
    with pytest.raises(OSError, match="GiB left, the output needs"):
        refuse_full_disk(tmp_path, 2**70)
