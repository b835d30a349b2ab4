"""Evaluation of embeddings: metrics and pictures."""

from epifoundation.evaluation.plots import plot_cells, umap
from epifoundation.evaluation.probes import ProbeScores, cross_validated_probes, transferred_probes

__all__ = ["ProbeScores", "cross_validated_probes", "plot_cells", "transferred_probes", "umap"]
