"""Replaced-peak detection: which peaks of a cell are its own, and which were put in their place."""

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .losses_epifoundation import binary_cross_entropy
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
    head_output,
)


class PeakDiscriminator(nn.Module):
    """A hidden layer and one output per token: (..., hidden) -> (...)."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        size = config.discriminator_size or config.hidden_size
        self.dense = nn.Linear(config.hidden_size, size)
        self.norm = nn.LayerNorm(size, eps=config.discriminator_norm_eps)
        self.output = nn.Linear(size, 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The logit of each token having been replaced."""
        return cast(Tensor, self.output(self.norm(F.gelu(self.dense(hidden_states))))).squeeze(-1)


class EpiFoundationForReplacedPeaks(EpiFoundationPreTrainedModel):
    """Pre-training: tell the peaks of a cell from random ones that took the place of some (Atacformer; ELECTRA)."""

    _auto_class = "AutoModelForReplacedPeaks"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.epifoundation = EpiFoundationModel(config)
        self.discriminator = PeakDiscriminator(config)
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
        """Score each token for having been replaced.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: shaped as `input_ids`: 1 replaced, 0 the cell's own, -100 left out of the loss.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, binary cross entropy per label; `logits`, shaped as `input_ids`, of no meaning at padding;
            `cell_embeddings`, (cells, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **(kwargs | {"return_dict": True}))
        logits = self.discriminator(out.last_hidden_state)
        loss = None if labels is None else binary_cross_entropy(logits, labels, num_items_in_batch)
        return head_output(loss, logits, out)


__all__ = ["EpiFoundationForReplacedPeaks", "PeakDiscriminator"]
