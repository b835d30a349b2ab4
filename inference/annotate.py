"""A cell type for each cell, by a classifier fine-tuned on annotated ones."""

import os
from typing import Any, Unpack

import numpy as np
import pandas as pd
from torch import Tensor

from epifoundation import EpiFoundationForCellClassification
from epifoundation.dataset_builders import PeakSource, PeakTable, open_peak_file
from epifoundation.tokenization import Coverage, PeakTokenizer

from .cell_run import CellOptions, CellRun, CellTask, prepare_run, run_over_cells, run_record
from .output import refuse_full_disk
from .results import (
    NUM_PEAKS_KEY,
    CellResults,
    add_to_anndata,
    bytes_needed,
    num_peaks_of,
    output_for,
    write_results,
)

CELL_TYPE_KEY = "epifoundation_cell_type"
PROBABILITY_KEY = "epifoundation_cell_type_probability"
PROBABILITIES_KEY = "epifoundation_cell_type_probabilities"


def annotate_cells(
    adata: Any,
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    min_peaks: int = 1,
    add_probabilities: bool = False,
    modality: str | None = None,
    **options: Unpack[CellOptions],
) -> None:
    """Name the type of each cell; rows keep their order, and nothing but the following is written.

    - ``obs["epifoundation_cell_type"]``: categorical, the likeliest of the model's cell types. It is missing (NaN) for
      a cell of which the model could read fewer than `min_peaks` open peaks: about such a cell it knows nothing.
    - ``obs["epifoundation_cell_type_probability"]``: its probability by the model, float32 in (0, 1]; NaN where the
      type is missing. Cells of a type the model never saw get one of its types too, often with a low probability.
    - ``obs["epifoundation_num_peaks"]``: how many open peaks of the cell the model could read.
    - ``uns["epifoundation_cell_type"]``: the model, its cell types and the coverage.
    - with `add_probabilities`, ``obsm["epifoundation_cell_type_probabilities"]``: (cells, cell types) float32, all of
      them, in the order of ``uns["epifoundation_cell_type"]["cell_types"]``.

    Args:
        adata: an AnnData of raw peak counts, or a MuData, whose peak modality then gets the results.
        model: a fine-tuned classifier, the folder of one, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        min_peaks: readable open peaks that a cell needs to get a type.
        add_probabilities: also write the probabilities of all types.
        modality: which part of a MuData; by default "atac", "peaks", or the only one.
        **options: as for `embed_cells`: max_peaks, max_tokens_per_batch, max_entries_per_block, device, dtype,
            revision, show_progress.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `embed_cells`; ValueError also if the checkpoint holds no
            classifier.

    Warns:
        UserWarning: as `embed_cells`.
    """
    source = PeakTable(adata, modality)
    run = _classifier(model, tokenizer, min_peaks, **options)
    add_to_anndata(source.adata, _results(run, *annotate_source(source, run), min_peaks, add_probabilities))


def annotate_file(
    path: str | os.PathLike[str],
    model: Any,
    output: str | os.PathLike[str],
    tokenizer: PeakTokenizer | None = None,
    *,
    overwrite: bool = False,
    min_peaks: int = 1,
    add_probabilities: bool = False,
    modality: str | None = None,
    **options: Unpack[CellOptions],
) -> pd.Series:
    """Name the type of each cell of a file that is read in blocks; the output appears complete or not at all.

    Its ending tells what it is: ``.h5ad`` (``.h5mu``), a copy of the input with what `annotate_cells` adds; or
    ``.parquet``, a table with the columns `cell`, those of ``obs``, and with `add_probabilities` one more per cell
    type, ``probability of <type>``.

    Args:
        path: an .h5ad or .h5mu file of raw peak counts.
        model: see `annotate_cells`, also for all arguments not named here.
        output: the file to write; with `overwrite` it may be the input itself.
        tokenizer: by default that of the checkpoint.
        overwrite: replace `output` if it exists.
        min_peaks: see `annotate_cells`.
        add_probabilities: see `annotate_cells`.
        modality: see `annotate_cells`.
        **options: see `annotate_cells`.

    Returns:
        The categorical cell types in the order of the file, missing where the model cannot tell.

    Raises:
        OSError: if the output cannot be written.
        FileNotFoundError, TypeError, ValueError: as `annotate_cells`.

    Warns:
        UserWarning: as `embed_cells`.
    """
    with open_peak_file(path, modality) as source, output_for(source, output, overwrite) as partial:
        run = _classifier(model, tokenizer, min_peaks, **options)
        refuse_full_disk(partial, bytes_needed(source, output, run.model.config.num_labels))
        results = _results(run, *annotate_source(source, run), min_peaks, add_probabilities)
        write_results(source, output, partial, results)
    return results.obs[CELL_TYPE_KEY]


def _classifier(model: Any, tokenizer: PeakTokenizer | None, min_peaks: int, **options: Unpack[CellOptions]) -> CellRun:
    if min_peaks < 1:
        raise ValueError(f"min_peaks must be at least 1, got {min_peaks}: without a peak there is nothing to judge by")
    if not isinstance(model, str | os.PathLike) and not hasattr(model, "classifier"):
        raise TypeError(
            "expected a model with a classifier, such as EpiFoundationForCellClassification, got "
            f"{type(model).__name__}"
        )
    return prepare_run(model, tokenizer, model_class=EpiFoundationForCellClassification, **options)


def cell_type_names(config: Any) -> list[str]:
    """Names of a classifier's cell types, in the order of its outputs."""
    return [str(config.id2label[i]) for i in range(config.num_labels)]


def annotate_source(source: PeakSource, run: CellRun) -> tuple[np.ndarray, Coverage]:
    """Probabilities (cells, cell types) float32 of all cells in their order, and the coverage."""
    probabilities = np.empty((source.num_cells, run.model.config.num_labels), dtype=np.float32)

    def forward(**inputs: Tensor) -> Tensor:
        logits: Tensor = run.model(**inputs).logits
        return logits.float().softmax(dim=-1)

    task = CellTask("annotating", "cell types", "they get no cell type", forward, probabilities.__setitem__)
    return probabilities, run_over_cells(source, run, task)


def annotation(config: Any, probabilities: np.ndarray, coverage: Coverage, min_peaks: int) -> dict[str, pd.Series]:
    """The columns of ``obs`` that `annotate_cells` writes."""
    num_peaks = num_peaks_of(coverage)
    is_known = num_peaks.to_numpy() >= min_peaks
    best = probabilities.argmax(axis=1)
    cell_types = pd.Categorical.from_codes(np.where(is_known, best, -1), categories=cell_type_names(config))
    probability = np.where(is_known, probabilities[np.arange(len(best)), best], np.float32(np.nan))
    return {CELL_TYPE_KEY: pd.Series(cell_types), PROBABILITY_KEY: pd.Series(probability), NUM_PEAKS_KEY: num_peaks}


def _results(
    run: CellRun, probabilities: np.ndarray, coverage: Coverage, min_peaks: int, add_probabilities: bool
) -> CellResults:
    names = cell_type_names(run.model.config)
    return CellResults(
        CELL_TYPE_KEY,
        run_record(run, coverage, min_peaks=min_peaks, cell_types=names),
        annotation(run.model.config, probabilities, coverage, min_peaks),
        {PROBABILITIES_KEY: probabilities} if add_probabilities else {},
        {PROBABILITIES_KEY: [f"probability of {name}" for name in names]},
    )
