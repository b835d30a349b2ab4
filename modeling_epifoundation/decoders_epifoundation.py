"""What reads a cell embedding: the classifier of cell types and the decoder of genes."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_epifoundation import EpiFoundationConfig


class CellClassifier(nn.Module):
    """Two hidden layers and an output: (cells, hidden) -> (cells, labels)."""

    def __init__(self, config: EpiFoundationConfig, num_labels: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(2))
        self.output = nn.Linear(config.hidden_size, num_labels or cast(int, config.num_labels))

    def forward(self, cell_embeddings: Tensor) -> Tensor:
        """Score each label for each cell."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            cell_embeddings = norm(F.relu(layer(cell_embeddings)))
        return self.output(cell_embeddings)


class GeneDecoder(nn.Module):
    """What a cell's embedding says about a gene: a small network on the pair of both.

    The official decoder joins cell, batch and gene query into one long vector before a linear map. Here each part has
    its own piece of that map, and the pieces' outputs are summed: the same numbers, but the gene's part is computed
    once for all cells and the cell's part once for all genes.
    """

    def __init__(self, config: EpiFoundationConfig, num_outputs: int) -> None:
        super().__init__()
        size = config.gene_decoder_size
        self.gene_proj = nn.Linear(config.hidden_size, size)
        self.query_proj = nn.Linear(size, size)
        self.cell_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.batch_proj = nn.Linear(config.hidden_size, size, bias=False) if config.use_batch_embeddings else None
        self.activation = nn.PReLU()
        self.output = nn.Linear(size, num_outputs)

    def read_cells(self, cell_embeddings: Tensor, batch_embeddings: Tensor | None) -> Tensor:
        """(cells, hidden) -> the cells' part, (cells, size). Without batch embeddings their part is zero."""
        cells = self.cell_proj(cell_embeddings)
        if self.batch_proj is None or batch_embeddings is None:
            return cells
        return cells + self.batch_proj(batch_embeddings)

    def read_genes(self, gene_embeddings: Tensor) -> Tensor:
        """(genes, hidden) -> the genes' part, (genes, size)."""
        return self.query_proj(self.gene_proj(gene_embeddings).sigmoid())

    def forward(self, cells: Tensor, genes: Tensor) -> Tensor:
        """Join parts that broadcast against each other, (..., size) -> (..., outputs)."""
        return self.output(self.activation(cells + genes))
