"""Losses as sums over labels, divided by the labels here or in the whole accumulated batch."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100  # marks a label that takes no part in the loss, as everywhere in Transformers


def mean_over_labels(total: Tensor, is_label: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Divide a summed loss by the number of labels, here or in the whole accumulated batch."""
    if num_items is None:
        num_items = is_label.sum().clamp(min=1)
    elif isinstance(num_items, Tensor):
        num_items = num_items.to(total.device)
    return total / num_items


def items_of_each(num_items: Tensor | int | None, labels: Sequence[Tensor]) -> list[Any]:
    """What each part of a sum of losses is divided by; None where it is the labels of this call.

    Args:
        num_items: None; or the labels of each part in the whole accumulated batch, (parts,), as `EpiFoundationTrainer`
            counts them; or those of the first part alone, as other trainers do. The other parts, means over the labels
            of this call, then count by the share of the first part's labels that is in this call.
        labels: of each part.
    """
    if num_items is None:
        return [None] * len(labels)
    if isinstance(num_items, Tensor) and num_items.ndim:
        return list(num_items)
    counts = [(part != IGNORED_LABEL).sum().clamp(min=1) for part in labels]
    return [count * num_items / counts[0] for count in counts]


def cross_entropy(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """(n, classes) logits and (n,) labels -> their mean cross entropy."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return mean_over_labels(total, labels != IGNORED_LABEL, num_items)


def binary_cross_entropy(logits: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Logits and labels 0 or 1 of one shape -> their mean cross entropy."""
    is_label = labels != IGNORED_LABEL
    errors = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return mean_over_labels(torch.where(is_label, errors, 0.0).sum(), is_label, num_items)


def squared_error(levels: Tensor, labels: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Levels and labels of one shape -> their mean squared error."""
    is_label = labels != IGNORED_LABEL
    error = torch.where(is_label, levels.float() - labels.float(), 0.0)
    return mean_over_labels(error.square().sum(), is_label, num_items)
