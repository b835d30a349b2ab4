import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from epifoundation import EpiFoundationForMaskedPeaks, EpiFoundationForPeakToGeneAlignment, EpiFoundationModel


@pytest.fixture
def cells(make_cells):
    """Every third peak is hidden."""
    cells = make_cells([7, 4, 12])
    is_masked = torch.zeros_like(cells["input_ids"], dtype=torch.bool)
    is_masked[:, 1::3] = True
    is_masked &= cells["attention_mask"].bool()
    labels = cells["input_ids"].masked_fill(~is_masked, -100)
    return cells | {"input_ids": cells["input_ids"].masked_fill(is_masked, 1), "labels": labels}


def without(cells, *names):
    return {name: values for name, values in cells.items() if name not in names}


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_logits(make_model, encoder, cells):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder)
    logits = model(**without(cells, "labels")).logits
    assert logits.shape == (3, 12, 60)
    out = model(**cells)
    assert out.logits is None
    expected = F.cross_entropy(logits.flatten(0, 1), cells["labels"].flatten())
    torch.testing.assert_close(out.loss, expected, rtol=1e-5, atol=1e-5)
    # As a part of an accumulated batch.
    num_labels = int((cells["labels"] >= 0).sum())
    part = model(**cells, num_items_in_batch=torch.tensor(4 * num_labels)).loss
    torch.testing.assert_close(4 * part, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_evaluation_tells_where_the_hidden_peak_stands(make_model, encoder, cells, monkeypatch):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder)
    logits = model(**without(cells, "labels")).logits
    is_label = cells["labels"] >= 0
    scores = logits.gather(2, cells["labels"].clamp(min=0)[..., None])
    below = (logits < scores).sum(dim=2) + 0.5 * ((logits == scores).sum(dim=2) - 1)
    places = model(**cells).label_places
    torch.testing.assert_close(places[is_label], (below / 59)[is_label])
    assert places[~is_label].eq(-100).all()
    monkeypatch.setattr("epifoundation.linear_cross_entropy_epifoundation.CHUNK_BYTES", 4 * 7 * int(is_label.sum()))
    torch.testing.assert_close(model(**cells).label_places, places, rtol=0, atol=0.02)
    assert model.train()(**cells).label_places is None


@torch.no_grad()
def test_scores_are_products_with_the_peak_table(make_model, encoder, cells):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder)
    hidden = model.epifoundation(**without(cells, "labels")).last_hidden_state
    table = model.get_input_embeddings().weight
    torch.testing.assert_close(model(**without(cells, "labels")).logits, hidden @ table.T)


@torch.no_grad()
def test_packed_cells_give_the_same(make_model, encoder, cells, packed):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder)
    out, row = model(**cells), model(**packed(cells))
    torch.testing.assert_close(row.loss, out.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(row.cell_embeddings, out.cell_embeddings, rtol=1e-5, atol=1e-5)


def test_the_table_learns_from_both_sides(make_model, encoder, cells):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder).train()
    model(**cells).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient.ne(0).any(dim=1).all()  # every row by the softmax
    assert model.lm_head.weight is model.get_input_embeddings().weight
    labels = cells["labels"].masked_fill(cells["labels"] >= 0, -100)
    assert model(**(cells | {"labels": labels})).loss == 0


def test_a_frozen_table_lets_the_encoder_learn(make_model, cells):
    gradients = []
    for is_frozen in (False, True):
        model = make_model(EpiFoundationForMaskedPeaks).train()
        model.get_input_embeddings().requires_grad_(not is_frozen)
        model(**cells).loss.backward()
        assert (model.get_input_embeddings().weight.grad is None) == is_frozen
        gradients.append(model.epifoundation.layers[0].up_proj.weight.grad)
    torch.testing.assert_close(*gradients)


def test_masked_peaks_can_be_learned(make_model, encoder, cells):
    model = make_model(EpiFoundationForMaskedPeaks, **encoder).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**cells).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@torch.no_grad()
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_saved_model_comes_back(is_tied, make_model, cells, tmp_path):
    model = make_model(EpiFoundationForMaskedPeaks, tie_word_embeddings=is_tied, additional_vocab_size=3)
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not is_tied
    loaded = EpiFoundationForMaskedPeaks.from_pretrained(tmp_path)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) is is_tied
    assert torch.equal(loaded(**cells).loss, model(**cells).loss)
    assert loaded(**without(cells, "labels")).logits.shape[-1] == 63


@torch.no_grad()
def test_it_starts_from_an_aligned_model_and_gives_its_encoder_on(make_model, cells, tmp_path):
    aligned = make_model(EpiFoundationForPeakToGeneAlignment)
    aligned.save_pretrained(tmp_path / "aligned")
    model = EpiFoundationForMaskedPeaks.from_pretrained(tmp_path / "aligned")
    inputs = without(cells, "labels")
    expected = aligned.epifoundation(**inputs).pooler_output
    assert torch.equal(model(**inputs).cell_embeddings, expected)
    model.save_pretrained(tmp_path / "masked")
    assert torch.equal(EpiFoundationModel.from_pretrained(tmp_path / "masked")(**inputs).pooler_output, expected)


@torch.no_grad()
def test_resizing_the_peaks_resizes_the_scores(make_model, cells, tmp_path):
    model = make_model(EpiFoundationForMaskedPeaks, additional_vocab_size=3)
    model.resize_token_embeddings(70, mean_resizing=False)
    assert (model.config.vocab_size, model.config.additional_vocab_size) == (70, 0)
    model.save_pretrained(tmp_path)
    again = EpiFoundationForMaskedPeaks.from_pretrained(tmp_path)
    assert again(**without(cells, "labels")).logits.shape[-1] == 70


def test_checkpointed_gradients_are_the_same(make_model, encoder, cells):
    seen = []
    for is_checkpointed in (False, True):
        model = make_model(EpiFoundationForMaskedPeaks, **encoder).train()
        if is_checkpointed:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(**cells).loss.backward()
        seen.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert seen[0].keys() == seen[1].keys()
    for name, gradient in seen[0].items():
        torch.testing.assert_close(seen[1][name], gradient, rtol=1e-5, atol=1e-5)
