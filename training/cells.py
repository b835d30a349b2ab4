"""The tokenised cells and the tokenizer of a run, checked before anything is built on them."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from epifoundation.dataset_builders.tokenized.stored_cells import load_cells
from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.options import RunOptions

logger = logging.getLogger(__name__)

# Neither code nor pickles are fetched: the code is in this package, the weights are safetensors.
CHECKPOINT_FILES = ["config.json", "*.safetensors", "*.index.json", "tokenizer_config.json", "peaks.npz", "genes.tsv"]
PEAKS_FILE = "peaks.npz"  # of a tokenizer saved beside its data


def training_and_held_out(options: RunOptions, seed: int, columns: Sequence[str]) -> tuple[Dataset, Dataset | None]:
    """The cells to train on and those to evaluate on.

    The latter are those of `validation_data`, else the split "validation" of `data`, else a share of its cells, drawn
    by `seed`.

    Raises:
        FileNotFoundError: if there are no cells.
        ValueError: if columns are missing, or the two kinds of cells do not have the same labels.
    """
    data = load_cells(options.data)
    train = load_cells(data, "train")
    held_out = None
    if options.validation_data is not None:
        validation = load_cells(options.validation_data)
        held_out = load_cells(validation, "validation") if isinstance(validation, DatasetDict) else validation
    elif isinstance(data, DatasetDict) and "validation" in data:
        held_out = data["validation"]
    elif options.validation_share:
        train, held_out = _divided(train, options.validation_share, seed)
    _check_columns(train, columns, options.data)
    if held_out is not None:
        _check_columns(held_out, columns, options.validation_data or options.data)
        _check_labels(train, held_out)
    return train, held_out


def cells_with_a_label(cells: Dataset, names: str, labels: Sequence[str] = ("cell_type",)) -> Dataset:
    """The cells with a cell type, or any other of several labels; how many were left out is logged.

    Raises:
        ValueError: if there are none.
    """
    known = np.flatnonzero(np.any([np.asarray(cells[label]) >= 0 for label in labels], axis=0))
    text, num_unknown = " or ".join(labels), len(cells) - len(known)
    if len(known) == 0:
        raise ValueError(f"no {names} cell has a known {text}: annotation has nothing to learn from")
    if len(known) == len(cells):
        return cells
    logger.warning("%d of %d %s cells have no known %s and are left out", num_unknown, len(cells), names, text)
    return cells.select(known, keep_in_memory=True)


def checkpoint_folder(name: str) -> str:
    """The folder of a checkpoint: `name` itself, or where what the Hub has under this name was put.

    Raises:
        FileNotFoundError: if there is neither.
    """
    if Path(name).is_dir():
        return name
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise FileNotFoundError(f"there is no folder {name}, and it cannot be a name on the Hub (organisation/model)")
    try:
        return snapshot_download(name, allow_patterns=CHECKPOINT_FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(f"there is neither a folder {name} nor such a model on the Hub: {reason}") from error


def tokenizer_of_run(options: RunOptions, model: str | None, needs_genes: bool) -> PeakTokenizer:
    """The tokenizer that was named, else that of the model, else that beside the data.

    A model that was trained without genes takes those of the data, where the run needs genes.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the cells were tokenised with other peaks or genes, or it holds no genes but they are needed.
    """
    folder = checkpoint_folder(options.tokenizer or model or options.data)
    if not Path(folder, PEAKS_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no tokenizer ({PEAKS_FILE} is missing): name its folder as 'tokenizer'"
        )
    tokenizer = PeakTokenizer.from_pretrained(folder)
    if Path(options.data, PEAKS_FILE).is_file():
        of_data = PeakTokenizer.from_pretrained(options.data)
        if of_data.vocabulary.digest() != tokenizer.vocabulary.digest():
            raise ValueError(
                f"the cells in {options.data} were tokenised with other peaks than those of {folder}: tokenise them "
                "with that tokenizer"
            )
        if needs_genes and tokenizer.genes is None:
            tokenizer = PeakTokenizer(tokenizer.vocabulary, of_data.genes, max_peaks=tokenizer.max_peaks)
        if needs_genes and _genes(of_data) != _genes(tokenizer):
            raise ValueError(
                f"the genes of {options.data} are not those of {folder}: prepare the cells with the latter"
            )
    return _refuse_without_genes(tokenizer, folder) if needs_genes else tokenizer


def _refuse_without_genes(tokenizer: PeakTokenizer, folder: str) -> PeakTokenizer:
    if tokenizer.genes is None:
        raise ValueError(
            f"the tokenizer in {folder} holds no genes, which this run needs: tokenise the cells with their RNA "
            "(tokenize --rna), or choose an objective without genes"
        )
    return tokenizer


def check_ids(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    """Refuse cells whose ids lie outside the vocabulary.

    Raises:
        ValueError: if there are any.
    """
    for column, size in (("input_ids", len(tokenizer)), ("gene_ids", _num_gene_ids(tokenizer))):
        if size is None or column not in cells.column_names:
            continue
        for block in cells.select_columns(column).with_format("arrow").iter(10_000):
            ids = block[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if len(ids) and ids.max() >= size:
                raise ValueError(
                    f"the cells hold {column} up to {ids.max():,}, the tokenizer has ids below {size:,}: they were "
                    "tokenised with another one"
                )


def _divided(cells: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Put a share of the cells apart, drawn by `seed`; both keep their order."""
    num_held_out = max(1, round(share * len(cells)))
    if not 0 < share < 1 or num_held_out >= len(cells):
        raise ValueError(
            f"validation_share must lie in [0, 1) and leave cells to train on, got {share} of {len(cells)} cells"
        )
    order = np.random.default_rng(seed).permutation(len(cells))
    # In memory: beside the data, where the library would keep the choice, may be no place to write.
    return (
        cells.select(np.sort(order[num_held_out:]), keep_in_memory=True),
        cells.select(np.sort(order[:num_held_out]), keep_in_memory=True),
    )


def _genes(tokenizer: PeakTokenizer) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    return None if tokenizer.genes is None else (tokenizer.genes.symbols, tokenizer.genes.ensembl_ids)


def _num_gene_ids(tokenizer: PeakTokenizer) -> int | None:
    return None if tokenizer.gene_chromosome_ids is None else len(tokenizer.gene_chromosome_ids)


def _check_columns(cells: Dataset, columns: Sequence[str], folder: str) -> None:
    missing = [name for name in columns if name not in cells.column_names]
    if missing:
        raise ValueError(
            f"the cells in {folder} lack {', '.join(missing)}, which this run needs; they have "
            f"{', '.join(cells.column_names)}"
        )
    if len(cells) == 0:
        raise ValueError(f"there are no cells in {folder}")


def _check_labels(train: Dataset, held_out: Dataset) -> None:
    for column in ("cell_type", "batch", "assay"):
        both = [getattr(cells.features.get(column), "names", None) for cells in (train, held_out)]
        if None not in both and both[0] != both[1]:
            raise ValueError(
                f"training and held-out cells number {column} differently: prepare them together, so that both have "
                "the same names in the same order"
            )
