import numpy as np
import pandas as pd
import pytest

from epifoundation.dataset_builders.quality.quality_filters import Bounds, QualityFilters

TABLE = pd.DataFrame(
    {
        "num_unique_fragments": [1_000, 1_001, 99_999, 100_000, 5_000, 5_000, 5_000],
        "nucleosome_signal": [1, 1, 1, 1, 2, 1, np.nan],
        "tss_enrichment": [2, 2, 2, 2, 2, 1, 2],
    },
    index=list("abcdefg"),
)


def test_the_six_filters_of_the_paper():
    paper = QualityFilters.named("paper")
    assert list(TABLE.index[paper.passing(TABLE)]) == ["b", "c"]
    assert paper.not_applied(TABLE) == ["num_rna_counts"]
    rna = TABLE.assign(num_rna_counts=[0, 1_000, 24_999, 0, 0, 0, 0])
    assert list(rna.index[paper.passing(rna)]) == ["c"]
    bounds = [value for bounds in paper.as_mapping().values() for value in bounds.values()]
    assert sorted(bounds) == [1, 2, 1_000, 1_000, 25_000, 100_000]


def test_none_lets_all_pass():
    assert QualityFilters.named("none").passing(TABLE).all()


def test_a_file_gives_other_bounds(tmp_path):
    (tmp_path / "f.yaml").write_text("tss_enrichment: {above: 1}\nnucleosome_signal: {above: 0.5, below: 2}\n")
    filters = QualityFilters.named(tmp_path / "f.yaml")
    assert filters.bounds["nucleosome_signal"] == Bounds(0.5, 2)
    assert filters == QualityFilters.from_mapping(filters.as_mapping())
    assert list(TABLE.index[filters.passing(TABLE)]) == ["a", "b", "c", "d"]


def test_the_report_shows_counts_and_distributions():
    lines = QualityFilters.named("paper").report(TABLE)
    assert lines[0] == "num_rna_counts: not applied, it was not measured"
    assert lines[1].startswith("num_unique_fragments above 1,000 and below 100,000: 5 of 7 pass (5 %, median, 95 %: ")


def test_too_few_passing_barcodes_are_an_error_with_the_distribution():
    filters = QualityFilters({"tss_enrichment": Bounds(above=5)})
    with pytest.raises(
        ValueError,
        match=r"f\.tsv: 0 of 7 barcodes pass quality control, expected 1 or more: tss_enrichment above 5: 0 of 7 pass "
        r"\(5 %, median, 95 %: 1\.3, 2, 2\)\. Choose other bounds with --qc FILE\.yaml",
    ):
        filters.kept(TABLE, "f.tsv")
    assert len(QualityFilters().kept(TABLE, "f.tsv", at_least=7)) == 7
    with pytest.raises(ValueError, match=r"7 of 7 barcodes pass .* expected 8 or more: ask for fewer fragments of a"):
        QualityFilters().kept(TABLE, "f.tsv", at_least=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tss: {above: 1}", "there is no measure 'tss': expected some of num_unique_fragments, "),
        ("tss_enrichment: 1", "expected 'above' and 'below' with a number each for tss_enrichment, got 1"),
        ("tss_enrichment: {over: 1}", "expected 'above' and 'below'"),
        ("tss_enrichment: {above: yes}", "expected 'above' and 'below'"),
        ("tss_enrichment: {above: 3, below: 2}", "no value of tss_enrichment can be above 3 and below 2"),
        ("- 1", "expected lines such as"),
        ("a: [", "is no YAML file"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"f\.yaml.*{message}"):
        QualityFilters.named(tmp_path / "f.yaml")


def test_an_unknown_name_is_refused():
    with pytest.raises(FileNotFoundError, match="papr does not exist: expected 'paper', 'none' or a YAML file"):
        QualityFilters.named("papr")
