"""Fine-tuning of the cell embedding on triplets: cells of one type near each other, those of others apart."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .losses_epifoundation import mean_over_labels
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

MARGIN = 1.0  # by which a cell of another type should lie further away (official Atacformer)


class EpiFoundationForCellClustering(EpiFoundationPreTrainedModel):
    """An encoder trained with the triplet loss; it adds no weights (Atacformer)."""

    _auto_class = "AutoModelForCellClustering"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.epifoundation = EpiFoundationModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> EpiFoundationHeadOutput:
        """Embed cells and measure how far triplets are from what is wanted.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it: first all
                anchors, then as many cells of the same types, then as many of other types.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: (anchors,) type of each anchor, which the Trainer counts; the loss does not need it.
            num_items_in_batch: number of anchors that the sum of losses is divided by, given by the Trainer under
                gradient accumulation; by default those of this call.
            return_loss: the cells are such triplets; without it, they are any cells.

        Returns:
            `loss`, mean of ``max(0, |a - p| - |a - n| + 1)`` with Euclidean distances; no `logits`;
            `cell_embeddings`, (cells, hidden).

        Raises:
            ValueError: if the cells cannot be triplets.
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        if not return_loss:
            return head_output(None, None, out)
        if len(out.pooler_output) % 3:
            raise ValueError(
                "expected triplets, as many anchors as cells of the same and of other types, got "
                f"{len(out.pooler_output)} cells; pass return_loss=False to embed cells alone"
            )
        anchors, positives, negatives = out.pooler_output.float().chunk(3)
        total = F.triplet_margin_loss(anchors, positives, negatives, margin=MARGIN, reduction="sum")
        return head_output(mean_over_labels(total, torch.ones(len(anchors)), num_items_in_batch), None, out)


__all__ = ["EpiFoundationForCellClustering"]
