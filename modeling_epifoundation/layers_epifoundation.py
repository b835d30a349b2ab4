"""What the encoder is made of: embedding tables, attention, transformer layers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_epifoundation import Packing, attend, flash_attention_fits
from .configuration_epifoundation import EpiFoundationConfig

# The attention of a model for which nobody chose one: the fastest that its tensors and this machine allow.
AUTOMATIC = "automatic"


class NormedEmbedding(nn.Module):
    """An embedding table followed by a LayerNorm, or by nothing."""

    def __init__(
        self, num_rows: int, config: EpiFoundationConfig, padding_idx: int | None = None, has_norm: bool = True
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_rows, config.hidden_size, padding_idx=padding_idx)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids -> (..., hidden)."""
        return self.norm(self.embedding(ids))

    def look_up(self, ids: Tensor) -> Tensor:
        """The same for a table with fewer rows than `ids`: each row is normalised once, not once per use."""
        rows = torch.arange(self.embedding.num_embeddings, device=ids.device)
        return F.embedding(ids, self(rows))


class EpiFoundationAttention(nn.Module):
    """Multi-head self-attention among the peaks of each cell. Peaks form a set: there are no positions."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.config = config
        self.is_causal = False
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, packing: Packing, query_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(tokens, hidden) -> the context of all tokens, or of those at `query_positions`, one per cell."""
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, self.head_size))
        query, key, value = qkv.unbind(dim=1)
        if query_positions is not None:
            query = query.index_select(0, query_positions)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        context, weights = attend(query, key, value, packing, self._implementation(query), dropout)
        return self.o_proj(context.flatten(1)), weights

    def _implementation(self, query: Tensor) -> str:
        implementation = self.config._attn_implementation
        if implementation == AUTOMATIC:
            return "flash_attention_2" if flash_attention_fits(query) else "sdpa"
        return implementation


class EpiFoundationLayer(GradientCheckpointingLayer):
    """A transformer layer that normalises after each residual sum (post-norm), as the official model does."""

    def __init__(self, config: EpiFoundationConfig) -> None:
        super().__init__()
        self.attention = EpiFoundationAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        if isinstance(self.activation, nn.ReLU):
            self.activation.inplace = True  # no fresh memory for the widest tensor of the layer
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: Tensor, packing: Packing, query_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(tokens, hidden) -> the same, or only the rows at `query_positions`; and the attention weights."""
        context, weights = self.attention(hidden_states, packing, query_positions)
        residual = hidden_states if query_positions is None else hidden_states.index_select(0, query_positions)
        hidden_states = self.attention_norm(_added(self.dropout(context), residual))
        expanded = self.dropout(self.activation(self.up_proj(hidden_states)))
        return self.feed_forward_norm(_added(self.dropout(self.down_proj(expanded)), hidden_states)), weights


def _added(update: Tensor, residual: Tensor) -> Tensor:
    """The sum of both, in the memory of `update`, which is not needed any more."""
    if update.dtype != residual.dtype:  # autocast: the residual has the higher precision, which the sum keeps
        return residual + update
    return update.add_(residual)
