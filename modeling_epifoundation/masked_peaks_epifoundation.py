"""Masked-peak prediction: which peaks stand behind the masks, out of all the vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .linear_cross_entropy_epifoundation import linear_cross_entropy
from .losses_epifoundation import IGNORED_LABEL, mean_over_labels
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
    head_output,
)


class EpiFoundationForMaskedPeaks(EpiFoundationPreTrainedModel):
    """Pre-training: name the peaks that were hidden behind ``[MASK]``.

    The scores are products with the peak table itself (or, with ``tie_word_embeddings=False``, with a table of their
    own). Of the official Atacformer's ``AtacformerForMaskedLM``; the loss is computed where there are labels only, and
    in chunks of the vocabulary, see `linear_cross_entropy`.
    """

    _auto_class = "AutoModelForMaskedLM"
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_CLASSIFIER + OF_SELF_SUPERVISION
    _tied_weights_keys = {"lm_head.weight": "epifoundation.peak_embeddings.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.epifoundation = EpiFoundationModel(config)
        num_rows = config.vocab_size + config.additional_vocab_size
        self.lm_head = nn.Linear(config.hidden_size, num_rows, bias=False)
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
        """Score every peak at every token, or measure how well the labels are predicted.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: shaped as `input_ids`: the peak id to be predicted, -100 where none is.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, cross entropy per label; `logits`, (cells, tokens, rows of the table), without labels only, as
            they are large: four bytes for each pair of a token and a peak; `cell_embeddings`, (cells, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **(kwargs | {"return_dict": True}))
        if labels is None:
            return head_output(None, self.lm_head(out.last_hidden_state), out)
        places = (labels.flatten() != IGNORED_LABEL).nonzero().squeeze(1)
        hidden = out.last_hidden_state.flatten(0, 1).index_select(0, places)
        total = linear_cross_entropy(hidden, self.lm_head.weight, labels.flatten().index_select(0, places))
        loss = mean_over_labels(total, torch.ones_like(places), num_items_in_batch)
        return head_output(loss, None, out)


__all__ = ["EpiFoundationForMaskedPeaks"]
