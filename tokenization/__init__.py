"""From the peaks of a cell to the tokens of a model: vocabularies, overlap and the tokenizer."""

from .genomes_epifoundation import (
    CHROMOSOME_LENGTHS,
    canonical_chromosome,
    canonical_genome,
    plausible_genomes,
)
from .intervals_epifoundation import Peak, parse_peak, parse_peaks
from .tokenization_epifoundation import Coverage, PeakTokenizer
from .vocabulary_epifoundation import (
    NUM_SPECIAL_TOKENS,
    SPECIAL_TOKENS,
    GeneVocabulary,
    PeakMapping,
    PeakVocabulary,
)

# A saved tokenizer carries its own code, so that it also opens where this package is not installed.
PeakTokenizer.register_for_auto_class("AutoTokenizer")

__all__ = [
    "CHROMOSOME_LENGTHS",
    "NUM_SPECIAL_TOKENS",
    "SPECIAL_TOKENS",
    "Coverage",
    "GeneVocabulary",
    "Peak",
    "PeakMapping",
    "PeakTokenizer",
    "PeakVocabulary",
    "canonical_chromosome",
    "canonical_genome",
    "parse_peak",
    "parse_peaks",
    "plausible_genomes",
]
