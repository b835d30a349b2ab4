"""The fixed sets of peaks and genes that a model knows, and how a user's own names map onto them.

Ids 0 to 3 are the special tokens, in the order of the official vocabularies; then peak k has id 4 + k, and so
have gene k among the genes and chromosome k among the chromosomes.
"""

import csv
import gzip
import hashlib
import io
import itertools
import json
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np

from .genomes_epifoundation import (
    CHROMOSOME_LENGTHS,
    UNKNOWN_CHROMOSOME,
    canonical_chromosome,
    canonical_genome,
    chromosome_sort_key,
    explain_genome_mismatch,
    fitting_genomes,
)
from .intervals_epifoundation import (
    MAX_COORDINATE,
    Peak,
    PeakColumns,
    best_overlap,
    columns_of_fields,
    global_positions,
    parse_peaks,
)

SPECIAL_TOKENS = ("[PAD]", "[MASK]", "[CLS]", "[EOS]")
PAD_ID, MASK_ID, CLS_ID, EOS_ID = range(4)
NUM_SPECIAL_TOKENS = len(SPECIAL_TOKENS)
OFFICIAL_SPECIAL_TOKENS = ("<pad>", "<mask>", "<cls>", "<eos>")

# Below this share of matched peaks (or entries of the matrix) the data are likely of another kind or genome.
LOW_COVERAGE = 0.5

_FORMAT_VERSION = 1
_ENSEMBL_GENE = re.compile(r"(ENS[A-Z]*G[0-9]{11})(?:\.[0-9]+)?")
_BED_LINE = re.compile(r"(\S+)[ \t]+([0-9]{1,10})[ \t]+([0-9]{1,10})(?:\s.*)?")
_BED_HEADERS = ("#", "track", "browser")


@dataclass(frozen=True, eq=False)
class PeakMapping:
    """Where each of a user's peaks lies in a vocabulary; made once per file, used for each block of cells.

    Attributes:
        ids: (peaks,) int32 token id of each of the user's peaks, in their order; -1 where none overlaps.
        num_exact: peaks with the very coordinates of their peak in the vocabulary.
        vocabulary_digest: `PeakVocabulary.digest()` of the vocabulary, so that a mapping is not used with
            another.
        advice: what is likely the matter if few peaks match, and what to do.
    """

    ids: np.ndarray
    num_exact: int
    vocabulary_digest: str
    advice: str = ""

    @property
    def num_peaks(self) -> int:
        """Number of the user's peaks."""
        return len(self.ids)

    @cached_property
    def num_matched(self) -> int:
        """Number of the user's peaks that overlap a peak of the vocabulary."""
        return int((self.ids >= 0).sum())

    @cached_property
    def num_duplicates(self) -> int:
        """Number of the user's peaks that share their id with an earlier one."""
        return self.num_matched - len(np.unique(self.ids[self.ids >= 0]))

    @property
    def share(self) -> float:
        """Matched peaks over all peaks, NaN if there are none."""
        return self.num_matched / self.num_peaks if self.num_peaks else float("nan")

    @cached_property
    def digest(self) -> str:
        """A short text that two mappings share only if they say the same."""
        content = hashlib.sha256(self.vocabulary_digest.encode())
        content.update(self.ids.astype("<i4").tobytes())
        return content.hexdigest()[:16]


