"""Large text files, plain or compressed by gzip or bgzip, read in blocks of whole lines."""

import gzip
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from isal import igzip
from isal.igzip_lib import IsalError

LONGEST_LINE = 1 << 20  # bytes; a longer one is no line of a table
_GZIP = b"\x1f\x8b"
# After the SAM format specification, section 4.1: the header of a block, and the empty block at the end of a file.
_BGZIP_START = re.compile(rb"\x1f\x8b\x08\x04.{6}\x06\x00BC", re.DOTALL)
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

_SIGNATURES = {
    b"BAM\x01": "it is a BAM file of aligned reads: make a fragment file of it first, such as with "
    "snapatac2.pp.make_fragment_file",
    b"CRAM": "it is a CRAM file of aligned reads: make fragments of it first",
    b"\x89HDF": "it is an HDF5 file (.h5, .h5ad): it holds counts, not lines of text",
    b"PK\x03\x04": "it is a zip archive: unpack it first",
    b"BZh": "it is compressed by bzip2: unpack it first, or use gzip",
    b"\xfd7zXZ": "it is compressed by xz: unpack it first, or use gzip",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: unpack it first, or use gzip",
    b"TBI\x01": "it is the index (.tbi) of another file: pass that one",
    b"%%MatrixMarket": "it is a Matrix Market file: pass the folder it lies in",
    b"<": "it looks like HTML or XML, perhaps an error page saved by a download",
    b"{": "it looks like JSON, perhaps an error message saved by a download",
}


class Block(NamedTuple):
    """Some lines of a file.

    Attributes:
        text: whole lines; the last of a file may lack its line end.
        offset: bytes of (unpacked) text before them.
    """

    text: bytes
    offset: int


class TextFile:
    """A text file that is read from its beginning to its end.

    Attributes:
        path: the file.
        num_bytes: its size.
        num_bytes_read: how much of it was read so far, compressed as it may be; for a progress bar.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Look at the beginning of a file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is a folder, empty, or evidently no text.
        """
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist")
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder: expected a file")
        self.num_bytes = self.path.stat().st_size
        self.num_bytes_read = 0
        with self.path.open("rb") as raw, self._unpacked(raw) as text:
            first = text.read(512)
        if not first:
            raise ValueError(f"{self.path} is empty")
        for signature, likeness in _SIGNATURES.items():
            if first.lstrip().startswith(signature):
                raise ValueError(f"{self.path} cannot be read as text: {likeness}")
        if b"\0" in first:
            raise ValueError(f"{self.path} cannot be read as text: it is a binary file of another kind")

    def blocks(self, num_bytes: int) -> Iterator[Block]:
        """Yield all lines, about `num_bytes` of text at a time.

        Raises:
            ValueError: if the file is truncated or damaged, or has a line of more than a million characters.

        Warns:
            UserWarning: if the last block of a bgzip file is missing.
        """
        rest, offset = b"", 0
        with self.path.open("rb") as raw, self._unpacked(raw) as text:
            while data := text.read(num_bytes):
                self.num_bytes_read = raw.tell()
                cut = data.rfind(b"\n") + 1
                if cut:
                    yield Block(rest + data[:cut], offset)
                    offset += len(rest) + cut
                    rest = data[cut:]
                else:
                    rest += data
                if len(rest) > max(num_bytes, LONGEST_LINE):
                    raise ValueError(f"{self.path} has a line of {len(rest):,} characters or more: it is no table")
            self._warn_if_cut(raw)
        if rest:
            yield Block(rest, offset)

    def line_number(self, offset: int) -> int:
        """Number, counted from 1, of the line that begins after `offset` bytes of text; reads the file up to there."""
        lines = 0
        with self.path.open("rb") as raw, self._unpacked(raw) as text:
            while offset > 0 and (data := text.read(min(offset, LONGEST_LINE))):
                lines += data.count(b"\n")
                offset -= len(data)
        return lines + 1

    @contextmanager
    def _unpacked(self, raw: BinaryIO) -> Iterator[IO[bytes]]:
        """The text of an open file, whatever the ending of its name says."""
        is_packed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        try:
            yield cast("IO[bytes]", igzip.IGzipFile(fileobj=raw, mode="rb")) if is_packed else raw
        # the stubs of isal take the class IsalError for an instance
        except (EOFError, gzip.BadGzipFile, IsalError) as error:  # type: ignore[misc]
            raise ValueError(
                f"{self.path} is truncated or damaged: it cannot be unpacked beyond {raw.tell():,} of its "
                f"{self.num_bytes:,} bytes ({error}); copy or download it again"
            ) from error

    def _warn_if_cut(self, raw: BinaryIO) -> None:
        """A bgzip file that was cut between two of its blocks unpacks without an error."""
        raw.seek(0)
        if not _BGZIP_START.match(raw.read(len(_BGZIP_END))):
            return
        raw.seek(-len(_BGZIP_END), os.SEEK_END)
        if raw.read() != _BGZIP_END:
            warnings.warn(
                f"{self.path} lacks the empty block that ends a bgzip file: it is probably truncated, copy or "
                "download it again",
                stacklevel=3,
            )
