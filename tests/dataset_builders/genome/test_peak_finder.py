"""Peaks under intervals, against comparing all with all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.dataset_builders.genome.peak_finder import PeakFinder
from epifoundation.tokenization import PeakVocabulary

CHROMOSOMES = ("chr1", "chr2", "chrX")
INTERVALS = st.tuples(st.integers(0, 2), st.integers(0, 120), st.integers(1, 60))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(INTERVALS, min_size=1, max_size=15, unique=True), st.lists(INTERVALS, max_size=15), st.integers(0, 10**6)
)
def test_all_overlapping_pairs_are_found(
    peaks: list[tuple[int, int, int]], queries: list[tuple[int, int, int]], seed: int
) -> None:
    # the peaks of a vocabulary may overlap, lie within each other, and stand in any order
    codes, starts, lengths = (np.array(column, dtype=np.int32) for column in zip(*peaks, strict=True))
    vocabulary = PeakVocabulary("made up", CHROMOSOMES, codes, starts, starts + lengths)
    expected = [
        (i, j)
        for i, (code, start, length) in enumerate(queries)
        for j, (peak_code, peak_start, peak_length) in enumerate(peaks)
        if code == peak_code and start < peak_start + peak_length and peak_start < start + length
    ]
    columns = np.array(queries, dtype=np.int32).reshape(-1, 3).T
    found = PeakFinder(vocabulary).pairs(columns[0].astype(np.int64), columns[1], columns[1] + columns[2])
    assert sorted(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_chromosomes_are_known_in_any_spelling() -> None:
    vocabulary = PeakVocabulary.from_names(["chr1:10-20", "chrX:5-9", "chrM:1-2"])
    names = ["1", "chr1", "NC_000001.11", "chrX", "MT", "chr2", "GL000195.1"]
    codes = [
        vocabulary.chromosomes[code] if code >= 0 else "" for code in PeakFinder(vocabulary).chromosome_codes(names)
    ]
    assert codes == ["chr1", "chr1", "chr1", "chrX", "chrM", "", ""]
