"""Batches of cells by their number of tokens, and what a model computes of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

TOKENS_PER_BATCH = 32_768


def token_budget_batches(
    lengths: Sequence[int] | np.ndarray, max_tokens: int, max_cells: int | None = None
) -> list[np.ndarray]:
    """Cut cells into batches of at most `max_tokens` tokens, longest cells first.

    A batch that does not fit the memory thus shows at once, and cells of one batch are about equally long.
    The batches follow from the lengths alone. A cell that is longer than the budget is a batch of its own.

    Args:
        lengths: (cells,) tokens of each cell, at least 1.
        max_tokens: bound on the sum of lengths in a batch.
        max_cells: bound on the cells of a batch.

    Returns:
        Indices of the cells of each batch; each cell occurs once.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    max_cells = max_cells or len(order)
    batches, first, num_tokens = [], 0, 0
    for position, length in enumerate(lengths[order].tolist()):
        is_full = num_tokens + length > max_tokens or position - first == max_cells
        if is_full and position > first:
            batches.append(order[first:position])
            first, num_tokens = position, 0
        num_tokens += length
    return [*batches, order[first:]] if len(order) else []


def pack(cells: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Lay int32 arrays end to end: (1, tokens) on the device."""
    return torch.from_numpy(np.concatenate(cells)).unsqueeze(0).to(device)


def compute_batches(
    forward: Callable[..., Tensor],
    device: torch.device,
    input_ids: Sequence[np.ndarray],
    chromosome_ids: Sequence[np.ndarray],
    max_tokens: int,
    max_cells: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Compute something of tokenised cells batch by batch.

    Args:
        forward: takes a packed batch as a model does (input_ids, chromosome_ids, cu_seq_lens_q) and gives
            (cells of the batch, numbers).
        device: where it takes its input.
        input_ids: (tokens,) int32 of each cell.
        chromosome_ids: likewise.
        max_tokens: bound on the tokens of a batch.
        max_cells: bound on its cells.

    Yields:
        The indices of the cells of a batch, and their numbers (cells of the batch, numbers) float32.

    Raises:
        MemoryError: if a batch does not fit the memory of the device.
    """
    for batch in token_budget_batches([len(ids) for ids in input_ids], max_tokens, max_cells):
        yield batch, _compute(forward, device, [input_ids[i] for i in batch], [chromosome_ids[i] for i in batch])


def _compute(
    forward: Callable[..., Tensor], device: torch.device, input_ids: list[np.ndarray], chromosome_ids: list[np.ndarray]
) -> np.ndarray:
    bounds = np.cumsum([0, *map(len, input_ids)], dtype=np.int32)
    with memory_explained(int(bounds[-1]), device):
        out = forward(
            input_ids=pack(input_ids, device),
            chromosome_ids=pack(chromosome_ids, device),
            cu_seq_lens_q=torch.from_numpy(bounds).to(device),
        )
        numbers: np.ndarray = out.float().cpu().numpy()
    return numbers


@contextmanager
def memory_explained(num_tokens: int, device: torch.device) -> Iterator[None]:
    """Say what to lower where the memory of a device does not suffice.

    Raises:
        MemoryError: in place of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"a batch of {num_tokens:,} tokens does not fit the memory of {device}: lower "
            "max_tokens_per_batch (--max-tokens-per-batch), or max_peaks if it is a single cell"
        ) from error


@contextmanager
def ready_for_inference(model: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Put a model into evaluation mode, and on a device if one is given; afterwards it is as it was before.

    Dropout and the running statistics of BatchNorm then take no part, and no gradients are recorded.
    """
    is_training = {module: module.training for module in model.modules()}
    device_before = next(model.parameters()).device
    try:
        model.eval()
        if device is not None:
            model.to(device)
        with torch.inference_mode():
            yield
    finally:
        if device is not None:
            model.to(device_before)
        for module, mode in is_training.items():
            module.training = mode
