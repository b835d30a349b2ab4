import pytest
import torch
import torch.nn.functional as F
from torch import nn

from epifoundation import EpiFoundationForBatchCorrection, EpiFoundationForReplacedPeaks

STRENGTHS = {"num_batches": 3, "adversarial_weight": 0.5, "gradient_reversal": 0.75}


@pytest.fixture
def cells(make_cells):
    cells = make_cells([7, 4, 12])
    labels = torch.arange(36).reshape(3, 12) % 3 == 0
    labels = labels.long().masked_fill(cells["input_ids"] < 4, -100)
    return cells | {"labels": labels, "batch_ids": torch.tensor([2, 0, 1])}


def gradients(model, loss):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_encoder_learns_against_the_adversary(make_model, encoder, cells):
    model = make_model(EpiFoundationForBatchCorrection, **STRENGTHS, **encoder).train()
    total = gradients(model, model(**cells).loss)
    # The same without the reversal: the two parts of the loss apart.
    plain = {name: cells[name] for name in ("input_ids", "chromosome_ids", "attention_mask")}
    out = model.epifoundation(**plain)
    adversary = F.cross_entropy(model.batch_classifier(out.pooler_output), cells["batch_ids"])
    of_adversary = gradients(model, adversary)
    replaced = model.discriminator(out.last_hidden_state)
    is_label = cells["labels"] >= 0
    loss = F.binary_cross_entropy_with_logits(replaced[is_label], cells["labels"][is_label].float())
    of_replaced = gradients(model, loss)
    torch.testing.assert_close(model(**cells).loss, loss + 0.5 * adversary)
    for name, gradient in total.items():
        expected = of_replaced.get(name, torch.zeros(()))
        sign = 1.0 if name.startswith("batch_classifier") else -0.75
        expected = expected + sign * 0.5 * of_adversary.get(name, torch.zeros(()))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_packed_cells_give_the_same_and_parts_add_up(make_model, encoder, cells, packed):
    model = make_model(EpiFoundationForBatchCorrection, **STRENGTHS, **encoder)
    out = model(**cells)
    assert out.batch_logits.shape == (3, 3)
    torch.testing.assert_close(model(**packed(cells)).loss, out.loss, rtol=1e-5, atol=1e-5)
    num_labels = (cells["labels"] >= 0).sum()
    torch.testing.assert_close(model(**cells, num_items_in_batch=2 * num_labels).loss * 2, out.loss)
    exact = model(**cells, num_items_in_batch=torch.stack([num_labels, torch.tensor(6)])).loss
    replaced_part = model(**cells, num_items_in_batch=torch.stack([num_labels, torch.tensor(10**9)])).loss
    torch.testing.assert_close(exact, (out.loss + replaced_part) / 2, rtol=1e-5, atol=1e-5)
    unknown = model(**(cells | {"batch_ids": torch.full((3,), -100)})).loss
    replaced = make_model(EpiFoundationForReplacedPeaks, **encoder)
    replaced.load_state_dict(model.state_dict(), strict=False)
    inputs = {name: values for name, values in cells.items() if name != "batch_ids"}
    torch.testing.assert_close(unknown, replaced(**inputs).loss)


@pytest.mark.parametrize("num_layers", [0, 1, 2])
def test_only_the_last_layers_and_the_norms_learn(num_layers, make_model, cells, tmp_path):
    model = make_model(EpiFoundationForBatchCorrection, num_trainable_layers=num_layers, **STRENGTHS)
    model.save_pretrained(tmp_path)
    for copy in (model, EpiFoundationForBatchCorrection.from_pretrained(tmp_path)):
        learning = {name for name, weight in copy.named_parameters() if weight.requires_grad}
        norms = {
            f"{name}.{part}"
            for name, module in copy.named_modules()
            if isinstance(module, nn.LayerNorm)
            for part in ("weight", "bias")
        }
        every = {name for name, _ in copy.named_parameters()}
        last = tuple(f"epifoundation.layers.{2 - i}." for i in range(1, num_layers + 1))
        expected = (
            every
            if num_layers == 0
            else norms | {name for name in every if name.startswith(last) or not name.startswith("epifoundation.")}
        )
        assert learning == expected
        seen = gradients(copy.train(), copy(**cells).loss)
        assert seen.keys() <= learning


def test_a_standardised_adversary_hears_all_directions_alike(make_model, cells):
    model = make_model(EpiFoundationForBatchCorrection, standardize_adversary=True, **STRENGTHS).train()
    out = model(**cells)
    embeddings = out.cell_embeddings
    standardised = (embeddings - embeddings.mean(0)) / embeddings.std(0, unbiased=False)
    expected = F.linear(standardised, model.batch_classifier.weight, model.batch_classifier.bias)
    torch.testing.assert_close(out.batch_logits, expected, rtol=1e-3, atol=1e-3)
    assert model.adversary_norm.running_mean.abs().sum() > 0
    alone = {name: values[:1] for name, values in cells.items()}
    assert torch.isfinite(model(**alone).loss), "a single cell has no spread"
    model.eval()
    torch.testing.assert_close(model(**alone).batch_logits, model(**cells).batch_logits[:1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused(make_model, cells):
    with pytest.raises(ValueError, match="needs num_batches of at least 2, got 1"):
        make_model(EpiFoundationForBatchCorrection, num_batches=1)
    with pytest.raises(ValueError, match="between 0 and the 2 layers, got 3"):
        make_model(EpiFoundationForBatchCorrection, num_batches=2, num_trainable_layers=3)
    model = make_model(EpiFoundationForBatchCorrection, num_batches=3)
    inputs = {name: values for name, values in cells.items() if name != "batch_ids"}
    with pytest.raises(ValueError, match="needs batch_ids"):
        model(**inputs)
    del inputs["labels"]
    assert model(**inputs).loss is None
