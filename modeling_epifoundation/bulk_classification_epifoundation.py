"""Bulk samples: the cell type and the assay that a set of peaks comes from."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .decoders_epifoundation import CellClassifier
from .losses_epifoundation import cross_entropy, items_of_each
from .modeling_epifoundation import (
    OF_GENES,
    OF_SELF_SUPERVISION,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
    cells_only,
)


@dataclass
class EpiFoundationBulkOutput(EpiFoundationHeadOutput):
    """What the heads return; `logits` are those of the cell types.

    Attributes:
        assay_logits: (samples, assays).
    """

    assay_logits: Tensor | None = None


class EpiFoundationForBulkClassification(EpiFoundationPreTrainedModel):
    """Two labels for a bulk sample, whose peaks are read like those of one cell: its cell type and its assay.

    The cell types are those of `id2label`, the assays `assay_names` of the configuration. `classifier` is that of
    `EpiFoundationForCellClassification`, which loads from a checkpoint of this class.
    """

    loss_labels = ("labels", "assay_labels")
    _auto_class = "AutoModelForBulkClassification"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = OF_GENES + OF_SELF_SUPERVISION

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        if not config.assay_names:
            raise ValueError(
                "no assay_names, the assays that bulk samples are told apart by: expected a model of 'finetune bulk'"
            )
        self.num_labels = config.num_labels
        self.epifoundation = EpiFoundationModel(config)
        self.classifier = CellClassifier(config)
        self.assay_classifier = CellClassifier(config, len(config.assay_names))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        assay_labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationBulkOutput:
        """Score each cell type and each assay for each sample.

        Args:
            input_ids: the samples, as the cells in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there.
            labels: (samples,) index of the cell type; -100 where it is unknown.
            assay_labels: (samples,) index of the assay; -100 where it is unknown.
            num_items_in_batch: (2,) number of `labels` and of `assay_labels` in an accumulated batch, see
                `items_of_each`.

        Returns:
            `loss`, the sum of both cross entropies, if both kinds of labels were given; `logits`, (samples, cell
            types); `assay_logits`, (samples, assays); `cell_embeddings`, (samples, hidden).
        """
        out = self.epifoundation(input_ids, chromosome_ids, attention_mask, **cells_only(kwargs))
        logits, assay_logits = self.classifier(out.pooler_output), self.assay_classifier(out.pooler_output)
        loss = None
        if labels is not None and assay_labels is not None:
            of_types, of_assays = items_of_each(num_items_in_batch, (labels, assay_labels))
            loss = cross_entropy(logits, labels, of_types) + cross_entropy(assay_logits, assay_labels, of_assays)
        return EpiFoundationBulkOutput(loss, logits, out.pooler_output, out.hidden_states, out.attentions, assay_logits)


__all__ = ["EpiFoundationBulkOutput", "EpiFoundationForBulkClassification"]
