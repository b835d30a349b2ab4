"""The encoder as the published Atacformer has it: bare embeddings, no [CLS], no norms but those of the layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from epifoundation import EpiFoundationForExpressionPrediction, EpiFoundationForPeakToGeneAlignment, EpiFoundationModel

LENGTHS = [7, 1, 12, 4]  # with [CLS], which the second cell holds alone


@pytest.fixture(scope="module", params=[0, 20], ids=["a set", "with positions"])
def model(request, make_model, atacformer):
    return make_model(EpiFoundationModel, max_position_embeddings=request.param, **atacformer)


def without_cls(cells):
    return {name: values[:, 1:] for name, values in cells.items()}


def assert_close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_there_are_only_the_weights_of_the_published_model(make_model, atacformer):
    model = make_model(EpiFoundationModel, additional_vocab_size=3, **atacformer)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    outside = {name for name, _ in model.named_parameters() if not name.startswith("layers.")}
    assert outside == {"peak_embeddings.embedding.weight"}
    assert len(model.get_input_embeddings().weight) == model.config.vocab_size + 3


@torch.no_grad()
def test_the_numbers_are_those_of_torchs_own_encoder(model, make_cells):
    """torch.nn.TransformerEncoder, which the official code is made of."""
    config = model.config
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    theirs = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False).eval()
    for ours, other in zip(model.layers, theirs.layers, strict=True):
        pairs = {
            "self_attn.in_proj_": ours.attention.qkv_proj, "self_attn.out_proj.": ours.attention.o_proj,
            "norm1.": ours.attention_norm, "linear1.": ours.up_proj, "linear2.": ours.down_proj,
            "norm2.": ours.feed_forward_norm,
        }  # fmt: skip
        state = {
            f"{name}{part}": getattr(module, part) for name, module in pairs.items() for part in ("weight", "bias")
        }
        other.load_state_dict(state)
    cells = without_cls(make_cells([7, 3, 12, 4]))
    mask = cells["attention_mask"].bool()
    hidden = model.peak_embeddings.embedding(cells["input_ids"])
    if model.position_embeddings is not None:
        hidden = hidden + model.position_embeddings.weight[: hidden.shape[1]]
    expected = theirs(hidden, src_key_padding_mask=~mask)
    out = model(cells["input_ids"], attention_mask=cells["attention_mask"])
    assert_close(out.last_hidden_state[mask], expected[mask])
    for i in range(4):
        assert_close(out.pooler_output[i], expected[i][mask[i]].mean(dim=0))


@torch.no_grad()
def test_cls_is_passed_over_like_padding(model, make_cells, packed):
    cells = make_cells([7, 3, 12, 4])
    out, bare = model(**cells), model(**without_cls(cells))
    assert_close(out.pooler_output, bare.pooler_output)
    assert_close(out.last_hidden_state[:, 1:], bare.last_hidden_state)
    assert out.last_hidden_state[:, 0].eq(0).all()
    row = model(**packed(cells))
    assert_close(row.pooler_output, bare.pooler_output)
    assert_close(row.last_hidden_state[0], out.last_hidden_state[cells["attention_mask"].bool()])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_cell_without_peaks_is_zero_and_changes_no_other(attention, model, make_model, make_cells, packed):
    cells = make_cells(LENGTHS)
    other = make_model(EpiFoundationModel, **{k: getattr(model.config, k) for k in (
        "max_position_embeddings", "use_chromosome_embeddings", "use_embedding_norms", "use_input_norm",
        "use_final_norm", "use_cls_token", "pooling")})  # fmt: skip
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(attention)
    for inputs in (cells, without_cls(cells), packed(cells)):
        pooled = other(**inputs).pooler_output
        assert pooled[1].eq(0).all()
        assert_close(pooled[[0, 2, 3]], model(**{k: v[[0, 2, 3]] for k, v in cells.items()}).pooler_output)
    empty = other(**make_cells([1, 1])).pooler_output
    assert empty.eq(0).all()
    assert empty.shape == (2, 16)


def test_an_empty_cell_gives_finite_gradients(make_model, atacformer, make_cells):
    model = make_model(EpiFoundationModel, **atacformer).train()
    for lengths in (LENGTHS, [1, 1]):
        model.zero_grad()
        model(**make_cells(lengths)).pooler_output.square().sum().backward()
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_cells_of_any_lengths_give_the_same_padded_and_packed(data, model, make_cells, packed):
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    cells = make_cells(lengths, data.draw(st.integers(max(lengths), 25)), seed=data.draw(st.integers(0, 99)))
    with torch.no_grad():
        assert_close(model(**cells).pooler_output, model(**packed(cells)).pooler_output)


@torch.no_grad()
def test_padding_between_peaks_changes_nothing(model, make_cells):
    cells = make_cells([12, 9])
    holes = torch.tensor([0, 1, 2, 4, 5, 7, 8, 9, 11, 13, 14, 16])
    spread = {name: values.new_zeros(2, 18).index_copy(1, holes, values) for name, values in cells.items()}
    spread["input_ids"][spread["attention_mask"] == 0] = 9  # whatever stands there
    assert_close(model(**spread).pooler_output, model(**cells).pooler_output)


@torch.no_grad()
def test_the_order_of_peaks_matters_with_positions_alone(model, make_cells):
    cells = make_cells([12])
    flipped = {name: values.flip(1) for name, values in cells.items()}
    is_same = torch.allclose(model(**flipped).pooler_output, model(**cells).pooler_output, atol=1e-5)
    assert is_same is (model.position_embeddings is None)


def test_more_peaks_than_positions_are_refused(make_model, make_cells, atacformer):
    model = make_model(EpiFoundationModel, max_position_embeddings=11, **atacformer)
    assert model(**make_cells([12, 3])).pooler_output.isfinite().all()  # [CLS] has no position
    with pytest.raises(ValueError, match="a cell has 12 tokens, this model has positions for 11: lower max_peaks"):
        model(**make_cells([13, 3]))


@torch.no_grad()
@pytest.mark.parametrize("head", [EpiFoundationForPeakToGeneAlignment, EpiFoundationForExpressionPrediction])
def test_the_gene_heads_work_with_it_too(head, make_model, make_cells, make_genes, atacformer, packed):
    model = make_model(head, **atacformer)
    genes, cells = make_genes([9, 5, 2, 7]), make_cells(LENGTHS)
    loss = model(**cells, **genes).loss
    assert loss.isfinite()
    row = packed(cells)
    assert_close(model(**row, **genes).loss, loss)
