"""Pictures of the quality of the barcodes of a fragment file."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from epifoundation.dataset_builders.quality.fragment_quality import (
    LONGEST_LENGTH,
    MONONUCLEOSOMAL,
    NUCLEOSOME_FREE,
    FragmentQuality,
)
from epifoundation.dataset_builders.quality.quality_filters import NUM_ATAC, Bounds, QualityFilters

from .plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_BINS = 60


def plot_quality(quality: FragmentQuality, filters: QualityFilters, title: str = "") -> "Figure":
    """Knee, TSS enrichment against fragments, and fragment lengths, side by side, with the bounds of `filters`.

    Without starts of transcription the picture in the middle is left out.
    """
    from matplotlib.figure import Figure

    has_tss = "tss_enrichment" in quality.table
    figure = Figure(figsize=(13.5 if has_tss else 9, 4), layout="constrained")
    axes = list(figure.subplots(1, 3 if has_tss else 2))
    plot_knee(quality, filters, axes.pop(0))
    if has_tss:
        plot_tss_against_fragments(quality, filters, axes.pop(0))
    plot_fragment_lengths(quality, axes.pop(0))
    figure.suptitle(title)
    return figure


def plot_knee(quality: FragmentQuality, filters: QualityFilters, ax: "Axes | None" = None) -> "Axes":
    """Unique fragments of each barcode, the richest first; cells are the plateau before the knee."""
    ax = _axes(ax)
    counts = quality.num_unique_fragments
    ax.loglog(np.arange(1, len(counts) + 1), counts, color=COLOURS[0], linewidth=2)
    _draw_bounds(filters.bounds.get(NUM_ATAC), ax.axhline)
    ax.set(xlabel="barcodes, the richest first", ylabel="unique fragments", title=f"{len(counts):,} barcodes")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)
    return ax


def plot_tss_against_fragments(quality: FragmentQuality, filters: QualityFilters, ax: "Axes | None" = None) -> "Axes":
    """Density of the barcodes of the table by unique fragments and TSS enrichment."""
    ax = _axes(ax)
    table = quality.table.dropna(subset="tss_enrichment")
    counts, tss = table[NUM_ATAC].to_numpy(float), table["tss_enrichment"].to_numpy(float)
    highest = max(float(np.quantile(tss, 0.999)) * 1.1, 2.0) if len(tss) else 2.0
    drawn = ax.hexbin(
        counts, np.minimum(tss, highest), gridsize=NUM_BINS, xscale="log", bins="log", mincnt=1, linewidths=0.1
    )
    ax.figure.colorbar(drawn, ax=ax, label="barcodes")
    _draw_bounds(filters.bounds.get(NUM_ATAC), ax.axvline)
    _draw_bounds(filters.bounds.get("tss_enrichment"), ax.axhline)
    passing = int(filters.passing(quality.table).sum())
    name = f"{passing:,} of {len(quality.table):,} barcodes pass all filters"
    ax.set(xlabel="unique fragments", ylabel="TSS enrichment (Signac)", title=name, ylim=(0, highest * 1.02))
    return ax


def plot_fragment_lengths(quality: FragmentQuality, ax: "Axes | None" = None) -> "Axes":
    """Share of the fragments by length; the waves are fragments around one, two ... nucleosomes."""
    ax = _axes(ax)
    shares = 100 * quality.lengths / max(1, quality.lengths.sum())
    ax.fill_between(np.arange(LONGEST_LENGTH), shares[:LONGEST_LENGTH], color=COLOURS[5], linewidth=0)
    ax.plot(np.arange(LONGEST_LENGTH), shares[:LONGEST_LENGTH], color=COLOURS[0], linewidth=1)
    for length, style in ((NUCLEOSOME_FREE, "--"), (MONONUCLEOSOMAL, ":")):
        ax.axvline(length, color="black", linestyle=style, linewidth=1, label=f"{length} bp")
    longer = f"{shares[LONGEST_LENGTH]:.1f} % are {LONGEST_LENGTH:,} bp or longer"
    ax.set(xlabel="fragment length (bp)", ylabel="fragments (%)", title=longer, xlim=(0, LONGEST_LENGTH))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def _draw_bounds(bounds: Bounds | None, draw: Callable[..., Any]) -> None:
    """Draw finite bounds by ``ax.axhline`` or ``ax.axvline``."""
    for name, style in (("above", "--"), ("below", ":")):
        value = np.inf if bounds is None else getattr(bounds, name)
        if np.isfinite(value):
            draw(value, color="black", linestyle=style, linewidth=1, label=f"{name} {value:,g}")
