import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationModel,
)
from epifoundation.convert_official_epifoundation import (
    config_from_official,
    convert_official_checkpoint,
    convert_official_state_dict,
    read_official_checkpoint,
)

PRETRAINED, FINE_TUNED = "train_pretrain_nopad", "finetune_batch_chr"
CASES = [
    "finetune_batch_chr",
    "finetune_innerproduct",
    "pretrain_batch_nochr",
    "pretrain_concat_chr",
    "pretrain_concat_holes",
    "pretrain_sumquery_bins5_nopad",
    "train_pretrain",
    "train_pretrain_nopad",
]
CHECKPOINT = Path(__file__).parents[1] / "reference" / "official_checkpoint"
LAYER = "encoder.transformer_encoder.layers"


@pytest.fixture
def save(tmp_path):
    """Save what an official file would hold, return its path."""

    def write(content, name="Epoch_1_Step_2.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def weights_in(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


@pytest.mark.parametrize("name", CASES)
def test_every_official_key_is_renamed_or_reported(name, official, converted):
    weights, (folder, report) = official(name).model, converted(name)
    assert set(report.renamed) | set(report.left_out) == set(weights)
    assert not set(report.renamed) & set(report.left_out)
    assert len(report.lines()) == len(weights)
    written = [ours for names in report.renamed.values() for ours in names]
    assert len(set(written)) == len(written)
    assert set(written) == set(weights_in(folder))


@pytest.mark.parametrize("name", CASES)
def test_no_number_is_lost_or_changed(name, official, converted):
    weights, (folder, report) = official(name).model, converted(name)
    ours = weights_in(folder)
    for key, names in report.renamed.items():
        parts = [ours[n] for n in names]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        assert torch.equal(whole, weights[key]), key


@pytest.mark.parametrize("name", CASES)
def test_sizes_are_read_from_shapes(name, official, converted):
    constructor, config = official(name).constructor, EpiFoundationModel.from_pretrained(converted(name)[0]).config
    assert config.vocab_size == constructor["num_atacs"]
    assert config.gene_vocab_size == constructor["num_rnas"]
    assert config.hidden_size == constructor["embed_dim"]
    assert config.num_hidden_layers == constructor["depth"]
    assert config.intermediate_size == constructor["head_dim"]  # the official name of that width
    assert config.num_labels == constructor["num_class_cell"]
    assert config.use_batch_embeddings is constructor["use_batch_labels"]
    assert config.use_chromosome_embeddings is constructor["use_chr_labels"]
    if config.use_batch_embeddings:
        assert config.num_batches == constructor["batch_label_num"]
    if config.use_chromosome_embeddings:
        assert config.num_chromosomes == constructor["num_chrs"]


def test_the_number_of_heads_is_eight_unless_told(official):
    weights = official(PRETRAINED).model
    assert config_from_official(weights).num_attention_heads == 8
    assert config_from_official(weights, 3).num_attention_heads == 3
    with pytest.raises(StrictDataclassClassValidationError, match=r"multiple of num_attention_heads \(7\)"):
        config_from_official(weights, num_attention_heads=7)


def test_what_the_file_does_not_tell_can_be_told(official):
    config = config_from_official(official(PRETRAINED).model, hidden_dropout_prob=0.3, max_peaks=99)
    assert (config.hidden_dropout_prob, config.max_peaks) == (0.3, 99)


def with_prefix(prefix):
    return lambda weights: {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda weights: weights,
        with_prefix("module."),
        with_prefix("_orig_mod."),
        with_prefix("_fsdp_wrapped_module."),
        with_prefix("module._orig_mod."),
        lambda weights: {"model": weights},
        lambda weights: {"epoch": 3, "steps": 6, "model": weights, "optimizer": {}, "scaler": {}, "losses": [0.5]},
        lambda weights: {"epoch": 3, "steps": 6, "model": with_prefix("module.")(weights), "loss": 0.5},  # FSDP
    ],
    ids=["bare", "ddp", "compiled", "fsdp", "both", "wrapped", "official", "official-fsdp"],
)
def test_every_form_of_file_gives_the_same_folder(form, official, converted, save, tmp_path):
    path = save(form(official(PRETRAINED).model))
    convert_official_checkpoint(path, tmp_path / "out")
    assert_same_weights(weights_in(tmp_path / "out"), weights_in(converted(PRETRAINED)[0]))


def test_optimiser_state_is_read_over(official, converted, save, tmp_path):
    weights = official(PRETRAINED).model
    parameters = [torch.nn.Parameter(w.clone()) for w in weights.values() if w.is_floating_point()]
    optimizer = torch.optim.Adam(parameters)
    sum(p.square().sum() for p in parameters).backward()
    optimizer.step()
    path = save({"epoch": 3, "model": weights, "optimizer": optimizer.state_dict(), "scheduler": {"T": 5}})
    report = convert_official_checkpoint(path, tmp_path / "out")
    assert_same_weights(weights_in(tmp_path / "out"), weights_in(converted(PRETRAINED)[0]))
    assert set(report.renamed) == set(weights)


