import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationModel,
    modeling_epifoundation,
)
from epifoundation.attention_epifoundation import flash_attn_varlen_func

CLASSES = (
    EpiFoundationModel,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
)
GENE_CLASSES = (EpiFoundationForPeakToGeneAlignment, EpiFoundationForExpressionPrediction)
HEADS = CLASSES[1:]
LENGTHS = [7, 1, 12, 4]


def assert_close(first, second, tolerance=1e-5):
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


def packed(cells):
    """The same cells in one row without padding."""
    is_token = cells["attention_mask"].bool()
    return {
        "input_ids": cells["input_ids"][is_token][None],
        "chromosome_ids": cells["chromosome_ids"][is_token][None],
        "cu_seq_lens_q": F.pad(is_token.sum(dim=1).cumsum(0), (1, 0)).int(),
    }


def one_by_one(cells):
    for i, is_token in enumerate(cells["attention_mask"].bool()):
        yield {name: values[i : i + 1, is_token] for name, values in cells.items()}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same_gradients(first, second):
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert torch.allclose(gradient, second[name], rtol=1e-5, atol=1e-5), name


@pytest.fixture(scope="module")
def model(make_model):
    """To be left as it is."""
    return make_model(EpiFoundationModel)


@pytest.fixture(scope="module")
def cells(make_cells):
    return make_cells(LENGTHS)


# Padding, packing, neighbours


@torch.no_grad()
def test_padded_packed_one_by_one_and_eager_give_the_same(model, make_model, cells):
    out, is_token = model(**cells), cells["attention_mask"].bool()
    row = model(**packed(cells))
    assert row.last_hidden_state.shape == (1, sum(LENGTHS), 16)
    assert_close(row.pooler_output, out.pooler_output)
    assert_close(row.last_hidden_state[0], out.last_hidden_state[is_token])
    for i, cell in enumerate(one_by_one(cells)):
        alone = model(**cell)
        assert_close(alone.pooler_output[0], out.pooler_output[i])
        assert_close(alone.last_hidden_state[0], out.last_hidden_state[i, is_token[i]])
    eager = make_model(EpiFoundationModel)
    eager.set_attn_implementation("eager")
    assert_close(eager(**cells).last_hidden_state, out.last_hidden_state)
    assert_close(eager(**packed(cells)).pooler_output, out.pooler_output)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_cells_of_any_lengths_give_the_same_padded_and_packed(data, model, make_cells):
    lengths = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    longest = data.draw(st.integers(max(lengths), 25))
    cells = make_cells(lengths, longest, seed=data.draw(st.integers(0, 99)))
    with torch.no_grad():
        assert_close(model(**cells).pooler_output, model(**packed(cells)).pooler_output)


@torch.no_grad()
def test_a_compiled_model_gives_the_same(make_model, cells):
    # aot_eager: tracing and graph breaks are what can go wrong here; inductor would add a minute of C++.
    model = make_model(EpiFoundationForCellClassification)
    expected = model(**cells).logits
    compiled = torch.compile(model, backend="aot_eager")
    assert_close(compiled(**cells).logits, expected)
    torch._dynamo.reset()


@torch.no_grad()
def test_a_longer_neighbour_does_not_change_a_cell(model, make_cells):
    alone, beside = make_cells([7, 3]), make_cells([7, 3, 30])
    assert beside["input_ids"].shape[1] == 30
    assert_close(model(**beside).pooler_output[:2], model(**alone).pooler_output)


@pytest.mark.parametrize("model_class", GENE_CLASSES)
def test_training_does_not_see_how_far_a_batch_is_padded(model_class, make_model, make_cells, make_genes):
    seen = []
    for longest, most_genes in ((12, 9), (40, 25)):
        model = make_model(model_class).train()
        inputs = make_cells(LENGTHS, longest) | make_genes([9, 5, 2, 7], most_genes)
        loss = model(**inputs).loss
        seen.append((loss.detach(), gradients(model, loss), dict(model.named_buffers())))
    (loss, gradient, buffers), (wide_loss, wide_gradient, wide_buffers) = seen
    assert_close(loss, wide_loss)
    assert_same_gradients(gradient, wide_gradient)
    for name, buffer in buffers.items():
        assert_close(buffer, wide_buffers[name])


@torch.no_grad()
def test_training_statistics_are_those_of_the_tokens_alone(make_model, cells):
    model = make_model(EpiFoundationModel).train()
    seen = []
    model.input_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    before = model.input_norm.running_mean.clone()
    model(**cells)
    (tokens,) = seen
    assert len(tokens) == sum(LENGTHS)
    assert_close(model.input_norm.running_mean, 0.9 * before + 0.1 * tokens.mean(dim=0))


