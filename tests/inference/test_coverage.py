import numpy as np
import pytest

from epifoundation.dataset_builders import open_peak_file
from epifoundation.inference import coverage_numbers, genomes_of, peak_coverage


def test_the_coverage_is_counted_by_hand(adata, tokenizer):
    coverage = peak_coverage(adata, tokenizer)
    is_known = np.arange(60) % 10 > 0
    is_open = adata.X.toarray() > 0
    assert (coverage.num_peaks, coverage.num_matched_peaks) == (60, 54)
    np.testing.assert_array_equal(coverage.num_entries_per_cell, is_open.sum(1))
    np.testing.assert_array_equal(coverage.num_matched_entries_per_cell, is_open[:, is_known].sum(1))
    assert coverage.num_empty_cells == (is_open[:, is_known].sum(1) == 0).sum() >= 1


def test_a_path_a_file_and_an_anndata_say_the_same_in_any_blocks(adata, peaks_file, tokenizer):
    expected = coverage_numbers(peak_coverage(adata, tokenizer))
    for size in (1, 100, 10**6):
        assert coverage_numbers(peak_coverage(peaks_file, tokenizer, max_entries_per_block=size)) == expected
    with open_peak_file(peaks_file) as file:
        assert coverage_numbers(peak_coverage(file, tokenizer)) == expected


def test_no_coverage_is_a_result_not_an_error(adata, tokenizer):
    adata.var_names = [f"chr9:{i + 1}-{i + 2}" for i in range(60)]
    coverage = peak_coverage(adata, tokenizer)
    assert coverage.num_matched_entries == 0
    assert coverage.num_empty_cells == 40


def test_the_tokenizer_of_the_caller_keeps_its_coverage(adata, tokenizer):
    tokenizer(adata[:3])
    before = tokenizer.coverage
    peak_coverage(adata, tokenizer)
    assert tokenizer.coverage is before


def test_numbers_of_cells_without_open_peaks_are_not_a_number(adata, tokenizer):
    adata.X = adata.X * 0
    numbers = coverage_numbers(peak_coverage(adata, tokenizer))
    assert numbers["num_entries"] == 0
    assert np.isnan(numbers["entries_share"])
    assert np.isnan(numbers["cells_share_50_percent"])


def test_genomes_are_told_by_their_chromosomes():
    assert genomes_of(["chr1:100-200"])[0] == "hg38"
    assert genomes_of(["chr17-83000000-83000400", "22:1-2"]) == ("hg38",)
    assert genomes_of(["chr22:1-2"]) == ("hg38", "hg19")
    assert genomes_of(["chr1:900000000-900000400"]) == ()


def test_bad_values_are_refused(adata, tokenizer):
    adata.X.data[0] = -1
    with pytest.raises(ValueError, match=r"1 of .* values are negative"):
        peak_coverage(adata, tokenizer)
