"""One run of a model over all cells of a data set: blocks are tokenised, batches computed, the coverage judged."""

import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

import epifoundation
from epifoundation import EpiFoundationModel, EpiFoundationPreTrainedModel
from epifoundation.dataset_builders import PeakSource
from epifoundation.dataset_builders.genome.genome_check import other_genome, peaks_by_chance
from epifoundation.dataset_builders.readers.peak_files import ENTRIES_PER_BLOCK
from epifoundation.tokenization import Coverage, PeakMapping, PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import LOW_COVERAGE

from .batching import TOKENS_PER_BATCH, compute_batches, ready_for_inference
from .coverage import coverage_numbers
from .loading import (
    checked_device,
    encoder_of,
    load_model_and_tokenizer,
    refuse_mismatch,
    tokenizer_of,
)

SECONDS_WITHOUT_PROGRESS = 3  # shorter work needs no progress bar
MANY_EMPTY_CELLS = 0.05  # share of cells; fewer are only counted


class CellOptions(TypedDict, total=False):
    """How a model is run over cells; `embed_cells` explains each."""

    max_peaks: int | None
    max_tokens_per_batch: int
    max_entries_per_block: int
    device: str | torch.device | None
    dtype: str | torch.dtype | None
    revision: str | None
    show_progress: bool


class CellRun(NamedTuple):
    """A model made ready, with all that decides on its results.

    Attributes:
        model: the model; an encoder alone if it was asked for.
        tokenizer: a tokenizer of our own, so that `coverage` of the caller's stays as it was.
        revision: branch, tag or commit that was asked for.
        device: where to compute, if not where the model is.
        max_tokens_per_batch: bound on the tokens of a batch.
        max_entries_per_block: bound on the entries read at a time.
        show_progress: whether to show a progress bar on a terminal.
    """

    model: Any
    tokenizer: PeakTokenizer
    revision: str | None
    device: torch.device | None
    max_tokens_per_batch: int
    max_entries_per_block: int
    show_progress: bool


class CellTask(NamedTuple):
    """What is computed of each cell.

    Attributes:
        doing: word for the progress bar, such as "embedding".
        results: word for messages, such as "embeddings".
        of_empty_cells: what becomes of cells without a peak that the model knows.
        forward: takes a packed batch by keywords, gives (cells of the batch, numbers).
        store: takes the indices of cells in the data set and their numbers, float32.
        max_cells_per_batch: bound besides that on tokens, where the numbers of a cell are many.
    """

    doing: str
    results: str
    of_empty_cells: str
    forward: Callable[..., Tensor]
    store: Callable[[np.ndarray, np.ndarray], None]
    max_cells_per_batch: int | None = None


def prepare_run(
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    model_class: type[EpiFoundationPreTrainedModel] = EpiFoundationModel,
    max_peaks: int | None = None,
    max_tokens_per_batch: int = TOKENS_PER_BATCH,
    max_entries_per_block: int = ENTRIES_PER_BLOCK,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    show_progress: bool = True,
) -> CellRun:
    """Make a model ready to run over cells; for arguments and errors see `embed_cells`.

    Args:
        model: a folder, a name on the Hub, or a model object, of which the encoder is used if `model_class` is that
            of the encoder.
        model_class: what to load.
    """
    for name, value in (
        ("max_tokens_per_batch", max_tokens_per_batch),
        ("max_entries_per_block", max_entries_per_block),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if isinstance(model, str | os.PathLike):
        model, tokenizer = load_model_and_tokenizer(
            model, revision, device, dtype=dtype, model_class=model_class, tokenizer=tokenizer
        )
        device = None  # it is there already
    encoder = encoder_of(model)
    if tokenizer is None:
        tokenizer = tokenizer_of(model)
    refuse_mismatch(encoder.config, tokenizer)
    max_peaks = tokenizer.max_peaks if max_peaks is None else max_peaks
    return CellRun(
        encoder if model_class is EpiFoundationModel else model,
        PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=max_peaks),
        revision,
        None if device is None else checked_device(device),
        max_tokens_per_batch,
        max_entries_per_block,
        show_progress,
    )


