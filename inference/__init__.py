"""Embedding, annotating and explaining cells with a trained EpiFoundation model."""

from .alignment import AlignedCells, align_cells, align_files
from .alignment_imputation import impute_expression, impute_expression_of_file
from .annotate import annotate_cells, annotate_file
from .batching import token_budget_batches
from .carried import default_checkpoint
from .coverage import coverage_numbers, genomes_of, peak_coverage
from .embed import embed_cells, embed_file
from .expression import predict_expression, predict_expression_of_file
from .loading import load_model_and_tokenizer, load_tokenizer
from .peak_rows import load_for_peaks

__all__ = [
    "AlignedCells",
    "align_cells",
    "align_files",
    "annotate_cells",
    "annotate_file",
    "coverage_numbers",
    "default_checkpoint",
    "embed_cells",
    "embed_file",
    "genomes_of",
    "impute_expression",
    "impute_expression_of_file",
    "load_for_peaks",
    "load_model_and_tokenizer",
    "load_tokenizer",
    "peak_coverage",
    "predict_expression",
    "predict_expression_of_file",
    "token_budget_batches",
]
