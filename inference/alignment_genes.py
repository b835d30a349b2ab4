"""Cells by RNA: genes matched to those of a model, ranked by expression, embedded in the space of both modalities."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from epifoundation.dataset_builders.readers.matrix_files import MatrixSource
from epifoundation.dataset_builders.tokenized.gene_counts import counts_by_gene, gene_ids_of
from epifoundation.dataset_builders.tokenized.gene_ranks import GENE_PAD_ID, rank_genes
from epifoundation.tokenization.vocabulary_epifoundation import LOW_COVERAGE, NUM_SPECIAL_TOKENS

from .batching import memory_explained, ready_for_inference, token_budget_batches
from .cell_run import MANY_EMPTY_CELLS, CellRun, progress_bar, refuse_not_finite


@dataclass(frozen=True, eq=False)
class GeneCoverage:
    """How much of the RNA of cells a model can use. An entry is an expressed gene of a cell: a count above 0.

    Attributes:
        num_genes: genes of the data.
        num_matched_genes: those that the model knows, by symbol or Ensembl id.
        num_entries_per_cell: (cells,) int64 expressed genes of each cell.
        num_matched_entries_per_cell: (cells,) int64, those that the model knows.
        max_genes: how many of a cell the model reads, the most expressed ones.
    """

    num_genes: int
    num_matched_genes: int
    num_entries_per_cell: np.ndarray
    num_matched_entries_per_cell: np.ndarray
    max_genes: int

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.num_entries_per_cell)

    @property
    def num_entries(self) -> int:
        """Expressed genes, summed over the cells."""
        return int(self.num_entries_per_cell.sum())

    @property
    def num_matched_entries(self) -> int:
        """Those that the model knows."""
        return int(self.num_matched_entries_per_cell.sum())

    @property
    def entries_share(self) -> float:
        """Matched entries over all entries, NaN if no cell expresses a gene."""
        return self.num_matched_entries / self.num_entries if self.num_entries else float("nan")

    @property
    def num_empty_cells(self) -> int:
        """Cells that express no gene the model knows."""
        return int((self.num_matched_entries_per_cell == 0).sum())

    @property
    def num_truncated_cells(self) -> int:
        """Cells that express more known genes than the model reads."""
        return int((self.num_matched_entries_per_cell > self.max_genes).sum())

    def numbers(self) -> dict[str, int | float]:
        """The counts and shares by name, for ``uns``."""
        names = ("num_cells", "num_genes", "num_matched_genes", "num_entries", "num_matched_entries", "entries_share")
        return {name: getattr(self, name) for name in (*names, "num_empty_cells", "num_truncated_cells")}

    def summary(self) -> str:
        """One paragraph for a reader."""
        genes_share = self.num_matched_genes / self.num_genes
        return (
            f"{self.num_matched_genes:,} of {self.num_genes:,} genes ({genes_share:.1%}) and "
            f"{self.num_matched_entries:,} of {self.num_entries:,} expressed genes counted over cells "
            f"({self.entries_share:.1%}) are known to the model. Of {self.num_cells:,} cells {self.num_empty_cells:,} "
            f"express none of these, and {self.num_truncated_cells:,} more than the {self.max_genes:,} that it reads."
        )


def embed_genes(
    source: MatrixSource, run: CellRun, *, allow_float_counts: bool = False
) -> tuple[np.ndarray, GeneCoverage]:
    """Embeddings (cells, projection) float32 of length 1 of all cells by RNA, in their order, and their coverage.

    Args:
        source: (cells, genes) raw counts.
        run: a model with a tower of genes, by `prepare_run`.
        allow_float_counts: take counts that are not whole numbers.

    Raises:
        ValueError: if the model knows none of the genes, values are no raw counts, or numbers are not finite.
        MemoryError: if a batch does not fit the memory of the device.

    Warns:
        UserWarning: if the model knows less than half of the expressed genes, or none of those of many cells.
    """
    gene_ids = gene_ids_of(source.column_names, run.tokenizer)
    embeddings = np.empty((source.num_cells, run.model.config.projection_size), dtype=np.float32)
    num_entries, num_matched = np.zeros((2, source.num_cells), dtype=np.int64)
    start = 0
    with ready_for_inference(run.model, run.device), progress_bar(source.num_cells, "embedding RNA", run) as progress:
        for block in source.blocks(run.max_entries_per_block):
            rows = slice(start, start + block.shape[0])
            cells = _ranked(block, gene_ids, run, allow_float_counts)
            num_entries[rows], num_matched[rows] = _entries(block, gene_ids)
            for batch in token_budget_batches([len(cell) for cell in cells], run.max_tokens_per_batch):
                embeddings[start + batch] = _embedded([cells[i] for i in batch], run)
                progress.update(len(batch))
            start += block.shape[0]
    coverage = GeneCoverage(
        len(gene_ids), int((gene_ids >= 0).sum()), num_entries, num_matched, run.model.max_ranked_genes
    )
    _judge(coverage)
    return embeddings, coverage


def _ranked(block: csr_matrix, gene_ids: np.ndarray, run: CellRun, allow_float_counts: bool) -> list[np.ndarray]:
    """The ids of the genes that are read of each cell, most expressed first."""
    model = run.model
    assert run.tokenizer.genes is not None, "its genes were matched"
    num_gene_ids = NUM_SPECIAL_TOKENS + len(run.tokenizer.genes)
    counts = counts_by_gene(block, gene_ids, num_gene_ids, allow_float_counts)
    typical = None if model.typical_gene_counts is None else model.typical_gene_counts.float().cpu().numpy()
    cells = (slice(*bounds) for bounds in zip(counts.indptr[:-1], counts.indptr[1:], strict=True))
    return [rank_genes(counts.indices[one], counts.data[one], typical)[: model.max_ranked_genes] for one in cells]


def _entries(block: csr_matrix, gene_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cells,) expressed genes, and those with an id."""
    is_expressed = block.data > 0
    is_matched = is_expressed & (gene_ids[block.indices] >= 0)
    totals = (np.concatenate([[0], np.cumsum(entries)]) for entries in (is_expressed, is_matched))
    expressed, matched = (np.diff(total[block.indptr]) for total in totals)
    return expressed, matched


