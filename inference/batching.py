"""Batches of cells by their number of tokens, and cell embeddings from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOKENS_PER_BATCH = 32_768


def token_budget_batches(lengths: Sequence[int] | np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Cut cells into batches of at most `max_tokens` tokens, longest cells first.

    A batch that does not fit the memory thus shows at once, and cells of one batch are about equally long.
    The batches follow from the lengths alone. A cell that is longer than the budget is a batch of its own.

    Args:
        lengths: (cells,) tokens of each cell, at least 1.
        max_tokens: bound on the sum of lengths in a batch.

    Returns:
        Indices of the cells of each batch; each cell occurs once.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    batches, first, num_tokens = [], 0, 0
    for position, length in enumerate(lengths[order].tolist()):
        if num_tokens + length > max_tokens and position > first:
            batches.append(order[first:position])
            first, num_tokens = position, 0
        num_tokens += length
    return [*batches, order[first:]] if len(order) else []


def pack(cells: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Lay int32 arrays end to end: (1, tokens) on the device."""
    return torch.from_numpy(np.concatenate(cells)).unsqueeze(0).to(device)


def embed_tokens(
    encoder: Any, input_ids: Sequence[np.ndarray], chromosome_ids: Sequence[np.ndarray], max_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed tokenised cells batch by batch, with the encoder as it is (device, dtype and mode).

    Args:
        encoder: an `EpiFoundationModel`.
        input_ids: (tokens,) int32 of each cell.
        chromosome_ids: likewise.
        max_tokens: bound on the tokens of a batch.

    Yields:
        The indices of the cells of a batch, and their embeddings (cells of the batch, hidden) float32.

    Raises:
        MemoryError: if a batch does not fit the memory of the device.
    """
    for batch in token_budget_batches([len(ids) for ids in input_ids], max_tokens):
        yield batch, _embed_batch(encoder, [input_ids[i] for i in batch], [chromosome_ids[i] for i in batch])


def _embed_batch(encoder: Any, input_ids: list[np.ndarray], chromosome_ids: list[np.ndarray]) -> np.ndarray:
    bounds = np.cumsum([0, *map(len, input_ids)], dtype=np.int32)
    try:
        out = encoder(
            input_ids=pack(input_ids, encoder.device),
            chromosome_ids=pack(chromosome_ids, encoder.device),
            cu_seq_lens_q=torch.from_numpy(bounds).to(encoder.device),
            cell_embeddings_only=True,
        )
        embeddings: np.ndarray = out.pooler_output.float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"a batch of {bounds[-1]:,} tokens does not fit the memory of {encoder.device}: lower "
            "max_tokens_per_batch (--max-tokens-per-batch), or max_peaks if it is a single cell"
        ) from error
    return embeddings


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
