"""Fragment files, against an obvious reader of lines."""

import gzip
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.dataset_builders import FragmentFile

REFERENCE = Path(__file__).parents[2] / "reference" / "pbmc_fragments"
LINES = "chr1\t10\t200\tAAA-1\t2\nchr2\t5\t60\tCCC-1\t1\nchr1\t0\t7\tAAA-1\t1\n"
BEYOND = "the fragment ends at 248,956,423, beyond the 248,956,422 base pairs of {} in hg38: check the genome"


class Line(NamedTuple):
    chromosome: str
    start: int
    end: int
    barcode: str | None
    count: int


def read(file: FragmentFile) -> list[Line]:
    """All fragments, with names in place of ids."""
    lines = []
    for batch in file:
        assert all(column.dtype == np.int32 for column in batch)
        for chromosome, start, end, barcode, count in zip(*(column.tolist() for column in batch), strict=True):
            name = file.barcodes[barcode] if barcode >= 0 else None
            lines.append(Line(file.chromosomes[chromosome], start, end, name, count))
    return lines


def read_plainly(text: str) -> list[Line] | int:
    """The same line by line; the number of the first bad line if there is one."""
    lines, num_columns = [], 0
    for number, line in enumerate(re.split("\r?\n", text), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        num_columns = num_columns or len(fields)
        if len(fields) != num_columns or len(fields) < 4 or not fields[0] or not fields[3]:
            return number
        numbers = [fields[1], fields[2], fields[4] if len(fields) > 4 else "1"]
        if not all(re.fullmatch("-?[0-9]+", field) for field in numbers):
            return number
        start, end, count = map(int, numbers)
        if not (0 <= start < end < 2**31 and 1 <= count < 2**31):
            return number
        lines.append(Line(fields[0], start, end, fields[3], count))
    return lines


def write(folder: Path, text: str, name: str = "fragments.tsv") -> Path:
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


NUMBERS = st.one_of(st.integers(0, 300), st.integers(-3, 3), st.sampled_from([2**31 - 1, 2**31, 10**12]))
FIELDS = st.one_of(NUMBERS.map(str), st.sampled_from(["", "1.5", "+3", "a", "007", "-", "1e3", '"4"']))
SOUND = st.tuples(
    st.sampled_from(["chr1", "2", "NC_000001.11", "chrUn_x"]),
    st.integers(0, 100).map(str),
    st.integers(101, 2**31 - 1).map(str),
    st.sampled_from(["AAA-1", "CCC-1", "G", "ü", '"T"', "with space"]),
    st.integers(1, 9).map(str),
)
ODD = st.tuples(st.sampled_from(["chr1", ""]), FIELDS, FIELDS, st.sampled_from(["AAA-1", ""]), FIELDS)
COMMENTS = st.sampled_from(["", "  ", "# comment", "#chr1\t1\t2\tAAA-1\t1", "\t"])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_text_is_read_as_line_by_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    num_columns = data.draw(st.sampled_from([4, 5, 5, 7]))
    rows = data.draw(st.lists(st.one_of(SOUND, SOUND, SOUND, COMMENTS, ODD), max_size=12))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    texts = [row if isinstance(row, str) else "\t".join([*row, "x", "y"][:num_columns]) for row in rows]
    text = "\n".join(["chr9\t1\t2\tTTT-1\t1\tx\ty".rsplit("\t", 7 - num_columns)[0], *texts]).replace("\n", end)
    text += data.draw(st.sampled_from(["", end]))
    name = data.draw(st.sampled_from(["fragments.tsv", "fragments.tsv.gz"]))
    path = write(tmp_path_factory.mktemp("fuzz"), text, name)
    file = FragmentFile(path, block_bytes=data.draw(st.sampled_from([1, 30, 100, 1 << 20])))
    expected = read_plainly(text)
    if isinstance(expected, int):
        with pytest.raises(ValueError, match=rf"{path.name}, line {expected}: "):
            read(file)
    else:
        assert read(file) == expected
        assert list(dict.fromkeys(line.barcode for line in expected)) == file.barcodes


def test_the_real_file_is_read_as_line_by_line() -> None:
    path = REFERENCE / "fragments.tsv.gz"
    assert read(FragmentFile(path, block_bytes=10_000)) == read_plainly(gzip.decompress(path.read_bytes()).decode())


def test_chromosomes_and_barcodes_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = FragmentFile(write(tmp_path, LINES))
    read(file)
    assert file.chromosomes == ["chr1", "chr2"]
    assert file.barcodes == ["AAA-1", "CCC-1"]
    assert file.num_bytes_read == file.num_bytes
    assert read(file) == read_plainly(LINES), "a second time"


def test_only_wanted_barcodes_have_an_id(tmp_path: Path) -> None:
    file = FragmentFile(write(tmp_path, LINES), barcodes=["TTT-1", "CCC-1", "CCC-1"])
    assert file.barcodes == ["TTT-1", "CCC-1"]
    assert [line.barcode for line in read(file)] == [None, "CCC-1", None]


def test_a_prefix_stands_before_each_barcode_and_picks_the_wanted_ones(tmp_path: Path) -> None:
    path = write(tmp_path, LINES)
    assert [line.barcode for line in read(FragmentFile(path, prefix="s1_"))] == ["s1_AAA-1", "s1_CCC-1", "s1_AAA-1"]
    file = FragmentFile(path, prefix="s1_", barcodes=["s2_AAA-1", "s1_CCC-1"])
    assert [line.barcode for line in read(file)] == [None, "s1_CCC-1", None]
    with pytest.raises(ValueError, match=r"no wanted barcode of .* begins with its prefix 's3_': they are AAA-1"):
        FragmentFile(path, prefix="s3_", barcodes=["AAA-1"])


def test_barcodes_that_match_none_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path, LINES)
    message = (
        "none of the 2 wanted barcodes: it has barcodes like AAA-1, CCC-1, wanted are ones like GGG-1, TTT-1; check"
    )
    with pytest.raises(ValueError, match=message):
        read(FragmentFile(path, barcodes=["GGG-1", "TTT-1"]))
    with pytest.raises(ValueError, match="only those end with a number after '-': add or remove it"):
        read(FragmentFile(path, barcodes=["GGG", "TTT"]))
    with pytest.raises(ValueError, match="only these end with a number after '-': add or remove it"):
        read(FragmentFile(write(tmp_path, "chr1\t10\t20\tAAA\t1\n"), barcodes=["GGG-1"]))
    with pytest.raises(TypeError, match="got the single text 'AAA-1': put it in a list"):
        FragmentFile(path, barcodes="AAA-1")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("chr1\t30\t30\tA\t1", "expected 0 <= start < end, got the start 30 and the end 30"),
        ("chr1\t30\t20\tA\t1", "expected 0 <= start < end, got the start 30 and the end 20"),
        ("chr1\t-3\t20\tA\t1", "expected 0 <= start < end, got the start -3 and the end 20"),
        ("chr1\t3\t20\tA\t0", "expected at least 1 read, got 0"),
        ("chrUn_x\t3\t2147483648\tA\t1", "the fragment ends at 2,147,483,648, beyond what a chromosome can measure"),
        ("chr1\t3.5\t20\tA\t1", "expected chromosome, start, end, barcode and number of reads, separated by tabs, got"),
        ("chr1 3 20 A 1", "expected 5 columns as in the first line, got 1: 'chr1 3 20 A 1'"),
        ("chr1\t3\t20\tA", "expected 5 columns as in the first line, got 4"),
        ("chr1\t3\t20\t\t1", "there is no barcode"),
        ("\t3\t20\tA\t1", "there is no chromosome"),
        (
            "chr1\t3\t248956423\tA\t1",
            BEYOND.format("chr1"),
        ),
        (
            "1\t3\t248956423\tA\t1",
            BEYOND.format("1"),
        ),
    ],
)
@pytest.mark.parametrize("block_bytes", [20, 1 << 20])
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str, block_bytes: int) -> None:
    path = write(tmp_path, f"# a comment\n{LINES}\n{line}\n{LINES}", "bad.tsv.gz")
    with pytest.raises(ValueError, match=re.escape(f"bad.tsv.gz, line 6: {problem}")):
        read(FragmentFile(path, genome="GRCh38", block_bytes=block_bytes))


def test_a_fragment_may_end_with_its_chromosome_and_on_unknown_ones_anywhere(tmp_path: Path) -> None:
    text = "chr1\t3\t248956422\tA\t1\nchrUn_KI270742v1\t3\t999999999\tA\t1\n"
    assert read(FragmentFile(write(tmp_path, text), genome="hg38")) == read_plainly(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# only\n# comments\n", "holds no fragments: expected lines of chromosome, start, end, barcode"),
        ("chr1\t1\t2\n", "has no barcodes: .* if it is bulk data, a file for each sample, let its name end with .bed"),
        ("chr1 1 2 A 1\n", "is no fragment file: expected chromosome, start, end, .* got 'chr1 1 2 A 1'"),
    ],
)
def test_files_without_fragments_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FragmentFile(write(tmp_path, text))


def test_a_header_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fragments.tsv, line 1: expected chromosome, start"):
        read(FragmentFile(write(tmp_path, "chrom\tstart\tend\tbarcode\tcount\n" + LINES)))
