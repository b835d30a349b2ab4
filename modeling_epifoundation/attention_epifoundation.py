"""Attention among the peaks of one cell, for many cells laid end to end without padding."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

try:
    from flash_attn import flash_attn_varlen_func
except ImportError:  # a GPU package that few machines have; `attend` falls back to torch's own kernels
    flash_attn_varlen_func = None


@dataclass(frozen=True)
class Packing:
    """Where each cell lies in a packed row of tokens.

    Attributes:
        boundaries: (cells + 1,) int32; cell i holds tokens ``boundaries[i]`` up to ``boundaries[i + 1]``.
        lengths: number of tokens of each cell, on the host, so that no layer waits for the device.
        positions: (tokens,) places of the tokens in the flattened input, or None if all of a packed input are tokens.
        padded_shape: the two dimensions of that input, (cells, longest) or (1, tokens), or None.
    """

    boundaries: Tensor
    lengths: list[int]
    positions: Tensor | None = None
    padded_shape: tuple[int, int] | None = None

    @classmethod
    def from_mask(cls, attention_mask: Tensor, allow_empty: bool = False) -> "Packing":
        """Pack a padded batch; `attention_mask` is (cells, longest), true at tokens, holes allowed.

        Raises:
            ValueError: if a cell has no token at all, unless that is allowed.
        """
        keep = attention_mask.bool()
        num_tokens = keep.sum(dim=1)
        lengths = num_tokens.tolist()
        if 0 in lengths and not allow_empty:
            raise ValueError(
                f"cell {lengths.index(0)} of the batch has no token; the tokenizer starts every cell with [CLS], "
                "also one without open peaks"
            )
        return cls(
            boundaries=F.pad(num_tokens.cumsum(0), (1, 0)).int(),
            lengths=lengths,
            positions=keep.flatten().nonzero().squeeze(1),
            padded_shape=(keep.shape[0], keep.shape[1]),
        )

    @classmethod
    def from_boundaries(cls, boundaries: Tensor, num_tokens: int, allow_empty: bool = False) -> "Packing":
        """Describe `num_tokens` tokens that are packed already.

        Raises:
            ValueError: if the boundaries do not cut these tokens into cells of at least one token, or of none where
                that is allowed.
        """
        bounds = boundaries.tolist()
        lengths = [end - start for start, end in pairwise(bounds)]
        fewest = 0 if allow_empty else 1
        if not lengths or bounds[0] != 0 or bounds[-1] != num_tokens or min(lengths) < fewest:
            least = "no cell ending before it begins" if allow_empty else "at least one token (that of [CLS]) to a cell"
            raise ValueError(
                f"cu_seq_lens_q must rise from 0 to the number of tokens, {num_tokens}, with {least}, got {bounds}"
            )
        return cls(boundaries=boundaries.int(), lengths=lengths)

    def keeping(self, is_kept: Tensor) -> "Packing":
        """Leave tokens of a packed input, (1, tokens), out; a cell may be left with none."""
        keep = is_kept.flatten()
        boundaries = F.pad(keep.cumsum(0), (1, 0)).index_select(0, self.boundaries.long())
        return Packing(
            boundaries=boundaries.int(),
            lengths=boundaries.diff().tolist(),
            positions=keep.nonzero().squeeze(1),
            padded_shape=(1, len(keep)),
        )

    @property
    def first_tokens(self) -> Tensor:
        """(cells,) index of each cell's first token, ``[CLS]``, in the packed row."""
        return self.boundaries[:-1].long()

    @property
    def places(self) -> Tensor:
        """(tokens,) place of each token in its cell, from 0."""
        starts = self.first_tokens.repeat_interleave(self.boundaries.diff())
        return torch.arange(len(starts), device=starts.device) - starts

    @cached_property
    def longest(self) -> int:
        """Number of tokens of the longest cell."""
        return max(self.lengths, default=0)

    def pack(self, padded: Tensor) -> Tensor:
        """(cells, longest, ...) or packed (1, tokens, ...) -> (tokens, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.positions is None else flat.index_select(0, self.positions)

    def unpack(self, packed: Tensor) -> Tensor:
        """(tokens, hidden) -> the layout the input came in; zeros at padding."""
        if self.positions is None or self.padded_shape is None:
            return packed.unsqueeze(0)
        cells, longest = self.padded_shape
        flat = packed.new_zeros(cells * longest, *packed.shape[1:])
        return flat.index_copy(0, self.positions, packed).unflatten(0, (cells, longest))

    def mean(self, packed: Tensor) -> Tensor:
        """(tokens, hidden) -> (cells, hidden), the average over the tokens of each cell; zeros where there are none."""
        # Summed in single precision: twelve thousand half-precision tokens overflow or lose their last digits.
        sums = [cell.sum(dim=0, dtype=torch.float32) for cell in packed.split(self.lengths)]
        num_tokens = self.boundaries.diff().clamp(min=1).unsqueeze(1)
        return (torch.stack(sums) / num_tokens).to(packed.dtype)


def attend(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, implementation: str, dropout: float
) -> tuple[Tensor, Tensor | None]:
    """Let each query attend to the keys of its own cell.

    Args:
        query: (tokens, heads, head size), or (cells, heads, head size) with one query per cell.
        key: (tokens, heads, head size); `value` likewise.
        packing: where each cell lies.
        implementation: ``"eager"`` (returns the weights), ``"flash_attention_2"``, or ``"sdpa"``.
        dropout: share of attention weights dropped.

    Returns:
        The context, shaped as `query`, and the weights (cells, heads, queries, keys) or None.

    Raises:
        ValueError: if there is no such implementation here, such as ``"flash_attention_3"``.
    """
    if implementation == "eager":
        return _eager_attention(query, key, value, packing, dropout)
    if implementation == "flash_attention_2":
        return _flash_attention(query, key, value, packing, dropout), None
    if implementation != "sdpa":
        raise ValueError(
            f"expected attn_implementation 'eager', 'sdpa' or 'flash_attention_2', got {implementation!r}; "
            "leave it out to use what this machine has"
        )
    return _sdpa_cell_by_cell(query, key, value, packing, dropout), None


def flash_attention_fits(query: Tensor) -> bool:
    """Whether flash-attention is installed and takes this query: on a GPU, in half precision, heads of at most 256."""
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return flash_attn_varlen_func is not None and query.is_cuda and is_half and query.shape[-1] <= 256


def _query_lengths(query: Tensor, packing: Packing) -> list[int]:
    # All tokens, or else one per cell; where cells may be empty, both can be equally many, and it is all tokens.
    return packing.lengths if query.shape[0] == sum(packing.lengths) else [1] * len(packing.lengths)


def _sdpa_cell_by_cell(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float) -> Tensor:
    # A call per cell needs no mask, so torch's fused kernels apply; measured 1.4 to 2 times as fast on a
    # CPU as one padded call with a mask.
    cells = zip(
        query.split(_query_lengths(query, packing)),
        key.split(packing.lengths),
        value.split(packing.lengths),
        strict=True,
    )
    contexts = [
        F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], dropout_p=dropout
        )[0].transpose(0, 1)
        for q, k, v in cells
        if len(k)
    ]
    return torch.cat(contexts) if contexts else torch.empty_like(query)


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float) -> Tensor:
    if flash_attn_varlen_func is None:
        raise ImportError(
            "attn_implementation='flash_attention_2' needs the package flash-attn; "
            "leave attn_implementation out to use what this machine has"
        )
    lengths = _query_lengths(query, packing)
    is_one_per_cell = lengths is not packing.lengths
    query_boundaries = (
        torch.arange(len(lengths) + 1, dtype=torch.int32, device=query.device)
        if is_one_per_cell
        else packing.boundaries
    )
    context: Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        cu_seqlens_q=query_boundaries,
        cu_seqlens_k=packing.boundaries,
        max_seqlen_q=1 if is_one_per_cell else packing.longest,
        max_seqlen_k=packing.longest,
        dropout_p=dropout,
    )
    return context


def _eager_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float
) -> tuple[Tensor, Tensor]:
    lengths = _query_lengths(query, packing)
    q = pad_sequence(query.split(lengths), batch_first=True).transpose(1, 2)
    k, v = (pad_sequence(x.split(packing.lengths), batch_first=True).transpose(1, 2) for x in (key, value))
    is_key = torch.arange(k.shape[2], device=k.device) < packing.boundaries.diff().unsqueeze(1)
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~is_key[:, None, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    context = (F.dropout(weights, dropout, training=dropout > 0) @ v).transpose(1, 2)
    return torch.cat([c[:length] for c, length in zip(context, lengths, strict=True)]), weights