@torch.no_grad()
def test_padding_between_tokens_changes_nothing(model, cells):
    holes = torch.tensor([0, 1, 2, 4, 5, 7, 8, 9, 11, 13, 14, 16])  # where each column of `cells` is put
    spread = {name: values.new_zeros(len(LENGTHS), 18).index_copy(1, holes, values) for name, values in cells.items()}
    # The official loader leaves the chromosome standing where a peak is not in the vocabulary.
    spread["chromosome_ids"][:, 3] = 7
    out, expected = model(**spread), model(**cells)
    assert_close(out.pooler_output, expected.pooler_output)
    assert_close(out.last_hidden_state[:, holes], expected.last_hidden_state)
    assert out.last_hidden_state[:, 3].eq(0).all()


@torch.no_grad()
def test_the_mask_is_that_of_the_pad_id_unless_given(model, cells):
    unmasked = {name: values for name, values in cells.items() if name != "attention_mask"}
    assert_close(model(**unmasked).pooler_output, model(**cells).pooler_output, 0)
    shorter = cells | {"attention_mask": cells["attention_mask"].clone()}
    shorter["attention_mask"][0, 5:] = 0
    alone = {name: values[:1, :5] for name, values in cells.items()}
    assert_close(model(**shorter).pooler_output[:1], model(**alone).pooler_output)


@torch.no_grad()
def test_the_order_of_peaks_does_not_matter(model, make_cells):
    cells = make_cells([12, 12])
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(11)])
    shuffled = {name: values[:, order] for name, values in cells.items()}
    out, expected = model(**shuffled), model(**cells)
    assert_close(out.pooler_output, expected.pooler_output)
    assert_close(out.last_hidden_state, expected.last_hidden_state[:, order])


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_cells_of_cls_alone_have_embeddings(pooling, make_model, make_cells):
    model = make_model(EpiFoundationModel, pooling=pooling)
    for cells in (make_cells([1]), make_cells([1, 1, 1])):
        out = model(**cells)
        assert out.pooler_output.isfinite().all()
        assert_close(out.pooler_output, out.last_hidden_state[:, 0])


@torch.no_grad()
def test_the_same_input_gives_the_same_numbers_to_the_last_bit(make_model, cells):
    # Dropout is on in the configuration, and off in evaluation.
    model = make_model(EpiFoundationModel, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    assert torch.equal(model(**cells).last_hidden_state, model(**cells).last_hidden_state)
    assert_close(model(**cells).pooler_output, make_model(EpiFoundationModel)(**cells).pooler_output)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_acts_in_training(name, make_model, make_cells):
    cells = make_cells([9, 7])
    expected = make_model(EpiFoundationModel).train()(**cells).pooler_output
    torch.manual_seed(0)
    assert not torch.allclose(make_model(EpiFoundationModel, **{name: 0.5}).train()(**cells).pooler_output, expected)


@torch.no_grad()
def test_dropout_comes_before_the_batch_statistics_of_peaks_and_genes(make_model, make_cells, make_genes):
    model, dropped = make_model(EpiFoundationForPeakToGeneAlignment, hidden_dropout_prob=0.5).train(), []
    for norm in (model.epifoundation.input_norm, model.gene_norm):
        norm.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0].eq(0).float().mean().item()))
    torch.manual_seed(0)
    model(**make_cells([30] * 4), **make_genes([30] * 4))
    assert dropped == pytest.approx([0.5, 0.5], abs=0.05)  # of 4 x 30 x 16 values each


# What the encoder returns


@torch.no_grad()
def test_hidden_states_begin_at_the_first_layer_and_end_before_the_last_norm(model, cells):
    out = model(**cells, output_hidden_states=True)
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1
    is_token = cells["attention_mask"].bool()
    assert_close(model.norm(out.hidden_states[-1])[is_token], out.last_hidden_state[is_token])
    peaks = model.peak_embeddings(cells["input_ids"]) + model.chromosome_embeddings(cells["chromosome_ids"])
    assert_close(out.hidden_states[0][is_token], model.input_norm(peaks[is_token]))
    assert all(states[~is_token].eq(0).all() for states in out.hidden_states)
    assert model(**cells).hidden_states is None


@torch.no_grad()
def test_eager_attention_weights_sum_to_one_over_the_tokens_of_a_cell(make_model, cells):
    model = make_model(EpiFoundationModel)
    model.set_attn_implementation("eager")
    out = model(**cells, output_attentions=True)
    assert len(out.attentions) == 2
    is_token = cells["attention_mask"].bool()
    for weights in out.attentions:
        assert weights.shape == (len(LENGTHS), 4, max(LENGTHS), max(LENGTHS))
        over_keys = weights.sum(dim=-1).transpose(1, 2)[is_token]
        assert_close(over_keys, torch.ones_like(over_keys))
        assert weights.transpose(1, 3)[~is_token].eq(0).all()
    assert model(**cells).attentions is None


