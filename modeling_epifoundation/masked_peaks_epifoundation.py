"""Masked-peak prediction: which peaks stand behind the masks, out of all the vocabulary."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .linear_cross_entropy_epifoundation import linear_cross_entropy, share_scored_below
from .losses_epifoundation import IGNORED_LABEL, mean_over_labels
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
)


@dataclass
class EpiFoundationMaskedPeaksOutput(EpiFoundationHeadOutput):
    """What the head returns.

    Attributes:
        label_places: (cells, tokens), in evaluation with labels: share of the peaks that score below the label, 1 where
            the hidden peak scores best; -100 where there is no label.
    """

    label_places: Tensor | None = None


def masked_peaks_loss(
    hidden_states: Tensor, table: Tensor, labels: Tensor, num_items: Tensor | int | None, *, with_places: bool
) -> tuple[Tensor, Tensor | None]:
    """Cross entropy of the hidden peaks among all rows of `table`; and on request `label_places`, see there."""
    places = (labels.flatten() != IGNORED_LABEL).nonzero().squeeze(1)
    hidden = hidden_states.flatten(0, 1).index_select(0, places)
    wanted = labels.flatten().index_select(0, places)
    total = linear_cross_entropy(hidden, table, wanted)
    loss = mean_over_labels(total, torch.ones_like(places), num_items)
    if not with_places:
        return loss, None
    shares = torch.full(labels.shape, float(IGNORED_LABEL), device=labels.device)
    shares.view(-1)[places] = share_scored_below(hidden, table, wanted)
    return loss, shares


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
    ) -> EpiFoundationMaskedPeaksOutput:
        """Score every peak at every token, or measure how well the labels are predicted.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: shaped as `input_ids`: the peak id to be predicted, -100 where none is.
            num_items_in_batch: see `EpiFoundationForPeakToGeneAlignment.forward`.

        Returns:
            `loss`, cross entropy per label; `logits`, (cells, tokens, rows of the table), without labels only, as
            they are large: four bytes for each pair of a token and a peak; `cell_embeddings`, (cells, hidden);
            `label_places` in evaluation.
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **(kwargs | {"return_dict": True}))
        loss = logits = label_places = None
        if labels is None:
            logits = self.lm_head(out.last_hidden_state)
        else:
            loss, label_places = masked_peaks_loss(
                out.last_hidden_state, self.lm_head.weight, labels, num_items_in_batch, with_places=not self.training
            )
        return EpiFoundationMaskedPeaksOutput(
            loss, logits, out.pooler_output, out.hidden_states, out.attentions, label_places
        )


__all__ = ["EpiFoundationForMaskedPeaks", "EpiFoundationMaskedPeaksOutput", "masked_peaks_loss"]
