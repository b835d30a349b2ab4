import pytest
import torch
import torch.nn.functional as F

from epifoundation import EpiFoundationForBulkClassification, EpiFoundationForCellClassification

LABELS = {"num_labels": 3, "assay_names": ["ATAC", "DNase"]}


@pytest.fixture
def samples(make_cells):
    return make_cells([7, 4, 12])


@pytest.fixture
def labels():
    return {"labels": torch.tensor([2, 0, -100]), "assay_labels": torch.tensor([1, 1, 0])}


@torch.no_grad()
def test_the_loss_is_the_sum_of_both(make_model, encoder, samples, labels, packed):
    model = make_model(EpiFoundationForBulkClassification, **LABELS, **encoder)
    out = model(**samples, **labels)
    assert (out.logits.shape, out.assay_logits.shape) == ((3, 3), (3, 2))
    of_types = F.cross_entropy(out.logits, labels["labels"])
    of_assays = F.cross_entropy(out.assay_logits, labels["assay_labels"])
    torch.testing.assert_close(out.loss, of_types + of_assays)
    torch.testing.assert_close(model(**packed(samples), **labels).loss, out.loss, rtol=1e-5, atol=1e-5)
    part = model(**samples, **labels, num_items_in_batch=torch.tensor([4, 9])).loss
    torch.testing.assert_close(part, of_types / 2 + of_assays / 3)
    assert model(**samples).loss is None


@torch.no_grad()
def test_its_classifier_of_cell_types_serves_cells(make_model, samples, tmp_path):
    model = make_model(EpiFoundationForBulkClassification, **LABELS)
    model.save_pretrained(tmp_path)
    loaded = EpiFoundationForBulkClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**samples).assay_logits, model(**samples).assay_logits)
    cells, found = EpiFoundationForCellClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert torch.equal(cells(**samples).logits, model(**samples).logits)


def test_assays_must_be_named(make_config):
    with pytest.raises(ValueError, match="no assay_names"):
        EpiFoundationForBulkClassification(make_config(num_labels=3))
