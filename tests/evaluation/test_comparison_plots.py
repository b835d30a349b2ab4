import io

import numpy as np
import pytest

from epifoundation.evaluation.comparison_plots import (
    plot_confidence,
    plot_confidences,
    plot_embedding_grid,
    plot_gene_correlations,
    plot_metric_bars,
)
from epifoundation.evaluation.report import rows_of
from epifoundation.evaluation.result_store import Result


def drawn(figure):
    """Draws it, so that what only fails then fails here."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def visible(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


def test_a_panel_per_method_for_types_and_one_below_for_batches():
    points = np.random.default_rng(0).random((6, 2))
    grid = {"LSI": points, "ours (small), fine-tuned": points + 1}
    figure = drawn(plot_embedding_grid(grid, list("TTBBTB"), list("aabbab")))
    assert [ax.get_title() for ax in figure.axes] == ["LSI", "ours\n(small)\nfine-tuned", "", ""]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "UMAP 1", "UMAP 1"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["cell type\nUMAP 2", "", "batch\nUMAP 2", ""]
    texts = [text.get_text() for ax in (figure.axes[1], figure.axes[3]) for text in ax.get_legend().get_texts()]
    assert texts == ["B (3)", "T (3)", "a (3)", "b (3)"]
    assert len(drawn(plot_embedding_grid(grid, list("TTBBTB"), ["all"] * 6)).axes) == 2


def test_a_fifth_method_goes_below_the_first():
    points = np.random.default_rng(0).random((6, 2))
    figure = drawn(plot_embedding_grid({f"m{i}": points for i in range(5)}, list("TTBBTB"), list("aabbab")))
    shown = {ax.get_title(): ax.get_subplotspec().get_geometry() for ax in visible(figure) if ax.get_title()}
    assert [place[2] for place in shown.values()] == [0, 1, 2, 3, 8]  # of 4 x 4
    assert len(visible(figure)) == 10


def test_confidence_is_written_into_the_heat_map():
    ax = plot_confidence(np.array([[0.9, 0.1], [0.04, 0.96]]), ["T", "B"], ["T", "B"])
    drawn(ax.figure)
    assert [text.get_text() for text in ax.texts] == ["0.9", "0.1", "1.0"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted type", "true type")


def test_confidences_share_a_scale():
    values = np.array([[0.9, 0.1], [0.04, 0.96]])
    figure = drawn(plot_confidences({name: (values, ["T", "B"], ["T", "B"]) for name in ("a", "b", "c")}))
    assert [ax.get_title() for ax in visible(figure)] == ["a", "b", "c", ""]
    assert visible(figure)[-1].get_ylabel() == "mean predicted probability"


def test_medians_of_correlations_by_level():
    levels = np.repeat([1.0, 2.0], 10)
    ours = np.r_[np.linspace(0, 0.2, 10), np.full(9, 0.5), np.nan]
    ax = plot_gene_correlations(levels, {"ours": ours}, num_bins=2)
    drawn(ax.figure)
    line = ax.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 2])
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.5])


@pytest.mark.parametrize("num_metrics", [1, 7])
def test_a_panel_per_metric(num_metrics):
    names = [f"M{i}" for i in range(num_metrics - 1)] + ["MSE"]
    results = [
        Result(method, method, seed, "d", dict.fromkeys(names, 0.1 * seed + 0.2), 1.0, 1.0)
        for method in ("lsi", "pca")
        for seed in range(2)
    ]
    results.append(Result("none", "none", 0, "d", {"MSE": float("nan")}, 1.0, 1.0))
    figure = drawn(plot_metric_bars(rows_of(results)))
    assert [ax.get_xlabel() for ax in visible(figure)][-1] == "MSE (less is better)"
    assert len(visible(figure)) == num_metrics
    assert [text.get_text() for text in visible(figure)[-1].texts] == ["0.250", "0.250", "not defined"]