@torch.no_grad()
def test_attention_weights_without_eager_attention_are_refused(model, make_model, cells):
    with pytest.raises(ValueError, match=r"only attn_implementation='eager' computes.*\(it has 'automatic'\)"):
        model(**cells, output_attentions=True)
    head = make_model(EpiFoundationForCellClassification)
    head.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"\(it has 'sdpa'\)"):
        head(**cells, output_attentions=True)


@torch.no_grad()
def test_heads_pass_hidden_states_and_attentions_on(make_model, cells):
    head = make_model(EpiFoundationForCellClassification)
    head.set_attn_implementation("eager")
    out = head(**cells, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 3
    assert len(out.attentions) == 2
    assert_close(out.logits, head(**cells).logits)


@torch.no_grad()
def test_outputs_can_be_asked_for_in_the_configuration(make_model, cells):
    model = make_model(EpiFoundationModel, output_hidden_states=True)
    assert len(model(**cells).hidden_states) == 3
    assert model(**cells, output_hidden_states=False).hidden_states is None


@torch.no_grad()
@pytest.mark.parametrize("model_class", CLASSES)
def test_a_tuple_comes_back_on_request(model_class, make_model, make_genes, cells):
    model = make_model(model_class)
    genes = make_genes([3] * 4) if model_class in GENE_CLASSES else {}
    out = model(**cells, **genes)
    for value, expected in zip(model(**cells, **genes, return_dict=False), out.to_tuple(), strict=True):
        assert torch.equal(value, expected)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("implementation", ["automatic", "sdpa", "eager"])
def test_cell_embeddings_alone_are_those_of_the_full_model(pooling, implementation, make_model, cells):
    model = make_model(EpiFoundationModel, pooling=pooling)
    model.set_attn_implementation(implementation)
    alone = model(**cells, cell_embeddings_only=True)
    assert alone.last_hidden_state is None
    assert_close(alone.pooler_output, model(**cells).pooler_output)
    assert_close(model(**packed(cells), cell_embeddings_only=True).pooler_output, alone.pooler_output)


def test_cell_embeddings_alone_train_as_the_full_model(make_model, cells):
    seen = []
    for cell_embeddings_only in (False, True):
        model = make_model(EpiFoundationModel).train()
        out = model(**cells, cell_embeddings_only=cell_embeddings_only)
        seen.append(gradients(model, out.pooler_output.sin().sum()))
    assert_same_gradients(*seen)


def test_one_layer_or_none_is_enough_for_cell_embeddings(make_model, cells):
    for num_hidden_layers in (0, 1):
        model = make_model(EpiFoundationModel, num_hidden_layers=num_hidden_layers)
        assert_close(model(**cells, cell_embeddings_only=True).pooler_output, model(**cells).pooler_output)


@torch.no_grad()
def test_mean_pooling_averages_the_tokens_of_a_cell(make_model, cells):
    out = make_model(EpiFoundationModel, pooling="mean")(**cells)
    for i, length in enumerate(LENGTHS):
        assert_close(out.pooler_output[i], out.last_hidden_state[i, :length].mean(dim=0))


@torch.no_grad()
def test_embeddings_can_stand_in_for_ids(model, cells):
    embeds = model.get_input_embeddings()(cells["input_ids"])
    given = {name: values for name, values in cells.items() if name != "input_ids"}
    assert_close(model(inputs_embeds=embeds, **given).pooler_output, model(**cells).pooler_output)
    alone = model(inputs_embeds=embeds[:1, :7], chromosome_ids=cells["chromosome_ids"][:1, :7])  # no mask: all tokens
    assert_close(alone.pooler_output, model(**cells).pooler_output[:1])
    row = packed(cells)
    row["inputs_embeds"] = model.get_input_embeddings()(row.pop("input_ids"))
    assert_close(model(**row).pooler_output, model(**cells).pooler_output)


def test_ids_and_embeddings_together_or_neither_are_refused(model, cells):
    embeds = torch.zeros(4, 12, 16)
    for inputs in (cells | {"inputs_embeds": embeds}, {"chromosome_ids": cells["chromosome_ids"]}):
        with pytest.raises(ValueError, match="give either input_ids or inputs_embeds, not both and not neither"):
            model(**inputs)


def test_missing_chromosomes_are_named(model, make_model, make_genes, cells):
    with pytest.raises(ValueError, match="no chromosome ids came with the input; the tokenizer returns them"):
        model(input_ids=cells["input_ids"])
    head, genes = make_model(EpiFoundationForPeakToGeneAlignment), make_genes([3] * 4)
    with pytest.raises(ValueError, match="holds those of genes in 'gene_chromosome_ids'"):
        head(**cells, gene_ids=genes["gene_ids"])


@torch.no_grad()
def test_a_model_without_chromosomes_needs_and_reads_none(make_model, make_genes, cells):
    model = make_model(EpiFoundationForPeakToGeneAlignment, use_chromosome_embeddings=False)
    genes = make_genes([3] * 4)
    expected = model(input_ids=cells["input_ids"], gene_ids=genes["gene_ids"]).logits
    assert torch.equal(model(**cells, **genes).logits, expected)


# Which attention


def test_attention_is_chosen_automatically_and_not_stored(make_model, tmp_path):
    for implementation in ("automatic", "eager"):
        model = make_model(EpiFoundationModel)
        assert model.config._attn_implementation == "automatic"
        model.set_attn_implementation(implementation)
        model.save_pretrained(tmp_path)
        assert "attn" not in (tmp_path / "config.json").read_text()
        assert EpiFoundationModel.from_pretrained(tmp_path).config._attn_implementation == "automatic"


@torch.no_grad()
def test_attention_can_be_chosen_when_loading_and_later(make_model, cells, tmp_path):
    model = make_model(EpiFoundationForCellClassification)
    model.save_pretrained(tmp_path)
    for implementation in ("eager", "sdpa"):
        loaded = EpiFoundationForCellClassification.from_pretrained(tmp_path, attn_implementation=implementation)
        assert loaded.config._attn_implementation == implementation
        assert_close(loaded(**cells).logits, model(**cells).logits)
    assert len(loaded(**cells).logits) == len(LENGTHS)
    loaded.set_attn_implementation("eager")
    assert len(loaded(**cells, output_attentions=True).attentions) == 2


@pytest.mark.skipif(flash_attn_varlen_func is not None, reason="flash-attn is installed")
def test_asking_for_flash_attention_without_the_package_fails_at_once(make_model, tmp_path):
    make_model(EpiFoundationModel).save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"(?i)flash.?attn|flash.?attention"):
        EpiFoundationModel.from_pretrained(tmp_path, attn_implementation="flash_attention_2")


