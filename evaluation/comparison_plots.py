"""Figures of a comparison: embeddings side by side, confidence by type, genes, and all metrics at a glance."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import COLOURS, MARKERS
from .report import LESS_IS_BETTER, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("-", "--", ":", "-.")
PANELS_PER_ROW = 5
METHODS_PER_ROW, MAPS_PER_ROW = 4, 2
NUM_LAYERS = 12
LEGEND_ROWS = 22
MIN_GENES_PER_BIN = 10


def plot_embedding_grid(coordinates: Mapping[str, np.ndarray], cell_types: Any, batches: Any) -> "Figure":
    """The same cells by each method: cell types above, batches below; four methods side by side, then further down.

    Args:
        coordinates: title of a method -> (cells, 2), such as `umap` gives.
        cell_types: one per cell.
        batches: one per cell; they are left out where all are the same.
    """
    from matplotlib.figure import Figure

    kinds = [("cell type", np.asarray(cell_types, dtype=str)), ("batch", np.asarray(batches, dtype=str))]
    kinds = [(name, labels) for name, labels in kinds if name == "cell type" or len(set(labels)) > 1]
    num_columns = min(METHODS_PER_ROW, len(coordinates))
    num_rows = len(kinds) * -(-len(coordinates) // num_columns)
    figure = Figure(figsize=(2.7 * num_columns + 2.2, 2.8 * num_rows + 0.2), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    for place, (title, points) in enumerate(coordinates.items()):
        block, column = divmod(place, num_columns)
        for below, (name, labels) in enumerate(kinds):
            ax = axes[block * len(kinds) + below, column]
            ax.set_visible(True)
            draw_cells(points, labels, ax)
            ax.set(xticks=[], yticks=[], xlabel="UMAP 1" if below == len(kinds) - 1 else "")
            ax.set(ylabel=f"{name}\nUMAP 2" if column == 0 else "")
            ax.set_title("" if below else _in_lines(title), fontsize=9)
    for ax, (name, labels) in zip(axes[:, -1], kinds, strict=False):
        _draw_legend(ax, f"{name} (cells)", len(set(labels)))
    return figure


def plot_confidences(predictions: Mapping[str, tuple[np.ndarray, Sequence[str], Sequence[str]]]) -> "Figure":
    """A heat map of each method, two side by side, with one scale of colours.

    Args:
        predictions: title of a method -> probabilities, rows and columns of `plot_confidence`.
    """
    from matplotlib.figure import Figure

    num_columns = min(MAPS_PER_ROW, len(predictions))
    num_rows = -(-len(predictions) // num_columns)
    num_types = max(len(names) for _, rows, columns in predictions.values() for names in (rows, columns))
    size = 2.2 + 0.25 * num_types
    figure = Figure(figsize=(size * num_columns + 0.8, size * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for ax in axes.flat[len(predictions) :]:
        ax.set_visible(False)
    for ax, (title, prediction) in zip(axes.flat, predictions.items(), strict=False):
        _draw_confidence(*prediction, ax, title)
    figure.colorbar(axes.flat[0].images[0], ax=axes, label="mean predicted probability", shrink=0.7)
    return figure


def plot_confidence(
    probabilities: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: "Axes | None" = None, title: str = ""
) -> "Axes":
    """A heat map of what each true type is taken for: the mean probability of each class (the paper's figure 3).

    Args:
        probabilities: (types, classes) as `mean_probabilities` gives.
        rows: true types.
        columns: classes.
        ax: where to draw; by default new axes.
        title: above the picture.
    """
    ax = _draw_confidence(probabilities, rows, columns, _axes(ax), title)
    ax.figure.colorbar(ax.images[0], ax=ax, label="mean predicted probability")
    return ax


def plot_gene_correlations(
    mean_levels: np.ndarray, correlations: Mapping[str, np.ndarray], ax: "Axes | None" = None, num_bins: int = 10
) -> "Axes":
    """Correlation of predicted and measured levels by how strongly genes are expressed: medians, and middle halves.

    Genes are binned into as many groups of equal size by their mean level.

    Args:
        mean_levels: (genes,) mean measured level.
        correlations: title of a method -> (genes,) Pearson correlations across cells; NaN is left out.
        ax: where to draw; by default new axes.
        num_bins: groups of genes at most.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    ax = _axes(ax)
    num_bins = max(1, min(num_bins, len(mean_levels) // MIN_GENES_PER_BIN))
    groups = np.array_split(np.argsort(mean_levels, kind="stable"), num_bins)
    centres = [float(np.median(mean_levels[group])) for group in groups]
    for i, (title, values) in enumerate(correlations.items()):
        quartiles = np.array([_quartiles(values[group]) for group in groups])
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
        ax.plot(centres, quartiles[:, 1], marker=MARKERS[i % len(MARKERS)], label=title, **style)
        ax.fill_between(centres, quartiles[:, 0], quartiles[:, 2], color=style["color"], alpha=0.12, linewidth=0)
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set(xlabel="mean level of the gene (0 to 9)", ylabel="Pearson correlation per gene", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        title="line: median of genes,\nband: middle half",
        title_fontsize=8,
    )
    return ax


def plot_metric_bars(rows: Sequence[Row]) -> "Figure":
    """All metrics of all methods: a panel per metric, a bar per method, its spread over seeds as a line."""
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    num_columns = min(PANELS_PER_ROW, len(metrics))
    num_lines = -(-len(metrics) // num_columns)
    size = (2.2 * num_columns + 2.6, (0.26 * len(rows) + 0.9) * num_lines)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(num_lines, num_columns, squeeze=False, sharey=True).ravel()
    places = np.arange(len(rows))[::-1]
    for metric, ax in zip(metrics, axes, strict=False):
        spreads = [row.metrics.get(metric) for row in rows]
        means = np.array([np.nan if spread is None else spread.mean for spread in spreads])
        errors = np.array([np.nan if spread is None else spread.deviation for spread in spreads])
        ax.barh(places, np.nan_to_num(means), xerr=errors, color=COLOURS[0], ecolor="k", height=0.7, capsize=2)
        ends = np.nan_to_num(means) + np.nan_to_num(errors)
        highest, lowest = max(ends.max(), 1e-9), min(0.0, np.nanmin(np.append(means - np.nan_to_num(errors), 0)))
        ax.set_xlim(lowest, highest + 0.45 * (highest - lowest))  # numbers stand at the right of the bars
        ax.set_xticks([tick for tick in ax.get_xticks() if lowest <= tick <= highest])
        for place, mean in zip(places, means, strict=True):
            text = f"{mean:.3f}" if np.isfinite(mean) else "not defined"
            ax.text(0.98, place, text, va="center", ha="right", fontsize=7, transform=ax.get_yaxis_transform())
        ax.set_xlabel(f"{metric} ({'less' if metric in LESS_IS_BETTER else 'more'} is better)", fontsize=8)
        ax.set_yticks(places, [row.title for row in rows], fontsize=8)
        ax.tick_params(axis="x", labelsize=7)
    for ax in axes[len(metrics) :]:
        ax.set_visible(False)
    return figure


def draw_cells(points: np.ndarray, labels: np.ndarray, ax: "Axes") -> None:
    """A colour and a marker per label, in layers of cells drawn by chance: no label lies on top of all others."""
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(codes))
    for layer, members in enumerate(np.array_split(order, NUM_LAYERS)):
        for i, (name, count) in enumerate(zip(names, counts, strict=True)):
            chosen = members[codes[members] == i]
            ax.scatter(
                points[chosen, 0],
                points[chosen, 1],
                s=_size(len(labels)),
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
                linewidths=0,
                alpha=0.8,
                label="" if layer else f"{name} ({count})",
            )


def _draw_confidence(
    probabilities: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: "Axes", title: str
) -> "Axes":
    ax.imshow(probabilities, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    ax.set(xlabel="predicted type", ylabel="true type")
    ax.set_title(title, fontsize=10)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    for i, row in enumerate(probabilities):
        for j, value in enumerate(row):
            if value >= 0.1:  # cividis is dark below its middle
                ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color="w" if value < 0.5 else "k")
    return ax


def _draw_legend(ax: Any, title: str, num_labels: int) -> None:
    columns = -(-num_labels // LEGEND_ROWS)
    legend = ax.legend(
        title=title, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=7, ncols=columns
    )
    for handle in legend.legend_handles:
        handle.set_sizes([24])


def _in_lines(title: str) -> str:
    """A title over several lines: what stands in brackets, and what follows, on lines of their own."""
    return title.replace("), ", ")\n").replace(" (", "\n(")


def _quartiles(values: np.ndarray) -> np.ndarray:
    known = values[~np.isnan(values)]
    return np.quantile(known, [0.25, 0.5, 0.75]) if len(known) else np.full(3, np.nan)


def _size(num_cells: int) -> float:
    """Area of a marker in square points; below 5 some shapes are no longer drawn."""
    return float(np.clip(16_000 / num_cells, 5, 14))


def _axes(ax: "Axes | None") -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()
