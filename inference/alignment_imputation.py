"""RNA imputed from ATAC: by a head of its own, or from the nearest cells of a reference that was measured by RNA."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack, get_args

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import write_elem
from anndata.utils import make_index_unique
from torch import Tensor

from epifoundation import EpiFoundationForExpressionImputation
from epifoundation.dataset_builders import PeakSource, PeakTable, open_peak_file
from epifoundation.dataset_builders.clustering.expression import log_normalized
from epifoundation.dataset_builders.clustering.nearest_cells import NearestCells, nearest_cells
from epifoundation.dataset_builders.readers.matrix_files import GeneFile, GeneTable
from epifoundation.tokenization import NUM_SPECIAL_TOKENS, Coverage, PeakTokenizer

from .alignment import aligning_run, embed_peaks
from .alignment_genes import embed_genes
from .cell_run import CellOptions, CellRun, CellTask, prepare_run, run_over_cells, run_record
from .expression import cells_frame, new_matrix, row_store, wanted_genes
from .output import new_file, refuse_full_disk

IMPUTATION_KEY = "epifoundation_imputation"
UNITS = "log(1 + counts per 10,000)"
NUM_NEIGHBORS = 15
LEVELS_AT_A_TIME = 8_000_000  # 32 MB

Weights = Literal["similarity", "uniform"]


def impute_expression(
    adata: Any,
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    reference: Any | None = None,
    num_neighbors: int = NUM_NEIGHBORS,
    weights: Weights = "similarity",
    genes: Iterable[str] | None = None,
    modality: str | None = None,
    reference_modality: str | None = None,
    allow_float_counts: bool = False,
    **options: Unpack[CellOptions],
) -> AnnData:
    """Impute the expression of genes from the open peaks of cells; `adata` stays as it is.

    Without a `reference` the head of an `EpiFoundationForExpressionImputation` says it. With one, an
    `EpiFoundationForContrastiveAlignment` embeds both, and each cell gets the mean of its nearest reference cells:
    "uniform", or weighted by "similarity", the softmax of the model's own scaled cosines. Reference cells of which the
    model knows no expressed gene are left out.

    Returns:
        An AnnData of its own. ``X`` (cells, genes) float32 in log(1 + counts per 10,000). ``obs`` holds the cells'
        names and ``epifoundation_num_peaks``, ``var`` the genes, ``uns["epifoundation_imputation"]`` how it was made.

    Args:
        adata: an AnnData of raw peak counts, or a MuData.
        model: a model of the class named above, the folder of one, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        reference: an AnnData of raw gene counts, or a MuData. It is held in memory once more, sparse.
        num_neighbors: reference cells that each cell is given the mean of.
        weights: of these.
        genes: in the order wanted; symbols or Ensembl ids, with a `reference` as they are called there. By default all
            of the model, or of the reference. All cells times genes are held in memory, 4 bytes each.
        modality: which part of a MuData holds the peaks; by default "atac", "peaks", or the only one.
        reference_modality: which holds the genes; by default "rna", "gex" or "genes".
        allow_float_counts: take gene counts that are not whole numbers.
        **options: as for `embed_cells`.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `align_cells`; ValueError also if a gene is unknown or named twice.

    Warns:
        UserWarning: as `align_cells`.
    """
    source = PeakTable(adata, modality)
    table = None if reference is None else GeneTable(reference, reference_modality)
    settings = _Settings(num_neighbors, weights, genes, allow_float_counts)
    way = _way(source, table, model, tokenizer, settings, **options)
    levels = np.empty((source.num_cells, len(way.var)), dtype=np.float32)
    coverage = way.fill(levels)
    record = run_record(way.run, coverage, **way.about)
    return AnnData(levels, cells_frame(source.cell_names, coverage), way.var, uns={IMPUTATION_KEY: record})


def impute_expression_of_file(
    path: str | os.PathLike[str],
    model: Any,
    output: str | os.PathLike[str],
    tokenizer: PeakTokenizer | None = None,
    *,
    overwrite: bool = False,
    reference: str | os.PathLike[str] | None = None,
    num_neighbors: int = NUM_NEIGHBORS,
    weights: Weights = "similarity",
    genes: Iterable[str] | None = None,
    modality: str | None = None,
    reference_modality: str | None = None,
    allow_float_counts: bool = False,
    **options: Unpack[CellOptions],
) -> Coverage:
    """Impute the expression of genes in the cells of a file, and write it to another, an .h5ad.

    The output appears complete or not at all, and holds what `impute_expression` returns. Memory does not grow with
    cells times genes: it holds a block, a batch, the embeddings, and the counts of the reference, sparse.

    Args:
        path: an .h5ad or .h5mu file of raw peak counts.
        model: see `impute_expression`, also for all arguments not named here.
        output: the .h5ad file to write: 4 bytes per cell and gene.
        tokenizer: by default that of the checkpoint.
        overwrite: replace `output` if it exists, but never an input.
        reference: an .h5ad, .h5mu or 10x .h5 file of raw gene counts.
        num_neighbors: see `impute_expression`.
        weights: see `impute_expression`.
        genes: see `impute_expression`.
        modality: see `impute_expression`.
        reference_modality: see `impute_expression`.
        allow_float_counts: see `impute_expression`.
        **options: see `impute_expression`.

    Returns:
        How much of the peaks the model could read.

    Raises:
        OSError: if the output cannot be written.
        FileNotFoundError, TypeError, ValueError: as `impute_expression`.

    Warns:
        UserWarning: as `impute_expression`.
    """
    if Path(output).suffix != ".h5ad":
        raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad")
    settings = _Settings(num_neighbors, weights, genes, allow_float_counts)
    with (
        open_peak_file(path, modality) as source,
        new_file(output, overwrite=overwrite, inputs=(path, reference)) as partial,
    ):
        table = None if reference is None else GeneFile.open(reference, reference_modality)
        try:
            way = _way(source, table, model, tokenizer, settings, **options)
            shape = (source.num_cells, len(way.var))
            refuse_full_disk(partial, 4 * shape[0] * shape[1])
            with h5py.File(partial, "w") as file:
                write_elem(file, "/", AnnData(obs=pd.DataFrame(index=pd.Index(source.cell_names)), var=way.var))
                coverage = way.fill(new_matrix(file, shape))
                write_elem(file, "obs", cells_frame(source.cell_names, coverage))
                write_elem(file["uns"], IMPUTATION_KEY, run_record(way.run, coverage, **way.about))
        finally:
            if table is not None:
                table.close()
    return coverage


class _Settings(NamedTuple):
    num_neighbors: int
    weights: Weights
    genes: Iterable[str] | None
    allow_float_counts: bool


class _Way(NamedTuple):
    """A way to impute.

    Attributes:
        run: the model, made ready.
        var: one row per gene.
        fill: computes (cells, genes) levels in place.
        about: what the record is to say of it.
    """

    run: CellRun
    var: pd.DataFrame
    fill: Callable[[np.ndarray | h5py.Dataset], Coverage]
    about: dict[str, Any]


def _way(
    source: PeakSource,
    reference: GeneFile | GeneTable | None,
    model: Any,
    tokenizer: PeakTokenizer | None,
    settings: _Settings,
    **options: Unpack[CellOptions],
) -> _Way:
    if settings.weights not in get_args(Weights):
        raise ValueError(f"expected weights {' or '.join(map(repr, get_args(Weights)))}, got {settings.weights!r}")
    if settings.num_neighbors < 1:
        raise ValueError(f"expected at least one neighbour, got {settings.num_neighbors}")
    if reference is None:
        return _by_head(source, model, tokenizer, settings, **options)
    return _by_neighbors(source, reference, aligning_run(model, tokenizer, **options), settings)


def _by_head(
    source: PeakSource,
    model: Any,
    tokenizer: PeakTokenizer | None,
    settings: _Settings,
    **options: Unpack[CellOptions],
) -> _Way:
    if not isinstance(model, str | os.PathLike) and not hasattr(model, "imputation"):
        raise TypeError(
            "expected a model that imputes expression, EpiFoundationForExpressionImputation, or a reference of cells "
            f"by RNA; got {type(model).__name__} and no reference"
        )
    run = prepare_run(model, tokenizer, model_class=EpiFoundationForExpressionImputation, **options)
    wanted = wanted_genes(run.tokenizer, settings.genes)
    columns, num_genes = wanted.ids - NUM_SPECIAL_TOKENS, run.model.config.num_imputed_genes
    if num_genes not in (None, len(run.tokenizer.genes or ())):
        raise ValueError(
            f"model and tokenizer do not belong together: the model imputes {num_genes:,} genes, the tokenizer holds "
            f"{len(run.tokenizer.genes or ()):,}"
        )

    def forward(**inputs: Tensor) -> Tensor:
        levels: Tensor = run.model(**inputs).logits
        return levels[:, columns]

    def fill(levels: np.ndarray | h5py.Dataset) -> Coverage:
        of_empty_cells = "they all get the levels of a cell without peaks: leave them out of what follows"
        task = CellTask("imputing", "levels of expression", of_empty_cells, forward, row_store(levels))
        return run_over_cells(source, run, task)

    return _Way(run, wanted.var, fill, {"units": UNITS, "method": "head"})


def _by_neighbors(source: PeakSource, reference: GeneFile | GeneTable, run: CellRun, settings: _Settings) -> _Way:
    columns = _columns(reference.column_names, settings.genes)
    names = make_index_unique(pd.Index([reference.column_names[i] for i in columns]))

    def fill(levels: np.ndarray | h5py.Dataset) -> Coverage:
        by_rna, of_genes = embed_genes(reference, run, allow_float_counts=settings.allow_float_counts)
        is_known = of_genes.num_matched_entries_per_cell > 0
        blocks = [log_normalized(block)[:, columns].astype(np.float32) for block in reference.blocks()]
        measured = sp.vstack(blocks, format="csr")[is_known]
        by_atac, coverage = embed_peaks(source, run)
        nearest = nearest_cells(by_atac, by_rna[is_known], settings.num_neighbors)
        scale = float(run.model.logit_scale.detach().exp()) if settings.weights == "similarity" else 0.0
        shares = neighbor_shares(nearest, scale)
        step = max(1, LEVELS_AT_A_TIME // measured.shape[1])
        for start in range(0, len(shares), step):
            rows = slice(start, start + step)
            levels[rows] = (_sparse(shares[rows], nearest.indices[rows], measured.shape[0]) @ measured).toarray()
        return coverage

    about = {
        "units": UNITS,
        "method": "nearest cells of a reference",
        "num_neighbors": settings.num_neighbors,
        "weights": settings.weights,
        "num_reference_cells": reference.num_cells,
    }
    return _Way(run, pd.DataFrame(index=names), fill, about)


def neighbor_shares(nearest: NearestCells, scale: float) -> np.ndarray:
    """(cells, neighbours) float32 weights that sum to 1: the softmax of scaled cosines of vectors of unit length."""
    logits = -scale * nearest.distances**2 / 2  # the cosine less 1
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _sparse(shares: np.ndarray, indices: np.ndarray, num_references: int) -> sp.csr_matrix:
    bounds = np.arange(len(shares) + 1) * shares.shape[1]
    return sp.csr_matrix((shares.ravel(), indices.ravel(), bounds), shape=(len(shares), num_references))


def _columns(names: list[str], wanted: Iterable[str] | None) -> np.ndarray:
    """Where the wanted genes stand among those of the reference; all, if none are named."""
    if wanted is None:
        return np.arange(len(names))
    asked = [str(name) for name in wanted]
    place = {name: i for i, name in reversed(list(enumerate(names)))}  # of equal names the first
    unknown = [name for name in asked if name not in place]
    if unknown:
        raise ValueError(
            f"{len(unknown):,} of {len(asked):,} genes are not in the reference, such as {', '.join(unknown[:5])}; it "
            f"has {len(names):,}, such as {', '.join(names[:3])}"
        )
    if not asked or len(set(asked)) < len(asked):
        raise ValueError(f"expected at least one gene, and each at most once, got {', '.join(asked[:5]) or 'none'}")
    return np.array([place[name] for name in asked])
