"""The numbers of the official Atacformer and CRAFT, from their checkpoints converted to folders of this package."""

import json
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from epifoundation import (
    EpiFoundationForBatchCorrection,
    EpiFoundationForCellClustering,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForReplacedPeaks,
    EpiFoundationModel,
)
from epifoundation.convert_official_atacformer_epifoundation import (
    config_from_atacformer,
    convert_atacformer_checkpoint,
    convert_atacformer_state_dict,
    ids_from_atacformer,
    read_universe,
)
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary, parse_peak, parse_peaks

OFFICIAL = Path(__file__).parents[1] / "reference" / "official_atacformer"
CLASSES = {
    "base_nopos": EpiFoundationModel,
    "base_pos": EpiFoundationModel,
    "mlm_tied": EpiFoundationForMaskedPeaks,
    "rtd": EpiFoundationForReplacedPeaks,
    "cell_clustering": EpiFoundationForCellClustering,
    "batch_correction": EpiFoundationForBatchCorrection,
    "craft": EpiFoundationForContrastiveAlignment,
    "craft_gene_activity": EpiFoundationForExpressionImputation,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TRAINED = [name for name in CLASSES if not name.startswith("base")]


def assert_close(ours, theirs):
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-4)


@cache
def read_case(name):
    folder = OFFICIAL / name
    tensors = {file.stem: load_file(file) for file in folder.glob("*.safetensors")}
    meta, config = (json.loads((folder / f"{file}.json").read_text()) for file in ("meta", "config"))
    return SimpleNamespace(name=name, folder=folder, meta=meta, config=config, **tensors)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Name of a case -> the folder its checkpoint was converted to, and the report of the conversion."""

    @cache
    def convert(name):
        output = tmp_path_factory.mktemp(name) / "converted"
        return output, convert_atacformer_checkpoint(OFFICIAL / name, output)

    return convert


def our_ids(case, name):
    return ids_from_atacformer(case.inputs[name], case.meta["special_ids"]["unk"])


def cells_of(case, prefix=""):
    return {"input_ids": our_ids(case, f"{prefix}input_ids"), "attention_mask": case.inputs[f"{prefix}attention_mask"]}


def triplets_of(case):
    """The three official batches as one, anchors first."""
    parts = ("anchor", "positive", "negative")
    ids = [our_ids(case, f"input_ids_{part}") for part in parts]
    masks = [case.inputs[f"attention_mask_{part}"].long() for part in parts]
    longest = max(part.shape[1] for part in ids)
    return {
        key: torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in values])
        for key, values in (("input_ids", ids), ("attention_mask", masks))
    }


def inputs_of(case):
    """A whole batch as our classes take it."""
    if case.name == "cell_clustering":
        return triplets_of(case)
    if case.name == "craft":
        genes = {ours: case.inputs[ours.replace("gene_ids", "gene_input_ids")]
                 for ours in ("gene_ids", "gene_attention_mask", "gene_token_type_ids")}  # fmt: skip
        return cells_of(case, "atac_") | genes
    if case.name == "craft_gene_activity":
        return cells_of(case, "atac_") | {"labels": case.inputs["gene_activity"]}
    inputs = cells_of(case)
    if "labels" in case.inputs:
        labels = case.inputs["labels"]
        if case.name == "mlm_tied":
            labels = torch.where(labels < 0, labels, ids_from_atacformer(labels.clamp(min=0), 110))
        inputs["labels"] = labels
    if "batch_labels" in case.inputs:
        inputs["batch_ids"] = case.inputs["batch_labels"]
    return inputs


def run(model_class, folder, **inputs):
    with torch.no_grad():
        return model_class.from_pretrained(folder).eval()(**inputs)


# Every number


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_of_each_checkpoint_is_told(name, converted):
    assert converted(name)[1].architecture == CLASSES[name].__name__


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["base_nopos", "base_pos", "rtd", "mlm_tied"])
def test_regions_in_context_and_cell_embeddings_are_the_official_ones(name, attention, converted):
    case = read_case(name)
    model = EpiFoundationModel.from_pretrained(converted(name)[0], attn_implementation=attention).eval()
    with torch.no_grad():
        out = model(**cells_of(case))
    is_token = case.inputs["attention_mask"].bool()
    assert_close(out.last_hidden_state[is_token], case.outputs["last_hidden_state"][is_token])
    assert_close(out.pooler_output, case.outputs["cell_embedding"])


@pytest.mark.parametrize("name", ["base_nopos", "base_pos"])
def test_packed_cells_that_begin_with_cls_give_the_same(name, converted):
    case = read_case(name)
    cells = [ids[mask.bool()] for ids, mask in zip(*cells_of(case).values(), strict=True)]
    with_cls = [torch.cat([torch.tensor([2]), ids]) for ids in cells]
    bounds = torch.tensor([0, *map(len, with_cls)]).cumsum(0).int()
    out = run(EpiFoundationModel, converted(name)[0], input_ids=torch.cat(with_cls)[None], cu_seq_lens_q=bounds)
    assert_close(out.pooler_output, case.outputs["cell_embedding"])
    is_token = case.inputs["attention_mask"].bool()
    is_cls = torch.zeros(int(bounds[-1]), dtype=torch.bool)
    is_cls[bounds[:-1].long()] = True
    assert_close(out.last_hidden_state[0, ~is_cls], case.outputs["last_hidden_state"][is_token])
    assert out.last_hidden_state[0, is_cls].eq(0).all()


def test_masked_peaks_are_the_official_ones(converted):
    case, (folder, _) = read_case("mlm_tied"), converted("mlm_tied")
    logits = run(EpiFoundationForMaskedPeaks, folder, **cells_of(case)).logits
    is_token = case.inputs["attention_mask"].bool()
    columns = ids_from_atacformer(torch.arange(logits.shape[-1]), 110)  # ours of each official id
    assert_close(logits[is_token][:, columns], case.outputs["logits"][is_token])
    assert_close(run(EpiFoundationForMaskedPeaks, folder, **inputs_of(case)).loss, case.outputs["loss"])


def test_replaced_peaks_are_the_official_ones(converted):
    case, (folder, _) = read_case("rtd"), converted("rtd")
    out = run(EpiFoundationForReplacedPeaks, folder, **inputs_of(case))
    is_token = case.inputs["attention_mask"].bool()
    assert_close(out.logits[is_token], case.outputs["logits"][is_token])
    assert_close(out.loss, case.outputs["loss"])


def test_triplets_are_the_official_ones(converted):
    case, (folder, _) = read_case("cell_clustering"), converted("cell_clustering")
    out = run(EpiFoundationForCellClustering, folder, **inputs_of(case))
    expected = [case.outputs[f"emb_{part}"] for part in ("anchor", "positive", "negative")]
    assert_close(out.cell_embeddings, torch.cat(expected))
    assert_close(out.loss, case.outputs["loss"])


def test_batch_correction_is_the_official_one(converted):
    case, (folder, _) = read_case("batch_correction"), converted("batch_correction")
    out = run(EpiFoundationForBatchCorrection, folder, **inputs_of(case))
    is_token = case.inputs["attention_mask"].bool()
    assert_close(out.logits[is_token], case.outputs["logits_mlm"][is_token])
    assert_close(out.batch_logits, case.outputs["logits_adv"])
    assert_close(out.cell_embeddings, case.outputs["cell_embeddings"])
    assert_close(out.loss, case.outputs["loss"])


def test_contrastive_alignment_is_the_official_one(converted):
    case, (folder, _) = read_case("craft"), converted("craft")
    out = run(EpiFoundationForContrastiveAlignment, folder, **inputs_of(case))
    assert_close(out.logits, case.outputs["logits_per_atac"])
    assert_close(out.logits.T, case.outputs["logits_per_genes"])
    assert_close(out.cell_embeddings, case.outputs["atac_embeds"])
    assert_close(out.rna_embeddings, case.outputs["gene_embeds"])
    assert_close(out.loss, case.outputs["loss"])
    assert_close(run(EpiFoundationModel, folder, **cells_of(case, "atac_")).pooler_output, case.outputs["atac_pooled"])


def test_imputed_expression_is_the_official_one(converted):
    case, (folder, _) = read_case("craft_gene_activity"), converted("craft_gene_activity")
    out = run(EpiFoundationForExpressionImputation, folder, **inputs_of(case))
    assert_close(out.logits, case.outputs["gene_activity_predictions"])
    assert_close(out.cell_embeddings, case.outputs["atac_embeds"])
    assert_close(out.loss, case.outputs["loss"])
    # The same folder also holds the alignment.
    aligned = run(EpiFoundationForContrastiveAlignment, folder, **cells_of(case, "atac_"))
    assert_close(aligned.cell_embeddings, case.outputs["atac_embeds"])


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_and_every_gradient_are_the_official_ones(name, converted):
    case = read_case(name)
    model = CLASSES[name].from_pretrained(converted(name)[0], **NO_DROPOUT)
    if name == "craft":
        model.gene_encoder.eval()  # its own dropout
    else:
        model.train()
    loss = model(**inputs_of(case)).loss
    loss.backward()
    assert_close(loss.detach(), case.train["loss"])
    official = {key[len("grad.") :]: value for key, value in case.train.items() if key.startswith("grad.")}
    expected, _, _ = convert_atacformer_state_dict(official, use_positions=False)
    gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        assert_close(gradient, expected[key])
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
    assert_close(norm, case.train["grad_norm.total"])


def test_the_same_parameters_learn_in_batch_correction(converted):
    case, (folder, _) = read_case("batch_correction"), converted("batch_correction")
    model = EpiFoundationForBatchCorrection.from_pretrained(folder)
    expected = convert_atacformer_state_dict(dict.fromkeys(case.meta["trainable"], torch.zeros(1)))[0]
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == set(expected)


# Other forms of checkpoints


def official_folder(tmp_path, name, weights=None, **config):
    """A copy of an official checkpoint with other weights or other fields in its configuration."""
    folder = tmp_path / "official"
    shutil.copytree(OFFICIAL / name, folder)
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(read_case(name).config | config))
    return folder


@pytest.mark.parametrize("name", ["craft", "craft_gene_activity"])
def test_gene_embeddings_lost_in_saving_come_back_from_the_tied_decoder(name, converted, tmp_path):
    case = read_case(name)
    lost = case.meta["keys_not_written_by_save_pretrained"]
    assert any("word_embeddings" in key for key in lost)
    saved = {key: value for key, value in case.model.items() if key not in lost}
    report = convert_atacformer_checkpoint(official_folder(tmp_path, name, saved), tmp_path / "ours")
    assert any("decoder.weight" in key for key in report.renamed)
    ours, whole = (load_file(folder / "model.safetensors") for folder in (tmp_path / "ours", converted(name)[0]))
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[key], whole[key]) for key in ours)


def test_an_untied_table_of_masked_peaks_keeps_its_own_rows(tmp_path):
    case = read_case("mlm_tied")
    table = torch.randn(117, 48, generator=torch.Generator().manual_seed(0))
    folder = official_folder(tmp_path, "mlm_tied", case.model | {"lm_head.weight": table}, tie_word_embeddings=False)
    convert_atacformer_checkpoint(folder, tmp_path / "ours")
    model = EpiFoundationForMaskedPeaks.from_pretrained(tmp_path / "ours")
    hidden = run(EpiFoundationModel, tmp_path / "ours", **cells_of(case)).last_hidden_state
    with torch.no_grad():
        logits = model(**cells_of(case)).logits
    assert_close(logits[..., ids_from_atacformer(torch.arange(117), 110)], hidden @ table.T)


def test_a_discriminator_of_another_width_and_precision_is_kept(tmp_path):
    case = read_case("rtd")
    weights = dict(case.model)
    for key in ("dense.weight", "dense.bias", "norm.weight", "norm.bias"):
        weights[f"discriminator.{key}"] = weights[f"discriminator.{key}"][:30].clone()
    weights["discriminator.classifier.weight"] = weights["discriminator.classifier.weight"][:, :30].clone()
    folder = official_folder(tmp_path, "rtd", weights, discriminator_hidden_size=30, norm_eps=1e-3)
    convert_atacformer_checkpoint(folder, tmp_path / "ours")
    discriminator = EpiFoundationForReplacedPeaks.from_pretrained(tmp_path / "ours").discriminator
    assert discriminator.dense.out_features == 30
    assert discriminator.norm.eps == 1e-3


def test_ids_keep_their_meaning():
    official = torch.tensor([[0, 1, 9], [10, 11, 12], [13, 14, 15], [16, 0, 0]])
    ours = ids_from_atacformer(official, num_regions=10)
    # Regions move up by four; unknown, beginning and separator stand behind them.
    assert ours.tolist() == [[4, 5, 13], [14, 0, 1], [2, 3, 15], [16, 4, 4]]


def test_every_official_key_is_accounted_for(converted):
    for name in CLASSES:
        report = converted(name)[1]
        assert set(report.renamed) | set(report.left_out) == set(read_case(name).model)
        assert len(report.lines()) == len(read_case(name).model)
    assert "does not use positions" in converted("rtd")[1].left_out["atacformer.embeddings.position_embeddings.weight"]


def test_the_published_size_fits(monkeypatch):
    config = config_from_atacformer(
        {
            "vocab_size": 890_711, "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 8,
            "intermediate_size": 768, "max_position_embeddings": 8192, "use_pos_embeddings": False,
            "pad_token_id": 890_705, "cls_token_id": 890_707, "eos_token_id": 890_708, "bos_token_id": 890_709,
            "sep_token_id": 890_710, "norm_eps": 1e-5,
        }
    )  # fmt: skip
    with torch.device("meta"):
        model = EpiFoundationForReplacedPeaks(config)
    # The official 175,296,193 less the table of positions, which this checkpoint does not use.
    assert model.num_parameters() == 175_296_193 - 8192 * 192


# Regions


def hits_of(universe, chromosome, start, end):
    """Official: every region that shares a base pair, or holds a query of length zero inside, by start and end."""
    hits = [(s, e, i) for i, (c, s, e) in enumerate(universe) if c == chromosome and s < end and e > start]
    return [i for _, _, i in sorted(hits)]


def vocabulary_of(case):
    peaks = parse_peaks(read_universe(OFFICIAL / case / "universe.bed.gz"))
    return PeakVocabulary("made up", *peaks)


@pytest.mark.parametrize("case", ["tokenizer_small", "tokenizer_overlapping"])
def test_regions_have_the_official_ids_moved_up_by_four(case):
    expected = json.loads((OFFICIAL / case / "expected.json").read_text())
    names, num_special = expected["vocab_in_id_order"], len(expected["special_ids"])
    assert read_universe(OFFICIAL / case / "universe.bed.gz") == names[:-num_special]
    tokenizer = PeakTokenizer(vocabulary_of(case))
    official = torch.arange(len(names) - num_special)
    ours = ids_from_atacformer(official, len(official)).tolist()
    assert tokenizer.convert_tokens_to_ids(names[:-num_special]) == ours == (official + 4).tolist()


@pytest.mark.parametrize("case", ["tokenizer_small", "tokenizer_overlapping"])
def test_of_the_official_hits_the_one_with_the_largest_overlap_is_taken(case):
    """The official tokenizer takes every region that a query touches, and <unk> for a set without any."""
    expected = json.loads((OFFICIAL / case / "expected.json").read_text())
    region_sets = json.loads((OFFICIAL / case / "region_sets.json").read_text())
    universe = [(p.chromosome, p.start, p.end) for p in map(parse_peak, expected["vocab_in_id_order"][:-7])]
    tokenizer, num_single = PeakTokenizer(vocabulary_of(case)), 0
    for regions, official in zip(region_sets, expected["region_sets_ids"], strict=True):
        hits = [hits_of(universe, *region) for region in regions]
        unknown = [len(universe)]
        assert official == ([i for found in hits for i in found] or unknown)  # the rule stated above
        wide = [(region, found) for region, found in zip(regions, hits, strict=True) if region[1] < region[2]]
        cell = ["{}:{}-{}".format(*region) for region, _ in wide]
        ids = tokenizer.vocabulary.map(cell, check=False).ids.tolist()
        for (region, found), our_id in zip(wide, ids, strict=True):
            if not found:
                assert our_id == -1
                continue
            overlaps = {i: min(universe[i][2], region[2]) - max(universe[i][1], region[1]) for i in found}
            assert overlaps[our_id - 4] == max(overlaps.values())
            num_single += len(found) == 1
        tokens = tokenizer([cell], check=False)["input_ids"][0].tolist()
        assert tokens == [2, *sorted({i for i in ids if i >= 0})]
    assert num_single > 10


@pytest.mark.parametrize("case", ["tokenizer_small", "tokenizer_overlapping"])
def test_cells_give_the_official_tokens_where_each_peak_touches_one_region(case):
    expected = json.loads((OFFICIAL / case / "expected.json").read_text())
    universe = [(p.chromosome, p.start, p.end) for p in map(parse_peak, expected["vocab_in_id_order"][:-7])]
    cells = anndata.read_h5ad(OFFICIAL / case / "cells.h5ad")
    peaks = list(cells.var[["chr", "start", "end"]].itertuples(index=False, name=None))
    cells.var_names = ["{}:{}-{}".format(*peak) for peak in peaks]
    is_plain = [start < end and len(hits_of(universe, c, start, end)) <= 1 for c, start, end in peaks]
    cells.X.eliminate_zeros()  # as the official code passes over stored zeros
    plain = cells[:, is_plain]
    tokens = PeakTokenizer(vocabulary_of(case))(plain, check=False)["input_ids"]
    assert len(tokens) == len(expected["anndata_ids"])
    for row, ids, official in zip(plain.X, tokens, expected["anndata_ids"], strict=True):
        hits = [hits_of(universe, *peaks[np.flatnonzero(is_plain)[column]]) for column in row.indices]
        assert ids.tolist() == [2, *sorted({i + 4 for found in hits for i in found})]
        assert {i - 4 for i in ids[1:].tolist()} <= set(official)


def test_lines_that_are_no_regions_or_stand_twice_are_refused(tmp_path):
    path = tmp_path / "universe.bed"
    path.write_text("chr1\t5\t9\tname\t1\nchr1\t10\t20\n")
    assert read_universe(path) == ["chr1:5-9", "chr1:10-20"]
    path.write_text("chr1\t5\t9\nchr2\t5\t9\nchr1\t5\t9\textra\n")
    with pytest.raises(ValueError, match="line 3: chr1:5-9 stands already in line 1"):
        read_universe(path)
    for line in ("track name=x", "", "chr1 5 9", "chr1\tx\t9"):
        path.write_text(f"chr1\t5\t9\n{line}\n")
        with pytest.raises(ValueError, match="line 2: expected chromosome, start and end"):
            read_universe(path)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertModel"]}, "expected a checkpoint of one of AtacformerModel, .* names 'BertModel'"),
        ({"architectures": None}, "names 'none'"),
        ({"pad_token_id": 3}, "has its pad_token_id at 141, behind the regions; the checkpoint states 3"),
        ({"vocab_size": 5}, "expected a vocabulary of regions and 7 special tokens, got vocab_size 5"),
        ({"intermediate_size": 90}, r"up_proj.weight has shape \(96, 48\), expected \(90, 48\)"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changes, message, tmp_path):
    folder = official_folder(tmp_path, "rtd", **changes)
    with pytest.raises(ValueError, match=message):
        convert_atacformer_checkpoint(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_configuration_without_its_sizes_is_refused():
    with pytest.raises(ValueError, match="lacks num_attention_heads, use_pos_embeddings"):
        config_from_atacformer(
            {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8,
             "max_position_embeddings": 9}
        )  # fmt: skip


def test_missing_and_unknown_weights_are_named(tmp_path):
    weights = dict(read_case("rtd").model)
    del weights["discriminator.dense.bias"]
    folder = official_folder(tmp_path, "rtd", weights)
    with pytest.raises(ValueError, match=r"discriminator\.dense\.bias is missing"):
        convert_atacformer_checkpoint(folder, tmp_path / "ours")
    save_file(weights | {"decoder.strange": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"no official Atacformer or CRAFT model has these keys: decoder\.strange"):
        convert_atacformer_checkpoint(folder, tmp_path / "ours")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist: expected the folder of an Atacformer"):
        convert_atacformer_checkpoint(tmp_path, tmp_path / "ours")
    folder = official_folder(tmp_path, "rtd")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        convert_atacformer_checkpoint(folder, tmp_path / "ours")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        convert_atacformer_checkpoint(folder, tmp_path / "ours")
