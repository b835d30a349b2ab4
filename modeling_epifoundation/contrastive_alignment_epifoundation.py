"""Contrastive alignment of RNA and ATAC (CRAFT), and expression imputed from the ATAC side of it."""

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_epifoundation import FIRST_GENE_ID, EpiFoundationConfig
from .losses_epifoundation import cross_entropy, squared_error
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
    cells_only,
    head_output,
)


@dataclass
class EpiFoundationContrastiveOutput(ModelOutput):
    """Where cells lie in the space of both modalities.

    Attributes:
        loss: of telling which RNA belongs to which ATAC, if both were given.
        logits: (cells by RNA, cells by ATAC) scaled cosines, if both were given.
        cell_embeddings: (cells, projection) of length 1, by ATAC, if it was given.
        rna_embeddings: the same by RNA.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cell_embeddings: Tensor | None = None
    rna_embeddings: Tensor | None = None


def default_gene_encoder(gene_vocab_size: int, max_genes: int = 2048) -> dict[str, Any]:
    """Configuration of a small BERT that reads genes in the order of their expression, as Geneformer does."""
    return {
        "model_type": "bert",
        "vocab_size": gene_vocab_size,
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02,
        "attention_probs_dropout_prob": 0.02,
        "max_position_embeddings": max_genes,
        "type_vocab_size": 1,
        "pad_token_id": 0,
    }


class EpiFoundationForContrastiveAlignment(EpiFoundationPreTrainedModel):
    """Two towers, one for each modality, that bring the same cell to the same place (CRAFT; CLIP).

    The tower of genes is any encoder of Transformers that takes ``input_ids`` and ``attention_mask``.
    """

    _auto_class = "AutoModelForContrastiveAlignment"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION
    typical_gene_counts: Tensor | None

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        if config.gene_encoder is None:
            config.gene_encoder = default_gene_encoder(config.gene_vocab_size)
        self.epifoundation = EpiFoundationModel(config)
        self.gene_encoder = _gene_encoder(config.gene_encoder)
        self.peak_projection = nn.Linear(config.hidden_size, config.projection_size, bias=False)
        self.gene_projection = nn.Linear(self.gene_encoder.config.hidden_size, config.projection_size, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.initial_logit_scale)))
        typical = torch.ones(config.gene_vocab_size) if config.use_typical_gene_counts else None
        # What counts are divided by before genes are ranked: whoever reads RNA into this model needs the same.
        self.register_buffer("typical_gene_counts", typical)
        self.post_init()

    @classmethod
    def from_towers(
        cls, peaks: str | os.PathLike[str], genes: str | os.PathLike[str], **kwargs: Any
    ) -> "EpiFoundationForContrastiveAlignment":
        """Join two pre-trained encoders; the projections are new.

        Args:
            peaks: folder or name of an EpiFoundation checkpoint of any class.
            genes: folder or name of an encoder that ``AutoModel`` loads, such as a Geneformer.
            **kwargs: further fields of the configuration.
        """
        gene_encoder = AutoModel.from_pretrained(genes)
        described = gene_encoder.config.to_diff_dict() | {"model_type": gene_encoder.config.model_type}
        model: EpiFoundationForContrastiveAlignment = cls.from_pretrained(peaks, gene_encoder=described, **kwargs)
        missing = model.gene_encoder.load_state_dict(gene_encoder.state_dict(), strict=False).missing_keys
        assert not missing, missing
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EpiFoundationForContrastiveAlignment):
            init.constant_(module.logit_scale, self.config.initial_logit_scale)
            if module.typical_gene_counts is not None:
                init.ones_(module.typical_gene_counts)

    @property
    def max_ranked_genes(self) -> int:
        """How many genes of a cell are read, the most expressed ones."""
        positions = getattr(self.gene_encoder.config, "max_position_embeddings", None)
        return min(self.config.max_genes, positions or self.config.max_genes)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        gene_ids: Tensor | None = None,
        gene_attention_mask: Tensor | None = None,
        gene_token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> EpiFoundationContrastiveOutput:
        """Bring cells of either modality, or pairs of both, to one space.

        Args:
            input_ids: the cells by ATAC, as in `EpiFoundationModel.forward`, also with further arguments of it; or
                None.
            chromosome_ids: see there.
            attention_mask: see there.
            gene_ids: (cells, genes) the cells by RNA: ids of their genes, most expressed first; or None. Row i is the
                same cell as row i of `input_ids`.
            gene_attention_mask: (cells, genes), 1 at a gene; by default all but the gene encoder's padding.
            gene_token_type_ids: for gene encoders that have several types of tokens.
            labels: (cells,) place of each cell in the batch, which the Trainer counts; the loss does not need it.
            num_items_in_batch: number of pairs that the sum of losses is divided by, given by the Trainer under
                gradient accumulation; by default those of this call. A cell is told from those of its call alone.
            return_loss: the cells are pairs.
            **kwargs: see `EpiFoundationModel.forward`.

        Returns:
            The embeddings of what was given, and of pairs the loss: mean cross entropy of finding a cell's ATAC among
            those of the batch by its RNA, and its RNA by its ATAC.

        Raises:
            ValueError: if pairs are not equally many cells.
        """
        peaks = genes = logits = loss = None
        if gene_ids is not None:
            pooled = self._pool_genes(gene_ids, gene_attention_mask, gene_token_type_ids)
            genes = F.normalize(self.gene_projection(pooled), dim=-1)
        if input_ids is not None or "inputs_embeds" in kwargs:
            out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
            peaks = F.normalize(self.peak_projection(out.pooler_output), dim=-1)
        if peaks is not None and genes is not None:
            logits = genes @ peaks.T * self.logit_scale.exp()
            loss = _symmetric_cross_entropy(logits, num_items_in_batch) if return_loss else None
        return EpiFoundationContrastiveOutput(loss, logits, peaks, genes)

    def _pool_genes(self, gene_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        if attention_mask is None:
            attention_mask = (gene_ids != self.gene_encoder.config.pad_token_id).long()
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.gene_encoder(input_ids=gene_ids, attention_mask=attention_mask, **types).last_hidden_state
        keep = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


class EpiFoundationForExpressionImputation(EpiFoundationPreTrainedModel):
    """Expression of every gene from the ATAC side of an aligned model (CRAFT: gene activity prediction)."""

    _auto_class = "AutoModelForExpressionImputation"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        num_genes = config.num_imputed_genes or config.gene_vocab_size - FIRST_GENE_ID
        size = config.projection_size
        self.epifoundation = EpiFoundationModel(config)
        self.peak_projection = nn.Linear(config.hidden_size, size, bias=False)
        has_bias = config.use_gene_bias
        self.imputation = nn.Sequential(
            nn.Linear(size, size, bias=has_bias), nn.ReLU(), nn.Linear(size, num_genes, bias=has_bias)
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationHeadOutput:
        """Predict the expression of all genes.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: (cells, genes) expression in whatever unit is to be predicted; -100 is left out of the loss.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, mean squared error; `logits`, (cells, genes) expression; `cell_embeddings`, (cells, projection), of
            length 1, where `EpiFoundationForContrastiveAlignment` has the cell by ATAC.
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        out.pooler_output = F.normalize(self.peak_projection(out.pooler_output), dim=-1)
        levels = self.imputation(out.pooler_output)
        loss = None if labels is None else squared_error(levels, labels, num_items_in_batch)
        return head_output(loss, levels, out)


def _gene_encoder(described: dict[str, Any]) -> PreTrainedModel:
    kind = described["model_type"]
    encoder = AutoModel.from_config(AutoConfig.for_model(**described))
    if not hasattr(encoder.config, "hidden_size"):
        raise ValueError(f"gene_encoder must have a hidden_size, {kind!r} has none: use an encoder such as 'bert'")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # cells are the mean of their genes
    return cast(PreTrainedModel, encoder)


def _symmetric_cross_entropy(logits: Tensor, num_pairs: Tensor | int | None) -> Tensor:
    if logits.shape[0] != logits.shape[1]:
        raise ValueError(
            f"expected pairs, got {logits.shape[0]} cells by RNA and {logits.shape[1]} by ATAC; pass return_loss=False "
            "to compare cells that are no pairs"
        )
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs, num_pairs) + cross_entropy(logits.T, pairs, num_pairs)) / 2


__all__ = [
    "EpiFoundationContrastiveOutput",
    "EpiFoundationForContrastiveAlignment",
    "EpiFoundationForExpressionImputation",
    "default_gene_encoder",
]
