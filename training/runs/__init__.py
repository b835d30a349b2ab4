"""Whole runs: pre-training and fine-tunings, from a folder of tokenised cells to a checkpoint.

A run that was ended, however, goes on from its last complete checkpoint when it is started again with the same
settings, and ends with the same weights.
"""

from epifoundation.training.runs.annotation import finetune_bulk, finetune_classification
from epifoundation.training.runs.embedding import finetune_batch_correction, finetune_clustering
from epifoundation.training.runs.genes import finetune_expression
from epifoundation.training.runs.modalities import finetune_contrastive, finetune_imputation
from epifoundation.training.runs.pretraining import pretrain
from epifoundation.training.runs.running import summary

__all__ = [
    "finetune_batch_correction",
    "finetune_bulk",
    "finetune_classification",
    "finetune_clustering",
    "finetune_contrastive",
    "finetune_expression",
    "finetune_imputation",
    "pretrain",
    "summary",
]
