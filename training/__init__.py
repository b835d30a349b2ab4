"""Training: batches from tokenised cells, starting values, the Trainer, and whole runs (`training.runs`)."""

from epifoundation.dataset_builders.tokenized.gene_ranks import typical_gene_counts
from epifoundation.training.batches import CellBatchSampler
from epifoundation.training.collators import (
    AlignmentCollator,
    BulkCollator,
    ClassificationCollator,
    ExpressionCollator,
)
from epifoundation.training.contrastive import ContrastiveCollator, ImputationCollator
from epifoundation.training.expression import expression_levels, log_normalized
from epifoundation.training.initialization import init_cell_projection, init_gene_bias, init_peak_embeddings
from epifoundation.training.self_supervision import CombinedCollator, MaskedPeaksCollator, ReplacedPeaksCollator
from epifoundation.training.trainer import EpiFoundationTrainer, balanced_class_weights
from epifoundation.training.triplets import TripletCollator

__all__ = [
    "AlignmentCollator",
    "BulkCollator",
    "CellBatchSampler",
    "ClassificationCollator",
    "CombinedCollator",
    "ContrastiveCollator",
    "EpiFoundationTrainer",
    "ExpressionCollator",
    "ImputationCollator",
    "MaskedPeaksCollator",
    "ReplacedPeaksCollator",
    "TripletCollator",
    "balanced_class_weights",
    "expression_levels",
    "init_cell_projection",
    "init_gene_bias",
    "init_peak_embeddings",
    "log_normalized",
    "typical_gene_counts",
]
