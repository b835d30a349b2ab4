"""What a comparison leaves in its folder: tables, figures, and results in a model card."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from epifoundation.evaluation.classification import mean_probabilities
from epifoundation.evaluation.comparison_plots import (
    plot_confidences,
    plot_embedding_grid,
    plot_gene_correlations,
    plot_metric_bars,
)
from epifoundation.evaluation.model_index import add_to_card, eval_results
from epifoundation.evaluation.plots import umap
from epifoundation.evaluation.result_store import ResultStore

from .report import Comparison
from .tasks import OURS

DPI = 130


def leave_files(comparison: Comparison, output: Path, card: Path | None) -> list[str]:
    """Write the report and the figures, and the results of the first model into a card if one is named.

    Returns:
        Names of the files in `output`.

    Raises:
        ValueError: if there is no model among the results, but a card to write them into.
    """
    comparison.report.write(output, comparison.task)
    names = [f"{comparison.task}{ending}" for ending in (".md", ".csv", ".json")]
    if card is not None:
        _write_card(comparison, card)
    if find_spec("matplotlib") is None or find_spec("umap") is None:
        warnings.warn('there are no figures, which need: pip install "epifoundation[plot]"', stacklevel=2)
        return names
    arrays = _arrays_of_first_seed(comparison, output)
    figures = {"metrics": plot_metric_bars(comparison.report.rows)}
    figures |= FIGURES[comparison.task](comparison, arrays)
    for name, figure in figures.items():
        _save(figure, output / f"{comparison.task}_{name}.png")
    return names + [f"{comparison.task}_{name}.png" for name in figures]


def _arrays_of_first_seed(comparison: Comparison, output: Path) -> dict[str, dict[str, np.ndarray]]:
    store, seed = ResultStore(output / "results" / comparison.task), comparison.splits[0].seed
    methods = [result for result in comparison.results if result.seed == seed]
    return {result.title: store.arrays(result.method, seed) for result in methods}


def _embedding_figures(comparison: Comparison, arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    test = comparison.splits[0].test
    coordinates = {title: umap(saved["embedding"]) for title, saved in arrays.items()}
    return {"umap": plot_embedding_grid(coordinates, test.cell_types, test.batches)}


def _annotation_figures(comparison: Comparison, arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    truth, maps = comparison.splits[0].test.cell_types, {}
    for title, saved in arrays.items():
        types = saved["types"].tolist()
        maps[title] = (*mean_probabilities(truth, saved["probabilities"], types), types)
    return {"confidence": plot_confidences(maps)}


def _expression_figures(comparison: Comparison, arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    from matplotlib.figure import Figure

    split = comparison.splits[0]
    levels = np.asarray(split.levels[split.test_rows].mean(axis=0)).ravel()
    is_expressed = levels > 0  # the axis is logarithmic
    correlations = {title: saved["pearson"][is_expressed] for title, saved in arrays.items()}
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    plot_gene_correlations(levels[is_expressed], correlations, figure.subplots())
    return {"genes": figure}


FIGURES: dict[str, Callable[[Comparison, dict[str, dict[str, np.ndarray]]], dict[str, Any]]] = {
    "batch": _embedding_figures,
    "ablation": _embedding_figures,
    "annotation": _annotation_figures,
    "expression": _expression_figures,
}


def _save(figure: Any, path: Path) -> None:
    partial = path.with_name(f".{path.name}")
    try:
        figure.savefig(partial, dpi=DPI, format="png")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_card(comparison: Comparison, card: Path) -> None:
    ours = [row for row in comparison.report.rows if row.method.startswith(OURS)]
    if not ours:
        raise ValueError("no model is among the results, so there is nothing to write into a card")
    data = comparison.splits[0].data.name
    add_to_card(card, eval_results(ours[0], comparison.task, data, comparison.held_out))
