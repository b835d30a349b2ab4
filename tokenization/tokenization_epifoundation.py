"""The tokenizer: from the open peaks of a block of cells to the inputs of a model, and back to peak names."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from transformers import AddedToken
from transformers.tokenization_utils_base import BatchEncoding, PreTrainedTokenizerBase

from .intervals_epifoundation import PEAK_FORMS
from .vocabulary_epifoundation import (
    CLS_ID,
    EOS_ID,
    LOW_COVERAGE,
    MASK_ID,
    NUM_SPECIAL_TOKENS,
    PAD_ID,
    SPECIAL_TOKENS,
    GeneVocabulary,
    PeakMapping,
    PeakVocabulary,
)

VOCAB_FILES_NAMES = {"peaks_file": "peaks.npz", "genes_file": "genes.tsv"}
PEAK_MODALITIES = ("atac", "peaks")

# What the padding of each key is filled with: no peak, no chromosome, no attention.
_PADDING_VALUES = {"input_ids": PAD_ID, "chromosome_ids": 0, "attention_mask": 0}
_NAMED_SPECIAL_TOKENS = {
    "pad_token": SPECIAL_TOKENS[PAD_ID],
    "mask_token": SPECIAL_TOKENS[MASK_ID],
    "cls_token": SPECIAL_TOKENS[CLS_ID],
    "eos_token": SPECIAL_TOKENS[EOS_ID],
}


@dataclass(frozen=True, eq=False)
class Coverage:
    """How much of the data a tokenizer could use. Those of successive blocks can be added.

    An entry is an open peak of a cell: a value above 0 in the matrix.

    Attributes:
        num_matched_entries_per_cell: (cells,) open peaks of each cell that overlap a peak of the vocabulary.
        num_entries_per_cell: (cells,) open peaks of each cell.
        num_empty_cells: cells without an open peak of the vocabulary, which become [CLS] alone.
        num_truncated_cells: cells with more than `max_peaks` peaks, of which a part was kept.
        peak_sets: sizes (peaks, matched peaks) of the sets of peaks seen, by the digest of their mapping, so
            that the peaks of a file count once however many blocks it is read in.
    """

    num_matched_entries_per_cell: np.ndarray
    num_entries_per_cell: np.ndarray
    num_empty_cells: int
    num_truncated_cells: int
    peak_sets: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.num_entries_per_cell)

    @property
    def num_peaks(self) -> int:
        """Number of the user's peaks, those without an open cell included."""
        return sum(num_peaks for num_peaks, _ in self.peak_sets.values())

    @property
    def num_matched_peaks(self) -> int:
        """Number of the user's peaks that overlap a peak of the vocabulary."""
        return sum(num_matched for _, num_matched in self.peak_sets.values())

    @property
    def peaks_share(self) -> float:
        """Matched peaks over all peaks, NaN without peaks."""
        return _share(self.num_matched_peaks, self.num_peaks)

    @property
    def num_entries(self) -> int:
        """Number of open peaks, summed over the cells."""
        return int(self.num_entries_per_cell.sum())

    @property
    def num_matched_entries(self) -> int:
        """Number of open peaks that overlap a peak of the vocabulary, summed over the cells."""
        return int(self.num_matched_entries_per_cell.sum())

    @property
    def entries_share(self) -> float:
        """Matched entries over all entries, NaN if no cell has an open peak."""
        return _share(self.num_matched_entries, self.num_entries)

    @property
    def cells_share(self) -> np.ndarray:
        """Share of each cell's open peaks that match (cells,) float64; NaN for cells with no open peak."""
        return np.divide(
            self.num_matched_entries_per_cell,
            self.num_entries_per_cell,
            out=np.full(self.num_cells, np.nan),
            where=self.num_entries_per_cell > 0,
        )

    def __add__(self, other: "Coverage") -> "Coverage":
        if not isinstance(other, Coverage):
            return NotImplemented
        return Coverage(
            np.concatenate([self.num_matched_entries_per_cell, other.num_matched_entries_per_cell]),
            np.concatenate([self.num_entries_per_cell, other.num_entries_per_cell]),
            self.num_empty_cells + other.num_empty_cells,
            self.num_truncated_cells + other.num_truncated_cells,
            {**self.peak_sets, **other.peak_sets},
        )

    def __radd__(self, other: object) -> "Coverage":
        """Let ``sum(coverages)`` work, which starts from 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def summary(self) -> str:
        """One paragraph for a reader."""
        text = (
            f"{self.num_matched_peaks:,} of {self.num_peaks:,} peaks ({_percent(self.peaks_share)}) and "
            f"{self.num_matched_entries:,} of {self.num_entries:,} open peaks counted over cells "
            f"({_percent(self.entries_share)}) overlap a peak of the vocabulary."
        )
        shares = self.cells_share[~np.isnan(self.cells_share)]
        if shares.size:
            low, middle, high = np.quantile(shares, [0.05, 0.5, 0.95])
            text += (
                f" In the median cell the share is {_percent(middle)} (5 % to 95 % of cells: "
                f"{_percent(low)} to {_percent(high)})."
            )
        return (
            f"{text} Of {self.num_cells:,} cells {self.num_empty_cells:,} have no open peak of the "
            f"vocabulary, and {self.num_truncated_cells:,} have more peaks than the tokenizer keeps."
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _percent(share: float) -> str:
    return "no value" if np.isnan(share) else f"{100 * share:.1f} %"


class _OpenPeaks(NamedTuple):
    """The open peaks of a block of cells, one after the other, cell by cell.

    Attributes:
        columns: (entries,) index of the peak among the user's peaks.
        bounds: (cells + 1,) int64; the entries of cell i are those from bounds[i] to bounds[i + 1].
    """

    columns: np.ndarray
    bounds: np.ndarray


class _CellTokens(NamedTuple):
    """Peak ids of a block of cells, rising within each cell.

    Attributes:
        ids: (tokens,) int32.
        lengths: (cells,) int64, number of ids of each cell.
    """

    ids: np.ndarray
    lengths: np.ndarray


class PeakTokenizer(PreTrainedTokenizerBase):
    """Turns the open peaks of cells into ``input_ids``, ``chromosome_ids`` and ``attention_mask``.

    A cell is a set: ``[CLS]`` followed by the ids of its open peaks in rising order. Peaks that overlap no
    peak of the vocabulary are dropped and counted in `coverage`. There is no unknown token.

    Attributes:
        max_peaks: number of peaks kept of a cell, ``[CLS]`` not counted.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "chromosome_ids", "attention_mask"]  # noqa: RUF012 (a list in the base class)
    padding_side = "right"

    def __init__(
        self,
        vocabulary: PeakVocabulary | None = None,
        genes: GeneVocabulary | None = None,
        *,
        max_peaks: int = 12_000,
        peaks_file: str | PathLike[str] | None = None,
        genes_file: str | PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a tokenizer of a vocabulary, or of the files that hold one.

        Args:
            vocabulary: the peaks.
            genes: the genes of the model, if it predicts expression.
            max_peaks: number of peaks kept of a cell, ``[CLS]`` not counted.
            peaks_file: ``peaks.npz``, in place of `vocabulary`; what `from_pretrained` passes.
            genes_file: ``genes.tsv``, in place of `genes`.
            kwargs: what `from_pretrained` read from ``tokenizer_config.json``.

        Raises:
            ValueError: without any peaks, or if `max_peaks` is not positive.
        """
        if vocabulary is None:
            vocabulary = _load_vocabulary(peaks_file)
        if isinstance(max_peaks, bool) or not isinstance(max_peaks, int | np.integer) or max_peaks < 1:
            raise ValueError(f"max_peaks must be a whole number of at least 1, got {max_peaks!r}")
        if kwargs.get("padding_side", "right") != "right":
            raise ValueError("padding_side must be 'right': models read the cell from [CLS] in the first position")
        self._vocabulary = vocabulary
        self._genes = GeneVocabulary.load(genes_file) if genes is None and genes_file is not None else genes
        self.max_peaks = int(max_peaks)
        self._coverage: Coverage | None = None
        self._token_ids: dict[str, int] | None = None
        self._peak_chromosome_ids = _chromosome_ids_of_tokens(self._vocabulary)
        self._gene_chromosome_ids = (
            None if self._genes is None else self._genes.chromosome_ids(self._vocabulary.chromosomes)
        )
        # All of these follow from the vocabulary and are not for a configuration file to change.
        for fixed in (*_NAMED_SPECIAL_TOKENS, "added_tokens_decoder", "model_max_length"):
            kwargs.pop(fixed, None)
        for passing in ("is_local", "local_files_only"):  # of this loading, not of the tokenizer
            kwargs.pop(passing, None)
        super().__init__(
            max_peaks=self.max_peaks, model_max_length=self.max_peaks + 1, **_NAMED_SPECIAL_TOKENS, **kwargs
        )

    @property
    def vocabulary(self) -> PeakVocabulary:
        """The peaks, in the order of their ids."""
        return self._vocabulary

    @property
    def genes(self) -> GeneVocabulary | None:
        """The genes, in the order of their ids; None if the tokenizer has none."""
        return self._genes

    @property
    def peak_chromosome_ids(self) -> np.ndarray:
        """Chromosome ids (4 + peaks,) int32, to be indexed by token id."""
        return self._peak_chromosome_ids

    @property
    def gene_chromosome_ids(self) -> np.ndarray | None:
        """Chromosome ids (4 + genes,) int32, to be indexed by gene id; None if the tokenizer has no genes."""
        return self._gene_chromosome_ids

    @property
    def coverage(self) -> Coverage:
        """How much of its data the last call could use.

        Raises:
            ValueError: before the first call.
        """
        if self._coverage is None:
            raise ValueError("there is no coverage yet: it describes the last call of the tokenizer")
        return self._coverage

    def __call__(
        self,
        cells: Any,
        peaks: PeakMapping | Iterable[str] | None = None,
        *,
        generator: np.random.Generator | None = None,
        padding: bool | str = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        check: bool = True,
    ) -> BatchEncoding:
        """Tokenise a block of cells; `coverage` then says how much of it was used.

        Args:
            cells: an AnnData; a MuData (its modality "atac" or "peaks", or its only one); a sparse or dense
                matrix (cells, peaks) of raw values with `peaks`; or one list of peak names per cell. A peak
                is open where its value lies above 0. Nothing of it is changed.
            peaks: names of the columns, or a mapping made before with ``tokenizer.vocabulary.map(names)``:
                reuse one for all blocks of a file. Of an AnnData the ``var_names`` are used if it is left
                out.
            generator: draws which peaks to keep of a cell with more than `max_peaks`. Without it the choice
                depends on the cell's own peaks alone, and is the same in every batch and on every machine.
            padding: as in `pad`; False leaves the cells as they are, unless tensors are asked for.
            max_length: as in `pad`.
            pad_to_multiple_of: as in `pad`.
            return_tensors: as in `pad`.
            check: raise and warn about low coverage; without it, it only shows in `coverage`.

        Returns:
            ``input_ids``, ``chromosome_ids`` and ``attention_mask``: lists of one int32 array per cell, or
            padded tensors (cells, tokens).

        Raises:
            TypeError: if `cells` is none of the above.
            ValueError: if peaks and matrix do not fit, values are negative or not finite, or no peak of the
                data overlaps one of the vocabulary.

        Warns:
            UserWarning: if less than half of the open peaks overlap a peak of the vocabulary.
        """
        open_peaks, mapping = self._read(cells, peaks, check)
        tokens, coverage = self._tokens(open_peaks, mapping, generator)
        self._coverage = coverage
        if check and coverage.num_entries and not coverage.num_matched_entries:
            raise ValueError(
                f"none of the {coverage.num_entries:,} open peaks overlaps a peak of the vocabulary "
                f"({self.vocabulary.genome}); {mapping.advice}"
            )
        if check and coverage.entries_share < LOW_COVERAGE:
            warnings.warn(
                "less than half of the open peaks can be used, so results on these cells are doubtful: "
                f"{coverage.summary()} Likely cause and remedy: {mapping.advice}.",
                stacklevel=2,
            )
        encoding = self._encoding(tokens)
        if padding is False and return_tensors is None:
            return encoding
        return self.pad(
            encoding,
            padding=padding or True,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            return_tensors=return_tensors,
        )

    def _read(
        self, cells: Any, peaks: PeakMapping | Iterable[str] | None, check: bool
    ) -> tuple[_OpenPeaks, PeakMapping]:
        """The open peaks of the cells and where their columns lie in the vocabulary."""
        table = peak_table(cells)
        if table is not None:
            cells = table.X
            peaks = table.var_names if peaks is None else peaks
            if cells is None:
                raise ValueError("the AnnData has no X: put the raw counts of the peaks there")
        if peaks is None:
            if not isinstance(cells, list | tuple):
                raise ValueError(
                    f"got {_kind(cells)} without the names of its columns: pass peaks=, the peak names or a "
                    "mapping made with tokenizer.vocabulary.map(names)"
                )
            open_peaks, names = _open_peaks_of_names(cells)
            return open_peaks, self._map(names, check and bool(names))
        # Not isinstance: a mapping made by a tokenizer that came with its own code is of that code's class.
        mapping = cast(PeakMapping, peaks) if hasattr(peaks, "vocabulary_digest") else self._map(peaks, check)
        if mapping.vocabulary_digest != self.vocabulary.digest():
            raise ValueError(
                "the mapping belongs to another vocabulary: make one with this tokenizer's "
                "tokenizer.vocabulary.map(names)"
            )
        return _open_peaks_of_matrix(cells, mapping.num_peaks), mapping

    def _map(self, names: Iterable[str], check: bool) -> PeakMapping:
        # A call warns about entries, not about peaks: one warning is enough.
        if check:
            return self.vocabulary.map_or_explain(names)
        return self.vocabulary.map(names, check=False)

    def _tokens(
        self, open_peaks: _OpenPeaks, mapping: PeakMapping, generator: np.random.Generator | None
    ) -> tuple[_CellTokens, Coverage]:
        num_entries = np.diff(open_peaks.bounds)
        ids = mapping.ids[open_peaks.columns]
        is_matched = ids >= 0
        num_matched = num_entries
        if not is_matched.all():
            ids = ids[is_matched]
            num_matched = _count_per_cell(is_matched, open_peaks.bounds)
        tokens = _sorted_sets(ids, num_matched)
        is_long = tokens.lengths > self.max_peaks
        if is_long.any():
            tokens = _truncated(tokens, self.max_peaks, generator)
        coverage = Coverage(
            num_matched,
            num_entries,
            num_empty_cells=int((tokens.lengths == 0).sum()),
            num_truncated_cells=int(is_long.sum()),
            peak_sets={mapping.digest: (mapping.num_peaks, mapping.num_matched)},
        )
        return tokens, coverage

    def _encoding(self, tokens: _CellTokens) -> BatchEncoding:
        """Put [CLS] before each cell, add chromosomes and mask, and cut the block into cells."""
        num_cells = len(tokens.lengths)
        ends = np.cumsum(tokens.lengths + 1)
        starts = ends - (tokens.lengths + 1)
        input_ids = np.empty(len(tokens.ids) + num_cells, dtype=np.int32)
        is_peak = np.ones(len(input_ids), dtype=bool)
        is_peak[starts] = False
        input_ids[starts] = CLS_ID
        input_ids[is_peak] = tokens.ids
        columns = {
            "input_ids": input_ids,
            "chromosome_ids": self._peak_chromosome_ids[input_ids],
            "attention_mask": np.ones(len(input_ids), dtype=np.int32),
        }
        bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
        return BatchEncoding({key: [column[i:j] for i, j in bounds] for key, column in columns.items()})

    def pad(
        self,
        encoded_inputs: Any,
        padding: Any = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Any = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Bring tokenised cells to one length; peak and chromosome id 0 stand for padding, 0 in the mask.

        Chromosomes and mask are derived from the ids where they are missing. Other keys, such as labels, are
        stacked as they are.

        Args:
            encoded_inputs: what the tokenizer returned, or a list with one dictionary per cell.
            padding: True or "longest" pads to the longest cell, "max_length" to `max_length`, False not at
                all.
            max_length: length for ``padding="max_length"``, ``[CLS]`` counted; by default `max_peaks` + 1.
            pad_to_multiple_of: round the length up to a multiple of this.
            padding_side: "right" or None.
            return_attention_mask: False leaves the mask out.
            return_tensors: "pt", "np", or None for lists of arrays.
            verbose: not used; part of the base class.

        Raises:
            ValueError: if a cell is longer than `max_length`, the keys of a cell differ in length, or another
                key does not have one value, or equally many, per cell.
        """
        if padding_side not in (None, "right"):
            raise ValueError("padding_side must be 'right': models read the cell from [CLS] in the first position")
        columns = _columns_of_features(encoded_inputs)
        cells = [np.asarray(ids) for ids in columns.pop("input_ids")]
        lengths = np.array([len(ids) for ids in cells], dtype=np.int64)
        length = self._padded_length(lengths, padding, max_length, pad_to_multiple_of)
        padded = {"input_ids": _pad_cells("input_ids", cells, lengths, length)}
        is_token = np.arange(length) < lengths[:, None]
        if "chromosome_ids" in columns:
            padded["chromosome_ids"] = _pad_cells("chromosome_ids", columns.pop("chromosome_ids"), lengths, length)
        else:
            padded["chromosome_ids"] = self._peak_chromosome_ids[padded["input_ids"]].astype(np.int64)
        if "attention_mask" in columns:
            padded["attention_mask"] = _pad_cells("attention_mask", columns.pop("attention_mask"), lengths, length)
        else:
            padded["attention_mask"] = is_token.astype(np.int64)
        if return_attention_mask is False:
            del padded["attention_mask"]
        if return_tensors is None:
            return BatchEncoding({key: list(values) for key, values in padded.items()} | columns)
        others = {key: _stacked(key, values) for key, values in columns.items()}
        return BatchEncoding({**padded, **others}, tensor_type=return_tensors)

    def _padded_length(
        self, lengths: np.ndarray, padding: Any, max_length: int | None, pad_to_multiple_of: int | None
    ) -> int:
        longest = int(lengths.max(initial=0))
        strategy = str(getattr(padding, "value", padding))  # a PaddingStrategy, a text or a bool
        if strategy == "max_length":
            length = self.max_peaks + 1 if max_length is None else max_length
            if longest > length:
                raise ValueError(
                    f"a cell of {longest:,} tokens does not fit max_length={length:,}: raise it, or lower "
                    "max_peaks of the tokenizer"
                )
        elif strategy in ("False", "do_not_pad"):
            length = longest
            if lengths.size and lengths.min() != longest:
                raise ValueError(
                    f"cells of {lengths.min():,} to {longest:,} tokens cannot be stacked without padding: "
                    "pass padding=True"
                )
        elif strategy in ("True", "longest"):
            length = longest
        else:
            raise ValueError(f"padding must be True, False, 'longest' or 'max_length', got {padding!r}")
        return length if not pad_to_multiple_of else -(-length // pad_to_multiple_of) * pad_to_multiple_of

    @property
    def vocab_size(self) -> int:
        """Number of ids: 4 special tokens and the peaks."""
        return NUM_SPECIAL_TOKENS + len(self._vocabulary)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def is_fast(self) -> bool:
        """False: nothing here comes from the tokenizers library."""
        return False

    def get_vocab(self) -> dict[str, int]:
        """Id of each token; built when first asked for, as a million names take a second and 100 MB."""
        if self._token_ids is None:
            tokens = chain(SPECIAL_TOKENS, self._vocabulary.names())
            self._token_ids = {token: token_id for token_id, token in enumerate(tokens)}
        return dict(self._token_ids)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Id of a token, or list of ids; peaks in any accepted form, but with the exact coordinates.

        Raises:
            ValueError: if a token is not in the vocabulary.
        """
        if isinstance(tokens, str):
            return self.convert_tokens_to_ids([tokens])[0]
        listed = list(tokens)
        ids = [SPECIAL_TOKENS.index(token) if token in SPECIAL_TOKENS else -1 for token in listed]
        peaks = [position for position, token_id in enumerate(ids) if token_id < 0]
        if peaks:
            for position, token_id in zip(
                peaks, self._vocabulary.exact_ids(listed[p] for p in peaks).tolist(), strict=True
            ):
                ids[position] = token_id
        unknown = [listed[position] for position in peaks if ids[position] < 0]
        if unknown:
            raise ValueError(
                f"no peak of the vocabulary has the coordinates of {', '.join(map(repr, unknown[:3]))}, and "
                "there is no unknown token: map peaks of your own by overlap with "
                "tokenizer.vocabulary.map(names)"
            )
        return ids

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Token of an id, or list of tokens; peaks as ``chr1:100-200``.

        Raises:
            ValueError: if an id lies outside the vocabulary.
        """
        values = np.asarray(ids, dtype=np.int64)
        if values.size and not (values.min() >= 0 and values.max() < self.vocab_size):
            raise ValueError(f"ids must lie between 0 and {self.vocab_size - 1:,}, got {ids!r}")
        if values.ndim == 0:
            return self.convert_ids_to_tokens(values[None])[0]
        kept = values[values >= NUM_SPECIAL_TOKENS] if skip_special_tokens else values
        names = iter(self._vocabulary.names(kept[kept >= NUM_SPECIAL_TOKENS] - NUM_SPECIAL_TOKENS))
        return [SPECIAL_TOKENS[i] if i < NUM_SPECIAL_TOKENS else next(names) for i in kept.tolist()]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The tokens with a space between them."""
        return " ".join(tokens)

    def _decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        return self.convert_tokens_to_string(self.convert_ids_to_tokens(token_ids, skip_special_tokens))

    def _encode_plus(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        raise TypeError(
            f"a cell is a set of peaks, not a text: call tokenizer([[...]]) with peak names like {PEAK_FORMS}"
        )

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Number of special tokens added to a cell: 1, for [CLS]."""
        return 1

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Empty: no token is ever added."""
        return {}

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Empty: no token is ever added."""
        return {}

    def get_added_vocab(self) -> dict[str, int]:
        """Empty: no token is ever added."""
        return {}

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        raise ValueError(
            "the peaks of a vocabulary are fixed, as each has a row in the model's embedding: make a new "
            "vocabulary with PeakVocabulary.from_names(...) and a new tokenizer"
        )

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write ``peaks.npz``, and ``genes.tsv`` if there are genes; their paths come back."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        peaks_file = Path(save_directory, prefix + VOCAB_FILES_NAMES["peaks_file"])
        genes_file = Path(save_directory, prefix + VOCAB_FILES_NAMES["genes_file"])
        self._vocabulary.save(peaks_file)
        if self._genes is None:
            # or the genes of a tokenizer saved here before would be read again
            genes_file.unlink(missing_ok=True)
            return (str(peaks_file),)
        self._genes.save(genes_file)
        return (str(peaks_file), str(genes_file))

    def __repr__(self) -> str:
        return f"PeakTokenizer({self._vocabulary!r}, {self._genes!r}, max_peaks={self.max_peaks})"


def _load_vocabulary(peaks_file: str | PathLike[str] | None) -> PeakVocabulary:
    if peaks_file is None:
        raise ValueError(
            "a PeakTokenizer needs a vocabulary: pass PeakVocabulary.from_names(...), from_bed(...) or "
            "from_anndata(...), or load a folder that holds peaks.npz"
        )
    return PeakVocabulary.load(peaks_file)


def peak_table(cells: Any) -> Any | None:
    """The AnnData of peaks in `cells`: itself, or that of a MuData; None if `cells` is neither.

    Raises:
        ValueError: if a MuData has several modalities, none of them called "atac" or "peaks".
    """
    modalities = getattr(cells, "mod", None)
    if modalities is None:
        return cells if hasattr(cells, "X") and hasattr(cells, "var_names") else None
    names = list(modalities)
    chosen = next((name for name in PEAK_MODALITIES if name in modalities), names[0] if len(names) == 1 else None)
    if chosen is None:
        raise ValueError(
            "cannot tell which modality holds the peaks: expected 'atac' or 'peaks', got "
            f"{', '.join(map(repr, names))}; pass one of them, such as mdata['...']"
        )
    return modalities[chosen]


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _chromosome_ids_of_tokens(vocabulary: PeakVocabulary) -> np.ndarray:
    """Chromosome id of every token id; [CLS] has one of its own, as in the official code, the others 0."""
    special = np.zeros(NUM_SPECIAL_TOKENS, dtype=np.int32)
    special[CLS_ID] = CLS_ID
    ids: np.ndarray = np.concatenate([special, vocabulary.chromosome_codes + np.int32(NUM_SPECIAL_TOKENS)])
    ids.flags.writeable = False
    return ids


def _open_peaks_of_names(cells: Sequence[Any]) -> tuple[_OpenPeaks, list[str]]:
    """Open peaks of cells given as lists of peak names, and the distinct names they are columns of."""
    if any(isinstance(cell, str) or not isinstance(cell, Iterable) for cell in cells):
        raise TypeError(
            f"expected one list of peak names per cell, got {_kind(cells[0])} in place of the first list: "
            "put the peaks of a single cell in a list of their own, or pass a matrix with peaks="
        )
    listed = [list(cell) for cell in cells]
    column_of: dict[str, int] = {}
    columns = [column_of.setdefault(name, len(column_of)) for name in chain.from_iterable(listed)]
    bounds = np.cumsum([0, *map(len, listed)], dtype=np.int64)
    return _OpenPeaks(np.array(columns, dtype=np.int64), bounds), list(column_of)


def _open_peaks_of_matrix(values: Any, num_peaks: int) -> _OpenPeaks:
    """Open peaks of the rows of a matrix (cells, peaks) of raw values, which is not changed."""
    if hasattr(values, "to_memory"):  # a matrix in a file, of an AnnData opened with backed="r"
        values = values.to_memory()
    matrix = values.tocsr() if hasattr(values, "tocsr") else np.asarray(values)
    if len(matrix.shape) != 2:
        raise ValueError(f"expected a matrix (cells, peaks), got the shape {tuple(matrix.shape)}")
    if matrix.shape[1] != num_peaks:
        raise ValueError(f"the matrix has {matrix.shape[1]:,} columns for {num_peaks:,} peaks: expected one per peak")
    if isinstance(matrix, np.ndarray):
        _refuse_bad_values(matrix)
        rows, columns = np.nonzero(matrix)
        return _OpenPeaks(columns, np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int64))
    _refuse_bad_values(matrix.data)
    bounds = matrix.indptr.astype(np.int64)
    is_open = matrix.data > 0
    if is_open.all():
        return _OpenPeaks(matrix.indices, bounds)
    counts = _count_per_cell(is_open, bounds)
    return _OpenPeaks(matrix.indices[is_open], np.concatenate([[0], np.cumsum(counts)]))


def _refuse_bad_values(values: np.ndarray) -> None:
    """Raise where counts cannot be negative, NaN or infinite."""
    if values.dtype.kind in "ub" or not values.size:
        return
    if values.dtype.kind not in "if":
        raise TypeError(f"expected numbers, got values of type {values.dtype}")
    # one pass each way when all is well: NaN makes both comparisons false
    if values.min() >= 0 and values.max() < np.inf:
        return
    not_finite = int((~np.isfinite(values)).sum())
    negative = int((values < 0).sum())
    raise ValueError(
        f"{negative:,} of {values.size:,} values are negative and {not_finite:,} are NaN or infinite: pass "
        "the raw counts (or 0 and 1), before any scaling or imputation, where a peak is open if its value "
        "lies above 0"
    )


def _count_per_cell(is_counted: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Number of true entries of each cell (cells,) int64."""
    running = np.zeros(len(is_counted) + 1, dtype=np.int64)
    np.cumsum(is_counted, out=running[1:])
    return np.diff(running[bounds])


def _sorted_sets(ids: np.ndarray, lengths: np.ndarray) -> _CellTokens:
    """Sort the ids of each cell and drop repetitions: two peaks can fall on one of the vocabulary."""
    # cell in the upper half, id in the lower: one sort then sorts every cell
    keys = (np.repeat(np.arange(len(lengths), dtype=np.int64), lengths) << 32) | ids
    if (keys[1:] > keys[:-1]).all():
        return _CellTokens(ids, lengths)  # the usual case: columns in the order of the vocabulary
    keys.sort()
    is_first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    keys = keys[is_first]
    return _CellTokens(
        (keys & 0xFFFFFFFF).astype(np.int32), np.bincount(keys >> 32, minlength=len(lengths)).astype(np.int64)
    )


def _truncated(tokens: _CellTokens, max_peaks: int, generator: np.random.Generator | None) -> _CellTokens:
    """Keep `max_peaks` ids of the cells that have more, still rising."""
    is_kept = np.ones(len(tokens.ids), dtype=bool)
    ends = np.cumsum(tokens.lengths)
    for cell in np.flatnonzero(tokens.lengths > max_peaks):
        begin, end = ends[cell] - tokens.lengths[cell], ends[cell]
        order = (
            content_order(tokens.ids[begin:end], max_peaks) if generator is None else generator.permutation(end - begin)
        )
        is_kept[begin + order[max_peaks:]] = False
    return _CellTokens(tokens.ids[is_kept], np.minimum(tokens.lengths, max_peaks))


def content_order(ids: np.ndarray, num_first: int) -> np.ndarray:
    """The choice of peaks at inference: an order that looks random but follows from the set of ids alone.

    The hashes of all ids, combined so that their order does not matter, give the seed of the cell. Hashing is
    one to one, so no two ids tie.

    Args:
        ids: (ids,) each once, more than `num_first`.
        num_first: how many are chosen.

    Returns:
        (ids,) positions; those of the chosen ids come first, in no particular order.
    """
    values = ids.astype(np.uint64)
    seed = np.bitwise_xor.reduce(_mixed(values))
    return np.argpartition(_mixed(values ^ seed), num_first)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The splitmix64 hash of uint64 values (Steele, Lea and Flood 2014), modulo 2**64 as uint64 computes."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _columns_of_features(features: Any) -> dict[str, Any]:
    """One list of values per key, from such a dictionary or from a list with one dictionary per cell."""
    if isinstance(features, Mapping) or hasattr(features, "keys"):
        columns = {key: features[key] for key in features.keys()}  # noqa: SIM118 (a BatchEncoding iterates over values)
    else:
        listed = list(features)
        if not listed:
            raise ValueError("there are no cells to pad")
        missing = [key for key in listed[0] if any(key not in feature for feature in listed)]
        if missing:
            raise ValueError(f"some cells lack {', '.join(missing)}: expected the same keys in each")
        columns = {key: [feature[key] for feature in listed] for key in listed[0]}
    if "input_ids" not in columns:
        raise ValueError(f"expected tokenised cells with 'input_ids', got the keys {', '.join(map(str, columns))}")
    if any(np.ndim(ids) != 1 for ids in columns["input_ids"]):
        raise ValueError("expected a list of cells: put a single one in a list")
    return columns


def _pad_cells(key: str, cells: Sequence[Any], lengths: np.ndarray, length: int) -> np.ndarray:
    """Stack cells (cells, length) int64, filled up on the right."""
    padded = np.full((len(cells), length), _PADDING_VALUES[key], dtype=np.int64)
    for row, cell, cell_length in zip(padded, cells, lengths.tolist(), strict=True):
        if len(cell) != cell_length:
            raise ValueError(f"a cell has {cell_length:,} input_ids but {len(cell):,} {key}: expected equally many")
        row[:cell_length] = cell
    return padded


def _stacked(key: str, values: Any) -> np.ndarray:
    """Values of another key as one array."""
    try:
        stacked = np.asarray(values)
        # Numbers that came as Python floats become what torch takes them for.
        return stacked.astype(np.float32) if stacked.dtype == np.float64 else stacked
    except ValueError:
        raise ValueError(
            f"{key!r} has a different number of values from cell to cell and only "
            f"{', '.join(_PADDING_VALUES)} are padded: leave it out, or use a collator made for it"
        ) from None