class PeakVocabulary:
    """The peaks a model knows, in the order of their ids. Immutable.

    Attributes:
        genome: assembly of the coordinates, such as "hg38". Names other than the known four are allowed; the
            ends of the chromosomes are then not checked.
        chromosomes: canonical names; chromosome k has the id 4 + k.
        chromosome_codes: (peaks,) int32, index into `chromosomes`.
        starts: (peaks,) int32, in base pairs, 0-based.
        ends: (peaks,) int32, not included.
    """

    genome: str
    chromosomes: tuple[str, ...]
    chromosome_codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __init__(
        self,
        genome: str,
        chromosomes: Sequence[str],
        chromosome_codes: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
    ) -> None:
        """Take the columns as they are; most callers want `from_names`, `from_bed` or `from_anndata`.

        Raises:
            ValueError: if there are no peaks, the columns do not fit each other, a peak is empty, occurs
                twice or ends beyond its chromosome.
        """
        canonical = tuple(canonical_chromosome(name) for name in chromosomes)
        columns = PeakColumns(canonical, *map(np.asarray, (chromosome_codes, starts, ends)))
        genome = canonical_genome(genome)
        _check_columns(columns)
        _check_chromosome_ends(columns, genome)
        _check_unique(columns)
        self.__dict__.update(
            genome=genome,
            chromosomes=canonical,
            chromosome_codes=_read_only(columns.codes),
            starts=_read_only(columns.starts),
            ends=_read_only(columns.ends),
        )

    @classmethod
    def from_names(cls, names: Iterable[str], genome: str = "hg38") -> "PeakVocabulary":
        """Vocabulary of these peaks, sorted by chromosome (chr1 ... chr22, X, Y, M, the rest), start and end.

        Raises:
            ValueError: if a name cannot be read, a peak occurs twice or ends beyond its chromosome.
        """
        return cls._sorted(parse_peaks(names), genome)

    @classmethod
    def from_bed(cls, path: str | PathLike[str], genome: str = "hg38") -> "PeakVocabulary":
        """Vocabulary of the peaks of a BED file, plain or gzip-compressed, sorted as in `from_names`.

        Comments, track lines and columns after the third are passed over.
        """
        columns = columns_of_fields(_bed_fields(Path(path)))
        if not len(columns.starts):
            raise ValueError(f"{path} holds no peaks: expected lines of chromosome, start and end")
        return cls._sorted(columns, genome)

    @classmethod
    def from_anndata(cls, adata: Any, genome: str = "hg38") -> "PeakVocabulary":
        """Vocabulary of the peaks that name the variables of an AnnData, sorted as in `from_names`."""
        return cls.from_names(adata.var_names, genome)

    @classmethod
    def from_official(cls, path: str | PathLike[str], genome: str = "hg38") -> "PeakVocabulary":
        """Vocabulary of an official checkpoint, with its ids.

        Args:
            path: ``atac_vocab.json``, or a folder that holds it. ``chr_vocab.json`` beside it gives the ids
                of the chromosomes; without it they are in lexicographic order, as the official code writes
                them.
            genome: assembly of the peaks, which the official files do not state.

        Raises:
            ValueError: if the special tokens or the ids are not those of an official vocabulary.
        """
        file = _file_or_member(path, "atac_vocab.json")
        columns = parse_peaks(_official_tokens(file))
        chromosome_file = file.with_name("chr_vocab.json")
        if chromosome_file.is_file():
            order = [canonical_chromosome(name) for name in _official_tokens(chromosome_file)]
        else:
            order = sorted(columns.chromosomes)
        missing = sorted(set(columns.chromosomes) - set(order))
        if missing:
            raise ValueError(f"{chromosome_file} lacks {', '.join(missing)}, on which {file.name} has peaks")
        return cls(genome, order, _recode(columns, order), columns.starts, columns.ends)

    @classmethod
    def _sorted(cls, columns: PeakColumns, genome: str) -> "PeakVocabulary":
        chromosomes = sorted(columns.chromosomes, key=chromosome_sort_key)
        codes = _recode(columns, chromosomes)
        order = np.lexsort((columns.ends, columns.starts, codes))
        return cls(genome, chromosomes, codes[order], columns.starts[order], columns.ends[order])

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "PeakVocabulary":
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not a peak vocabulary, or was written by a newer version of this
                package.
        """
        arrays = _read_arrays(Path(path))
        version = int(arrays["format_version"])
        if version > _FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {version}, this version of the package reads up to {_FORMAT_VERSION}: "
                "install a newer epifoundation"
            )
        columns = (arrays[name] for name in ("chromosome_codes", "starts", "ends"))
        return cls(str(arrays["genome"]), arrays["chromosomes"].tolist(), *columns)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a compressed array file. The path is taken as it is; ``.npz`` is the usual ending."""
        with Path(path).open("wb") as file:  # np.savez would add .npz to a path that lacks it
            np.savez_compressed(
                file,
                format_version=np.array(_FORMAT_VERSION),
                genome=np.array(self.genome),
                chromosomes=np.array(self.chromosomes),
                chromosome_codes=self.chromosome_codes,
                starts=self.starts,
                ends=self.ends,
            )

    def names(self, indices: Sequence[int] | np.ndarray | None = None) -> list[str]:
        """Peak names ``chr1:100-200``, all or those at `indices` (counted from 0: the id less 4)."""
        chosen = slice(None) if indices is None else np.asarray(indices, dtype=np.int64)
        columns = (column[chosen].tolist() for column in (self.chromosome_codes, self.starts, self.ends))
        return [f"{self.chromosomes[code]}:{start}-{end}" for code, start, end in zip(*columns, strict=True)]

    def map(self, peak_names: Iterable[str], *, check: bool = True) -> PeakMapping:
        """Find the vocabulary's peak for each of a user's peaks: the one it shares most base pairs with.

        Ties go to the higher reciprocal overlap, then to the lower id; a peak with the same coordinates
        always wins.

        Args:
            peak_names: the user's peaks, in any accepted form.
            check: raise and warn about low coverage; without it any result comes back as it is.

        Raises:
            ValueError: if a name cannot be read; with `check`, if no peak matches, with the likely cause, or if less
                than half of them do and their coordinates show that they are of another genome.

        Warns:
            UserWarning: with `check`, if less than half of the peaks match.
        """
        if not check:
            return self._map_columns(parse_peaks(peak_names))
        mapping = self.map_or_explain(peak_names)
        if mapping.share < LOW_COVERAGE:
            warnings.warn(f"{self._how_few(mapping)}; {mapping.advice}", stacklevel=2)
        return mapping

    def map_or_explain(self, peak_names: Iterable[str]) -> PeakMapping:
        """Like `map` with its errors, without its warning: for callers that report coverage themselves."""
        columns = parse_peaks(peak_names)
        mapping = self._map_columns(columns)
        if not mapping.num_matched:
            raise ValueError(self._why_none_matches(columns))
        if mapping.share < LOW_COVERAGE and self._is_other_genome(columns):
            raise ValueError(f"{self._how_few(mapping)}, no more than by chance: {mapping.advice}")
        return mapping

    def _how_few(self, mapping: PeakMapping) -> str:
        return (
            f"only {mapping.num_matched:,} of {mapping.num_peaks:,} peaks ({mapping.share:.0%}) overlap a peak of the "
            f"vocabulary ({self.genome})"
        )

    def _is_other_genome(self, columns: PeakColumns) -> bool:
        """Whether coordinates rule this genome out and fit another one."""
        if self.genome not in CHROMOSOME_LENGTHS:
            return False
        fitting = fitting_genomes(columns.chromosomes, columns.codes, columns.ends)
        return bool(fitting) and self.genome not in fitting

    def _map_columns(self, columns: PeakColumns) -> PeakMapping:
        codes = _recode(columns, self.chromosomes)
        shared = np.flatnonzero(codes >= 0)
        starts, ends = self._global_bounds
        best = best_overlap(
            global_positions(codes[shared], columns.starts[shared]),
            global_positions(codes[shared], columns.ends[shared]),
            starts,
            ends,
        )
        ids = np.full(len(codes), -1, dtype=np.int32)
        ids[shared] = np.where(best >= 0, best + NUM_SPECIAL_TOKENS, -1)
        matched = np.flatnonzero(ids >= 0)
        found = ids[matched] - NUM_SPECIAL_TOKENS
        exact = (self.starts[found] == columns.starts[matched]) & (self.ends[found] == columns.ends[matched])
        return PeakMapping(_read_only(ids), int(exact.sum()), self.digest(), self._advice(columns))

    def exact_ids(self, peak_names: Iterable[str]) -> np.ndarray:
        """Token ids (peaks,) int32 of peaks with these very coordinates, -1 where the vocabulary has none."""
        columns = parse_peaks(peak_names)
        ids: np.ndarray = self._map_columns(columns).ids.copy()
        found = np.maximum(ids - NUM_SPECIAL_TOKENS, 0)
        ids[(self.starts[found] != columns.starts) | (self.ends[found] != columns.ends)] = -1
        return ids

    def _why_none_matches(self, columns: PeakColumns) -> str:
        if not len(columns.starts):
            return "there are no peaks: expected at least one peak name"
        theirs = ", ".join(_first_names(columns))
        return (
            f"none of the {len(columns.starts):,} peaks overlaps a peak of the vocabulary ({self.genome}): "
            f"yours are like {theirs}, those of the vocabulary like "
            f"{', '.join(self.names(range(min(3, len(self)))))}; {self._advice(columns)}"
        )

    def _advice(self, columns: PeakColumns) -> str:
        """What is likely the matter with a user's peaks, and what to do."""
        mismatch = explain_genome_mismatch(self.genome, columns.chromosomes, columns.codes, columns.ends)
        if mismatch is not None:
            return f"{mismatch}: use a vocabulary of that genome, or lift the peaks over to {self.genome}"
        if set(columns.chromosomes).isdisjoint(self.chromosomes):
            return "no chromosome name occurs in both: check the naming of the chromosomes"
        return "check that both are of one genome, or count the fragments in the peaks of the vocabulary first"

    @cached_property
    def _global_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends as global positions; made when first needed, so that loading is quick."""
        codes = self.chromosome_codes
        return global_positions(codes, self.starts), global_positions(codes, self.ends)

    def peak(self, index: int) -> Peak:
        """Peak number `index`, counted from 0."""
        return Peak(self.chromosomes[self.chromosome_codes[index]], int(self.starts[index]), int(self.ends[index]))

    @cached_property
    def _digest(self) -> str:
        content = hashlib.sha256(json.dumps([self.genome, self.chromosomes]).encode())
        for column in (self.chromosome_codes, self.starts, self.ends):
            content.update(column.astype("<i4").tobytes())
        return content.hexdigest()

    def digest(self) -> str:
        """SHA-256 of the content as hexadecimal text, for the keys of caches; the same on every machine."""
        return self._digest

    def __len__(self) -> int:
        return len(self.starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PeakVocabulary):
            return NotImplemented
        return self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a PeakVocabulary does not change: cannot set {name!r}, make a new one")

    def __repr__(self) -> str:
        return f"PeakVocabulary({len(self):,} peaks on {len(self.chromosomes)} chromosomes of {self.genome})"

    def __copy__(self) -> "PeakVocabulary":
        return self

    def __deepcopy__(self, memo: object) -> "PeakVocabulary":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (self.chromosome_codes, self.starts, self.ends)
        return (PeakVocabulary, (self.genome, self.chromosomes, *columns))


def _read_only(values: np.ndarray) -> np.ndarray:
    """An int32 copy that refuses to be written to."""
    copy = np.array(values, dtype=np.int32)
    copy.flags.writeable = False
    return copy


def _recode(columns: PeakColumns, chromosomes: Sequence[str]) -> np.ndarray:
    """Chromosome codes (peaks,) int32 of the peaks in another list of chromosomes, -1 where it lacks them."""
    position = {name: code for code, name in enumerate(chromosomes)}
    table = np.array([position.get(name, -1) for name in columns.chromosomes], dtype=np.int32)
    return table[columns.codes] if len(table) else np.zeros(0, dtype=np.int32)


def _first_names(columns: PeakColumns, indices: Sequence[int] | np.ndarray = (0, 1, 2)) -> list[str]:
    """Names of the peaks at the first three indices, in the form peaks are stored in."""
    return [
        f"{columns.chromosomes[columns.codes[i]]}:{columns.starts[i]}-{columns.ends[i]}"
        for i in indices[:3]
        if i < len(columns.starts)
    ]


def _check_columns(columns: PeakColumns) -> None:
    lengths = {len(column) for column in columns[1:]}
    if len(lengths) != 1:
        raise ValueError(f"expected columns of one length, got {[len(column) for column in columns[1:]]}")
    if lengths == {0}:
        raise ValueError("there are no peaks: a vocabulary needs at least one")
    if len(set(columns.chromosomes)) != len(columns.chromosomes):
        raise ValueError(f"a chromosome is listed twice, or in two spellings: {', '.join(columns.chromosomes)}")
    if columns.codes.min() < 0 or columns.codes.max() >= len(columns.chromosomes):
        raise ValueError(f"chromosome codes must lie between 0 and {len(columns.chromosomes) - 1}")
    bad = np.flatnonzero((columns.starts < 0) | (columns.starts >= columns.ends) | (columns.ends > MAX_COORDINATE))
    if bad.size:
        raise ValueError(
            f"{bad.size:,} peaks are empty or out of range, such as {', '.join(_first_names(columns, bad))}: "
            f"expected 0 <= start < end <= {MAX_COORDINATE:,}"
        )


def _check_chromosome_ends(columns: PeakColumns, genome: str) -> None:
    mismatch = explain_genome_mismatch(genome, columns.chromosomes, columns.codes, columns.ends)
    if mismatch is not None:
        raise ValueError(f"{mismatch}: pass the right genome=, or correct the peaks")


def _check_unique(columns: PeakColumns) -> None:
    starts = global_positions(columns.codes, columns.starts)
    ends = columns.ends
    if ((starts[1:] > starts[:-1]) | ((starts[1:] == starts[:-1]) & (ends[1:] > ends[:-1]))).all():
        return  # in strictly rising order, so without repetition: the usual case needs no sorting
    order = np.lexsort((ends, starts))
    starts, ends = starts[order], ends[order]
    repeated = order[1:][(starts[1:] == starts[:-1]) & (ends[1:] == ends[:-1])]
    if repeated.size:
        raise ValueError(
            f"{repeated.size:,} peaks repeat an earlier one, such as "
            f"{', '.join(_first_names(columns, repeated))}: each peak of a vocabulary may occur once (peaks "
            "are compared after reading, so 1:5-9 is chr1-5-9)"
        )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    expected = {"format_version", "genome", "chromosomes", "chromosome_codes", "starts", "ends"}
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        # Not numpy's own words: of a damaged file it says that it could be loaded unsafely.
        raise ValueError(
            f"{path} is damaged or no peak vocabulary: expected an .npz file written by PeakVocabulary.save"
        ) from error
    if missing := sorted(expected - set(arrays)):
        raise ValueError(f"{path} is not a peak vocabulary: it lacks the arrays {', '.join(missing)}")
    return arrays


def _bed_fields(path: Path) -> Iterator[list[tuple[str, str, str]]]:
    """Chromosome, start and end of the lines of a BED file as texts, in blocks."""
    with path.open("rb") as raw:
        is_compressed = raw.read(2) == b"\x1f\x8b"  # some compressed files come without the ending .gz
        raw.seek(0)
        unpacked = gzip.GzipFile(fileobj=raw) if is_compressed else raw
        file = io.TextIOWrapper(cast("IO[bytes]", unpacked), encoding="utf-8")
        fields = (_bed_line(line, number, path) for number, line in enumerate(file, start=1))
        peaks = (field for field in fields if field is not None)
        while block := list(itertools.islice(peaks, 100_000)):
            yield block


def _bed_line(line: str, number: int, path: Path) -> tuple[str, str, str] | None:
    """Chromosome, start and end of a line; None for a line that holds no peak."""
    if not line.strip() or line.startswith(_BED_HEADERS):
        return None
    match = _BED_LINE.fullmatch(line.rstrip("\r\n"))
    if match is not None:
        return match[1], match[2], match[3]
    raise ValueError(
        f"{path}, line {number}: expected chromosome, start and end, separated by tabs, got {line.rstrip()[:80]!r}"
    )


def _file_or_member(path: str | PathLike[str], name: str) -> Path:
    """The path itself, or the file `name` if it is a folder."""
    file = Path(path) / name if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: expected {name} of an official checkpoint, or its folder")
    return file


def _official_tokens(file: Path) -> list[str]:
    """Tokens of an official vocabulary after its special tokens, in the order of their ids."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not all(type(i) is int for i in content.values()):
        raise ValueError(f"{file}: expected a JSON object from token to id")
    tokens = sorted(content, key=content.__getitem__)
    if sorted(content.values()) != list(range(len(content))):
        raise ValueError(f"{file}: expected the ids 0 to {len(content) - 1}, each once; some are missing or repeated")
    found = tuple(tokens[:NUM_SPECIAL_TOKENS])
    if found != OFFICIAL_SPECIAL_TOKENS:
        raise ValueError(
            f"{file}: expected the tokens {', '.join(OFFICIAL_SPECIAL_TOKENS)} with the ids 0 to 3, got "
            f"{', '.join(found)}"
        )
    return tokens[NUM_SPECIAL_TOKENS:]


