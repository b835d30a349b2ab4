"""Cross entropy over a vocabulary of a million peaks, without ever holding all of its logits."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 2**27  # of single-precision logits computed at a time


def linear_cross_entropy(hidden: Tensor, table: Tensor, labels: Tensor) -> Tensor:
    """Summed cross entropy of the logits ``hidden @ table.T``.

    The vocabulary is read in chunks, each for all labels at once. The backward pass computes the logits anew, so what
    is kept between the passes is one number per label. Beside the gradients of its inputs the whole takes two or three
    times `CHUNK_BYTES`, however large the vocabulary. Under autocast products have its precision, sums single.

    Args:
        hidden: (labels, hidden).
        table: (vocabulary, hidden), one row per class.
        labels: (labels,) rows of the table.

    Returns:
        A scalar, in single precision at least; its gradients reach `hidden` and `table`.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden, table, labels)


@torch.no_grad()
def share_scored_below(hidden: Tensor, table: Tensor, labels: Tensor) -> Tensor:
    """(labels,) share of the other rows of `table` that score below the label, in chunks as above; ties count half.

    The mean over labels is the chance that a hidden row scores above one drawn from the rest: an area under the ROC
    curve.
    """
    scores, below = torch.zeros(2, len(labels), dtype=_exact(hidden), device=hidden.device)
    for start, rows in _chunks(table, len(labels)):
        place, is_here = _place(labels, start, len(rows))
        scores = torch.where(is_here, _logits(hidden, rows).gather(1, place).squeeze(1), scores)
    for _, rows in _chunks(table, len(labels)):
        logits = _logits(hidden, rows)
        below += (logits < scores[:, None]).sum(dim=1) + 0.5 * (logits == scores[:, None]).sum(dim=1)
    return (below - 0.5) / max(1, len(table) - 1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        log_sums = hidden.new_full(labels.shape, -torch.inf, dtype=_exact(hidden))
        of_labels = torch.zeros_like(log_sums)
        for start, rows in _chunks(table, len(labels)):
            logits = _logits(hidden, rows)
            log_sums = torch.logaddexp(log_sums, logits.logsumexp(dim=1))
            place, is_here = _place(labels, start, len(rows))
            of_labels += torch.where(is_here, logits.gather(1, place).squeeze(1), 0.0)
            del logits
        ctx.save_for_backward(hidden, table, labels, log_sums)
        return (log_sums - of_labels).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        hidden, table, labels, log_sums = ctx.saved_tensors
        hidden_grad = torch.zeros_like(hidden, dtype=_exact(hidden))
        table_grad = torch.empty_like(table) if ctx.needs_input_grad[1] else None  # none where the table is frozen
        for start, rows in _chunks(table, len(labels)):
            # The gradient of the logits: probabilities, less 1 at the label.
            errors = _logits(hidden, rows).sub_(log_sums[:, None]).exp_()
            place, is_here = _place(labels, start, len(rows))
            errors.scatter_add_(1, place, -is_here[:, None].to(errors.dtype))
            errors = errors.mul_(grad).to(hidden.dtype)
            hidden_grad += errors @ rows.to(hidden.dtype)
            if table_grad is not None:
                table_grad[start : start + len(rows)] = errors.T @ hidden
            del errors
        return hidden_grad.to(hidden.dtype), table_grad, None


def _chunks(table: Tensor, num_labels: int) -> list[tuple[int, Tensor]]:
    num_rows = max(1, CHUNK_BYTES // (4 * max(1, num_labels)))
    return [(start, table[start : start + num_rows]) for start in range(0, len(table), num_rows)]


def _logits(hidden: Tensor, rows: Tensor) -> Tensor:
    return (hidden @ rows.to(hidden.dtype).T).to(_exact(hidden))


def _exact(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def _place(labels: Tensor, start: int, num_rows: int) -> tuple[Tensor, Tensor]:
    """(labels, 1) column of each label in this chunk, any where it lies elsewhere; and whether it lies here."""
    place = labels - start
    return place.clamp(0, num_rows - 1)[:, None], (place >= 0) & (place < num_rows)
