"""Chromosome names and lengths of the genome assemblies in common use.

Lengths in base pairs, after the sequence tables of the UCSC genome browser as collected by the
``bioframe`` package (MIT). Only assembled chromosomes are listed; scaffolds pass through unchecked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

UNKNOWN_CHROMOSOME = "unknown"


def _lengths(text: str) -> dict[str, int]:
    """Lengths by name of the numbered chromosomes in order, then X, Y and M."""
    lengths = [int(word) for word in text.split()]
    labels = [*map(str, range(1, len(lengths) - 2)), "X", "Y", "M"]
    return {f"chr{label}": length for label, length in zip(labels, lengths, strict=True)}


CHROMOSOME_LENGTHS: Mapping[str, Mapping[str, int]] = {
    "hg38": _lengths(
        "248956422 242193529 198295559 190214555 181538259 170805979 159345973 145138636 138394717 "
        "133797422 135086622 133275309 114364328 107043718 101991189 90338345 83257441 80373285 58617616 "
        "64444167 46709983 50818468 156040895 57227415 16569"
    ),
    "hg19": _lengths(
        "249250621 243199373 198022430 191154276 180915260 171115067 159138663 146364022 141213431 "
        "135534747 135006516 133851895 115169878 107349540 102531392 90354753 81195210 78077248 59128983 "
        "63025520 48129895 51304566 155270560 59373566 16571"
    ),
    "mm10": _lengths(
        "195471971 182113224 160039680 156508116 151834684 149736546 145441459 129401213 124595110 "
        "130694993 122082543 120129022 120421639 124902244 104043685 98207768 94987271 90702639 61431566 "
        "171031299 91744698 16299"
    ),
    "mm39": _lengths(
        "195154279 181755017 159745316 156860686 151758149 149588044 144995196 130127694 124359700 "
        "130530862 121973369 120092757 120883175 125139656 104073951 98008968 95294699 90720763 61420004 "
        "169476592 91455967 16299"
    ),
}

_GENOME_ALIASES = {"grch38": "hg38", "grch37": "hg19", "grcm38": "mm10", "grcm39": "mm39"}

# A RefSeq accession keeps its number from one assembly to the next and only its version changes, so
# NC_000001.10 (hg19) and NC_000001.11 (hg38) are both chromosome 1. Mitochondria have their own numbers.
_HUMAN_ACCESSIONS = {number: str(number) for number in range(1, 23)} | {23: "X", 24: "Y"}
_MOUSE_ACCESSIONS = {66 + number: str(number) for number in range(1, 20)} | {86: "X", 87: "Y"}
_MITOCHONDRIA = {12920: "M", 1807: "M", 5089: "M"}
_ACCESSIONS = {**_HUMAN_ACCESSIONS, **_MOUSE_ACCESSIONS, **_MITOCHONDRIA}

_MAIN_CHROMOSOME = re.compile(r"(?:chr)?([1-9][0-9]?|[XYM]|MT)", re.IGNORECASE)
_ACCESSION = re.compile(r"NC_0*([0-9]+)(?:\.[0-9]+)?", re.IGNORECASE)
_NUMBERED = re.compile(r"chr([0-9]+)")


def canonical_genome(name: str) -> str:
    """Name of an assembly as UCSC writes it: ``GRCh38`` and ``HG38`` become ``hg38``; others are kept."""
    lowered = name.strip().lower()
    lowered = re.sub(r"\.?p[0-9]+$", "", lowered)  # a patch release leaves the chromosomes as they are
    lowered = _GENOME_ALIASES.get(lowered, lowered)
    return lowered if lowered in CHROMOSOME_LENGTHS else name


def canonical_chromosome(name: str) -> str:
    """Name of a chromosome as UCSC writes it.

    ``1``, ``Chr1`` and ``NC_000001.11`` become ``chr1``; ``MT`` becomes ``chrM``. Scaffolds and anything
    else keep the name they came with.
    """
    if (main := _MAIN_CHROMOSOME.fullmatch(name)) is not None:
        label = main[1].upper()
        return "chrM" if label == "MT" else f"chr{label}"
    accession = _ACCESSION.fullmatch(name)
    if accession is not None and int(accession[1]) in _ACCESSIONS:
        return f"chr{_ACCESSIONS[int(accession[1])]}"
    return name


def chromosome_sort_key(name: str) -> tuple[int, int, str]:
    """Key that sorts canonical names as readers expect: chr1 ... chr22, X, Y, M, then the rest by name."""
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        return (0, int(numbered[1]), name)
    letters = ("chrX", "chrY", "chrM")
    return (1, letters.index(name), name) if name in letters else (2, 0, name)


class GenomeFit(NamedTuple):
    """How a set of peaks lies on one assembly.

    Attributes:
        genome: name of the assembly.
        num_known: peaks on a chromosome of the assembly.
        num_beyond: peaks that end beyond the end of their chromosome.
        num_foreign: peaks on a main chromosome that the assembly does not have, such as chr21 in a mouse.
            Scaffolds are not counted: their lengths are not known here.
    """

    genome: str
    num_known: int
    num_beyond: int
    num_foreign: int

    @property
    def fits(self) -> bool:
        """Whether the assembly can hold these peaks."""
        return self.num_known > 0 and self.num_beyond == 0 and self.num_foreign == 0


def chromosome_ends(chromosomes: Sequence[str], genome: str) -> np.ndarray:
    """Length of each chromosome in `genome` (chromosomes,), int64; -1 where it is not known."""
    lengths = CHROMOSOME_LENGTHS.get(genome, {})
    return np.array([lengths.get(name, -1) for name in chromosomes], dtype=np.int64)


def fit_genome(genome: str, chromosomes: Sequence[str], codes: np.ndarray, ends: np.ndarray) -> GenomeFit:
    """Compare peaks with the chromosome lengths of one of the known assemblies.

    Args:
        genome: a key of `CHROMOSOME_LENGTHS`.
        chromosomes: canonical names.
        codes: (peaks,) index of each peak's chromosome in `chromosomes`.
        ends: (peaks,) end of each peak in base pairs, not included.
    """
    lengths = chromosome_ends(chromosomes, genome)
    foreign = np.array([_MAIN_CHROMOSOME.fullmatch(name) is not None for name in chromosomes], dtype=bool)
    foreign &= lengths < 0
    peak_lengths = lengths[codes]
    known = peak_lengths >= 0
    return GenomeFit(
        genome,
        num_known=int(known.sum()),
        num_beyond=int((known & (ends > peak_lengths)).sum()),
        num_foreign=int(foreign[codes].sum()),
    )


def plausible_genomes(chromosomes: Sequence[str], ends: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """Names of the known assemblies that can hold these peaks, hg38 first; often more than one.

    Args:
        chromosomes: chromosome of each peak, in any accepted spelling.
        ends: (peaks,) end of each peak in base pairs, not included.
    """
    code_of: dict[str, int] = {}
    codes = np.array([code_of.setdefault(name, len(code_of)) for name in chromosomes], dtype=np.int64)
    names = [canonical_chromosome(name) for name in code_of]
    return fitting_genomes(names, codes, np.asarray(ends))


def fitting_genomes(chromosomes: Sequence[str], codes: np.ndarray, ends: np.ndarray) -> tuple[str, ...]:
    """Like `plausible_genomes`, for peaks whose chromosomes are already `codes` into canonical names."""
    fits = (fit_genome(genome, chromosomes, codes, ends) for genome in CHROMOSOME_LENGTHS)
    return tuple(fit.genome for fit in fits if fit.fits)


def explain_genome_mismatch(genome: str, chromosomes: Sequence[str], codes: np.ndarray, ends: np.ndarray) -> str | None:
    """One clause on why these peaks cannot be of `genome`, and of which assembly they may be.

    Returns:
        Text such as "the peaks fit the chromosome lengths of mm10, not of hg38 (312 peaks lie beyond the end
        of the chromosome)"; None if they fit or nothing is known about `genome`.
    """
    if genome not in CHROMOSOME_LENGTHS:
        return None
    fit = fit_genome(genome, chromosomes, codes, ends)
    reasons = []
    if fit.num_beyond:
        reasons.append(f"{_peaks_lie(fit.num_beyond)} beyond the end of the chromosome")
    if fit.num_foreign:
        reasons.append(f"{_peaks_lie(fit.num_foreign)} on a chromosome that {genome} does not have")
    if not reasons:
        return None
    others = fitting_genomes(chromosomes, codes, ends)
    if not others:
        return f"the peaks fit neither {genome} ({' and '.join(reasons)}) nor another assembly known here"
    fitting = " or ".join(others)
    return f"the peaks fit the chromosome lengths of {fitting}, not of {genome} ({' and '.join(reasons)})"


def _peaks_lie(count: int) -> str:
    return "1 peak lies" if count == 1 else f"{count:,} peaks lie"
