import pytest
import torch
from torch import nn

from epifoundation import EpiFoundationConfig
from epifoundation.attention_epifoundation import Packing
from epifoundation.layers_epifoundation import EpiFoundationLayer

LENGTHS = [5, 1, 8]


@pytest.fixture
def layer():
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config._attn_implementation = "sdpa"
    return EpiFoundationLayer(config)


@pytest.fixture
def tokens():
    return torch.randn(sum(LENGTHS), 16, generator=torch.Generator().manual_seed(1))


def packing():
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
    return Packing.from_boundaries(bounds, sum(LENGTHS))


def of_torch(layer):
    """Torch's own layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias = layer.attention.qkv_proj.parameters()
    theirs.self_attn.out_proj = layer.attention.o_proj
    theirs.linear1, theirs.linear2 = layer.up_proj, layer.down_proj
    theirs.norm1, theirs.norm2 = layer.attention_norm, layer.feed_forward_norm
    return theirs


def test_output_and_gradients_are_those_of_torchs_layer_on_each_cell(layer, tokens):
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    out, _ = layer(ours, packing())
    plain = of_torch(layer)
    expected = torch.cat([plain(cell[None])[0] for cell in theirs.split(LENGTHS)])
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    out.square().sum().backward()
    of_ours = {name: weight.grad.clone() for name, weight in layer.named_parameters()}
    layer.zero_grad()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    for name, weight in layer.named_parameters():
        torch.testing.assert_close(of_ours[name], weight.grad, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_the_input_is_left_as_it_was(layer, tokens):
    before = tokens.clone()
    layer(tokens, packing())
    layer(tokens, packing(), packing().first_tokens)
    assert torch.equal(tokens, before)


@torch.no_grad()
def test_under_autocast_the_residual_sums_keep_single_precision(layer, tokens):
    exact, _ = layer(tokens, packing())
    sums = []
    layer.feed_forward_norm.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = layer(tokens, packing())
    assert sums[0].dtype == torch.float32
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)