def _embedded(cells: list[np.ndarray], run: CellRun) -> np.ndarray:
    """(cells, projection) float32 of a padded batch."""
    device = run.model.device
    ids = [torch.from_numpy(cell) for cell in cells]
    with memory_explained(sum(map(len, ids)), device):
        gene_ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=GENE_PAD_ID).to(device)
        out: Any = run.model(gene_ids=gene_ids, gene_attention_mask=(gene_ids != GENE_PAD_ID).long())
        embeddings: Tensor = out.rna_embeddings
        numbers: np.ndarray = embeddings.float().cpu().numpy()
    refuse_not_finite(numbers, "embeddings", run)
    return numbers


def _judge(coverage: GeneCoverage) -> None:
    """Warnings count three functions up: here, `embed_genes`, a function of the task, and the public one."""
    if not coverage.num_matched_entries:
        raise ValueError(
            f"no cell expresses any of the {coverage.num_matched_genes:,} genes that the model knows, of "
            f"{coverage.num_genes:,} in the RNA data"
        )
    if coverage.entries_share < LOW_COVERAGE:
        warnings.warn(
            "the model knows less than half of the expressed genes, so these embeddings are doubtful: "
            f"{coverage.summary()} Check the species, and that genes are named by symbol or Ensembl id.",
            stacklevel=5,
        )
    if coverage.num_empty_cells > MANY_EMPTY_CELLS * coverage.num_cells:
        warnings.warn(
            f"{coverage.num_empty_cells:,} of {coverage.num_cells:,} cells express no gene that the model knows; they "
            "all get the same embedding and look like a cluster: leave them out of what follows",
            stacklevel=5,
        )
