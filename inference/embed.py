"""One embedding per cell, from data in memory or from a file that need not fit into it."""

import json
import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from anndata.io import write_elem
from tqdm.auto import tqdm

import epifoundation
from epifoundation.dataset_builders import PeakFile, PeakSource, PeakTable, open_peak_file
from epifoundation.dataset_builders.peak_files import ENTRIES_PER_BLOCK
from epifoundation.tokenization import Coverage, PeakMapping, PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import LOW_COVERAGE

from .batching import TOKENS_PER_BATCH, embed_tokens, ready_for_inference
from .coverage import coverage_numbers
from .loading import checked_device, encoder_of, load_model_and_tokenizer, refuse_mismatch, tokenizer_of
from .output import new_file, refuse_full_disk

KEY_ADDED = "X_epifoundation"
UNS_KEY = "epifoundation"
SECONDS_WITHOUT_PROGRESS = 3  # shorter work needs no progress bar
MANY_EMPTY_CELLS = 0.05  # share of cells; fewer are only counted
ROWS_PER_GROUP = 65_536  # of a parquet file


class _Embedder(NamedTuple):
    """A model made ready, with all that decides on its embeddings.

    Attributes:
        encoder: an `EpiFoundationModel`.
        tokenizer: a tokenizer of our own, so that `coverage` of the caller's stays as it was.
        device: where to compute, if not where the encoder is.
        max_tokens_per_batch: bound on the tokens of a batch.
        max_entries_per_block: bound on the entries read at a time.
        show_progress: whether to show a progress bar on a terminal.
    """

    encoder: Any
    tokenizer: PeakTokenizer
    device: torch.device | None
    max_tokens_per_batch: int
    max_entries_per_block: int
    show_progress: bool


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

    ``adata.uns["epifoundation"]`` tells how they were made: model, version, parameters and coverage. Nothing
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
    _check_options(key_added, max_tokens_per_batch, max_entries_per_block)
    source = PeakTable(adata, modality)
    embedder = _embedder(
        model, tokenizer, revision, device, dtype, max_peaks, max_tokens_per_batch, max_entries_per_block, show_progress
    )
    embeddings, coverage = _embed(source, embedder)
    source.adata.obsm[key_added] = embeddings
    source.adata.uns[UNS_KEY] = _record(embedder, revision, key_added, coverage)


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

    - ``.h5ad`` (``.h5mu`` for a MuData): a copy of the input with the embeddings in ``obsm[key_added]`` and
      ``uns["epifoundation"]`` as in `embed_cells`; the matrix is copied byte for byte.
    - ``.parquet``: a table with the column `cell` and one float32 column per dimension, ``epifoundation_0`` and
      so on; what would be in ``uns`` is JSON under the key ``epifoundation`` of the schema's metadata.

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
    _check_options(key_added, max_tokens_per_batch, max_entries_per_block)
    with open_peak_file(path, modality) as source, _output(source, output, overwrite) as partial:
        embedder = _embedder(
            model,
            tokenizer,
            revision,
            device,
            dtype,
            max_peaks,
            max_tokens_per_batch,
            max_entries_per_block,
            show_progress,
        )
        refuse_full_disk(partial, _bytes_needed(source, output, embedder.encoder.config.hidden_size))
        embeddings, coverage = _embed(source, embedder)
        record = _record(embedder, revision, key_added, coverage)
        if Path(output).suffix == ".parquet":
            _write_parquet(partial, source.cell_names, embeddings, record)
        else:
            source.close()  # the input may be what is about to be replaced
            _write_copy(source, partial, key_added, embeddings, record)
    return coverage


