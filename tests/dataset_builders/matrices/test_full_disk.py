import errno
import os

import h5py
import numpy as np
import pytest

from epifoundation.dataset_builders.matrices.full_disk import PatientFile, full_disk_explained

from ..limits import files_of_at_most


def test_what_finds_no_room_is_kept_and_the_error_told(tmp_path):
    with PatientFile(tmp_path / "a") as file, files_of_at_most(10):
        assert file.write(b"0123456") == 7
        assert file.error is None
        file.refuse_if_failed()
        assert file.write(b"789abc") == 6
        file.seek(9)
        assert file.write(b"XYZ") == 3
        file.truncate(20)
        buffer = bytearray(16)
        file.seek(0)
        assert file.readinto(buffer) == 16
        assert bytes(buffer) == b"012345678XYZc\0\0\0"
        assert file.tell() == 16
        with pytest.raises(OSError, match="File too large"):
            file.refuse_if_failed()


def test_hdf5_closes_a_file_that_found_no_room(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 2**31, 50_000)
    with PatientFile(tmp_path / "a.h5") as disk, files_of_at_most(30_000):
        with h5py.File(disk, "w") as file:
            for i in range(20):
                file.create_dataset(f"group {i}/numbers", data=numbers[: i * 2_000], chunks=(1_000,), maxshape=(None,))
                file[f"group {i}"].attrs["text"] = "long " * i
            np.testing.assert_array_equal(file["group 19/numbers"][:], numbers[:38_000])
        assert disk.error is not None
    assert (tmp_path / "a.h5").stat().st_size <= 30_000


def test_a_file_with_room_is_like_any_other(tmp_path):
    with PatientFile(tmp_path / "a.h5") as disk:
        with h5py.File(disk, "w") as file:
            file["x"] = np.arange(100_000)
        disk.refuse_if_failed()
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"][:], np.arange(100_000))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_told_by_the_name_of_the_output(tmp_path, number):
    def fail():
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError("a long story") from error

    with (
        pytest.raises(OSError, match=f"^the disk is full: cannot write out into {tmp_path}$"),
        full_disk_explained(tmp_path / "out"),
    ):
        fail()


def test_other_errors_pass(tmp_path):
    with pytest.raises(PermissionError), full_disk_explained(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_an_error_that_came_from_itself_passes(tmp_path):
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(ValueError, match="first"), full_disk_explained(tmp_path / "out"):
        raise first
