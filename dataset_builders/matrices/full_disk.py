"""A full disk: one clear error for what libraries tell in long stories, or do not survive."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEXTS = ("No space left", "File too large", "Disk quota")


@contextmanager
def full_disk_explained(target: Path) -> Iterator[None]:
    """Tell of a full disk by the name of the file or folder that was to be written.

    Raises:
        OSError: in place of any error that a full disk is the reason of; others pass.
    """
    try:
        yield
    except Exception as error:
        if any(_tells_of_full_disk(link) for link in _chain(error)):
            raise OSError(f"the disk is full: cannot write {target.name} into {target.parent}") from error
        raise


class PatientFile(io.FileIO):
    """A file whose writing never fails, for HDF5: after a failed write it can neither go on nor close its file.

    What finds no room is kept in memory, so that HDF5 reads back what it wrote: see to it that it writes little more.

    Attributes:
        error: why something was not written; the file is of no use then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make an empty file, to write and to read; what is at `path` is replaced."""
        super().__init__(path, "w+")
        self.error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def refuse_if_failed(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        """Write all of some bytes, or keep them and the error."""
        start, rest = self.tell(), memoryview(content).cast("B")
        try:
            while len(rest) and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._kept.append((start, bytes(content)))
            self.seek(start + len(content))
        return len(content)

    def readinto(self, buffer: Any) -> int:
        """Read what was written, or kept."""
        start, view = self.tell(), memoryview(buffer).cast("B")
        num_read = super().readinto(view)
        if self.error is None:
            return num_read
        view[num_read:] = bytes(len(view) - num_read)
        for offset, content in self._kept:
            first, end = max(start, offset), min(start + len(view), offset + len(content))
            if first < end:
                view[first - start : end - start] = content[first - offset : end - offset]
        self.seek(start + len(view))
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
            return size or 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from, each once: some libraries raise an error from itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _tells_of_full_disk(error: BaseException) -> bool:
    return getattr(error, "errno", None) in _NUMBERS or any(text in str(error) for text in _TEXTS)
