"""Cells of two modalities in one space, by a model with a tower for each (CRAFT)."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anndata import AnnData
from torch import Tensor

from epifoundation import EpiFoundationForContrastiveAlignment
from epifoundation.dataset_builders import PeakFile, PeakSource, PeakTable, open_peak_file
from epifoundation.dataset_builders.readers.matrix_files import GeneFile, GeneTable
from epifoundation.tokenization import NUM_SPECIAL_TOKENS, Coverage, PeakTokenizer

from .alignment_genes import GeneCoverage, embed_genes
from .cell_run import CellOptions, CellRun, CellTask, model_record, prepare_run, run_over_cells
from .coverage import coverage_numbers
from .output import new_file, refuse_full_disk
from .results import NUM_PEAKS_KEY, CellResults, add_to_anndata, num_peaks_of, without_nan

KEY_ADDED = "X_epifoundation_aligned"
UNS_KEY = "epifoundation_aligned"
NUM_GENES_KEY = "epifoundation_num_genes"
NUM_FEATURES_KEY = "epifoundation_num_features"
ATAC, RNA = "ATAC", "RNA"


class AlignedCells(NamedTuple):
    """Cells in the space of both modalities.

    Attributes:
        table: a row for each cell and modality, without counts: embeddings in ``obsm``, and in ``obs`` the columns
            of the data, ``modality``, ``barcode`` and ``epifoundation_num_features``.
        atac: how much of the cells by ATAC could be used, if there are any.
        rna: likewise by RNA.
    """

    table: AnnData
    atac: Coverage | None
    rna: GeneCoverage | None


def align_cells(
    atac: Any | None,
    rna: Any | None,
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    key_added: str = KEY_ADDED,
    atac_modality: str | None = None,
    rna_modality: str | None = None,
    allow_float_counts: bool = False,
    **options: Unpack[CellOptions],
) -> None:
    """Add embeddings in the space of both modalities, ``obsm[key_added]``, (cells, projection) float32 of length 1.

    Of two cells the cosine tells how alike they are, whichever modality each was measured by. Rows keep their order.
    Besides, ``obs["epifoundation_num_peaks"]`` of `atac` and ``obs["epifoundation_num_genes"]`` of `rna` count what
    the model could read of each cell, and ``uns["epifoundation_aligned"]`` tells how it was made. Nothing else changes.

    Args:
        atac: an AnnData of raw peak counts, or a MuData that holds one; None for RNA alone.
        rna: an AnnData of raw gene counts, or a MuData, which may be the same; None for ATAC alone. Genes are matched
            by symbol or Ensembl id. They need not be the cells of `atac`.
        model: an `EpiFoundationForContrastiveAlignment`, the folder of one, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        key_added: key of ``obsm``.
        atac_modality: which part of a MuData holds the peaks; by default "atac", "peaks", or the only one.
        rna_modality: which holds the genes; by default "rna", "gex" or "genes".
        allow_float_counts: take gene counts that are not whole numbers.
        **options: as for `embed_cells`.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `embed_cells`; ValueError also if there is neither modality, the
            model has no tower for RNA or knows none of the genes, or values are no raw counts.

    Warns:
        UserWarning: if less than half of the open peaks, or of the expressed genes, are known to the model.
    """
    _refuse_nothing(atac, rna)
    peaks = None if atac is None else PeakTable(atac, atac_modality)
    genes = None if rna is None else GeneTable(rna, rna_modality)
    run = aligning_run(model, tokenizer, **options)
    if peaks is not None:
        embeddings, coverage = embed_peaks(peaks, run)
        record = model_record(run, key_added=key_added, coverage=coverage_numbers(coverage))
        obs = {NUM_PEAKS_KEY: num_peaks_of(coverage)}
        add_to_anndata(peaks.adata, CellResults(UNS_KEY, record, obs, {key_added: embeddings}, {}))
    if genes is not None:
        embeddings, of_genes = embed_genes(genes, run, allow_float_counts=allow_float_counts)
        record = model_record(run, key_added=key_added, coverage=of_genes.numbers())
        obs = {NUM_GENES_KEY: pd.Series(of_genes.num_matched_entries_per_cell)}
        add_to_anndata(genes.adata, CellResults(UNS_KEY, record, obs, {key_added: embeddings}, {}))


def align_files(
    atac: str | os.PathLike[str] | None,
    rna: str | os.PathLike[str] | None,
    model: Any,
    output: str | os.PathLike[str],
    tokenizer: PeakTokenizer | None = None,
    *,
    overwrite: bool = False,
    key_added: str = KEY_ADDED,
    atac_modality: str | None = None,
    rna_modality: str | None = None,
    allow_float_counts: bool = False,
    **options: Unpack[CellOptions],
) -> AlignedCells:
    """Embed the cells of files in the space of both modalities, and write one table of them, without counts.

    Files are read in blocks; memory holds one block, one batch, the embeddings and ``obs``. The output appears
    complete or not at all. It has a row for each cell and modality, see `AlignedCells`; of two files rows are called
    ``barcode-ATAC`` and ``barcode-RNA``. Its ending tells what it is: ``.h5ad``, or ``.parquet`` with the columns
    `cell`, those of ``obs``, and ``epifoundation_aligned_0`` and so on. A column of the data that has one of these
    names makes room.

    Args:
        atac: an .h5ad, .h5mu or 10x .h5 file of raw peak counts; None for RNA alone.
        rna: an .h5ad, .h5mu or 10x .h5 file of raw gene counts, which may be the same; None for ATAC alone.
        model: see `align_cells`, also for all arguments not named here.
        output: the file to write.
        tokenizer: by default that of the checkpoint.
        overwrite: replace `output` if it exists, but never an input.
        key_added: key of ``obsm``; not used for .parquet.
        atac_modality: see `align_cells`.
        rna_modality: see `align_cells`.
        allow_float_counts: see `align_cells`.
        **options: see `align_cells`.

    Returns:
        What was written, and the coverages.

    Raises:
        OSError: if the output cannot be written.
        FileNotFoundError, TypeError, ValueError: as `align_cells`.

    Warns:
        UserWarning: as `align_cells`.
    """
    if Path(output).suffix not in (".h5ad", ".parquet"):
        raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad or .parquet")
    with (
        open_both(atac, rna, atac_modality, rna_modality) as (peaks, genes),
        new_file(output, overwrite=overwrite, inputs=(atac, rna)) as partial,
    ):
        run = aligning_run(model, tokenizer, **options)
        num_cells = sum(source.num_cells for source in (peaks, genes) if source is not None)
        refuse_full_disk(partial, 4 * num_cells * run.model.config.projection_size)
        aligned = align_sources(peaks, genes, run, key_added=key_added, allow_float_counts=allow_float_counts)
        if Path(output).suffix == ".h5ad":
            aligned.table.write_h5ad(partial)
        else:
            _write_parquet(aligned.table, key_added, partial)
    return aligned


@contextmanager
def open_both(
    atac: str | os.PathLike[str] | None,
    rna: str | os.PathLike[str] | None,
    atac_modality: str | None = None,
    rna_modality: str | None = None,
) -> Iterator[tuple[PeakFile | None, GeneFile | None]]:
    """Open the files that there are.

    Raises:
        FileNotFoundError: if one does not exist.
        ValueError: if there is none, or one cannot be used.
    """
    _refuse_nothing(atac, rna)
    with ExitStack() as stack:
        peaks = None if atac is None else stack.enter_context(open_peak_file(atac, atac_modality))
        genes = None if rna is None else stack.enter_context(GeneFile.open(rna, rna_modality))
        yield peaks, genes


def align_sources(
    atac: PeakFile | None,
    rna: GeneFile | None,
    run: CellRun,
    *,
    key_added: str = KEY_ADDED,
    allow_float_counts: bool = False,
) -> AlignedCells:
    """The table that `align_files` writes.

    Args:
        atac: (cells, peaks).
        rna: (cells, genes).
        run: by `aligning_run`.
        key_added: key of ``obsm``.
        allow_float_counts: take gene counts that are not whole numbers.

    Raises:
        ValueError: as `align_cells`.
    """
    frames, embeddings, coverages = [], [], {}
    of_peaks = of_genes = None
    if atac is not None:
        found, of_peaks = embed_peaks(atac, run)
        embeddings.append(found)
        frames.append(_cells(atac, ATAC, of_peaks.num_matched_entries_per_cell, is_alone=rna is None))
        coverages[ATAC] = coverage_numbers(of_peaks)
    if rna is not None:
        found, of_genes = embed_genes(rna, run, allow_float_counts=allow_float_counts)
        embeddings.append(found)
        frames.append(_cells(rna, RNA, of_genes.num_matched_entries_per_cell, is_alone=atac is None))
        coverages[RNA] = of_genes.numbers()
    table = AnnData(
        obs=_joined(frames),
        obsm={key_added: np.concatenate(embeddings)},
        uns={UNS_KEY: model_record(run, key_added=key_added, coverage=coverages)},
    )
    return AlignedCells(table, of_peaks, of_genes)


def aligning_run(model: Any, tokenizer: PeakTokenizer | None = None, **options: Unpack[CellOptions]) -> CellRun:
    """Make a model with a tower for each modality ready; see `align_cells`.

    Raises:
        TypeError: if a model object has no tower for RNA.
        ValueError: if a checkpoint has none, or model and tokenizer do not fit.
    """
    if not isinstance(model, str | os.PathLike) and not hasattr(model, "gene_encoder"):
        raise TypeError(
            f"expected a model of both modalities, EpiFoundationForContrastiveAlignment, got {type(model).__name__}"
        )
    run = prepare_run(model, tokenizer, model_class=EpiFoundationForContrastiveAlignment, **options)
    genes, num_ids = run.tokenizer.genes, run.model.config.gene_vocab_size
    if genes is None or NUM_SPECIAL_TOKENS + len(genes) != num_ids:
        raise ValueError(
            f"model and tokenizer do not belong together: the model has gene_vocab_size {num_ids:,}, the tokenizer "
            f"{len(genes or ()):,} genes and {NUM_SPECIAL_TOKENS} special ids; take both from one checkpoint"
        )
    return run


def embed_peaks(source: PeakSource, run: CellRun) -> tuple[np.ndarray, Coverage]:
    """Embeddings (cells, projection) float32 of length 1 of all cells by ATAC, in their order, and their coverage."""
    embeddings = np.empty((source.num_cells, run.model.config.projection_size), dtype=np.float32)

    def forward(**inputs: Tensor) -> Tensor:
        found: Tensor = run.model(**inputs).cell_embeddings
        return found

    of_empty_cells = "they all get the same embedding and look like a cluster: leave them out of what follows"
    task = CellTask("embedding ATAC", "embeddings", of_empty_cells, forward, embeddings.__setitem__)
    return embeddings, run_over_cells(source, run, task)


def _refuse_nothing(atac: Any, rna: Any) -> None:
    if atac is None and rna is None:
        raise ValueError("there are no cells: name some by ATAC, by RNA, or both")


def _cells(source: PeakFile | GeneFile, modality: str, num_features: np.ndarray, *, is_alone: bool) -> pd.DataFrame:
    """One row per cell of a file: the columns of its ``obs``, and what it was measured by."""
    barcodes = source.cell_names
    own = source.annotations[0] if source.annotations else None
    columns = {} if own is None else {name: own.read(name).array for name in own.columns}
    frame = pd.DataFrame(columns, index=barcodes if is_alone else [f"{name}-{modality}" for name in barcodes])
    frame["barcode"], frame["modality"], frame[NUM_FEATURES_KEY] = barcodes, modality, num_features
    return frame


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows; columns of texts, or of different kinds in the two files, become categories."""
    table = pd.concat(frames) if len(frames) > 1 else frames[0]
    for name in table.columns:
        if table[name].dtype == object or isinstance(table[name].dtype, pd.StringDtype):
            table[name] = pd.Categorical(table[name].map(str, na_action="ignore")) if name != "barcode" else table[name]
    return table


def _write_parquet(table: AnnData, key: str, partial: Path) -> None:
    numbers = np.asarray(table.obsm[key])
    columns = {f"{UNS_KEY}_{i}": numbers[:, i] for i in range(numbers.shape[1])}
    frame = pd.concat([table.obs, pd.DataFrame(columns, index=table.obs.index)], axis=1)
    frame = frame.drop(columns="cell", errors="ignore").rename_axis("cell").reset_index()
    found = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = (found.schema.metadata or {}) | {UNS_KEY: json.dumps(without_nan(table.uns[UNS_KEY]))}
    pq.write_table(found.replace_schema_metadata(metadata), partial)