def test_an_unknown_attention_is_refused(make_model, tmp_path):
    make_model(EpiFoundationModel).save_pretrained(tmp_path)
    for implementation in ("flex_attention", "sdpaa"):
        with pytest.raises(ValueError, match=implementation):
            EpiFoundationModel.from_pretrained(tmp_path, attn_implementation=implementation)


# Genes


@torch.no_grad()
@pytest.mark.parametrize("model_class", GENE_CLASSES)
@pytest.mark.parametrize("use_gene_bias", [False, True])
def test_shared_own_and_all_genes_give_the_same(model_class, use_gene_bias, make_model, cells, monkeypatch):
    model = make_model(model_class, use_gene_bias=use_gene_bias)
    gene_ids = torch.arange(4, 40)
    chromosomes = torch.randint(4, 10, (36,), generator=torch.Generator().manual_seed(0))
    own = model(**cells, gene_ids=gene_ids.expand(4, -1), gene_chromosome_ids=chromosomes.expand(4, -1)).logits
    assert own.shape[:2] == (4, 36)
    assert_close(model(**cells, gene_ids=gene_ids, gene_chromosome_ids=chromosomes).logits, own)
    assert_close(model(**cells, gene_chromosome_ids=chromosomes).logits, own)
    order = torch.randperm(36)
    shuffled = model(**cells, gene_ids=gene_ids[order], gene_chromosome_ids=chromosomes[order]).logits
    assert_close(shuffled, own[:, order])
    monkeypatch.setattr(modeling_epifoundation, "GENES_PER_CHUNK", 5)
    assert_close(model(**cells, gene_chromosome_ids=chromosomes).logits, own)


@torch.no_grad()
@pytest.mark.parametrize("model_class", GENE_CLASSES)
def test_padding_of_genes_has_no_influence(model_class, make_model, make_genes, cells):
    model = make_model(model_class)
    short, long = (model(**cells, **make_genes([9, 5, 2, 7], longest)) for longest in (9, 30))
    assert_close(short.logits, long.logits[:, :9])
    assert_close(short.loss, long.loss)
    is_padding = make_genes([9, 5, 2, 7], 30)["gene_ids"] == 0
    assert long.logits[is_padding].eq(0).all()


