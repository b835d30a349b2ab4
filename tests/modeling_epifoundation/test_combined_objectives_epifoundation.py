import pytest
import torch

from epifoundation import (
    EpiFoundationForCombinedObjectives,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationForReplacedPeaks,
)

WEIGHTS = {"peak_to_gene_weight": 2.0, "replaced_peaks_weight": 0.5, "masked_peaks_weight": 0.25}


@pytest.fixture
def cells(make_cells):
    return make_cells([7, 4, 12])


@pytest.fixture
def batch(cells):
    """The same cells three times, with labels of each kind."""
    ids, is_peak = cells["input_ids"], cells["attention_mask"].bool() & (cells["input_ids"] >= 4)
    replaced = torch.where(is_peak, (ids - 4 + 3 * (torch.arange(12) % 2)) % 50 + 4, ids)
    is_masked = is_peak & (torch.arange(12) % 3 == 1)
    return cells | {
        "gene_ids": torch.tensor([5, 9, 7, 20]),
        "gene_chromosome_ids": torch.tensor([4, 5, 6, 4]),
        "labels": torch.tensor([[1, 0, 1, -100], [0, 0, 1, 1], [1, 1, 0, -100]]),
        "replaced_input_ids": replaced,
        "replaced_chromosome_ids": cells["chromosome_ids"],
        "replaced_labels": (replaced != ids).long().masked_fill(~is_peak, -100),
        "masked_input_ids": ids.masked_fill(is_masked, 1),
        "masked_chromosome_ids": cells["chromosome_ids"],
        "masked_labels": ids.masked_fill(~is_masked, -100),
    }


def of_view(batch, name):
    view = {part: batch[f"{name}_{part}"] for part in ("input_ids", "chromosome_ids", "labels")}
    return view | {"attention_mask": batch["attention_mask"]}


def alone(batch, model):
    """What the three classes give, with the weights of the one."""
    of_genes = {name: values for name, values in batch.items() if not name.startswith(("replaced_", "masked_"))}
    parts = (
        (EpiFoundationForPeakToGeneAlignment, of_genes),
        (EpiFoundationForReplacedPeaks, of_view(batch, "replaced")),
        (EpiFoundationForMaskedPeaks, of_view(batch, "masked")),
    )
    outs = []
    for kind, inputs in parts:
        head = kind(model.config).eval()
        assert not head.load_state_dict(model.state_dict(), strict=False).missing_keys
        outs.append(head(**inputs))
    return outs


@torch.no_grad()
def test_the_loss_is_the_weighted_sum_of_the_three(make_model, batch):
    model = make_model(EpiFoundationForCombinedObjectives, **WEIGHTS)
    out, (aligned, replaced, masked) = model(**batch), alone(batch, model)
    torch.testing.assert_close(out.loss, 2 * aligned.loss + 0.5 * replaced.loss + 0.25 * masked.loss)
    assert torch.equal(out.logits, aligned.logits)
    assert torch.equal(out.replaced_logits, replaced.logits)
    assert torch.equal(out.label_places, masked.label_places)
    assert model.train()(**batch).label_places is None


@torch.no_grad()
def test_each_part_is_divided_by_its_own_labels(make_model, batch):
    model = make_model(EpiFoundationForCombinedObjectives)
    whole, parts = model(**batch), alone(batch, model)
    counts = [int((batch[name] != -100).sum()) for name in model.loss_labels]
    assert len(set(counts)) == 3
    halved = model(**batch, num_items_in_batch=torch.tensor([counts[0], 2 * counts[1], 4 * counts[2]])).loss
    expected = parts[0].loss + parts[1].loss / 2 + parts[2].loss / 4
    torch.testing.assert_close(halved, expected)
    # Other trainers count the labels of the first part alone.
    torch.testing.assert_close(model(**batch, num_items_in_batch=2 * counts[0]).loss, whole.loss / 2)


@torch.no_grad()
def test_without_corrupted_cells_it_is_an_aligned_model(make_model, batch):
    model = make_model(EpiFoundationForCombinedObjectives)
    cells = {name: batch[name] for name in ("input_ids", "chromosome_ids", "attention_mask", "gene_ids")}
    out = model(**cells, gene_chromosome_ids=batch["gene_chromosome_ids"])
    assert torch.equal(out.logits, model(**batch).logits)
    assert out.loss is out.replaced_logits is None


@torch.no_grad()
def test_a_saved_model_comes_back(make_model, batch, tmp_path):
    model = make_model(EpiFoundationForCombinedObjectives, use_gene_bias=True, **WEIGHTS)
    model.save_pretrained(tmp_path)
    loaded = EpiFoundationForCombinedObjectives.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)


def test_weights_are_positive(make_config):
    with pytest.raises(Exception, match="masked_peaks_weight must be positive, got 0"):
        make_config(masked_peaks_weight=0)
