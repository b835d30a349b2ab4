"""Batches of paired cells: peaks, and genes in the order of their expression, or the expression of each gene."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.configuration_epifoundation import FIRST_GENE_ID
from epifoundation.dataset_builders.tokenized.gene_ranks import GENE_PAD_ID, rank_genes
from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.collators import CellCollator, Row
from epifoundation.training.expression import log_normalized


class ContrastiveCollator(CellCollator):
    """Batches for `EpiFoundationForContrastiveAlignment`: the peaks and the ranked genes of each cell.

    Args:
        tokenizer: as for `CellCollator`.
        typical_counts: see `rank_genes`.
        max_genes: genes read of a cell, the most expressed ones; at most the positions of the gene encoder.
        **kwargs: as for `CellCollator`.
    """

    def __init__(
        self,
        tokenizer: PeakTokenizer,
        *,
        typical_counts: np.ndarray | None = None,
        max_genes: int = 2048,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.typical_counts = typical_counts
        self.max_genes = max_genes

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        ranked = [
            torch.from_numpy(rank_genes(row["gene_ids"], row["gene_counts"], self.typical_counts)[: self.max_genes])
            for row in rows
        ]
        gene_ids = torch.nn.utils.rnn.pad_sequence(ranked, batch_first=True, padding_value=GENE_PAD_ID)
        return {
            "gene_ids": gene_ids,
            "gene_attention_mask": (gene_ids != GENE_PAD_ID).long(),
            "labels": torch.arange(len(rows)),
        }


class ImputationCollator(CellCollator):
    """Batches for `EpiFoundationForExpressionImputation`: `labels` is the expression of each gene of the vocabulary.

    Expression is ``log(1 + counts per 10,000)``, see `log_normalized`; the genes stand in the order of the tokenizer.
    """

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        assert self.tokenizer.genes is not None
        labels = np.zeros((len(rows), len(self.tokenizer.genes)), np.float32)
        for values, row in zip(labels, rows, strict=True):
            values[np.asarray(row["gene_ids"], dtype=np.int64) - FIRST_GENE_ID] = log_normalized(row["gene_counts"])
        return {"labels": torch.from_numpy(labels)}
