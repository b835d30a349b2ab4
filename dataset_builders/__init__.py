"""Readers of single-cell chromatin data, quality control, and builders of tokenised data sets.

What needs the libraries `datasets` or `anndata` is imported when it is first asked for, so that reading files stays
quick and small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .gene_annotation import gene_annotation

if TYPE_CHECKING:
    from .clusters import cluster_cells
    from .features import cell_features
    from .fragment_counts import VocabularyCounts, count_fragments
    from .fragment_files import FragmentBatch, FragmentFile
    from .genome_sets import MergedIntervals, TranscriptionStarts
    from .mini_atlas import MiniAtlas
    from .paired_cells import PairedCells
    from .peak_calling import call_peaks
    from .peak_files import PeakFile, PeakSource, PeakTable, open_peak_file
    from .preparation import PreparationReport, PreparationSettings, prepare
    from .quality import FragmentQuality, fragment_quality
    from .quality_filters import QualityFilters
    from .reference_labels import label_clusters, read_reference
    from .remapping import remap_file, remap_peaks
    from .sample_preparation import Sample
    from .splits import split_cells
    from .stored_cells import load_cells, save_cells

__all__ = [
    "FragmentBatch",
    "FragmentFile",
    "FragmentQuality",
    "MergedIntervals",
    "MiniAtlas",
    "PairedCells",
    "PeakFile",
    "PeakSource",
    "PeakTable",
    "PreparationReport",
    "PreparationSettings",
    "QualityFilters",
    "Sample",
    "TranscriptionStarts",
    "VocabularyCounts",
    "call_peaks",
    "cell_features",
    "cluster_cells",
    "count_fragments",
    "fragment_quality",
    "gene_annotation",
    "label_clusters",
    "load_cells",
    "open_peak_file",
    "prepare",
    "read_reference",
    "remap_file",
    "remap_peaks",
    "save_cells",
    "split_cells",
]

_MODULES = {
    "FragmentBatch": "fragment_files",
    "FragmentFile": "fragment_files",
    "FragmentQuality": "quality",
    "MergedIntervals": "genome_sets",
    "MiniAtlas": "mini_atlas",
    "PairedCells": "paired_cells",
    "PeakFile": "peak_files",
    "PeakSource": "peak_files",
    "PeakTable": "peak_files",
    "PreparationReport": "preparation",
    "PreparationSettings": "preparation",
    "QualityFilters": "quality_filters",
    "Sample": "sample_preparation",
    "TranscriptionStarts": "genome_sets",
    "VocabularyCounts": "fragment_counts",
    "call_peaks": "peak_calling",
    "cell_features": "features",
    "cluster_cells": "clusters",
    "count_fragments": "fragment_counts",
    "fragment_quality": "quality",
    "label_clusters": "reference_labels",
    "load_cells": "stored_cells",
    "open_peak_file": "peak_files",
    "prepare": "preparation",
    "read_reference": "reference_labels",
    "remap_file": "remapping",
    "remap_peaks": "remapping",
    "save_cells": "stored_cells",
    "split_cells": "splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
