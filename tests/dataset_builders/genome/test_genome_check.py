"""Telling another genome from the data."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from epifoundation.dataset_builders import count_fragments
from epifoundation.dataset_builders.genome.genome_check import peaks_by_chance, refuse_other_genome
from epifoundation.tokenization import PeakVocabulary

NUM_PEAKS = 2_000


@pytest.fixture(scope="module")
def peaks() -> list[tuple[int, int]]:
    """Peaks of 500 bp, in irregular distances of about 5,000 bp."""
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.integers(600, 9_400, NUM_PEAKS)) + 200_000
    return [(start, start + 500) for start in starts.tolist()]


@pytest.fixture(scope="module")
def vocabulary(peaks: list[tuple[int, int]]) -> PeakVocabulary:
    return PeakVocabulary.from_names(f"chr1:{start}-{end}" for start, end in peaks)


def write_fragments(folder: Path, peaks: list[tuple[int, int]], shift: int) -> Path:
    """Fragments of which half lie in peaks, all moved along the chromosome."""
    rng = np.random.default_rng(1)
    inside = [peaks[i][0] + int(rng.integers(0, 400)) for i in rng.integers(0, len(peaks), 2_000)]
    starts = inside + rng.integers(200_000, peaks[-1][1], 2_000).tolist()
    lines = "".join(f"1\t{start + shift}\t{start + shift + 200}\tA\t1\n" for start in starts)
    (folder / "fragments.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    return folder / "fragments.tsv.gz"


def test_fragments_of_the_genome_are_counted(
    tmp_path: Path, peaks: list[tuple[int, int]], vocabulary: PeakVocabulary
) -> None:
    counts = count_fragments(write_fragments(tmp_path, peaks, 0), vocabulary)
    assert counts.report.share_in_peaks > 0.5


@pytest.mark.parametrize("shift", [-64_620, 11_311, 180_000])
def test_fragments_of_a_shifted_genome_are_refused_with_the_figures(
    tmp_path: Path, peaks: list[tuple[int, int]], vocabulary: PeakVocabulary, shift: int
) -> None:
    path = write_fragments(tmp_path, peaks, shift)
    message = (
        r"the fragments seem to be of another genome than hg38 \(hg19 perhaps\), .*: 1[0-9]\.[0-9]% of the fragments "
        r"overlap a peak of the vocabulary \(hg38\), 1[0-9]\.[0-9]% would if they lay 25 to 50 thousand base pairs"
    )
    with pytest.raises(ValueError, match=message):
        count_fragments(path, vocabulary)
    assert count_fragments(path, vocabulary, check_genome=False).report.share_in_peaks < 0.2


def test_too_few_fragments_are_not_judged(tmp_path: Path, vocabulary: PeakVocabulary) -> None:
    start = int(vocabulary.starts[0])
    lines = f"chr1\t{start}\t{start + 10}\tA\t1\n" + "chr1\t5\t9\tA\t1\n" * 500
    (tmp_path / "few.tsv").write_text(lines)
    assert count_fragments(tmp_path / "few.tsv", vocabulary).report.num_in_peaks == 1


def test_a_vocabulary_that_covers_the_genome_tells_nothing(tmp_path: Path, peaks: list[tuple[int, int]]) -> None:
    tiles = PeakVocabulary.from_names(f"chr1:{start}-{start + 5000}" for start in range(0, 20_000_000, 5000))
    counts = count_fragments(write_fragments(tmp_path, peaks, 11_311), tiles)
    assert counts.report.share_in_peaks == 1


def test_fragments_that_lie_in_no_peak_at_all_are_refused(tmp_path: Path, vocabulary: PeakVocabulary) -> None:
    (tmp_path / "none.tsv").write_text("chr1\t1\t9\tA\t1\nchrom7\t1\t9\tA\t1\nchrom7\t1\t9\tA\t1\n")
    message = (
        r"none of the 3 fragments overlaps a peak .*\(hg38\); 2 lie on .* without a peak in it, such as chrom7 \(2\)"
    )
    with pytest.raises(ValueError, match=message):
        count_fragments(tmp_path / "none.tsv", vocabulary)


def test_peaks_of_another_genome_are_refused(peaks: list[tuple[int, int]], vocabulary: PeakVocabulary) -> None:
    own = [(start - 100, end + 50) for start, end in peaks[::2]]
    found = peaks_by_chance([f"chr1-{start}-{end}" for start, end in own], vocabulary)
    assert found.num_intervals == found.num_inside == 1000
    assert 0.1 < found.num_beside / 1000 < 0.3
    refuse_other_genome(found, "peaks", vocabulary)
    found = peaks_by_chance([f"chr1-{start + 11_311}-{end + 11_311}" for start, end in own], vocabulary)
    with pytest.raises(ValueError, match=r"the peaks seem to be of another genome than hg38 .*% of the peaks overlap"):
        refuse_other_genome(found, "peaks", vocabulary)


def test_windows_side_by_side_are_not_judged(vocabulary: PeakVocabulary) -> None:
    names = [f"chr1:{start}-{start + 500}" for start in range(0, 10_000_000, 500)]
    assert peaks_by_chance(names, vocabulary).num_intervals == 0
    refuse_other_genome(peaks_by_chance(names, vocabulary), "peaks", vocabulary)
