import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.tokenization.intervals_epifoundation import (
    Peak,
    best_overlap,
    global_positions,
    overlapping_pairs,
    parse_peak,
    parse_peaks,
)

CHROMOSOMES = [
    "chr1",
    "chr22",
    "chrX",
    "chrM",
    "GL000194.1",
    "chrUn_KI270442v1",
    "chr1_KI270706v1_random",
    "A-b_1-c:d",
]


@pytest.mark.parametrize(
    "name",
    ["chr1:100-200", "chr1-100-200", "chr1_100_200", "1:100-200", "1-100-200", "1_100_200", "CHR1:100_200"],
)
def test_all_accepted_forms_name_the_same_peak(name):
    assert parse_peak(name) == Peak("chr1", 100, 200)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(CHROMOSOMES),
            st.integers(0, 2**31 - 2),
            st.integers(1, 10_000),
            st.sampled_from([":-", "--", "__", ":_", "-_"]),
        ),
        max_size=30,
    )
)
def test_reading_undoes_writing_even_where_scaffolds_hold_separators(peaks):
    expected = [(chromosome, start, min(start + width, 2**31 - 1)) for chromosome, start, width, _ in peaks]
    names = [f"{c}{form[0]}{s}{form[1]}{e}" for (c, s, e), (*_, form) in zip(expected, peaks, strict=True)]
    columns = parse_peaks(names)
    found = zip((columns.chromosomes[k] for k in columns.codes), columns.starts, columns.ends, strict=True)
    assert list(found) == expected
    assert columns.starts.dtype == columns.ends.dtype == columns.codes.dtype == np.int32


def test_spellings_of_one_chromosome_share_a_code():
    columns = parse_peaks(["1:1-2", "chr1:1-2", "NC_000001.11:1-2", "2:1-2"])
    assert columns.chromosomes == ("chr1", "chr2")
    assert columns.codes.tolist() == [0, 0, 0, 1]


def test_a_list_longer_than_a_block_keeps_its_order():
    columns = parse_peaks([f"chr{1 + i % 3}:{i}-{i + 5}" for i in range(25_000)])
    assert columns.chromosomes == ("chr1", "chr2", "chr3")
    np.testing.assert_array_equal(columns.starts, np.arange(25_000))
    np.testing.assert_array_equal(columns.codes, np.arange(25_000) % 3)


@pytest.mark.parametrize(
    "name",
    [
        "TP53",
        "",
        "chr1",
        "chr1:100",
        "chr1:-5-10",
        "chr1:a-b",
        "chr1:1.5-2",
        "chr1:1-2 ",
        ":1-2",
        "a\nchr1:1-2",
    ],
)
def test_what_is_no_peak_is_refused_with_the_accepted_forms(name):
    with pytest.raises(ValueError, match=r"(?s)cannot read .* as peaks: expected names like 'chr1:100-200'"):
        parse_peaks(["chr1:1-2", name])


def test_a_name_with_a_line_break_does_not_make_up_for_a_bad_one():
    with pytest.raises(ValueError, match="cannot read"):
        parse_peaks(["chr1:1-2\nchr1:3-4", "bad"])


def test_the_error_shows_the_first_bad_names_and_counts_the_others():
    with pytest.raises(ValueError, match="cannot read 'A', 'B', 'C' and 2 more as peaks"):
        parse_peaks(["chr1:1-2", *"ABCDE"])


@pytest.mark.parametrize("name", ["chr1:200-200", "chr1:200-100"])
def test_an_empty_peak_is_refused(name):
    with pytest.raises(ValueError, match=f"empty: '{name}'; the start of a peak must lie before its end"):
        parse_peak(name)


@pytest.mark.parametrize("end", [2**31, 9_999_999_999])
def test_a_coordinate_beyond_int32_is_refused(end):
    with pytest.raises(ValueError, match="exceed 2,147,483,647"):
        parse_peak(f"chr1:5-{end}")


def test_a_single_text_in_place_of_a_list_is_refused():
    with pytest.raises(TypeError, match="put it in a list"):
        parse_peaks("chr1:1-2")


def test_names_that_are_no_texts_are_refused():
    with pytest.raises(TypeError, match="expected peak names as text, got 7 of type int"):
        parse_peaks(["chr1:1-2", 7])


def test_positions_sort_by_chromosome_then_coordinate():
    positions = global_positions(np.array([1, 0], np.int32), np.array([0, 2**31 - 1], np.int32))
    assert positions[1] < positions[0]


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=25)


def bounds(drawn):
    starts = np.array([start for start, _ in drawn], dtype=np.int64)
    return starts, starts + np.array([width for _, width in drawn], dtype=np.int64)


@given(intervals, intervals)
def test_the_pairs_are_those_found_by_comparing_everything(queries, references):
    found = zip(*overlapping_pairs(*bounds(queries), *bounds(references)), strict=True)
    expected = [
        (i, j, min(s + w, t + v) - max(s, t))
        for i, (s, w) in enumerate(queries)
        for j, (t, v) in enumerate(references)
        if s < t + v and t < s + w
    ]
    assert sorted(found) == expected


@given(intervals, intervals)
def test_the_best_reference_is_the_one_found_by_comparing_everything(queries, references):
    def rank(s, w, j):
        t, v = references[j]
        shared = min(s + w, t + v) - max(s, t)
        return shared, min(shared / w, shared / v), -j

    expected = []
    for s, w in queries:
        overlapping = [j for j, (t, v) in enumerate(references) if s < t + v and t < s + w]
        expected.append(max(overlapping, key=lambda j: rank(s, w, j), default=-1))
    assert best_overlap(*bounds(queries), *bounds(references)).tolist() == expected


@given(intervals.filter(bool))
def test_the_very_same_coordinates_always_win(references):
    best = best_overlap(*bounds(references), *bounds(references))
    assert [references[j] for j in best] == references


def test_neighbours_that_touch_do_not_overlap():
    queries, _, _ = overlapping_pairs(*bounds([(10, 5)]), *bounds([(5, 5), (15, 5)]))
    assert len(queries) == 0
