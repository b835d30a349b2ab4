"""Pre-training on three objectives at once: peak-to-gene alignment, replaced peaks and masked peaks, on one encoder."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from .configuration_epifoundation import EpiFoundationConfig
from .losses_epifoundation import binary_cross_entropy, items_of_each
from .masked_peaks_epifoundation import masked_peaks_loss
from .modeling_epifoundation import (
    OF_CLASSIFIER,
    OF_SELF_SUPERVISION,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationHeadOutput,
)
from .replaced_peaks_epifoundation import PeakDiscriminator


@dataclass
class EpiFoundationCombinedOutput(EpiFoundationHeadOutput):
    """What the heads return; `loss` is the weighted sum, `logits` and `cell_embeddings` are those of alignment.

    Attributes:
        replaced_logits: of `EpiFoundationForReplacedPeaks`.
        label_places: of `EpiFoundationForMaskedPeaks`.
    """

    replaced_logits: Tensor | None = None
    label_places: Tensor | None = None


class EpiFoundationForCombinedObjectives(EpiFoundationForPeakToGeneAlignment):
    """Alignment to genes, with the heads of both self-supervised objectives beside it.

    The encoder reads each cell three times: as it is, with some peaks replaced, and with some hidden. The loss is the
    sum of what the three classes would give, each times its weight (`peak_to_gene_weight`, `replaced_peaks_weight`,
    `masked_peaks_weight`). The heads have the names they have there, so each of these classes, like any other, can be
    loaded from a checkpoint of this one.
    """

    loss_labels = ("labels", "replaced_labels", "masked_labels")
    _auto_class = "AutoModelForCombinedObjectives"  # Transformers has none; the name only makes it copy the code
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *OF_CLASSIFIER,
        *OF_SELF_SUPERVISION,
        r"^expression_decoder\.",
    ]
    _tied_weights_keys = {"lm_head.weight": "epifoundation.peak_embeddings.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__(config)
        self.discriminator = PeakDiscriminator(config)
        num_rows = config.vocab_size + config.additional_vocab_size
        self.lm_head = nn.Linear(config.hidden_size, num_rows, bias=False)
        self.post_init()

    def post_init(self) -> None:
        """As in the base class, whose own constructor calls it before the heads of this one are there."""
        if hasattr(self, "lm_head"):
            super().post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        chromosome_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        gene_ids: Tensor | None = None,
        gene_chromosome_ids: Tensor | None = None,
        batch_ids: Tensor | None = None,
        labels: Tensor | None = None,
        replaced_input_ids: Tensor | None = None,
        replaced_chromosome_ids: Tensor | None = None,
        replaced_labels: Tensor | None = None,
        masked_input_ids: Tensor | None = None,
        masked_chromosome_ids: Tensor | None = None,
        masked_labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> EpiFoundationCombinedOutput:
        """Score genes, and measure all three objectives.

        Args:
            input_ids: the cells, as in `EpiFoundationModel.forward`, also with further arguments of it.
            chromosome_ids: see there.
            attention_mask: see there; it holds for all three readings, which have the same number of tokens.
            gene_ids: as in `EpiFoundationForPeakToGeneAlignment.forward`.
            gene_chromosome_ids: see there.
            batch_ids: see there.
            labels: see there.
            replaced_input_ids: the same cells with some peaks replaced; only read where there are labels.
            replaced_chromosome_ids: their chromosomes.
            replaced_labels: as in `EpiFoundationForReplacedPeaks.forward`.
            masked_input_ids: the same cells with some peaks hidden; only read where there are labels.
            masked_chromosome_ids: their chromosomes.
            masked_labels: as in `EpiFoundationForMaskedPeaks.forward`.
            num_items_in_batch: (3,) number of `labels`, `replaced_labels` and `masked_labels` in an accumulated batch,
                see `items_of_each`.

        Returns:
            `loss`, the weighted sum; `logits`, (cells, genes, 2); `cell_embeddings`, (cells, hidden); and
            `replaced_logits` and `label_places` as the two classes give them.
        """
        kwargs["return_dict"] = True
        of_cells = {"attention_mask": attention_mask, **kwargs}
        genes: dict[str, Any] = {
            "gene_ids": gene_ids,
            "gene_chromosome_ids": gene_chromosome_ids,
            "batch_ids": batch_ids,
            "labels": labels,
        }
        if labels is None or replaced_labels is None or masked_labels is None:
            genes["num_items_in_batch"] = num_items_in_batch
            return EpiFoundationCombinedOutput(**super().forward(input_ids, chromosome_ids, **of_cells, **genes))
        num_items = items_of_each(num_items_in_batch, (labels, replaced_labels, masked_labels))
        genes["num_items_in_batch"] = num_items[0]
        aligned = super().forward(input_ids, chromosome_ids, **of_cells, **genes)
        replaced = self.epifoundation(replaced_input_ids, replaced_chromosome_ids, **of_cells).last_hidden_state
        replaced_logits = self.discriminator(replaced)
        of_replaced = binary_cross_entropy(replaced_logits, replaced_labels, num_items[1])
        masked = self.epifoundation(masked_input_ids, masked_chromosome_ids, **of_cells).last_hidden_state
        of_masked, label_places = masked_peaks_loss(
            masked, self.lm_head.weight, masked_labels, num_items[2], with_places=not self.training
        )
        config = self.config
        loss = (
            config.peak_to_gene_weight * aligned.loss
            + config.replaced_peaks_weight * of_replaced
            + config.masked_peaks_weight * of_masked
        )
        parts = {**aligned, "loss": loss, "replaced_logits": replaced_logits, "label_places": label_places}
        return EpiFoundationCombinedOutput(**parts)


__all__ = ["EpiFoundationCombinedOutput", "EpiFoundationForCombinedObjectives"]
