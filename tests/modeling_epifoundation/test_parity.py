"""The numbers of the official EpiFoundation, from its checkpoints converted to folders of this package."""

from pathlib import Path

import pytest
import torch

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationModel,
)
from epifoundation.convert_official_epifoundation import convert_official_state_dict

CASES = sorted(p.parent.name for p in (Path(__file__).parents[1] / "reference/official_model").glob("*/config.json"))
# Their decoders train nowhere in the official code; encoder and classifier count, the decoder is left out.
WITHOUT_DECODER = ["finetune_innerproduct", "pretrain_sumquery_bins5_nopad"]
PRETRAINED = [case for case in CASES if case not in WITHOUT_DECODER and not case.startswith("finetune")]
FINE_TUNED = [case for case in CASES if case not in WITHOUT_DECODER and case.startswith("finetune")]
CELL_WEIGHT = 0.5  # the official `loss.cell` is stored as it enters the sum, with this weight


def assert_official(ours, case, name, keep=...):
    """Equal to 1e-4 to what the official model gives in single and, where stored, in double precision."""
    truths = [case.outputs[name]] + ([case.outputs_fp64[name]] if name in case.outputs_fp64 else [])
    for truth in truths:
        torch.testing.assert_close(ours[keep].double(), truth[keep].double(), rtol=1e-4, atol=1e-4)


def cells_of(case):
    names = {"input_ids": "atac_ids", "chromosome_ids": "atac_chrs"}
    cells = {ours: case.inputs[theirs] for ours, theirs in names.items()}
    return cells | {"attention_mask": 1 - case.inputs["src_key_padding_mask"].long()}


def genes_of(case):
    """The official code marks genes to be left out of the loss by a value of padding, this package by -100."""
    names = {"gene_ids": "rna_ids", "gene_chromosome_ids": "rna_chrs", "batch_ids": "batch_ids"}
    values = case.inputs["rna_values"]
    labels = torch.where(values == case.rna_pad_value, -100, values)
    return {ours: case.inputs[theirs] for ours, theirs in names.items()} | {"labels": labels}


def run(model_class, folder, *inputs):
    model = model_class.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**{name: value for part in inputs for name, value in part.items()})


def test_all_eight_cases_are_here():
    assert len(CASES) == 8
    assert len(PRETRAINED) + len(FINE_TUNED) + len(WITHOUT_DECODER) == 8


@pytest.mark.parametrize("name", CASES)
def test_regions_in_context_and_cell_embeddings_are_the_official_ones(name, official, converted):
    case, (folder, _) = official(name), converted(name)
    out = run(EpiFoundationModel, folder, cells_of(case))
    is_token = cells_of(case)["attention_mask"].bool()
    assert_official(out.last_hidden_state, case, "transformer_output", is_token)
    assert_official(out.pooler_output, case, "cell_emb")
    assert out.last_hidden_state[~is_token].eq(0).all()


@pytest.mark.parametrize("name", CASES)
def test_cell_types_are_the_official_ones(name, official, converted):
    case, (folder, _) = official(name), converted(name)
    out = run(EpiFoundationForCellClassification, folder, cells_of(case), {"labels": case.inputs["cell_ids"]})
    assert_official(out.logits, case, "cell_pred")
    assert_official(out.cell_embeddings, case, "cell_emb")
    assert_official(CELL_WEIGHT * out.loss, case, "loss.cell")


@pytest.mark.parametrize("name", PRETRAINED)
def test_alignment_is_the_official_one(name, official, converted):
    case, (folder, _) = official(name), converted(name)
    out = run(EpiFoundationForPeakToGeneAlignment, folder, cells_of(case), genes_of(case))
    assert_official(out.logits, case, "mvc_pred", case.inputs["rna_ids"] != 0)
    assert_official(out.cell_embeddings, case, "cell_emb")
    assert_official(out.loss, case, "loss.mvc")
    assert_official(out.loss + case.outputs["loss.cell"], case, "loss.total")


@pytest.mark.parametrize("name", FINE_TUNED)
def test_expression_levels_are_the_official_ones(name, official, converted):
    case, (folder, _) = official(name), converted(name)
    genes = genes_of(case)
    out = run(EpiFoundationForExpressionPrediction, folder, cells_of(case), genes)
    assert_official(out.logits, case, "value_pred", case.inputs["rna_ids"] != 0)
    assert_official(out.cell_embeddings, case, "cell_emb")
    assert_official(out.loss, case, "loss.mvc")
    assert_official(out.loss + case.outputs["loss.cell"], case, "loss.total")


@pytest.mark.parametrize("name", WITHOUT_DECODER)
def test_decoders_that_train_nowhere_are_reported_as_left_out(name, official, converted):
    case, (_, report) = official(name), converted(name)
    decoder_keys = {key for key in case.model if key.split(".")[0] in ("mvc_decoder", "value_decoder")}
    assert set(report.left_out) == decoder_keys
    assert all("trains nowhere in the official code" in why for why in report.left_out.values())
    assert sum("left out: " in line for line in report.lines()) == len(decoder_keys)


@pytest.fixture(scope="module")
def training_step(official, converted):
    """Losses, gradients and buffers of one training step on alignment plus half the cell-type loss."""
    case, (folder, _) = official("train_pretrain_nopad"), converted("train_pretrain_nopad")
    model = EpiFoundationForPeakToGeneAlignment.from_pretrained(folder).train()
    classifier = EpiFoundationForCellClassification.from_pretrained(folder).classifier.train()
    out = model(**cells_of(case), **genes_of(case))
    cell_loss = torch.nn.functional.cross_entropy(classifier(out.cell_embeddings), case.inputs["cell_ids"])
    cell_loss = CELL_WEIGHT * cell_loss
    total = out.loss + cell_loss
    total.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    gradients |= {f"classifier.{name}": weight.grad for name, weight in classifier.named_parameters()}
    losses = {"loss.mvc": out.loss, "loss.cell": cell_loss, "loss.total": total}
    return case, losses, gradients, dict(model.named_buffers())


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_training_losses_are_the_official_ones(training_step):
    case, losses, _, _ = training_step
    for name, loss in losses.items():
        assert_close(loss.detach(), case.train[name])


def test_every_gradient_and_their_norm_are_the_official_ones(training_step):
    case, _, gradients, _ = training_step
    official_names = {name[len("grad.") :]: value for name, value in case.train.items() if name.startswith("grad.")}
    expected = convert_official_state_dict(official_names)
    assert set(expected) == set(gradients)
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name])
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
    assert_close(norm, case.train["grad_norm.total"])


def test_batch_statistics_move_as_the_official_ones(training_step):
    case, _, _, buffers = training_step
    for ours, theirs in (("epifoundation.input_norm", "bn_atac"), ("gene_norm", "bn_rna")):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert_close(buffers[f"{ours}.{name}"], case.train[f"after.{theirs}.{name}"])
            if name != "num_batches_tracked":  # they did move
                assert not torch.allclose(buffers[f"{ours}.{name}"], case.model[f"{theirs}.{name}"], atol=1e-3)
