"""Training: batches from tokenised cells, starting values, the Trainer."""

from epifoundation.training.collators import AlignmentCollator
from epifoundation.training.initialization import init_cell_projection, init_gene_bias, init_peak_embeddings
from epifoundation.training.trainer import EpiFoundationTrainer

__all__ = [
    "AlignmentCollator",
    "EpiFoundationTrainer",
    "init_cell_projection",
    "init_gene_bias",
    "init_peak_embeddings",
]
