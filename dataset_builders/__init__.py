"""Readers of single-cell chromatin data, quality control, and builders of tokenised data sets.

What needs the libraries `datasets` or `anndata` is imported when it is first asked for, so that reading files stays
quick and small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .genome.gene_annotation import gene_annotation

if TYPE_CHECKING:
    from .clustering.clusters import cluster_cells
    from .clustering.reference_labels import label_clusters, read_reference
    from .curation.peak_calling import call_peaks
    from .curation.preparation import PreparationReport, PreparationSettings, prepare
    from .curation.sample_preparation import Sample
    from .genome.genome_sets import MergedIntervals, TranscriptionStarts
    from .matrices.remapping import remap_file, remap_peaks
    from .quality.fragment_quality import FragmentQuality, fragment_quality
    from .quality.quality_filters import QualityFilters
    from .readers.fragment_counts import VocabularyCounts, count_fragments
    from .readers.fragment_files import FragmentBatch, FragmentFile
    from .readers.peak_files import PeakFile, PeakSource, PeakTable, open_peak_file
    from .tokenized.features import cell_features
    from .tokenized.mini_atlas import MiniAtlas
    from .tokenized.paired_cells import PairedCells
    from .tokenized.splits import split_cells
    from .tokenized.stored_cells import load_cells, save_cells

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
    "FragmentBatch": "readers.fragment_files",
    "FragmentFile": "readers.fragment_files",
    "FragmentQuality": "quality.fragment_quality",
    "MergedIntervals": "genome.genome_sets",
    "MiniAtlas": "tokenized.mini_atlas",
    "PairedCells": "tokenized.paired_cells",
    "PeakFile": "readers.peak_files",
    "PeakSource": "readers.peak_files",
    "PeakTable": "readers.peak_files",
    "PreparationReport": "curation.preparation",
    "PreparationSettings": "curation.preparation",
    "QualityFilters": "quality.quality_filters",
    "Sample": "curation.sample_preparation",
    "TranscriptionStarts": "genome.genome_sets",
    "VocabularyCounts": "readers.fragment_counts",
    "call_peaks": "curation.peak_calling",
    "cell_features": "tokenized.features",
    "cluster_cells": "clustering.clusters",
    "count_fragments": "readers.fragment_counts",
    "fragment_quality": "quality.fragment_quality",
    "label_clusters": "clustering.reference_labels",
    "load_cells": "tokenized.stored_cells",
    "open_peak_file": "readers.peak_files",
    "prepare": "curation.preparation",
    "read_reference": "clustering.reference_labels",
    "remap_file": "matrices.remapping",
    "remap_peaks": "matrices.remapping",
    "save_cells": "tokenized.stored_cells",
    "split_cells": "tokenized.splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
