import math

import pytest
import torch

from epifoundation import EpiFoundationForCellClustering, EpiFoundationModel


@torch.no_grad()
def test_the_loss_is_that_of_the_distances_by_hand(make_model, make_cells, encoder, packed):
    model, cells = make_model(EpiFoundationForCellClustering, **encoder), make_cells([7, 4, 12, 3, 9, 5])
    out = model(**cells)
    anchors, positives, negatives = out.cell_embeddings.tolist(), *[None] * 2
    anchors, positives, negatives = anchors[:2], anchors[2:4], anchors[4:]
    losses = [
        max(0, math.dist(a, p) - math.dist(a, n) + 1) for a, p, n in zip(anchors, positives, negatives, strict=True)
    ]
    assert out.loss.item() == pytest.approx(sum(losses) / 2, abs=1e-4)
    torch.testing.assert_close(model(**packed(cells)).loss, out.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(**cells, num_items_in_batch=torch.tensor(8)).loss, out.loss / 4)


@torch.no_grad()
def test_cells_that_are_no_triplets_need_no_loss(make_model, make_cells, tmp_path):
    model, cells = make_model(EpiFoundationForCellClustering), make_cells([7, 4])
    with pytest.raises(ValueError, match=r"expected triplets, .* got 2 cells; pass return_loss=False"):
        model(**cells)
    out = model(**cells, return_loss=False)
    assert out.loss is None
    model.save_pretrained(tmp_path)
    encoder = EpiFoundationModel.from_pretrained(tmp_path)
    torch.testing.assert_close(out.cell_embeddings, encoder(**cells).pooler_output)


def test_cells_of_one_type_come_together(make_model, make_cells, encoder):
    model, cells = make_model(EpiFoundationForCellClustering, **encoder).train(), make_cells([7, 4, 12, 3, 9, 5])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**cells).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
