from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from epifoundation.dataset_builders.genome.genome_sets import TranscriptionStarts
from epifoundation.dataset_builders.quality.fragment_quality import fragment_quality
from epifoundation.dataset_builders.quality.quality_filters import Bounds, QualityFilters
from epifoundation.evaluation.quality_plots import (
    plot_fragment_lengths,
    plot_knee,
    plot_quality,
    plot_tss_against_fragments,
)

FRAGMENTS = Path(__file__).parents[1] / "reference" / "muon_quality" / "fragments.tsv.gz"
FILTERS = QualityFilters({"num_unique_fragments": Bounds(50, 1_000), "tss_enrichment": Bounds(above=2)})


@pytest.fixture(scope="module")
def quality():
    return fragment_quality(FRAGMENTS, starts=TranscriptionStarts.of_genome("hg38"))


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_the_knee_shows_every_barcode_and_the_bounds(quality, ax):
    assert plot_knee(quality, FILTERS, ax) is ax
    knee, lower, upper = ax.lines
    assert knee.get_ydata().tolist() == quality.num_unique_fragments.tolist()
    assert (lower.get_ydata()[0], upper.get_ydata()[0]) == (50, 1_000)
    assert ax.get_ylabel() == "unique fragments"


def test_the_density_holds_every_barcode(quality, ax):
    plot_tss_against_fragments(quality, FILTERS, ax)
    assert ax.collections[0].get_array().sum() == len(quality.table)
    passing = int(FILTERS.passing(quality.table).sum())
    assert ax.get_title() == f"{passing} of 68 barcodes pass all filters"
    assert len(ax.lines) == 3


def test_lengths_are_shares_with_a_unit(quality, ax):
    plot_fragment_lengths(quality, ax)
    shares = ax.lines[0].get_ydata()
    assert shares.sum() + 100 * quality.lengths[1000] / quality.lengths.sum() == pytest.approx(100)
    assert ax.get_xlabel() == "fragment length (bp)"
    assert [line.get_xdata()[0] for line in ax.lines[1:]] == [147, 294]


def test_the_figure_has_all_three_and_two_without_starts(quality, tmp_path):
    figure = plot_quality(quality, FILTERS, "sample")
    assert sum(bool(ax.get_title()) for ax in figure.axes) == 3
    figure.savefig(tmp_path / "q.png")
    without = replace(quality, table=quality.table.drop(columns=["tss_enrichment", "tss_score"]))
    assert sum(bool(ax.get_title()) for ax in plot_quality(without, QualityFilters()).axes) == 2


def test_missing_values_are_left_out(quality, ax):
    table = quality.table.copy()
    table.iloc[:5, table.columns.get_loc("tss_enrichment")] = np.nan
    plot_tss_against_fragments(replace(quality, table=table), FILTERS, ax)
    assert ax.collections[0].get_array().sum() == len(table) - 5


def test_axes_are_made_where_there_are_none(quality):
    ax = plot_fragment_lengths(quality)
    plt.close(ax.figure)