class GeneVocabulary:
    """The genes whose expression a model predicts, in the order of their ids. Immutable.

    Attributes:
        symbols: gene symbols, "" where only the Ensembl id is known. Several genes may share one.
        ensembl_ids: Ensembl ids without version, "" where unknown.
        chromosomes: canonical name of each gene's chromosome, "unknown" where unknown.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("symbol", "ensembl_id", "chromosome")

    symbols: tuple[str, ...]
    ensembl_ids: tuple[str, ...]
    chromosomes: tuple[str, ...]

    def __init__(self, symbols: Sequence[str], ensembl_ids: Sequence[str], chromosomes: Sequence[str]) -> None:
        """Take the columns as they are; most callers want `from_names` or `from_anndata`.

        Raises:
            ValueError: if the columns differ in length, a gene has no name, or two genes are the same.
        """
        lengths = [len(symbols), len(ensembl_ids), len(chromosomes)]
        if len(set(lengths)) != 1:
            raise ValueError(f"expected one symbol, Ensembl id and chromosome per gene, got {lengths}")
        self.__dict__.update(
            symbols=tuple(map(str, symbols)),
            ensembl_ids=tuple(_without_version(str(identifier)) for identifier in ensembl_ids),
            chromosomes=tuple(canonical_chromosome(str(name)) or UNKNOWN_CHROMOSOME for name in chromosomes),
        )
        if "" in self.names:
            raise ValueError(f"gene {self.names.index('')} has neither a symbol nor an Ensembl id")
        _refuse_repeated_genes([f"{s} {e}".strip() for s, e in zip(self.symbols, self.ensembl_ids, strict=True)])

    @classmethod
    def from_names(cls, names: Iterable[str], annotation: "GeneVocabulary | None" = None) -> "GeneVocabulary":
        """Vocabulary of these genes, in their order.

        Args:
            names: symbols or Ensembl ids; the version of an id (``.12``) is passed over.
            annotation: the genes of a genome, from which each gene's chromosome and other name are taken.

        Raises:
            ValueError: if a name occurs twice.
        """
        if isinstance(names, str):
            raise TypeError(f"expected a list of gene names, got the single text {names!r}: put it in a list")
        plain = [_without_version(str(name)) for name in names]
        _refuse_repeated_genes(plain)
        is_ensembl = [_ENSEMBL_GENE.fullmatch(name) is not None for name in plain]
        symbols = ["" if ensembl else name for name, ensembl in zip(plain, is_ensembl, strict=True)]
        ensembl_ids = [name if ensembl else "" for name, ensembl in zip(plain, is_ensembl, strict=True)]
        return cls._annotated(symbols, ensembl_ids, annotation)

    @classmethod
    def from_anndata(cls, adata: Any, annotation: "GeneVocabulary | None" = None) -> "GeneVocabulary":
        """Vocabulary of the genes that name the variables of an AnnData, in their order.

        Ensembl ids are taken from ``var["gene_ids"]`` where there is such a column, else as in `from_names`.
        """
        names = [str(name) for name in adata.var_names]
        if "gene_ids" not in adata.var:
            return cls.from_names(names, annotation)
        plain = [_without_version(name) for name in names]
        _refuse_repeated_genes(plain)
        symbols = ["" if _ENSEMBL_GENE.fullmatch(name) else name for name in plain]
        found = [_without_version(str(identifier)) for identifier in adata.var["gene_ids"]]
        ensembl_ids = [
            identifier if _ENSEMBL_GENE.fullmatch(identifier) else (name if not symbol else "")
            for name, symbol, identifier in zip(plain, symbols, found, strict=True)
        ]
        return cls._annotated(symbols, ensembl_ids, annotation)

    @classmethod
    def from_official(cls, path: str | PathLike[str], annotation: "GeneVocabulary | None" = None) -> "GeneVocabulary":
        """Genes of an official checkpoint, with its ids.

        Args:
            path: ``rna_vocab.json``, or a folder that holds it, with ``gene2chr.json`` beside it.
            annotation: where to take the chromosomes from if there is no ``gene2chr.json``.

        Raises:
            ValueError: if the file is not an official vocabulary, or nothing gives the chromosomes.
        """
        file = _file_or_member(path, "rna_vocab.json")
        genes = cls.from_names(_official_tokens(file), annotation)
        chromosome_file = file.with_name("gene2chr.json")
        if chromosome_file.is_file():
            chromosome_of = json.loads(chromosome_file.read_text(encoding="utf-8"))
            chromosomes = [chromosome_of.get(name, UNKNOWN_CHROMOSOME) for name in _official_tokens(file)]
            return cls(genes.symbols, genes.ensembl_ids, chromosomes)
        if annotation is None:
            raise ValueError(
                f"{chromosome_file} does not exist, so the chromosomes of the genes are not known: put it "
                f"beside {file.name}, or pass the genes of the genome as annotation="
            )
        return genes

    @classmethod
    def _annotated(
        cls, symbols: list[str], ensembl_ids: list[str], annotation: "GeneVocabulary | None"
    ) -> "GeneVocabulary":
        """Fill what is empty from the annotation, which is asked by Ensembl id first, then by symbol."""
        chromosomes = [UNKNOWN_CHROMOSOME] * len(symbols)
        if annotation is None:
            return cls(symbols, ensembl_ids, chromosomes)
        for gene, (symbol, ensembl_id) in enumerate(zip(symbols, ensembl_ids, strict=True)):
            found = annotation._index_of_ensembl_id.get(ensembl_id)
            if found is None:
                found = annotation._index_of_symbol.get(symbol)
            if found is not None:
                symbols[gene] = symbol or annotation.symbols[found]
                ensembl_ids[gene] = ensembl_id or annotation.ensembl_ids[found]
                chromosomes[gene] = annotation.chromosomes[found]
        return cls(symbols, ensembl_ids, chromosomes)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "GeneVocabulary":
        """Read a table written by `save`.

        Raises:
            ValueError: if the header or a line is not that of such a table.
        """
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        if not rows or tuple(rows[0]) != cls.COLUMNS:
            raise ValueError(
                f"{path}: expected the header {' '.join(cls.COLUMNS)}, got {rows[0] if rows else 'nothing'}"
            )
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(cls.COLUMNS):
                raise ValueError(f"{path}, line {number}: expected {len(cls.COLUMNS)} columns, got {len(row)}")
        symbols, ensembl_ids, chromosomes = zip(*rows[1:], strict=True) if len(rows) > 1 else ((), (), ())
        return cls(symbols, ensembl_ids, chromosomes)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a tab-separated table with the columns symbol, ensembl_id and chromosome."""
        rows = zip(self.symbols, self.ensembl_ids, self.chromosomes, strict=True)
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
            writer.writerow(self.COLUMNS)
            writer.writerows(rows)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name per gene: the symbol where there is one, else the Ensembl id."""
        return tuple(symbol or identifier for symbol, identifier in zip(self.symbols, self.ensembl_ids, strict=True))

    def map(self, names: Iterable[str]) -> np.ndarray:
        """Gene ids (names,) int32, by symbol first, then by Ensembl id without version; -1 if unknown.

        Of several genes with one symbol the first is meant.
        """
        return np.array([self._find(str(name)) for name in names], dtype=np.int32)

    def _find(self, name: str) -> int:
        found = self._index_of_symbol.get(name)
        if found is None:
            found = self._index_of_ensembl_id.get(_without_version(name))
        return -1 if found is None else found + NUM_SPECIAL_TOKENS

    def chromosome_ids(self, chromosomes: Sequence[str]) -> np.ndarray:
        """Chromosome ids (4 + genes,) int32, to be indexed by gene id; 0 for special tokens and unknown ones.

        Args:
            chromosomes: names of the chromosomes in the order of their ids, as in
                `PeakVocabulary.chromosomes`.
        """
        id_of = {name: NUM_SPECIAL_TOKENS + code for code, name in enumerate(chromosomes)}
        return np.array([0] * NUM_SPECIAL_TOKENS + [id_of.get(name, 0) for name in self.chromosomes], dtype=np.int32)

    @cached_property
    def _index_of_symbol(self) -> Mapping[str, int]:
        return _first_positions(self.symbols)

    @cached_property
    def _index_of_ensembl_id(self) -> Mapping[str, int]:
        return _first_positions(self.ensembl_ids)

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GeneVocabulary):
            return NotImplemented
        return self._columns == other._columns

    def __hash__(self) -> int:
        return hash(self._columns)

    @property
    def _columns(self) -> tuple[tuple[str, ...], ...]:
        return (self.symbols, self.ensembl_ids, self.chromosomes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a GeneVocabulary does not change: cannot set {name!r}, make a new one")

    def __repr__(self) -> str:
        known = sum(name != UNKNOWN_CHROMOSOME for name in self.chromosomes)
        return f"GeneVocabulary({len(self):,} genes, {known:,} with a known chromosome)"


def _without_version(name: str) -> str:
    """An Ensembl id without its version; any other name as it is."""
    match = _ENSEMBL_GENE.fullmatch(name)
    return name if match is None else match[1]


def _first_positions(names: Sequence[str]) -> dict[str, int]:
    """Position of the first occurrence of each name; "" stands for no name and is left out."""
    return {name: i for i, name in reversed(list(enumerate(names))) if name}


def _refuse_repeated_genes(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not repeated:
        return
    num_repeated = len(names) - len(set(names))
    raise ValueError(
        f"{num_repeated:,} genes repeat an earlier one, such as {', '.join(repeated[:3])}: each gene may "
        "occur once; with scanpy, call adata.var_names_make_unique() or keep one of each"
    )
