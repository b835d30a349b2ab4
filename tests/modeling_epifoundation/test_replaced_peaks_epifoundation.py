import math

import pytest
import torch

from epifoundation import EpiFoundationForMaskedPeaks, EpiFoundationForReplacedPeaks


@pytest.fixture
def cells(make_cells):
    """Labels at all peaks, none at [CLS] and padding."""
    cells = make_cells([7, 4, 12])
    labels = torch.arange(36).reshape(3, 12) % 3 == 0
    return cells | {"labels": labels.long().masked_fill(cells["input_ids"] < 4, -100)}


@torch.no_grad()
def test_the_loss_is_the_mean_log_likelihood_by_hand(make_model, encoder, cells):
    out = make_model(EpiFoundationForReplacedPeaks, **encoder)(**cells)
    assert out.logits.shape == cells["labels"].shape
    terms = [
        -math.log(1 / (1 + math.exp(-logit if label else logit)))
        for logit, label in zip(out.logits.flatten().tolist(), cells["labels"].flatten().tolist(), strict=True)
        if label >= 0
    ]
    assert out.loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    model = make_model(EpiFoundationForReplacedPeaks, **encoder)
    part = model(**cells, num_items_in_batch=2 * len(terms)).loss
    torch.testing.assert_close(2 * part, out.loss)


@torch.no_grad()
def test_packed_cells_give_the_same(make_model, encoder, cells, packed):
    model = make_model(EpiFoundationForReplacedPeaks, **encoder)
    out, row = model(**cells), model(**packed(cells))
    is_token = cells["attention_mask"].bool()
    torch.testing.assert_close(row.logits[0], out.logits[is_token], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(row.loss, out.loss, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_head_is_the_one_described(make_model, cells):
    model = make_model(EpiFoundationForReplacedPeaks, discriminator_size=5, discriminator_norm_eps=0.1)
    head = model.discriminator
    hidden = model.epifoundation(**{name: cells[name] for name in ("input_ids", "chromosome_ids")}).last_hidden_state
    inner = hidden[0, :7] @ head.dense.weight.T + head.dense.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    inner = (inner - inner.mean(-1, keepdim=True)) / (inner.var(-1, correction=0, keepdim=True) + 0.1).sqrt()
    expected = (inner * head.norm.weight + head.norm.bias) @ head.output.weight[0] + head.output.bias
    torch.testing.assert_close(model(**cells).logits[0, :7], expected, rtol=1e-5, atol=1e-5)


def test_replacements_can_be_learned_and_pass_on_to_another_head(make_model, encoder, cells, tmp_path):
    model = make_model(EpiFoundationForReplacedPeaks, **encoder).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**cells).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    model.save_pretrained(tmp_path)
    table = EpiFoundationForMaskedPeaks.from_pretrained(tmp_path).get_input_embeddings().weight
    assert torch.equal(table, model.get_input_embeddings().weight)