def run_over_cells(source: PeakSource, run: CellRun, task: CellTask) -> Coverage:
    """Compute the numbers of all cells and hand them to ``task.store``, batch by batch; their coverage comes back.

    Raises:
        ValueError: if no open peak is in the vocabulary, values are no counts, or numbers are not finite.

    Warns:
        UserWarning: if less than half of the open peaks are in the vocabulary, or many cells have none.
    """
    mapping = run.tokenizer.vocabulary.map_or_explain(source.peak_names)
    _warn_of_other_genome(source, mapping, run.tokenizer)
    parts: list[Coverage] = []
    start = 0
    with ready_for_inference(run.model, run.device), progress_bar(source.num_cells, task.doing, run) as progress:
        for block in source.blocks(run.max_entries_per_block):
            cells = run.tokenizer(block, peaks=mapping, check=False)
            parts.append(run.tokenizer.coverage)
            if start == 0 and parts[0].num_cells < source.num_cells:
                # Hours before the end of a large file; the final word comes then.
                _warn_if_low(parts[0], mapping, task, f"in the first {parts[0].num_cells:,} cells ")
            for batch, numbers in compute_batches(
                task.forward,
                run.model.device,
                cells["input_ids"],
                cells["chromosome_ids"],
                run.max_tokens_per_batch,
                task.max_cells_per_batch,
            ):
                refuse_not_finite(numbers, task.results, run)
                task.store(start + batch, numbers)
                progress.update(len(batch))
            start += parts[-1].num_cells
    coverage = sum(parts[1:], start=parts[0])  # sources without cells are refused when they are opened
    _warn_if_low(coverage, mapping, task)
    _refuse_no_coverage(coverage, mapping)
    _warn_of_empty_cells(coverage, task)
    return coverage


def run_record(run: CellRun, coverage: Coverage, **more: Any) -> dict[str, Any]:
    """What ``uns`` is to say of the results; only values that every AnnData can store."""
    return model_record(run, **more) | {"coverage": coverage_numbers(coverage)}


def model_record(run: CellRun, **more: Any) -> dict[str, Any]:
    """The same without the coverage of data."""
    config = run.model.config
    record = {
        "model": config.name_or_path,
        "revision": run.revision,
        "commit": getattr(config, "_commit_hash", None),
        "version": epifoundation.__version__,
        **more,
        "genome": run.tokenizer.vocabulary.genome,
        "vocabulary_digest": run.tokenizer.vocabulary.digest(),
        "parameters": {"max_peaks": run.tokenizer.max_peaks, "dtype": str(run.model.dtype)},
    }
    return {key: value for key, value in record.items() if value is not None}


def progress_bar(num_cells: int, doing: str, run: CellRun) -> Any:
    """A progress bar over cells, which shows on a terminal or in a notebook if the work takes long."""
    disable = None if run.show_progress else True  # None: only on a terminal or in a notebook
    return tqdm(total=num_cells, unit="cell", desc=doing, delay=SECONDS_WITHOUT_PROGRESS, disable=disable)


def refuse_not_finite(numbers: np.ndarray, results: str, run: CellRun) -> None:
    """Check the numbers that a model gives.

    Raises:
        ValueError: if they hold NaN or infinity.
    """
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"the model gives {results} that are not finite: its weights are damaged, or too large for its "
            f"precision ({run.model.dtype}); try dtype='float32'"
        )


# The warnings count four functions up to the caller's line: here, `run_over_cells`, a function of the task, and the
# public one.
def _warn_of_other_genome(source: PeakSource, mapping: PeakMapping, tokenizer: PeakTokenizer) -> None:
    if mapping.share >= LOW_COVERAGE:
        return
    vocabulary = tokenizer.vocabulary
    if clause := other_genome(peaks_by_chance(source.peak_names, vocabulary), "peaks", vocabulary):
        warnings.warn(f"{clause}; lift them over to {vocabulary.genome}, or count the fragments anew", stacklevel=4)


def _warn_if_low(coverage: Coverage, mapping: PeakMapping, task: CellTask, where: str = "") -> None:
    if coverage.num_matched_entries and coverage.entries_share < LOW_COVERAGE:
        warnings.warn(
            f"{where}less than half of the open peaks can be used, so these {task.results} are doubtful: "
            f"{coverage.summary()} Likely cause and remedy: {mapping.advice}.",
            stacklevel=5,
        )


def _warn_of_empty_cells(coverage: Coverage, task: CellTask) -> None:
    if coverage.num_empty_cells > MANY_EMPTY_CELLS * coverage.num_cells:
        warnings.warn(
            f"{coverage.num_empty_cells:,} of {coverage.num_cells:,} cells have no open peak that the model knows; "
            f"{task.of_empty_cells}",
            stacklevel=5,
        )


def _refuse_no_coverage(coverage: Coverage, mapping: PeakMapping) -> None:
    if not coverage.num_entries:
        raise ValueError("no cell has an open peak: all values of the matrix are 0")
    if not coverage.num_matched_entries:
        raise ValueError(
            f"none of the {coverage.num_entries:,} open peaks overlaps a peak of the vocabulary: {mapping.advice}"
        )
