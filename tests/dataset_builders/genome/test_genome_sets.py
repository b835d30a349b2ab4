import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.dataset_builders.genome.genome_sets import (
    MergedIntervals,
    TranscriptionStarts,
    num_overlapping_peaks,
)
from epifoundation.tokenization import PeakVocabulary
from epifoundation.tokenization.intervals_epifoundation import global_positions

stretch = st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(1, 20))


@given(intervals=st.lists(stretch, max_size=12), queries=st.lists(stretch, min_size=1, max_size=12))
def test_overlap_is_that_of_base_pairs(intervals, queries):
    codes, starts, lengths = np.array(intervals, dtype=np.int64).reshape(-1, 3).T
    merged = MergedIntervals.from_columns(["chr1", "2"], codes, starts, starts + lengths)
    covered = {(c, p) for c, s, n in intervals for p in range(s, s + n)}
    assert (np.diff(merged.starts) > 0).all()
    assert (merged.starts[1:] > merged.ends[:-1]).all(), "those that touch are one"
    assert int((merged.ends - merged.starts).sum()) == len(covered)
    names = merged.codes(["1", "chr2"])
    of_query = [names[c] for c, _, _ in queries]
    begin = global_positions(np.array(of_query), np.array([s for _, s, _ in queries]))
    end = global_positions(np.array(of_query), np.array([s + n for _, s, n in queries]))
    expected = [any((c, p) in covered for p in range(s, s + n)) for c, s, n in queries]
    assert merged.overlaps(begin, end).tolist() == expected


def test_a_bed_file_is_read_in_any_spelling(tmp_path):
    (tmp_path / "b.bed").write_text("1\t10\t20\tHigh Signal Region\nchr1\t15\t30\tx\n")
    merged = MergedIntervals.from_bed(tmp_path / "b.bed")
    assert (merged.ends - merged.starts).tolist() == [20]
    with pytest.raises(FileNotFoundError):
        MergedIntervals.from_bed(tmp_path / "no.bed")


def test_starts_of_transcription_of_hg38():
    starts = TranscriptionStarts.of_genome("hg38")
    assert 19_000 < len(starts.positions) <= 19_452
    # GAPDH, on the forward strand, and ACTB, on the reverse
    known = {(starts.chromosomes[c], p) for c, p in zip(starts.codes, starts.positions.tolist(), strict=True)}
    assert {("chr12", 6_534_511), ("chr7", 5_563_900)} <= known
    with pytest.raises(ValueError, match="no table of genes for 'mm10', only for hg38"):
        TranscriptionStarts.of_genome("mm10")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["chr1:0-10", "chr1:10-20", "chr2:0-10"], 0),
        (["chr1:0-100", "chr1:10-20", "chr1:30-40", "chr1:100-200"], 2),
        (["chr1:0-10", "chr1:0-20"], 1),
    ],
)
def test_overlapping_peaks_are_counted(names, expected):
    assert num_overlapping_peaks(PeakVocabulary.from_names(names)) == expected


def test_windows_end_at_the_beginning_of_a_chromosome():
    windows = TranscriptionStarts.from_columns(["chr1", "chr1"], [5, 400]).windows(100)
    assert (windows.starts.tolist(), windows.ends.tolist()) == ([0, 300], [106, 501])
