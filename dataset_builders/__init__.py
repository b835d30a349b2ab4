"""Readers of single-cell chromatin data, quality control, and builders of tokenised data sets."""

from .gene_annotation import gene_annotation
from .peak_files import PeakFile, PeakSource, PeakTable, open_peak_file

__all__ = [
    "PeakFile",
    "PeakSource",
    "PeakTable",
    "gene_annotation",
    "open_peak_file",
]
