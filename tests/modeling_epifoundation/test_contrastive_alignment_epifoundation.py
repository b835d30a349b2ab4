import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel

from epifoundation import (
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    EpiFoundationModel,
)
from epifoundation.contrastive_alignment_epifoundation import default_gene_encoder

TOWER = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SIZES = {"gene_encoder": TOWER, "projection_size": 6}


@pytest.fixture
def pairs(make_cells):
    genes = torch.tensor([[5, 9, 7, 0], [6, 0, 0, 0], [30, 22, 8, 9]])
    return make_cells([7, 4, 12]) | {"gene_ids": genes}


@pytest.fixture
def model(make_model, encoder):
    return make_model(EpiFoundationForContrastiveAlignment, **SIZES, **encoder)


def only(pairs, *names):
    return {name: pairs[name] for name in names}


@torch.no_grad()
def test_the_loss_is_the_symmetric_one_by_hand(model, pairs, packed):
    out = model(**pairs)
    for embeddings in (out.cell_embeddings, out.rna_embeddings):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    similarity = out.rna_embeddings @ out.cell_embeddings.T * model.logit_scale.exp()
    torch.testing.assert_close(out.logits, similarity)
    losses = [similarity[i].logsumexp(0) + similarity[:, i].logsumexp(0) - 2 * similarity[i, i] for i in range(3)]
    torch.testing.assert_close(out.loss, sum(losses) / 6)
    torch.testing.assert_close(model(**packed(pairs)).loss, out.loss, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_loss_of_a_part_counts_by_its_pairs(model, pairs):
    part = model(**pairs, labels=torch.arange(3), num_items_in_batch=torch.tensor(12)).loss
    torch.testing.assert_close(part, model(**pairs).loss / 4)


@torch.no_grad()
def test_typical_counts_are_kept_with_the_weights(make_model, tmp_path):
    assert make_model(EpiFoundationForContrastiveAlignment, **SIZES).typical_gene_counts is None
    model = make_model(EpiFoundationForContrastiveAlignment, use_typical_gene_counts=True, max_genes=9, **SIZES)
    assert torch.equal(model.typical_gene_counts, torch.ones(40))
    model.typical_gene_counts.copy_(torch.arange(40))
    model.save_pretrained(tmp_path)
    loaded = EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path)
    assert torch.equal(loaded.typical_gene_counts, torch.arange(40.0))
    assert loaded.max_ranked_genes == 9
    plain = make_model(EpiFoundationModel)
    plain.save_pretrained(tmp_path / "plain")
    kind = EpiFoundationForContrastiveAlignment
    started = kind.from_pretrained(tmp_path / "plain", use_typical_gene_counts=True, **SIZES)
    assert torch.equal(started.typical_gene_counts, torch.ones(40))
    assert started.max_ranked_genes == 16, "positions of the encoder of genes"


@torch.no_grad()
def test_genes_are_averaged_without_padding(model, pairs):
    genes = pairs["gene_ids"]
    expected = []
    for row in genes:
        kept = row[row != 0][None]
        hidden = model.gene_encoder(input_ids=kept).last_hidden_state[0]
        expected.append(F.normalize(model.gene_projection.weight @ hidden.mean(dim=0), dim=0))
    torch.testing.assert_close(model(gene_ids=genes).rna_embeddings, torch.stack(expected), rtol=1e-5, atol=1e-5)
    mask = (genes != 0).long()
    torch.testing.assert_close(
        model(gene_ids=genes, gene_attention_mask=mask).rna_embeddings, torch.stack(expected), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_each_modality_can_come_alone(model, pairs):
    both = model(**pairs)
    by_atac = model(**only(pairs, "input_ids", "chromosome_ids", "attention_mask"))
    by_rna = model(gene_ids=pairs["gene_ids"])
    torch.testing.assert_close(by_atac.cell_embeddings, both.cell_embeddings)
    torch.testing.assert_close(by_rna.rna_embeddings, both.rna_embeddings)
    assert by_atac.rna_embeddings is by_rna.cell_embeddings is by_atac.loss is by_rna.logits is None


@torch.no_grad()
def test_cells_that_are_no_pairs_need_no_loss(model, pairs):
    unequal = pairs | {"gene_ids": pairs["gene_ids"][:2]}
    with pytest.raises(ValueError, match="expected pairs, got 2 cells by RNA and 3 by ATAC; pass return_loss=False"):
        model(**unequal)
    assert model(**unequal, return_loss=False).logits.shape == (2, 3)


def test_pairs_can_be_learned(model, pairs):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**pairs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(weight.grad is not None for weight in model.parameters())


@torch.no_grad()
def test_a_saved_model_comes_back_and_serves_imputation(model, pairs, tmp_path):
    model.save_pretrained(tmp_path)
    assert torch.equal(
        EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path)(**pairs).loss, model(**pairs).loss
    )
    imputation = EpiFoundationForExpressionImputation.from_pretrained(tmp_path)
    cells = only(pairs, "input_ids", "chromosome_ids", "attention_mask")
    labels = torch.arange(3 * 36).reshape(3, 36).float()
    labels[0, 3] = -100
    out = imputation(**cells, labels=labels)
    assert torch.equal(out.cell_embeddings, model(**cells).cell_embeddings)
    first, last = imputation.imputation[0].weight, imputation.imputation[2].weight
    expected = (out.cell_embeddings @ first.T).relu() @ last.T
    torch.testing.assert_close(out.logits, expected)
    is_label = labels != -100
    torch.testing.assert_close(out.loss, (expected - labels)[is_label].square().mean())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_two_pretrained_encoders_can_be_joined(kind, make_model, pairs, tmp_path):
    peaks = make_model(EpiFoundationModel)
    peaks.save_pretrained(tmp_path / "peaks")
    sizes = {"vocab_size": 40, "hidden_size": 12, "dim": 12, "num_attention_heads": 3, "n_heads": 3,
             "num_hidden_layers": 1, "n_layers": 1, "intermediate_size": 8, "hidden_dim": 8,
             "max_position_embeddings": 20, "pad_token_id": 0}  # fmt: skip
    genes = AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    genes.save_pretrained(tmp_path / "genes")
    model = EpiFoundationForContrastiveAlignment.from_towers(tmp_path / "peaks", tmp_path / "genes", projection_size=6)
    model.eval()
    assert model.gene_projection.weight.shape == (6, 12)
    ids = pairs["gene_ids"]
    ours = model.gene_encoder(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    torch.testing.assert_close(ours, genes(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state)
    cells = only(pairs, "input_ids", "chromosome_ids", "attention_mask")
    assert torch.equal(model.epifoundation(**cells).pooler_output, peaks(**cells).pooler_output)
    model.save_pretrained(tmp_path / "joined")
    again = EpiFoundationForContrastiveAlignment.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(again(**pairs).logits, model(**pairs).logits)


def test_the_default_tower_is_a_small_bert_of_all_genes(make_config):
    model = EpiFoundationForContrastiveAlignment(make_config())
    assert model.gene_encoder.config.model_type == "bert"
    assert model.gene_encoder.config.vocab_size == 40
    assert model.gene_encoder.pooler is None
    assert model.config.gene_encoder == default_gene_encoder(40)
    assert model.logit_scale.item() == pytest.approx(2.6592)


def test_a_tower_that_is_no_encoder_is_refused(make_config):
    images = {"model_type": "resnet", "hidden_sizes": [4], "depths": [1], "embedding_size": 4}
    with pytest.raises(ValueError, match="must have a hidden_size, 'resnet' has none"):
        EpiFoundationForContrastiveAlignment(make_config(gene_encoder=images))
