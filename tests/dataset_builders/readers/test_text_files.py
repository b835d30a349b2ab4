"""Large text files in blocks of lines."""

import gzip
import io
from pathlib import Path

import pytest

from epifoundation.dataset_builders.readers.text_files import TextFile

BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
LINES = b"".join(b"chr1\t%d\t%d\n" % (i, i + 7) for i in range(4_000))


def bgzip_block(text: bytes) -> bytes:
    """One block as bgzip writes it: gzip with its own length in an extra field."""
    packed = gzip.compress(text, mtime=0)
    extra = b"\x06\x00BC\x02\x00" + (len(packed) + 8 - 1).to_bytes(2, "little")
    return packed[:3] + b"\x04" + packed[4:10] + extra + packed[10:]


PACKED = {
    "plain": LINES,
    "gzip": gzip.compress(LINES),
    "several gzip members": gzip.compress(LINES[:1000]) + gzip.compress(LINES[1000:]),
    "bgzip": bgzip_block(LINES[:30_000]) + bgzip_block(LINES[30_000:]) + BGZIP_END,
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("num_bytes", [10, 1_000, 1 << 22])
def test_blocks_are_whole_lines_however_the_file_is_packed(tmp_path: Path, kind: str, num_bytes: int) -> None:
    (tmp_path / "lines").write_bytes(PACKED[kind])
    file = TextFile(tmp_path / "lines")
    blocks = list(file.blocks(num_bytes))
    assert b"".join(block.text for block in blocks) == LINES
    assert all(block.text.endswith(b"\n") for block in blocks)
    assert [block.offset for block in blocks] == [LINES.index(block.text) for block in blocks]
    assert file.num_bytes_read == file.num_bytes == len(PACKED[kind])


def test_a_last_line_without_an_end_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"one\ntwo")
    assert [block.text for block in TextFile(tmp_path / "lines").blocks(4)] == [b"one\n", b"two"]


def test_a_line_is_found_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(PACKED["bgzip"])
    file = TextFile(tmp_path / "lines")
    assert file.line_number(0) == 1
    for number in (2, 1000, 4000):
        offset = sum(len(line) + 1 for line in LINES.split(b"\n")[: number - 1])
        assert file.line_number(offset) == number


@pytest.mark.parametrize("kind", ["gzip", "several gzip members", "bgzip"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    whole = PACKED[kind].removesuffix(BGZIP_END)
    (tmp_path / "cut.gz").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"cut.gz is truncated or damaged: .* of its {len(whole) - 100:,} bytes"):
        list(TextFile(tmp_path / "cut.gz").blocks(1 << 16))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    damaged = bytearray(PACKED["gzip"])
    damaged[len(damaged) // 2 :] = bytes(b ^ 0x55 for b in damaged[len(damaged) // 2 :])
    (tmp_path / "bad.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"bad.gz is truncated or damaged"):
        list(TextFile(tmp_path / "bad.gz").blocks(1 << 16))


def test_a_bgzip_file_cut_between_two_blocks_gives_a_warning(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(PACKED["bgzip"].removesuffix(BGZIP_END))
    with pytest.warns(UserWarning, match="lacks the empty block that ends a bgzip file"):
        blocks = list(TextFile(tmp_path / "cut.gz").blocks(1 << 22))
    assert b"".join(block.text for block in blocks) == LINES


@pytest.mark.parametrize(
    ("content", "likeness"),
    [
        (gzip.compress(b"BAM\x01\x00\x00\x00\x00", mtime=0), "it is a BAM file of aligned reads"),
        (b"CRAM\x03\x00", "it is a CRAM file"),
        (b"<!DOCTYPE html>\n<html>", "it looks like HTML or XML"),
        (gzip.compress(b"\n <html>", mtime=0), "it looks like HTML or XML"),
        (b'{"error": "not found"}', "it looks like JSON"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"BZh91AY&SY", "compressed by bzip2"),
        (b"\xfd7zXZ\x00", "compressed by xz"),
        (b"\x28\xb5\x2f\xfd\x00", "compressed by zstd"),
        (gzip.compress(b"TBI\x01\x00", mtime=0), "it is the index"),
        (b"%%MatrixMarket matrix", "it is a Matrix Market file"),
        (b"ab\x00\x01", "it is a binary file of another kind"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, content: bytes, likeness: str) -> None:
    (tmp_path / "fragments.tsv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"fragments.tsv.gz cannot be read as text: .*{likeness}"):
        TextFile(tmp_path / "fragments.tsv.gz")


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.tsv does not exist"):
        TextFile(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match="is a folder: expected a file"):
        TextFile(tmp_path)
    for content in (b"", gzip.compress(b"")):
        (tmp_path / "empty.tsv").write_bytes(content)
        with pytest.raises(ValueError, match=r"empty\.tsv is empty"):
            TextFile(tmp_path / "empty.tsv")


def test_a_line_without_end_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 3_000_000)
    with pytest.raises(ValueError, match=r"has a line of [0-9,]+ characters or more: it is no table"):
        list(TextFile(tmp_path / "long").blocks(1 << 16))


def test_the_blocks_of_this_test_are_gzip() -> None:
    assert gzip.GzipFile(fileobj=io.BytesIO(PACKED["bgzip"])).read() == LINES
