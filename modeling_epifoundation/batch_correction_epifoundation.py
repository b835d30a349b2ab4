"""Batch correction by gradient reversal: keep the pre-training loss, unlearn from which batch a cell comes."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .losses_epifoundation import binary_cross_entropy, cross_entropy, items_of_each
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
)
from .replaced_peaks_epifoundation import PeakDiscriminator


@dataclass
class EpiFoundationBatchCorrectionOutput(EpiFoundationHeadOutput):
    """What the head returns.

    Attributes:
        batch_logits: (cells, batches), how well the batch can still be told.
    """

    batch_logits: Tensor | None = None


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied with a negative number (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        """`values` as they are."""
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient, reversed."""
        return -ctx.strength * grad, None


class EpiFoundationForBatchCorrection(EpiFoundationPreTrainedModel):
    """Replaced-peak detection, with an adversary that tells batches apart and from which the encoder learns to hide.

    The loss is that of `EpiFoundationForReplacedPeaks` plus `adversarial_weight` times the cross entropy of the batch.
    The adversary learns from the latter, the encoder from its opposite times `gradient_reversal`. It hears a batch only
    along directions in which embeddings vary as much as elsewhere, unless it has `standardize_adversary`. With
    `num_trainable_layers` above 0 only that many last layers and all LayerNorms of the encoder learn (Atacformer).
    """

    loss_labels = ("labels", "batch_ids")
    _auto_class = "AutoModelForBatchCorrection"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        if config.num_batches < 2:
            raise ValueError(f"batch correction needs num_batches of at least 2, got {config.num_batches}")
        self.epifoundation = EpiFoundationModel(config)
        self.discriminator = PeakDiscriminator(config)
        self.adversary_norm = nn.BatchNorm1d(config.hidden_size, affine=False) if config.standardize_adversary else None
        self.batch_classifier = nn.Linear(config.hidden_size, config.num_batches)
        self.post_init()
        self.freeze_except_last(config.num_trainable_layers)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as every model; see ``PreTrainedModel.from_pretrained``. What was frozen is so again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_except_last(model.config.num_trainable_layers)  # loading makes every weight learn
        return loaded

    def freeze_except_last(self, num_layers: int) -> None:
        """Let only the last `num_layers` layers and all LayerNorms of the encoder learn; 0 lets everything learn.

        The heads learn in any case. The number is kept in the configuration, so a saved model comes back as it was.

        Raises:
            ValueError: if the encoder has fewer layers.
        """
        layers = self.epifoundation.layers
        if not 0 <= num_layers <= len(layers):
            raise ValueError(f"num_trainable_layers must lie between 0 and the {len(layers)} layers, got {num_layers}")
        self.config.num_trainable_layers = num_layers
        self.epifoundation.requires_grad_(num_layers == 0)
        for module in self.epifoundation.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        for layer in layers[len(layers) - num_layers :]:
            layer.requires_grad_(True)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        batch_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationBatchCorrectionOutput:
        """Score each token for having been replaced, and each cell for its batch.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            batch_ids: (cells,) experimental batch of each cell, -100 where it is unknown; needed for a loss.
            labels: shaped as `input_ids`: 1 replaced, 0 the cell's own, -100 left out of the loss.
            num_items_in_batch: (2,) number of `labels` and of `batch_ids` in an accumulated batch, see `items_of_each`.

        Returns:
            `loss`; `logits`, shaped as `input_ids`; `batch_logits`, (cells, batches); `cell_embeddings`.

        Raises:
            ValueError: if there are labels without batches.
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **(kwargs | {"return_dict": True}))
        logits = self.discriminator(out.last_hidden_state)
        reversed_cells = ReverseGradient.apply(out.pooler_output, self.config.gradient_reversal)
        batch_logits = self.batch_classifier(self._standardized(reversed_cells))
        loss = None
        if labels is not None:
            if batch_ids is None:
                raise ValueError("batch correction needs batch_ids, the batch of each cell, beside the labels")
            num_labels, num_cells = items_of_each(num_items_in_batch, (labels, batch_ids))
            adversary = self.config.adversarial_weight * cross_entropy(batch_logits, batch_ids, num_cells)
            loss = binary_cross_entropy(logits, labels, num_labels) + adversary
        return EpiFoundationBatchCorrectionOutput(
            loss, logits, out.pooler_output, out.hidden_states, out.attentions, batch_logits
        )

    def _standardized(self, cells: Tensor) -> Tensor:
        norm = self.adversary_norm
        if norm is None:
            return cells
        has_spread = norm.training and len(cells) > 1  # that of one cell is none
        return F.batch_norm(cells, norm.running_mean, norm.running_var, training=has_spread, eps=norm.eps)


__all__ = ["EpiFoundationBatchCorrectionOutput", "EpiFoundationForBatchCorrection"]
