"""Evaluation of embeddings and predictions: metrics and pictures."""

from epifoundation.evaluation.checks import refuse_other_cells, shared_genes, types_of_one_batch
from epifoundation.evaluation.classification import (
    ClassificationScores,
    classification_scores,
    expected_calibration_error,
    mean_probabilities,
)
from epifoundation.evaluation.clustering import ClusteringScores, best_nmi
from epifoundation.evaluation.embedding_metrics import EMBEDDING_METRICS, embedding_metrics
from epifoundation.evaluation.expression import ExpressionScores, expression_scores
from epifoundation.evaluation.graph_connectivity import graph_connectivity
from epifoundation.evaluation.hf_metrics import HF_METRICS, hf_metric_script
from epifoundation.evaluation.knn_purity import knn_purity
from epifoundation.evaluation.lisi import batch_lisi, cell_type_lisi, lisi
from epifoundation.evaluation.neighbors import Neighbors, nearest_neighbors
from epifoundation.evaluation.plots import plot_cells, umap
from epifoundation.evaluation.probes import ProbeScores, cross_validated_probes, transferred_probes
from epifoundation.evaluation.silhouette import (
    batch_silhouette,
    cell_type_silhouette,
    isolated_label_silhouette,
    overall_batch_silhouette,
    silhouette_samples,
)

__all__ = [
    "EMBEDDING_METRICS",
    "HF_METRICS",
    "ClassificationScores",
    "ClusteringScores",
    "ExpressionScores",
    "Neighbors",
    "ProbeScores",
    "batch_lisi",
    "batch_silhouette",
    "best_nmi",
    "cell_type_lisi",
    "cell_type_silhouette",
    "classification_scores",
    "cross_validated_probes",
    "embedding_metrics",
    "expected_calibration_error",
    "expression_scores",
    "graph_connectivity",
    "hf_metric_script",
    "isolated_label_silhouette",
    "knn_purity",
    "lisi",
    "mean_probabilities",
    "nearest_neighbors",
    "overall_batch_silhouette",
    "plot_cells",
    "refuse_other_cells",
    "shared_genes",
    "silhouette_samples",
    "transferred_probes",
    "types_of_one_batch",
    "umap",
]
