"""The level of expression of genes in each cell, predicted from its open peaks."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.io import write_elem
from torch import Tensor

from epifoundation import EpiFoundationForExpressionPrediction
from epifoundation.dataset_builders import PeakSource, PeakTable, open_peak_file
from epifoundation.tokenization import NUM_SPECIAL_TOKENS, Coverage, GeneVocabulary, PeakTokenizer

from .cell_run import CellOptions, CellRun, CellTask, prepare_run, run_over_cells, run_record
from .output import new_file, refuse_full_disk
from .results import NUM_PEAKS_KEY, num_peaks_of

EXPRESSION_KEY = "epifoundation_expression"
CELLS_PER_BATCH = 32  # genes are decoded 4,096 at a time: 64 MB for so many cells, at 128 numbers per pair


class WantedGenes(NamedTuple):
    """Genes asked for.

    Attributes:
        ids: (genes,) int64 ids in the vocabulary of the model.
        var: one row per gene, in that order.
    """

    ids: np.ndarray
    var: pd.DataFrame


def predict_expression(
    adata: Any,
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    genes: Iterable[str] | None = None,
    modality: str | None = None,
    **options: Unpack[CellOptions],
) -> AnnData:
    """Predict how strongly each cell expresses genes; `adata` stays as it is.

    Returns:
        An AnnData of its own. ``X`` (cells, genes) float32 holds predicted levels: 0 stands for a gene that is not
        expressed, 1 to ``num_expression_bins - 1`` for ever higher quantiles among the genes that the same cell
        expresses. Predictions lie between these levels, or somewhat outside. They are no counts, and compare genes
        within a cell, not cells of different depth. ``obs`` holds the cells' names and ``epifoundation_num_peaks``,
        ``var`` the genes with their Ensembl ids and chromosomes, ``uns["epifoundation_expression"]`` how it was made.

    Args:
        adata: an AnnData of raw peak counts, or a MuData.
        model: a model fine-tuned for expression, the folder of one, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        genes: symbols or Ensembl ids, in the order wanted; by default all genes of the model. All cells times genes
            are held in memory, 4 bytes each.
        modality: which part of a MuData holds the peaks; by default "atac", "peaks", or the only one.
        **options: as for `embed_cells`.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `embed_cells`; ValueError also if a gene is unknown or named
            twice, or the checkpoint holds no genes or no head for expression.

    Warns:
        UserWarning: as `embed_cells`.
    """
    source = PeakTable(adata, modality)
    run = _predictor(model, tokenizer, **options)
    wanted = wanted_genes(run.tokenizer, genes)
    levels = np.empty((source.num_cells, len(wanted.ids)), dtype=np.float32)
    coverage = _predict(source, run, wanted, levels)
    obs = cells_frame(source.cell_names, coverage)
    return AnnData(levels, obs, wanted.var, uns={EXPRESSION_KEY: _record(run, coverage)})


def predict_expression_of_file(
    path: str | os.PathLike[str],
    model: Any,
    output: str | os.PathLike[str],
    tokenizer: PeakTokenizer | None = None,
    *,
    overwrite: bool = False,
    genes: Iterable[str] | None = None,
    modality: str | None = None,
    **options: Unpack[CellOptions],
) -> Coverage:
    """Predict the expression of genes in the cells of a file, and write it to another, an .h5ad.

    Both are handled in blocks, so neither need fit into memory. The output appears complete or not at all, and holds
    what `predict_expression` returns.

    Args:
        path: an .h5ad or .h5mu file of raw peak counts.
        model: see `predict_expression`, also for all arguments not named here.
        output: the .h5ad file to write: 4 bytes per cell and gene.
        tokenizer: by default that of the checkpoint.
        overwrite: replace `output` if it exists.
        genes: see `predict_expression`.
        modality: see `predict_expression`.
        **options: see `predict_expression`.

    Returns:
        How much of the data the model could read.

    Raises:
        OSError: if the output cannot be written.
        FileNotFoundError, TypeError, ValueError: as `predict_expression`.

    Warns:
        UserWarning: as `embed_cells`.
    """
    with open_peak_file(path, modality) as source:
        if Path(output).suffix != ".h5ad":
            raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad")
        with new_file(output, overwrite=overwrite, inputs=[path]) as partial:
            run = _predictor(model, tokenizer, **options)
            wanted = wanted_genes(run.tokenizer, genes)
            shape = (source.num_cells, len(wanted.ids))
            refuse_full_disk(partial, 4 * shape[0] * shape[1])
            with h5py.File(partial, "w") as file:
                write_elem(file, "/", AnnData(obs=pd.DataFrame(index=pd.Index(source.cell_names)), var=wanted.var))
                coverage = _predict(source, run, wanted, new_matrix(file, shape))
                write_elem(file, "obs", cells_frame(source.cell_names, coverage))
                write_elem(file["uns"], EXPRESSION_KEY, _record(run, coverage))
    return coverage


def _predictor(model: Any, tokenizer: PeakTokenizer | None, **options: Unpack[CellOptions]) -> CellRun:
    if not isinstance(model, str | os.PathLike) and not hasattr(model, "expression_decoder"):
        raise TypeError(
            "expected a model that predicts expression, such as EpiFoundationForExpressionPrediction, got "
            f"{type(model).__name__}"
        )
    return prepare_run(model, tokenizer, model_class=EpiFoundationForExpressionPrediction, **options)


def wanted_genes(tokenizer: PeakTokenizer, names: Iterable[str] | None) -> WantedGenes:
    """The genes of these names, or all genes of the tokenizer.

    Raises:
        ValueError: if the tokenizer holds no genes, one is unknown or named twice, or none is named.
    """
    vocabulary = tokenizer.genes
    if vocabulary is None:
        raise ValueError("the tokenizer of this model holds no genes (genes.tsv): take both from one checkpoint")
    if names is None:
        return _of_ids(vocabulary, np.arange(len(vocabulary)) + NUM_SPECIAL_TOKENS)
    listed = [str(name) for name in names]
    ids = vocabulary.map(listed).astype(np.int64)
    unknown = [name for name, gene_id in zip(listed, ids.tolist(), strict=True) if gene_id < 0]
    if unknown:
        raise ValueError(
            f"{len(unknown):,} of {len(listed):,} genes are unknown to this model, such as {', '.join(unknown[:5])}; "
            f"it knows {len(vocabulary):,} by symbol or Ensembl id, such as {', '.join(vocabulary.names[:3])}"
        )
    if not listed:
        raise ValueError("no genes were named: give at least one, or leave them out for all")
    if len(set(ids.tolist())) < len(ids):
        raise ValueError("genes are named more than once: expected each at most once, by symbol or by Ensembl id")
    return _of_ids(vocabulary, ids)


def _of_ids(vocabulary: GeneVocabulary, ids: np.ndarray) -> WantedGenes:
    places = (ids - NUM_SPECIAL_TOKENS).tolist()
    columns = {
        "ensembl_id": [vocabulary.ensembl_ids[i] for i in places],
        "chromosome": [vocabulary.chromosomes[i] for i in places],
    }
    names = [vocabulary.names[i] for i in places]
    # Of genes that share a symbol, each but the first goes by symbol and Ensembl id.
    seen: set[str] = set()
    for i, name in enumerate(names):
        names[i] = f"{name} {columns['ensembl_id'][i]}" if name in seen else name
        seen.add(name)
    return WantedGenes(ids, pd.DataFrame(columns, index=pd.Index(names)))


def new_matrix(file: h5py.File, shape: tuple[int, int]) -> h5py.Dataset:
    """An empty dense ``X``, laid out so that rows can be written in any order."""
    if "X" in file:
        del file["X"]
    matrix = file.create_dataset("X", shape, dtype="float32")
    matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return matrix


def _predict(source: PeakSource, run: CellRun, genes: WantedGenes, levels: np.ndarray | h5py.Dataset) -> Coverage:
    """Fill `levels`, (cells, genes)."""
    assert run.tokenizer.gene_chromosome_ids is not None
    chromosome_ids = run.tokenizer.gene_chromosome_ids[genes.ids].astype(np.int64)

    def forward(input_ids: Tensor, **inputs: Tensor) -> Tensor:
        device = input_ids.device
        out = run.model(
            input_ids,
            **inputs,
            gene_ids=torch.from_numpy(genes.ids).to(device),
            gene_chromosome_ids=torch.from_numpy(chromosome_ids).to(device),
        )
        logits: Tensor = out.logits
        return logits

    of_empty_cells = "they all get the levels of a cell without peaks: leave them out of what follows"
    task = CellTask("predicting", "levels of expression", of_empty_cells, forward, row_store(levels), CELLS_PER_BATCH)
    return run_over_cells(source, run, task)


def row_store(levels: np.ndarray | h5py.Dataset) -> Callable[[np.ndarray, np.ndarray], None]:
    """What puts rows into `levels`, in any order; for `CellTask.store`."""

    def store(cells: np.ndarray, numbers: np.ndarray) -> None:
        for cell, row in zip(cells.tolist(), numbers, strict=True):
            levels[cell] = row

    return store


def cells_frame(cell_names: list[str], coverage: Coverage) -> pd.DataFrame:
    """``obs`` of an output: the cells and how many of their peaks were read."""
    return pd.DataFrame({NUM_PEAKS_KEY: num_peaks_of(coverage).to_numpy()}, index=pd.Index(cell_names))


def _record(run: CellRun, coverage: Coverage) -> dict[str, Any]:
    bins = run.model.config.num_expression_bins
    units = f"predicted level of expression within the cell: 0 not expressed, 1 to {bins - 1} rising quantiles"
    return run_record(run, coverage, units=units, num_expression_bins=bins)