def test_the_file_that_the_official_code_wrote_gives_the_official_numbers(tmp_path):
    (path,) = CHECKPOINT.glob("Epoch_*.pth")
    convert_official_checkpoint(path, tmp_path / "out", num_attention_heads=4)
    inputs, outputs = (load_file(CHECKPOINT / f"{name}.safetensors") for name in ("inputs", "outputs"))
    cells, genes = cells_and_genes(SimpleNamespace(inputs=inputs))
    with torch.no_grad():
        out = EpiFoundationForPeakToGeneAlignment.from_pretrained(tmp_path / "out")(**cells, **genes)
        cell_types = EpiFoundationForCellClassification.from_pretrained(tmp_path / "out")(**cells).logits
    is_gene = genes["gene_ids"] != 0
    for ours, theirs in (
        (out.cell_embeddings, outputs["cell_emb"]),
        (out.logits[is_gene], outputs["mvc_pred"][is_gene]),
        (cell_types, outputs["cell_pred"]),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_unknown_keys_are_refused_by_name(official, save, tmp_path):
    extra = {"rotary.inv_freq": torch.ones(2), "mvc_decoder.fc9.weight": torch.ones(2)}
    weights = official(PRETRAINED).model | extra
    with pytest.raises(ValueError, match=r"these keys: rotary\.inv_freq, mvc_decoder\.fc9\.weight"):
        convert_official_state_dict(weights)
    with pytest.raises(ValueError, match=r"rotary\.inv_freq"):
        convert_official_checkpoint(save(weights), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# One key of each part; what it is called here, by which the message names it.
MISSING = [
    (PRETRAINED, "atac_emb.embedding.weight", "atac_emb.embedding.weight"),
    (PRETRAINED, "rna_emb.embedding.weight", "rna_emb.embedding.weight"),
    (PRETRAINED, f"{LAYER}.0.linear1.weight", f"{LAYER}.0.linear1.weight"),
    (PRETRAINED, f"{LAYER}.1.self_attn.Wqkv.bias", "epifoundation.layers.1.attention.qkv_proj.bias"),
    (PRETRAINED, "bn_atac.running_var", "epifoundation.input_norm.running_var"),
    (PRETRAINED, "chr_emb.enc_norm.bias", "epifoundation.chromosome_embeddings.norm.bias"),
    (PRETRAINED, "norm.weight", "epifoundation.norm.weight"),
    (PRETRAINED, "batch_emb.enc_norm.weight", "batch_embeddings.norm.weight"),
    (PRETRAINED, "cls_decoder._decoder.3.bias", "classifier.layers.1.bias"),
    (PRETRAINED, "mvc_decoder.gene2query.weight", "mvc_decoder.gene2query.weight"),
    (PRETRAINED, "mvc_decoder.fc1.weight", "alignment_decoder.cell_proj.weight"),
    (PRETRAINED, "mvc_decoder.fc2.weight", "alignment_decoder.output.weight"),
    (FINE_TUNED, "value_decoder.gene2query.bias", "expression_decoder.gene_proj.bias"),
    (FINE_TUNED, "value_decoder.hidden_activation.weight", "expression_decoder.activation.weight"),
    (FINE_TUNED, "value_decoder.fc2.weight", "expression_decoder"),
]


@pytest.mark.parametrize(("case", "key", "message"), MISSING)
def test_a_missing_key_is_named(case, key, message, official, save, tmp_path):
    weights = {k: v for k, v in official(case).model.items() if k != key}
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        convert_official_checkpoint(save({"model": weights}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (f"{LAYER}.1.self_attn.out_proj.weight", r"o_proj\.weight has shape \(48, 47\), expected \(48, 48\)"),
        ("rna_emb.embedding.weight", r"gene_embeddings\.embedding\.weight has shape \(110, 47\), expected \(110, 48\)"),
        ("bn_rna.weight", r"gene_norm\.weight has shape \(47,\), expected \(48,\)"),
        ("mvc_decoder.fc1.weight", r"fc1\.weight has shape \(128, 223\), expected 176 columns .* or 224 with batches"),
    ],
)
def test_a_wrong_shape_is_told_with_the_expected_one(key, message, official, save, tmp_path):
    weights = dict(official(PRETRAINED).model)
    weights[key] = weights[key][..., :-1].clone()
    with pytest.raises(ValueError, match=message):
        convert_official_checkpoint(save({"model": weights}), tmp_path / "out")


def test_a_file_that_does_not_exist_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read_official_checkpoint(tmp_path / "absent.pth")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    for name, content in (("notes.pth", b"peaks and genes"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}.* cannot be read as a PyTorch checkpoint"):
            read_official_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"bert.embeddings.weight": torch.ones(2, 2)}, r"found bert\.embeddings\.weight"),
        ({"model": {"layers.0.weight": torch.ones(2)}}, r"found layers\.0\.weight"),
        ({"model": "vit-base", "epoch": 3}, "found no tensors"),
        ({"epoch": 3}, "found no tensors"),
        ([torch.ones(2)], "found no tensors"),
        (torch.ones(2), "found no tensors"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(content, found, save):
    with pytest.raises(ValueError, match=rf"holds no official EpiFoundation model: expected 'atac_emb.*{found}"):
        read_official_checkpoint(save(content))


class RunsCode:
    """Unpickling it would make a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_a_file_is_refused_and_does_not_run(official, save, tmp_path):
    target = tmp_path / "made-by-the-file"
    path = save({"model": official(PRETRAINED).model, "scheduler": RunsCode(target)})
    with pytest.raises(ValueError, match="cannot be read as a PyTorch checkpoint of plain tensors"):
        read_official_checkpoint(path)
    with (tmp_path / "plain.pth").open("wb") as file:
        pickle.dump(RunsCode(target), file)
    with pytest.raises(ValueError, match="cannot be read as a PyTorch checkpoint of plain tensors"):
        read_official_checkpoint(tmp_path / "plain.pth")
    assert not target.exists()


def cells_and_genes(case):
    cells = {"input_ids": case.inputs["atac_ids"], "chromosome_ids": case.inputs["atac_chrs"]}
    names = {"gene_ids": "rna_ids", "gene_chromosome_ids": "rna_chrs", "batch_ids": "batch_ids"}
    return cells, {ours: case.inputs[theirs] for ours, theirs in names.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_folder_loads_into_every_class_with_the_same_cell_embeddings(name, official, converted):
    case, (folder, _) = official(name), converted(name)
    cells, genes = cells_and_genes(case)
    with torch.no_grad():
        expected = EpiFoundationModel.from_pretrained(folder)(**cells).pooler_output
        for model_class in (EpiFoundationForPeakToGeneAlignment, EpiFoundationForExpressionPrediction):
            out = model_class.from_pretrained(folder)(**cells, **genes)
            torch.testing.assert_close(out.cell_embeddings, expected, rtol=1e-5, atol=1e-5)
        out = EpiFoundationForCellClassification.from_pretrained(folder)(**cells)
    torch.testing.assert_close(out.cell_embeddings, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.logits, case.outputs["cell_pred"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_the_encoder_or_the_classifier_is_missing_or_superfluous(name, converted):
    for model_class in (EpiFoundationModel, EpiFoundationForCellClassification):
        _, info = model_class.from_pretrained(converted(name)[0], output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert not info["mismatched_keys"]


def test_fine_tuning_for_expression_leaves_the_alignment_decoder_out(official, converted):
    folder, report = converted(FINE_TUNED)
    assert report.architecture == "EpiFoundationForExpressionPrediction"
    assert set(report.left_out) == {key for key in official(FINE_TUNED).model if key.startswith("mvc_decoder.")}
    assert set(report.left_out.values()) == {"official fine-tuning for expression leaves this decoder untrained"}
    assert not [name for name in weights_in(folder) if name.startswith("alignment_decoder.")]
    _, info = EpiFoundationForExpressionPrediction.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_pre_training_gives_an_alignment_model(converted):
    folder, report = converted(PRETRAINED)
    assert report.architecture == "EpiFoundationForPeakToGeneAlignment"
    assert not report.left_out
    _, info = EpiFoundationForPeakToGeneAlignment.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]


def test_batch_embeddings_become_a_part_of_their_own(official, converted):
    weights, (folder, report) = official(PRETRAINED).model, converted(PRETRAINED)
    assert report.renamed["mvc_decoder.fc1.weight"] == [
        "alignment_decoder.cell_proj.weight",
        "alignment_decoder.batch_proj.weight",
        "alignment_decoder.query_proj.weight",
    ]
    ours = weights_in(folder)
    assert torch.equal(ours["alignment_decoder.batch_proj.weight"], weights["mvc_decoder.fc1.weight"][:, 48:96])
    _, without_batches = converted("pretrain_concat_chr")
    assert len(without_batches.renamed["mvc_decoder.fc1.weight"]) == 2


def test_a_decoder_into_more_than_two_levels_is_left_out(official, save, tmp_path):
    weights = dict(official(PRETRAINED).model)
    for key in ("mvc_decoder.fc2.weight", "mvc_decoder.fc2.bias"):
        weights[key] = torch.cat([weights[key]] * 3)
    report = convert_official_checkpoint(save({"model": weights}), tmp_path / "out")
    assert set(report.left_out.values()) == {"decoder into 6 levels of expression, where alignment knows two"}


def test_the_tokenizer_is_saved_beside_the_weights(official, save, tmp_path):
    class Tokenizer:
        def save_pretrained(self, folder):
            (folder / "peaks.npz").write_bytes(b"peaks")

    convert_official_checkpoint(save(official(PRETRAINED).model), tmp_path / "out", Tokenizer())
    assert (tmp_path / "out" / "peaks.npz").exists()
    assert (tmp_path / "out" / "modeling_epifoundation.py").exists()