@torch.no_grad()
def test_one_gene_at_a_time_gives_the_same(make_model, make_genes, cells):
    model, genes = make_model(EpiFoundationForPeakToGeneAlignment), make_genes([9, 5, 2, 7])
    expected = model(**cells, **genes).logits
    for place in range(3):
        one = {name: values[:, place : place + 1] for name, values in genes.items()}
        assert_close(model(**cells, **one).logits[:, 0], expected[:, place])


@torch.no_grad()
def test_the_bias_of_a_gene_raises_only_its_logit_of_being_expressed(make_model, make_genes, cells):
    model, genes = make_model(EpiFoundationForPeakToGeneAlignment, use_gene_bias=True), make_genes([9, 5, 3, 7])
    before = model(**cells, **genes).logits
    gene = int(genes["gene_ids"][0, 0])
    model.gene_bias[gene] += 2.0
    difference = model(**cells, **genes).logits - before
    expected = torch.zeros_like(difference)
    expected[..., 1][genes["gene_ids"] == gene] = 2.0
    assert_close(difference, expected)


@torch.no_grad()
@pytest.mark.parametrize("model_class", GENE_CLASSES)
def test_batches_count_only_where_they_are_given(model_class, make_model, make_genes, cells):
    model, genes = make_model(model_class, use_batch_embeddings=True, num_batches=3), make_genes([9, 5, 2, 7])
    without = model(**cells, **genes).logits
    batches = torch.tensor([[0, 0, 1, 2], [1, 0, 1, 2]])
    first, second = (model(**cells, **genes, batch_ids=batch_ids).logits for batch_ids in batches)
    assert not torch.allclose(first[0], second[0], atol=1e-3)
    assert_close(first[1:], second[1:])
    decoder = getattr(model, "alignment_decoder", None) or model.expression_decoder
    decoder.batch_proj.weight.zero_()
    assert_close(model(**cells, **genes, batch_ids=torch.tensor([0, 0, 1, 2])).logits, without)
    plain = make_model(model_class)
    batched = plain(**cells, **genes, batch_ids=torch.tensor([0, 5, 1, 2])).logits
    assert torch.equal(batched, plain(**cells, **genes).logits)


# Losses


def test_the_alignment_loss_is_cross_entropy_per_labelled_gene(make_model, make_genes, cells):
    model, genes = make_model(EpiFoundationForPeakToGeneAlignment), make_genes([9, 5, 2, 7])
    out = model(**cells, **genes)
    labels = genes["labels"]
    total = sum(-out.logits[i, j].log_softmax(dim=0)[labels[i, j]] for i, j in (labels != -100).nonzero().tolist())
    assert (labels != -100).sum() == 8 + 4 + 1 + 6
    assert_close(out.loss, total / 19)
    for num_items in (50, torch.tensor(50)):
        assert_close(model(**cells, **genes, num_items_in_batch=num_items).loss, total / 50)


def test_the_expression_loss_is_the_squared_error_per_labelled_gene(make_model, make_genes, cells):
    model, genes = make_model(EpiFoundationForExpressionPrediction), make_genes([9, 5, 2, 7])
    is_label = genes["labels"] != -100
    levels = torch.where(is_label, 3 * genes["labels"] + 0.5, -100.0)
    out = model(**cells, **(genes | {"labels": levels}))
    expected = F.mse_loss(out.logits[is_label], levels[is_label], reduction="sum")
    assert_close(out.loss, expected / is_label.sum())
    assert_close(model(**cells, **(genes | {"labels": levels}), num_items_in_batch=50).loss, expected / 50)


def test_the_classification_loss_is_cross_entropy_per_labelled_cell(make_model, cells):
    model = make_model(EpiFoundationForCellClassification)
    labels = torch.tensor([2, -100, 0, 1])
    out = model(**cells, labels=labels)
    keep = labels != -100
    assert_close(out.loss, F.cross_entropy(out.logits[keep], labels[keep]))
    assert_close(model(**cells, labels=labels[:, None]).loss, out.loss)
    expected = F.cross_entropy(out.logits[keep], labels[keep], reduction="sum") / 9
    assert_close(model(**cells, labels=labels, num_items_in_batch=9).loss, expected)


@pytest.mark.parametrize("model_class", HEADS)
def test_without_any_label_the_loss_is_zero_and_trains_nothing(model_class, make_model, make_genes, cells):
    model = make_model(model_class)
    inputs = cells | make_genes([3] * 4) if model_class in GENE_CLASSES else dict(cells)
    inputs["labels"] = torch.full_like(inputs.get("labels", torch.zeros(4, dtype=torch.long)), -100)
    loss = model(**inputs).loss
    assert loss == 0
    assert all(gradient.eq(0).all() for gradient in gradients(model, loss).values())
    assert model(**{name: values for name, values in inputs.items() if name != "labels"}).loss is None


