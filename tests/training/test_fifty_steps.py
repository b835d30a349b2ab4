"""Fifty training steps: packed and for [CLS] alone, beside torch's own encoder on padded cells."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from epifoundation import EpiFoundationConfig, EpiFoundationModel

NUM_PEAKS, NUM_TYPES, NUM_STEPS = 60, 3, 50


class Ours(nn.Module):
    """The encoder as it is used in training, with a linear head."""

    def __init__(self, encoder: EpiFoundationModel, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, cells: list[Tensor]) -> Tensor:
        ids = torch.cat(cells)[None]
        bounds = torch.tensor(np.cumsum([0, *map(len, cells)]), dtype=torch.int32)
        out = self.encoder(ids, ids % 3 + 4, cu_seq_lens_q=bounds, cell_embeddings_only=True)
        return self.head(out.pooler_output)


class Padded(nn.Module):
    """The official computation, of torch's own modules, on padded cells with a mask."""

    def __init__(self, encoder: EpiFoundationModel, head: nn.Linear) -> None:
        super().__init__()
        config = encoder.config
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
        layer = nn.TransformerEncoderLayer(*sizes, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)
        for theirs, ours in zip(self.layers.layers, encoder.layers, strict=True):
            theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias = ours.attention.qkv_proj.parameters()
            theirs.self_attn.out_proj = ours.attention.o_proj
            theirs.linear1, theirs.linear2 = ours.up_proj, ours.down_proj
            theirs.norm1, theirs.norm2 = ours.attention_norm, ours.feed_forward_norm
        self.peaks, self.chromosomes = encoder.peak_embeddings, encoder.chromosome_embeddings
        self.input_norm, self.norm, self.head = encoder.input_norm, encoder.norm, head

    def forward(self, cells: list[Tensor]) -> Tensor:
        ids = nn.utils.rnn.pad_sequence(cells, batch_first=True)
        x = self.peaks(ids) + self.chromosomes((ids % 3 + 4) * (ids > 0))
        x = self.input_norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.norm(self.layers(x, src_key_padding_mask=ids == 0)[:, 0]))


def losses(network: nn.Module) -> list[float]:
    """Of fifty steps; BatchNorm keeps its statistics, in which the official code counts padding."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.train().get_submodule("encoder.input_norm" if isinstance(network, Ours) else "input_norm").eval()
    found = []
    for step in range(NUM_STEPS):
        rng = np.random.default_rng(step)
        labels = rng.integers(0, NUM_TYPES, 4)
        # The type of a cell decides which peaks are likely to be open, so that there is something to learn.
        cells = [torch.tensor([2, *(np.flatnonzero(rng.random(NUM_PEAKS // 3) < 0.4) * 3 + t + 4)]) for t in labels]
        loss = nn.functional.cross_entropy(network(cells), torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_losses_are_those_of_the_padded_computation(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        vocab_size=NUM_PEAKS + 4,
        num_chromosomes=7,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder, head = EpiFoundationModel(config).to(dtype), nn.Linear(32, NUM_TYPES).to(dtype)
    padded = Padded(*copy.deepcopy((encoder, head))).to(dtype)
    ours, theirs = losses(Ours(encoder, head)), losses(padded)
    assert ours[-1] < 0.5 * ours[0]
    np.testing.assert_allclose(ours, theirs, atol=tolerance)
