"""Training: batches from tokenised cells, starting values, the Trainer, and whole runs (`training.runs`)."""

from epifoundation.training.batches import CellBatchSampler
from epifoundation.training.collators import AlignmentCollator, ClassificationCollator, ExpressionCollator
from epifoundation.training.expression import expression_levels, log_normalized
from epifoundation.training.initialization import init_cell_projection, init_gene_bias, init_peak_embeddings
from epifoundation.training.trainer import EpiFoundationTrainer, balanced_class_weights

__all__ = [
    "AlignmentCollator",
    "CellBatchSampler",
    "ClassificationCollator",
    "EpiFoundationTrainer",
    "ExpressionCollator",
    "balanced_class_weights",
    "expression_levels",
    "init_cell_projection",
    "init_gene_bias",
    "init_peak_embeddings",
    "log_normalized",
]
