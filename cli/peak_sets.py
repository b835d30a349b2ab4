"""The option ``--peaks``: a BED file or the peaks of a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from .reporting import quiet_libraries

if TYPE_CHECKING:
    from epifoundation.tokenization import PeakTokenizer, PeakVocabulary

BED_ENDINGS = (".bed", ".narrowPeak", ".broadPeak")


def peaks_of(name: str, genome: str) -> "PeakTokenizer | PeakVocabulary":
    """The peaks of a BED file, or the tokenizer of a checkpoint in a folder or on the Hub.

    Raises:
        FileNotFoundError: if it is neither.
        ValueError: if the file holds no peaks of this genome.
    """
    path = Path(name)
    if path.is_file() or path.name.removesuffix(".gz").endswith(BED_ENDINGS):
        return _peaks_of_bed(path, genome)
    from epifoundation.inference import load_tokenizer

    quiet_libraries()
    return load_tokenizer(name)


def _peaks_of_bed(path: Path, genome: str) -> "PeakVocabulary":
    from epifoundation.dataset_builders.readers.bed_files import read_bed_file
    from epifoundation.tokenization import PeakVocabulary

    try:
        return PeakVocabulary.from_bed(path, genome)
    except ValueError as error:
        read_bed_file(path)  # names the line, if a single one is to blame
        raise ValueError(f"{path}: {error}") from error


def vocabulary_of(name: str, genome: str) -> "PeakVocabulary":
    """Like `peaks_of`, the peaks alone."""
    from epifoundation.tokenization import PeakTokenizer

    peaks = peaks_of(name, genome)
    return peaks.vocabulary if isinstance(peaks, PeakTokenizer) else peaks
