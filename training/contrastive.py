"""Batches of paired cells: peaks, and genes in the order of their expression."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.dataset_builders.tokenized.gene_ranks import GENE_PAD_ID, rank_genes
from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.collators import CellCollator, Row


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
        return {"gene_ids": gene_ids, "gene_attention_mask": (gene_ids != GENE_PAD_ID).long()}
