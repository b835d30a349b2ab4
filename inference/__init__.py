"""Embedding, annotating and explaining cells with a trained EpiFoundation model."""

from .batching import token_budget_batches
from .coverage import coverage_numbers, genomes_of, peak_coverage
from .embed import embed_cells, embed_file
from .loading import load_model_and_tokenizer, load_tokenizer

__all__ = [
    "coverage_numbers",
    "embed_cells",
    "embed_file",
    "genomes_of",
    "load_model_and_tokenizer",
    "load_tokenizer",
    "peak_coverage",
    "token_budget_batches",
]