class WithFrozenStatistics(EpiFoundationForPeakToGeneAlignment):
    """BatchNorm stays as in evaluation: its statistics would differ between one batch of 16 and four of 4."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self


def test_four_batches_of_four_train_as_one_of_sixteen(make_model, make_cells, make_genes, tmp_path):
    lengths = [1 + i % 9 for i in range(16)]  # cells differ in peaks and in labels
    inputs = make_cells(lengths) | make_genes([2 + i for i in range(16)])
    rows = [{name: values[i] for name, values in inputs.items()} for i in range(16)]
    trained = []
    for batch_size, steps in ((16, 1), (4, 4)):
        model = make_model(WithFrozenStatistics, num_hidden_layers=1)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        arguments = TrainingArguments(
            output_dir=tmp_path,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            learning_rate=1.0,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        Trainer(model=model, args=arguments, train_dataset=rows).train()
        trained.append({name: weight.detach() - before[name] for name, weight in model.named_parameters()})
    assert max(step.abs().max() for step in trained[0].values()) > 0.01
    for name, step in trained[0].items():
        assert_close(step, trained[1][name])


@pytest.mark.parametrize("model_class", HEADS)
def test_gradient_checkpointing_gives_the_same_gradients(model_class, make_model, make_genes, cells):
    inputs = dict(cells) | {"labels": torch.tensor([0, 1, 2, 0])}
    if model_class in GENE_CLASSES:
        inputs |= make_genes([9, 5, 2, 7])
    seen = []
    for is_checkpointed in (False, True):
        model = make_model(model_class).train()
        if is_checkpointed:
            # Renamed in Transformers 5.23, which warns at the old name.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            assert all(layer.gradient_checkpointing for layer in model.epifoundation.layers)
        seen.append(gradients(model, model(**inputs).loss))
    assert_same_gradients(*seen)
    assert len(seen[0]) == len(list(model.named_parameters()))


# Saving and loading


def folder_of(model, tmp_path):
    folder = tmp_path / type(model).__name__
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_saved_model_comes_back_the_same(model_class, make_model, tmp_path):
    model = make_model(model_class, use_batch_embeddings=True, num_batches=3, use_gene_bias=True)
    folder = folder_of(model, tmp_path)
    loaded, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    state = model.state_dict()
    assert set(load_file(folder / "model.safetensors")) == set(state)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert json.loads((folder / "config.json").read_text())["architectures"] == [model_class.__name__]


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize("source", CLASSES)
def test_every_class_loads_from_the_folder_of_every_other(source, target, make_model, cells, tmp_path):
    model = make_model(source, use_gene_bias=True)
    loaded, info = target.from_pretrained(folder_of(model, tmp_path), output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    encoder, expected = (getattr(m, "epifoundation", m) for m in (loaded, model))
    with torch.no_grad():
        assert torch.equal(encoder(**cells).pooler_output, expected(**cells).pooler_output)
    # All that is new is what the source does not have, and it was drawn, not left as it was in memory.
    assert not [name for name in info["missing_keys"] if name.startswith("epifoundation.")]
    state = loaded.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    for name in info["missing_keys"]:
        if name.endswith("activation.weight"):
            assert state[name].item() == 0.25
        if name == "gene_bias":
            assert state[name].eq(0).all()
    # What is saved again has the names of the target, whatever the source was called.
    loaded.save_pretrained(tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(state)
    again, info = target.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not info["missing_keys"]
    for name, value in again.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_expression_starts_from_the_pre_trained_decoder(make_model, make_genes, cells, tmp_path):
    aligned = make_model(EpiFoundationForPeakToGeneAlignment)
    folder = folder_of(aligned, tmp_path)
    model, info = EpiFoundationForExpressionPrediction.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) == {"expression_decoder.output.weight", "expression_decoder.output.bias"}
    for name, weight in model.expression_decoder.named_parameters():
        if not name.startswith("output."):
            assert torch.equal(weight, aligned.alignment_decoder.get_parameter(name)), name
    # After training, saving and loading must keep what was trained.
    with torch.no_grad():
        for weight in model.expression_decoder.parameters():
            weight.add_(0.1)
        genes = make_genes([9, 5, 2, 7])
        expected = model(**cells, **genes).logits
        model.save_pretrained(tmp_path / "tuned")
        assert torch.equal(
            EpiFoundationForExpressionPrediction.from_pretrained(tmp_path / "tuned")(**cells, **genes).logits, expected
        )


def test_the_number_of_labels_can_be_chosen_when_loading(make_model, cells, tmp_path):
    folder = folder_of(make_model(EpiFoundationForPeakToGeneAlignment), tmp_path)
    model = EpiFoundationForCellClassification.from_pretrained(folder, num_labels=5)
    assert model(**cells).logits.shape == (4, 5)


def test_a_model_of_another_size_is_refused(make_model, tmp_path):
    folder = folder_of(make_model(EpiFoundationModel), tmp_path)
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        EpiFoundationModel.from_pretrained(folder, hidden_size=8)


def test_weights_can_be_split_over_several_files(make_model, cells, tmp_path):
    model = make_model(EpiFoundationModel)
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        loaded = EpiFoundationModel.from_pretrained(tmp_path)
        assert torch.equal(loaded(**cells).pooler_output, model(**cells).pooler_output)


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_saved_folder_holds_the_code_and_names_every_class(model_class, make_model, tmp_path):
    folder = folder_of(make_model(model_class), tmp_path)
    parts = ("attention", "configuration", "decoders", "layers", "losses", "modeling")
    code = {f"{part}_epifoundation.py" for part in parts}
    assert {path.name for path in folder.iterdir()} == code | {"config.json", "model.safetensors"}
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert auto_map["AutoConfig"] == "configuration_epifoundation.EpiFoundationConfig"
    assert {name.split(".EpiFoundation")[1] for name in auto_map.values()} == {
        "Config",
        *(c.__name__.removeprefix("EpiFoundation") for c in CLASSES),
    }


@pytest.mark.parametrize("model_class", [EpiFoundationModel, EpiFoundationForExpressionPrediction])
def test_the_code_is_uploaded_with_the_weights(model_class, make_model, tmp_path, monkeypatch):
    uploaded = []

    class Hub:
        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})

    def upload(self, working_dir, repo_id, files_timestamps, **_):
        uploaded.extend(path.name for path in Path(working_dir).iterdir() if path.name not in files_timestamps)

    monkeypatch.setattr("transformers.modeling_utils.hf_api", lambda *_, **__: Hub())
    monkeypatch.setattr(model_class, "_upload_modified_files", upload)
    make_model(model_class).save_pretrained(tmp_path, push_to_hub=True, repo_id="someone/model")
    assert {"modeling_epifoundation.py", "attention_epifoundation.py", "model.safetensors"} <= set(uploaded)


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_model_can_be_built_without_memory_and_filled_later(model_class, make_model, make_config, tmp_path):
    with torch.device("meta"):
        empty = model_class(make_config())
    assert all(value.is_meta for value in empty.state_dict().values())
    model = make_model(model_class)
    empty.load_state_dict(model.state_dict(), assign=True)
    assert not any(value.is_meta for value in (*empty.parameters(), *empty.buffers()))
    loaded = model_class.from_pretrained(folder_of(model, tmp_path))
    assert not any(value.is_meta for value in (*loaded.parameters(), *loaded.buffers()))


def test_a_model_in_half_precision_stays_so(make_model, make_genes, cells, tmp_path):
    model, genes = make_model(EpiFoundationForPeakToGeneAlignment, use_gene_bias=True), make_genes([9, 5, 2, 7])
    folder = folder_of(model, tmp_path)
    assert EpiFoundationModel.from_pretrained(folder).dtype == torch.float32
    half = EpiFoundationForPeakToGeneAlignment.from_pretrained(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        expected, out = model(**cells, **genes), half(**cells, **genes)
    assert out.logits.dtype == out.cell_embeddings.dtype == torch.bfloat16
    assert out.loss.dtype == torch.float32
    # bfloat16 keeps 8 bits: values of a few units are off by a few hundredths.
    assert (out.cell_embeddings.float() - expected.cell_embeddings).abs().mean() < 0.05
    half.save_pretrained(tmp_path / "half")
    again = EpiFoundationModel.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    assert EpiFoundationModel.from_pretrained(tmp_path / "half", dtype="float32").dtype == torch.float32


@torch.no_grad()
def test_mixed_precision_runs_through_every_head(make_model, make_genes, cells):
    for model_class in HEADS:
        model = make_model(model_class)
        inputs = cells | (make_genes([9, 5, 2, 7]) if model_class in GENE_CLASSES else {})
        with torch.autocast("cpu", torch.bfloat16):
            out = model(**inputs)
        assert (out.cell_embeddings.float() - model(**inputs).cell_embeddings).abs().mean() < 0.05


# Other sizes, adapters


@torch.no_grad()
@pytest.mark.parametrize("num_rows", [50, 75])
def test_resizing_the_peaks_keeps_the_old_rows(num_rows, make_model, make_cells, tmp_path):
    model = make_model(EpiFoundationForCellClassification)
    old, kept = model.get_input_embeddings().weight.clone(), min(num_rows, 60)
    cells = make_cells(LENGTHS)
    cells["input_ids"] = torch.where(cells["input_ids"] < 50, cells["input_ids"], 4)
    expected = model(**cells).logits
    model.resize_token_embeddings(num_rows, mean_resizing=False)
    assert model.get_input_embeddings().weight.shape == (num_rows, 16)
    assert model.config.vocab_size == num_rows
    assert torch.equal(model.get_input_embeddings().weight[:kept], old[:kept])
    assert model.get_input_embeddings().padding_idx == 0
    assert torch.equal(model(**cells).logits, expected)
    model.save_pretrained(tmp_path)
    assert torch.equal(EpiFoundationForCellClassification.from_pretrained(tmp_path)(**cells).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("num_rows", [30, 55])
@pytest.mark.parametrize("model_class", GENE_CLASSES)
def test_resizing_the_genes_keeps_the_old_rows(model_class, num_rows, make_model, cells, tmp_path):
    model = make_model(model_class, use_gene_bias=True)
    old = model.gene_embeddings.embedding.weight.clone()
    genes = {"gene_ids": torch.arange(4, 30), "gene_chromosome_ids": torch.full((26,), 5)}
    expected = model(**cells, **genes).logits
    table = model.resize_gene_embeddings(num_rows)
    assert table is model.gene_embeddings.embedding
    assert table.weight.shape == (num_rows, 16)
    assert model.config.gene_vocab_size == num_rows
    assert torch.equal(table.weight[: min(num_rows, 40)], old[: min(num_rows, 40)])
    assert torch.equal(model(**cells, **genes).logits, expected)
    every = model(**cells, gene_chromosome_ids=torch.full((num_rows - 4,), 5)).logits
    assert every.shape[:2] == (4, num_rows - 4)
    model.save_pretrained(tmp_path)
    assert torch.equal(model_class.from_pretrained(tmp_path)(**cells, **genes).logits, expected)


def test_the_bias_of_new_genes_is_zero_and_that_of_old_ones_kept(make_model):
    model = make_model(EpiFoundationForPeakToGeneAlignment, use_gene_bias=True)
    old = model.gene_bias.detach().clone()
    model.resize_gene_embeddings(55)
    assert torch.equal(model.gene_bias, F.pad(old, (0, 15)))
    assert model.gene_bias.requires_grad


# peft 0.21 still asks Transformers by the old name whether gradients are checkpointed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_low_rank_adapter_trains_saves_and_comes_back(make_model, cells, tmp_path):
    labels = torch.tensor([0, 1, 2, 0])
    base = folder_of(make_model(EpiFoundationForCellClassification), tmp_path)
    model = EpiFoundationForCellClassification.from_pretrained(base)
    config = LoraConfig(r=2, target_modules=["qkv_proj"], modules_to_save=["classifier"], lora_dropout=0.0)
    adapted = get_peft_model(model, config)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or "classifier" in name for name in trained)
    assert sum("qkv_proj.lora_" in name for name in trained) == 4  # A and B in each of two layers
    optimizer = torch.optim.Adam([w for w in adapted.parameters() if w.requires_grad], lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = adapted(**cells, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    again = PeftModel.from_pretrained(EpiFoundationForCellClassification.from_pretrained(base), tmp_path / "adapter")
    with torch.no_grad():
        expected = adapted(**cells).logits
        assert_close(again(**cells).logits, expected)
        assert_close(again.merge_and_unload()(**cells).logits, expected)
        assert not torch.allclose(EpiFoundationForCellClassification.from_pretrained(base)(**cells).logits, expected)


# Initial weights


def test_fresh_weights_follow_the_configuration(make_config):
    torch.manual_seed(0)
    config = make_config(vocab_size=2000, initializer_range=0.05, use_gene_bias=True)
    model = EpiFoundationForPeakToGeneAlignment(config)
    peaks = model.epifoundation.peak_embeddings
    assert peaks.embedding.weight[4:].std().item() == pytest.approx(0.05, rel=0.05)
    assert peaks.embedding.weight[0].eq(0).all()
    assert peaks.norm.weight.eq(1).all()
    assert model.alignment_decoder.activation.weight.item() == 0.25
    assert model.gene_bias.eq(0).all()
    assert model.epifoundation.input_norm.eps == model.gene_norm.eps == 6.1e-5


def test_the_pad_row_does_not_learn(make_model, make_genes, cells):
    model = make_model(EpiFoundationForPeakToGeneAlignment).train()
    seen = gradients(model, model(**cells, **make_genes([9, 5, 2, 7])).loss)
    for name in ("epifoundation.peak_embeddings", "gene_embeddings"):
        gradient = seen[f"{name}.embedding.weight"]
        assert gradient[0].eq(0).all()
        assert gradient[4:].ne(0).any()
