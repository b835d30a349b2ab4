"""Bulk samples in BED files."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.dataset_builders.readers.bed_files import count_bed_files, is_bed_file, read_bed_file
from epifoundation.tokenization import PeakVocabulary

PEAKS = ["chr1:100-200", "chr1:150-300", "chr2:10-20"]
NARROW_PEAK = "chr1\t180\t190\tpeak1\t55\t.\t3.2\t4.1\t2.0\t5\nchr1\t180\t190\tpeak2\t55\t.\t3.2\t4.1\t2.0\t9\n"


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_each_file_is_a_row(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "liver.bed", 'track name="x"\n# a comment\nchr1 100 101\r\n2\t5\t11\n\nchr3\t1\t5\n'),
        write(tmp_path / "heart.narrowPeak.gz", NARROW_PEAK),
        write(tmp_path / "none.broadPeak", "chr1\t300\t400\tp\t0\t.\t1\t1\t1\n"),
    ]
    counts = count_bed_files(files, PeakVocabulary.from_names(PEAKS))
    assert counts.barcodes == ["liver", "heart", "none"]
    assert counts.matrix.toarray().tolist() == [[1, 0, 1], [2, 2, 0], [0, 0, 0]]
    assert counts.num_fragments.tolist() == [3, 2, 1]
    assert counts.num_in_peaks.tolist() == [2, 2, 0]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 500), st.integers(1, 300)), min_size=1, max_size=20))
def test_intervals_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, intervals: list[tuple[int, int, int]]
) -> None:
    text = "".join(f"chr{c}\t{start}\t{start + length}\tx\n" for c, start, length in intervals)
    columns = read_bed_file(write(tmp_path_factory.mktemp("bed") / "x.bed.gz", text))
    read = zip([columns.chromosomes[code] for code in columns.codes], columns.starts, columns.ends, strict=True)
    assert list(read) == [(f"chr{c}", start, start + length) for c, start, length in intervals]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\t1\t2\nchr1\tx\t9\n", r"line 2: expected chromosome, start and end, separated by tabs, got 'chr1\\tx"),
        ("chr1\t1\t2\n\nchr1\t9\t9\n", r"line 3: expected start < end, got the start 9 and the end 9"),
        ("chr1\t1\t2\nchr1\t9\t9999999999\n", r"line 2: expected start < end, got the start 9 and the end 9,999,"),
        ("chr1\t-1\t2\n", r"line 1: expected chromosome, start and end"),
        ("# nothing\n", "holds no intervals: expected lines of chromosome, start and end"),
        ("<html>", "cannot be read as text: it looks like HTML"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_bed_file(write(tmp_path / "bad.bed", text))


def test_samples_need_names_of_their_own(tmp_path: Path) -> None:
    files = [write(tmp_path / name, NARROW_PEAK) for name in ("x.bed", "x.bed.gz")]
    with pytest.raises(ValueError, match="expected a name of its own for each of 2 files, got x, x"):
        count_bed_files(files, PeakVocabulary.from_names(PEAKS))
    counts = count_bed_files(files, PeakVocabulary.from_names(PEAKS), names=["a", "b"])
    assert counts.barcodes == ["a", "b"]


def test_samples_of_another_genome_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.integers(600, 9_400, 2_000)).tolist()
    vocabulary = PeakVocabulary.from_names(f"chr1:{start}-{start + 500}" for start in starts)
    lines = "".join(f"chr1\t{start + 61_311}\t{start + 61_811}\n" for start in starts)
    with pytest.raises(ValueError, match="the intervals seem to be of another genome than hg38"):
        count_bed_files([write(tmp_path / "x.bed", lines)], vocabulary)


def test_bed_files_are_known_by_their_names() -> None:
    names = ["a.bed", "b/c.narrowPeak.gz", "x.broadPeak", "fragments.tsv.gz", "bed", "x.h5ad"]
    assert [is_bed_file(name) for name in names] == [True, True, True, False, False, False]
