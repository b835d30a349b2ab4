"""One embedding per cell, from data in memory or from a file that need not fit into it."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.dataset_builders import PeakSource, PeakTable, open_peak_file
from epifoundation.dataset_builders.readers.peak_files import ENTRIES_PER_BLOCK
from epifoundation.tokenization import Coverage, PeakTokenizer

from .batching import TOKENS_PER_BATCH
from .cell_run import CellRun, CellTask, prepare_run, run_over_cells, run_record
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

KEY_ADDED = "X_epifoundation"
UNS_KEY = "epifoundation"


def embed_cells(
    adata: Any,
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    key_added: str = KEY_ADDED,
    max_peaks: int | None = None,
    max_tokens_per_batch: int = TOKENS_PER_BATCH,
    max_entries_per_block: int = ENTRIES_PER_BLOCK,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    modality: str | None = None,
    show_progress: bool = True,
) -> None:
    """Add one embedding per cell to ``adata.obsm[key_added]``, (cells, hidden) float32, in the order of the rows.

    ``adata.obs["epifoundation_num_peaks"]`` counts the open peaks of each cell that the model could read, and
    ``adata.uns["epifoundation"]`` tells how the embeddings were made: model, version, parameters and coverage. Nothing
    else of `adata` and nothing of `model` changes. The same call gives the same bits on the same machine, and
    a cell's embedding does not depend on the cells beside it. A cell without a peak of the vocabulary gets the
    embedding of ``[CLS]`` alone; ``uns["epifoundation"]["coverage"]["num_empty_cells"]`` counts them.

    Args:
        adata: an AnnData of raw peak counts, or a MuData, whose peak modality then gets the results.
        model: a model of any class of this package, the folder of a checkpoint, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        key_added: key of ``obsm``.
        max_peaks: peaks kept of a cell; by default as the tokenizer says.
        max_tokens_per_batch: tokens computed at a time; lower it if the memory does not suffice.
        max_entries_per_block: entries of the matrix tokenised at a time.
        device: where to compute. By default a model object stays where it is, and a model that is loaded here
            goes to "cuda" if there is one, else "cpu". A model object is moved back afterwards.
        dtype: precision of a model that is loaded here, see `load_model_and_tokenizer`; on a GPU "bfloat16" is
            several times faster and lets flash-attention be used. A model object keeps its own.
        revision: branch, tag or commit of a model on the Hub.
        modality: which part of a MuData; by default "atac", "peaks", or the only one.
        show_progress: show a progress bar on a terminal if the work takes more than a few seconds.

    Raises:
        FileNotFoundError: if the model cannot be found or is incomplete.
        TypeError: if `adata` or `model` is something else.
        ValueError: if there are no cells or peaks, values are no counts, no open peak is in the vocabulary, or
            model and tokenizer do not fit.

    Warns:
        UserWarning: if less than half of the open peaks overlap a peak of the vocabulary.
    """
    _check_key(key_added)
    source = PeakTable(adata, modality)
    run = prepare_run(
        model,
        tokenizer,
        max_peaks=max_peaks,
        max_tokens_per_batch=max_tokens_per_batch,
        max_entries_per_block=max_entries_per_block,
        device=device,
        dtype=dtype,
        revision=revision,
        show_progress=show_progress,
    )
    add_to_anndata(source.adata, _results(run, key_added, *embed_source(source, run)))


def embed_file(
    path: str | os.PathLike[str],
    model: Any,
    output: str | os.PathLike[str],
    tokenizer: PeakTokenizer | None = None,
    *,
    overwrite: bool = False,
    key_added: str = KEY_ADDED,
    max_peaks: int | None = None,
    max_tokens_per_batch: int = TOKENS_PER_BATCH,
    max_entries_per_block: int = ENTRIES_PER_BLOCK,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    modality: str | None = None,
    show_progress: bool = True,
) -> Coverage:
    """Embed the cells of a file that is read in blocks, and write them to another.

    The output is checked before the work and appears complete or not at all. Its ending tells what it is:

    - ``.h5ad`` (``.h5mu`` for a MuData): a copy of the input with the embeddings in ``obsm[key_added]``, and ``obs``
      and ``uns`` as in `embed_cells`; the matrix is copied byte for byte.
    - ``.parquet``: a table with the columns `cell` and `epifoundation_num_peaks` and one float32 column per
      dimension, ``epifoundation_0`` and so on; what would be in ``uns`` is JSON under the key ``epifoundation`` of the
      schema's metadata.

    Memory holds one block, one batch, and the embeddings (2 KB per cell at 512 dimensions).

    Args:
        path: an .h5ad or .h5mu file of raw peak counts.
        model: see `embed_cells`, also for all arguments not named here.
        output: the file to write; with `overwrite` it may be the input itself.
        tokenizer: by default that of the checkpoint.
        overwrite: replace `output` if it exists.
        key_added: key of ``obsm``; not used for .parquet.
        max_peaks: see `embed_cells`.
        max_tokens_per_batch: see `embed_cells`.
        max_entries_per_block: entries of the matrix read at a time.
        device: see `embed_cells`.
        dtype: see `embed_cells`.
        revision: see `embed_cells`.
        modality: see `embed_cells`.
        show_progress: see `embed_cells`.

    Returns:
        How much of the file could be used.

    Raises:
        FileExistsError: if `output` exists, unless `overwrite`.
        OSError: if `output` cannot be written, or the disk is too small for it.
        FileNotFoundError: if the input, the model or the folder of `output` does not exist.
        ValueError: as `embed_cells`; if the input is no AnnData file, or the ending of `output` is not known.

    Warns:
        UserWarning: as `embed_cells`.
    """
    _check_key(key_added)
    with open_peak_file(path, modality) as source, output_for(source, output, overwrite) as partial:
        run = prepare_run(
            model,
            tokenizer,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            max_entries_per_block=max_entries_per_block,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=show_progress,
        )
        refuse_full_disk(partial, bytes_needed(source, output, run.model.config.hidden_size))
        embeddings, coverage = embed_source(source, run)
        write_results(source, output, partial, _results(run, key_added, embeddings, coverage))
    return coverage


def _check_key(key_added: str) -> None:
    if not key_added or "/" in key_added:
        raise ValueError(f"key_added must be a name without '/', got {key_added!r}")


def embed_source(source: PeakSource, run: CellRun) -> tuple[np.ndarray, Coverage]:
    """Embeddings (cells, hidden) float32 of all cells in their order, and their coverage."""
    embeddings = np.empty((source.num_cells, run.model.config.hidden_size), dtype=np.float32)

    def forward(**inputs: Tensor) -> Tensor:
        out: Tensor = run.model(**inputs, cell_embeddings_only=True).pooler_output
        return out

    of_empty_cells = "they all get the embedding of [CLS] alone and look like a cluster: leave them out of what follows"
    task = CellTask("embedding", "embeddings", of_empty_cells, forward, embeddings.__setitem__)
    return embeddings, run_over_cells(source, run, task)


def _results(run: CellRun, key_added: str, embeddings: np.ndarray, coverage: Coverage) -> CellResults:
    return CellResults(
        UNS_KEY,
        run_record(run, coverage, key_added=key_added),
        {NUM_PEAKS_KEY: num_peaks_of(coverage)},
        {key_added: embeddings},
        {key_added: [f"epifoundation_{i}" for i in range(embeddings.shape[1])]},
    )