def _check_options(key_added: str, max_tokens: int, max_entries: int) -> None:
    if not key_added or "/" in key_added:
        raise ValueError(f"key_added must be a name without '/', got {key_added!r}")
    for name, value in (("max_tokens_per_batch", max_tokens), ("max_entries_per_block", max_entries)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _embedder(
    model: Any,
    tokenizer: PeakTokenizer | None,
    revision: str | None,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    max_peaks: int | None,
    *options: Any,
) -> _Embedder:
    if isinstance(model, str | os.PathLike):
        model, tokenizer = load_model_and_tokenizer(model, revision, device, dtype=dtype, tokenizer=tokenizer)
        device = None  # it is there already
    encoder = encoder_of(model)
    if tokenizer is None:
        tokenizer = tokenizer_of(model)
    refuse_mismatch(encoder.config, tokenizer)
    max_peaks = tokenizer.max_peaks if max_peaks is None else max_peaks
    own = PeakTokenizer(tokenizer.vocabulary, max_peaks=max_peaks)
    return _Embedder(encoder, own, None if device is None else checked_device(device), *options)


def _embed(source: PeakSource, embedder: _Embedder) -> tuple[np.ndarray, Coverage]:
    """Embeddings (cells, hidden) float32 of all cells in their order, and their coverage."""
    tokenizer, encoder = embedder.tokenizer, embedder.encoder
    mapping = tokenizer.vocabulary.map_or_explain(source.peak_names)
    embeddings = np.empty((source.num_cells, encoder.config.hidden_size), dtype=np.float32)
    parts: list[Coverage] = []
    start = 0
    with ready_for_inference(encoder, embedder.device), _progress(source.num_cells, embedder) as progress:
        for block in source.blocks(embedder.max_entries_per_block):
            cells = tokenizer(block, peaks=mapping, check=False)
            parts.append(tokenizer.coverage)
            if start == 0 and parts[0].num_cells < source.num_cells:
                # Hours before the end of a large file; the final word comes then.
                _warn_if_low(parts[0], mapping, f"in the first {parts[0].num_cells:,} cells ")
            ids, chromosomes = cells["input_ids"], cells["chromosome_ids"]
            for batch, rows in embed_tokens(encoder, ids, chromosomes, embedder.max_tokens_per_batch):
                embeddings[start + batch] = rows
                progress.update(len(batch))
            start += parts[-1].num_cells
    coverage = sum(parts[1:], start=parts[0])  # sources without cells are refused when they are opened
    _warn_if_low(coverage, mapping)
    _refuse_no_coverage(coverage, mapping)
    _warn_of_empty_cells(coverage)
    if not np.isfinite(embeddings).all():
        raise ValueError(
            "the model gives embeddings that are not finite: its weights are damaged, or too large for its precision "
            f"({encoder.dtype}); try dtype='float32'"
        )
    return embeddings, coverage


def _progress(num_cells: int, embedder: _Embedder) -> Any:
    # None: only on a terminal or in a notebook
    disable = None if embedder.show_progress else True
    return tqdm(total=num_cells, unit="cell", desc="embedding", delay=SECONDS_WITHOUT_PROGRESS, disable=disable)


def _warn_if_low(coverage: Coverage, mapping: PeakMapping, where: str = "") -> None:
    if coverage.num_matched_entries and coverage.entries_share < LOW_COVERAGE:
        warnings.warn(
            f"{where}less than half of the open peaks can be used, so these embeddings are doubtful: "
            f"{coverage.summary()} Likely cause and remedy: {mapping.advice}.",
            stacklevel=4,
        )


def _warn_of_empty_cells(coverage: Coverage) -> None:
    if coverage.num_empty_cells > MANY_EMPTY_CELLS * coverage.num_cells:
        warnings.warn(
            f"{coverage.num_empty_cells:,} of {coverage.num_cells:,} cells have no open peak that the model knows; "
            "they all get the embedding of [CLS] alone and look like a cluster: leave them out of what follows",
            stacklevel=4,
        )


def _refuse_no_coverage(coverage: Coverage, mapping: PeakMapping) -> None:
    if not coverage.num_entries:
        raise ValueError("no cell has an open peak: all values of the matrix are 0")
    if not coverage.num_matched_entries:
        raise ValueError(
            f"none of the {coverage.num_entries:,} open peaks overlaps a peak of the vocabulary: {mapping.advice}"
        )


def _record(embedder: _Embedder, revision: str | None, key_added: str, coverage: Coverage) -> dict[str, Any]:
    """What ``uns`` is to say of the embeddings; only values that every AnnData can store."""
    config = embedder.encoder.config
    record = {
        "model": config.name_or_path,
        "revision": revision,
        "commit": getattr(config, "_commit_hash", None),
        "version": epifoundation.__version__,
        "key_added": key_added,
        "genome": embedder.tokenizer.vocabulary.genome,
        "vocabulary_digest": embedder.tokenizer.vocabulary.digest(),
        "parameters": {"max_peaks": embedder.tokenizer.max_peaks, "dtype": str(embedder.encoder.dtype)},
        "coverage": coverage_numbers(coverage),
    }
    return {key: value for key, value in record.items() if value is not None}


def _output(source: PeakFile, output: str | os.PathLike[str], overwrite: bool) -> Any:
    """A path to write to, once all that can be known of the output is found to be well."""
    endings = (".h5ad" if source.table_path == "/" else ".h5mu", ".parquet")
    if Path(output).suffix not in endings:
        raise ValueError(
            f"cannot tell from its ending what {output} is to be: expected {' or '.join(endings)} for {source.path}"
        )
    return new_file(output, overwrite=overwrite)


def _bytes_needed(source: PeakFile, output: str | os.PathLike[str], hidden_size: int) -> int:
    copied = 0 if Path(output).suffix == ".parquet" else source.path.stat().st_size
    return copied + 4 * source.num_cells * hidden_size


def _write_copy(
    source: PeakFile, partial: Path, key_added: str, embeddings: np.ndarray, record: dict[str, Any]
) -> None:
    shutil.copyfile(source.path, partial)
    with h5py.File(partial, "r+") as file:
        table = file[source.table_path]
        for group in ("obsm", "uns"):
            if group not in table:
                write_elem(table, group, {})
        write_elem(table["obsm"], key_added, embeddings)
        write_elem(table["uns"], UNS_KEY, record)


def _write_parquet(partial: Path, cell_names: list[str], embeddings: np.ndarray, record: dict[str, Any]) -> None:
    dimensions = [pa.field(f"epifoundation_{i}", pa.float32()) for i in range(embeddings.shape[1])]
    metadata = {UNS_KEY: json.dumps(_without_nan(record))}
    schema = pa.schema([pa.field("cell", pa.string()), *dimensions], metadata=metadata)
    with pq.ParquetWriter(partial, schema) as writer:
        for start in range(0, len(cell_names), ROWS_PER_GROUP):
            rows = slice(start, start + ROWS_PER_GROUP)
            columns = [cell_names[rows], *np.ascontiguousarray(embeddings[rows].T)]
            writer.write_table(pa.table(columns, schema=schema))


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
