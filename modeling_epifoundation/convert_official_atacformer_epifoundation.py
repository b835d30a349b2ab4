"""Read checkpoints of the official Atacformer and CRAFT code (config.json, model.safetensors) into our classes.

The official vocabulary has regions first, ids 0 to N - 1 in the order of ``universe.bed.gz``, and seven special tokens
behind them. Here special tokens come first, so the rows of the table are put into another order: region k gets the id
4 + k, and what our tokenizer has no token for (unknown, beginning, separator) keeps its rows at the end, where no id of
the tokenizer leads. `ids_from_atacformer` does the same to ids. Every number a model gives stays what it was.
"""

import gzip
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .batch_correction_epifoundation import EpiFoundationForBatchCorrection
from .cell_clustering_epifoundation import EpiFoundationForCellClustering
from .configuration_epifoundation import EpiFoundationConfig
from .contrastive_alignment_epifoundation import (
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
)
from .convert_official_epifoundation import ConversionReport, SavesItself, on_meta_device, refuse_misfit
from .masked_peaks_epifoundation import EpiFoundationForMaskedPeaks
from .modeling_epifoundation import EpiFoundationModel, EpiFoundationPreTrainedModel
from .replaced_peaks_epifoundation import EpiFoundationForReplacedPeaks

ARCHITECTURES: dict[str, type[EpiFoundationPreTrainedModel]] = {
    "AtacformerModel": EpiFoundationModel,
    "AtacformerForMaskedLM": EpiFoundationForMaskedPeaks,
    "AtacformerForReplacedTokenDetection": EpiFoundationForReplacedPeaks,
    "AtacformerForCellClustering": EpiFoundationForCellClustering,
    "AtacformerForUnsupervisedBatchCorrection": EpiFoundationForBatchCorrection,
    "CraftModel": EpiFoundationForContrastiveAlignment,
    "CraftForContrastiveLearning": EpiFoundationForContrastiveAlignment,
    "CraftForGeneActivityPrediction": EpiFoundationForExpressionImputation,
}

# Official name (a regular expression for a whole key) -> ours.
ENCODER = r"(?:atacformer\.|(?:craft\.)?atac_encoder\.)?"
LAYER = ENCODER + r"encoder\.layers\.(\d+)\."
GENES = r"(?:craft\.)?gene_encoder\."
RENAMED_KEYS = (
    (ENCODER + r"embeddings\.token_embeddings\.weight", "epifoundation.peak_embeddings.embedding.weight"),
    (ENCODER + r"embeddings\.position_embeddings\.weight", "epifoundation.position_embeddings.weight"),
    (LAYER + r"self_attn\.in_proj_(weight|bias)", r"epifoundation.layers.\1.attention.qkv_proj.\2"),
    (LAYER + r"self_attn\.out_proj\.(weight|bias)", r"epifoundation.layers.\1.attention.o_proj.\2"),
    (LAYER + r"norm1\.(weight|bias)", r"epifoundation.layers.\1.attention_norm.\2"),
    (LAYER + r"linear1\.(weight|bias)", r"epifoundation.layers.\1.up_proj.\2"),
    (LAYER + r"linear2\.(weight|bias)", r"epifoundation.layers.\1.down_proj.\2"),
    (LAYER + r"norm2\.(weight|bias)", r"epifoundation.layers.\1.feed_forward_norm.\2"),
    (r"lm_head\.weight", "lm_head.weight"),
    (r"discriminator\.(dense|norm)\.(weight|bias)", r"discriminator.\1.\2"),
    (r"discriminator\.classifier\.(weight|bias)", r"discriminator.output.\1"),
    (r"batch_prediction_head\.(weight|bias)", r"batch_classifier.\1"),
    (GENES + r"bert\.(.+)", r"gene_encoder.\1"),
    (r"(?:craft\.)?atac_projection\.weight", "peak_projection.weight"),
    (r"(?:craft\.)?gene_projection\.weight", "gene_projection.weight"),
    (r"(?:craft\.)?logit_scale", "logit_scale"),
    (r"gene_activity_head\.gene_activity_head\.([02])\.weight", r"imputation.\1.weight"),
)  # fmt: skip
ROWS_ARE_PEAKS = ("epifoundation.peak_embeddings.embedding.weight", "lm_head.weight")
POSITIONS = "epifoundation.position_embeddings.weight"
GENE_TABLE = "gene_encoder.embeddings.word_embeddings.weight"
TIED_GENE_TABLE = GENES + r"cls\.predictions\.decoder\.weight"

# The official order behind the regions, and those of it that our tokenizer puts first or does not have.
OFFICIAL_SPECIAL_TOKENS = ("unk", "pad", "mask", "cls", "eos", "bos", "sep")
FIRST, LAST = ("pad", "mask", "cls", "eos"), ("unk", "bos", "sep")

# What no official configuration says: torch's own layers as they are, and what the encoder does not have.
SAME_FOR_ALL: dict[str, Any] = {
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-5,
    "pooling": "mean",
    "use_chromosome_embeddings": False,
    "use_embedding_norms": False,
    "use_input_norm": False,
    "use_final_norm": False,
    "use_cls_token": False,
}
OF_GENE_ENCODER = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range", "layer_norm_eps", "pad_token_id",
)  # fmt: skip


def read_atacformer_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights in the folder of an official checkpoint, under official names.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or of another model.
    """
    config_file, weights_file = Path(path, "config.json"), Path(path, "model.safetensors")
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist: expected the folder of an Atacformer or CRAFT checkpoint, with config.json "
                "and model.safetensors"
            )
    try:
        official = json.loads(config_file.read_text(encoding="utf-8"))
        weights = load_file(weights_file)
    except (json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error}") from error
    _model_class(official)
    return official, weights


def config_from_atacformer(official: Mapping[str, Any], **overrides: Any) -> EpiFoundationConfig:
    """Our configuration of an official model.

    Args:
        official: what its ``config.json`` holds.
        **overrides: fields to set otherwise, such as dropout.

    Raises:
        ValueError: if something is missing, or the special tokens are not where the official code has them.
    """
    peaks = official.get("atacformer_config", official)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
             "max_position_embeddings", "use_pos_embeddings")  # fmt: skip
    missing = [name for name in names if name not in peaks]
    if missing:
        raise ValueError(f"the configuration of an Atacformer checkpoint lacks {', '.join(missing)}")
    _check_special_ids(peaks)
    fields: dict[str, Any] = (
        SAME_FOR_ALL
        | {name: peaks[name] for name in names[1:5]}
        | {
            "vocab_size": peaks["vocab_size"] - len(LAST),
            "additional_vocab_size": len(LAST),
            "max_peaks": peaks["max_position_embeddings"],
            "max_position_embeddings": peaks["max_position_embeddings"] if peaks["use_pos_embeddings"] else 0,
            "tie_word_embeddings": peaks.get("tie_word_embeddings", True),
            "discriminator_size": peaks.get("discriminator_hidden_size"),
            "discriminator_norm_eps": peaks.get("norm_eps", 1e-5),
            "num_batches": peaks.get("num_batches") or 0,
            "adversarial_weight": peaks.get("lambda_adv", 1.0),
            "gradient_reversal": peaks.get("grl_alpha", 1.0),
        }
    )
    if "AtacformerForUnsupervisedBatchCorrection" in (official.get("architectures") or ()):
        fields["num_trainable_layers"] = peaks.get("bc_unfreeze_last_n_layers", 2)
    if "geneformer_config" in official:
        fields |= _fields_of_genes(official)
    return EpiFoundationConfig(**(fields | overrides))


def read_universe(path: str | os.PathLike[str]) -> list[str]:
    """The regions of a ``universe.bed`` or ``universe.bed.gz`` as ``chr1:100-200``, in the order of their ids.

    Raises:
        ValueError: if a line has another form, or a region stands there twice, which shifts the official ids.
    """
    content = Path(path).read_bytes()
    text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    names: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = re.fullmatch(r"(\S+)\t([0-9]+)\t([0-9]+)(?:\t.*)?", line)
        if match is None:
            raise ValueError(f"{path}, line {number}: expected chromosome, start and end, tab between, got {line!r}")
        name = f"{match[1]}:{match[2]}-{match[3]}"
        if name in names:
            raise ValueError(
                f"{path}, line {number}: {name} stands already in line {names[name]}; the ids of a universe with "
                "repeated regions are not defined"
            )
        names[name] = number
    return list(names)


def ids_from_atacformer(ids: Tensor, num_regions: int) -> Tensor:
    """Our ids of official ones, in the shape they came in; `num_regions` is the number of lines of the universe."""
    order = _official_order(num_regions)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))[ids]


def convert_atacformer_state_dict(
    state_dict: Mapping[str, Tensor], *, use_positions: bool = True
) -> tuple[dict[str, Tensor], dict[str, list[str]], dict[str, str]]:
    """Official weights under our names, rows of peaks in our order.

    Returns:
        The weights; what each official key became; and why others were left out.

    Raises:
        ValueError: naming every key that no official model has.
    """
    converted: dict[str, Tensor] = {}
    renamed: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    has_gene_table = any(re.fullmatch(GENES + r"bert\.embeddings\.word_embeddings\.weight", key) for key in state_dict)
    unknown = []
    for key, value in state_dict.items():
        name = _rename(key)
        if name is None and re.fullmatch(TIED_GENE_TABLE, key) and not has_gene_table:
            name = GENE_TABLE  # the official `save_pretrained` keeps the gene embeddings under this name alone
        if name is None and re.match(GENES + r"cls\.", key):
            left_out[key] = "of the pre-training of the gene encoder, which alignment does not use"
        elif name == POSITIONS and not use_positions:
            left_out[key] = "this checkpoint does not use positions"
        elif name is None:
            unknown.append(key)
        else:
            renamed[key] = [name]
            converted[name] = value
    if unknown:
        raise ValueError(f"no official Atacformer or CRAFT model has these keys: {', '.join(unknown)}")
    for name in ROWS_ARE_PEAKS:
        if name in converted:
            converted[name] = converted[name][_official_order(len(converted[name]) - len(OFFICIAL_SPECIAL_TOKENS))]
    return converted, renamed, left_out


def convert_atacformer_checkpoint(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    tokenizer: SavesItself | None = None,
    **overrides: Any,
) -> ConversionReport:
    """Write the folder of an official checkpoint as one from which our classes load.

    Args:
        path: the official folder, with ``config.json`` and ``model.safetensors``.
        output: the folder to write; it is made.
        tokenizer: saved beside the weights, if given; of the universe in its own order, region k with the id 4 + k.
        **overrides: see `config_from_atacformer`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the folder holds no official checkpoint, or its keys are not exactly those of its model.
    """
    official, weights = read_atacformer_checkpoint(path)
    config = config_from_atacformer(official, **overrides)
    converted, renamed, left_out = convert_atacformer_state_dict(
        weights, use_positions=config.max_position_embeddings > 0
    )
    model_class = _model_class(official)
    model = on_meta_device(model_class, config)
    if model_class is EpiFoundationModel:
        converted = {name.removeprefix("epifoundation."): value for name, value in converted.items()}
    refuse_misfit(_expected(model), converted)
    model.save_pretrained(output, state_dict=converted)
    if tokenizer is not None:
        tokenizer.save_pretrained(output)
    return ConversionReport(renamed, left_out, model_class.__name__)


def _model_class(official: Mapping[str, Any]) -> type[EpiFoundationPreTrainedModel]:
    named = (official.get("architectures") or ["none"])[0]
    if named not in ARCHITECTURES:
        raise ValueError(
            f"expected a checkpoint of one of {', '.join(ARCHITECTURES)}; its config.json names {named!r} under "
            "'architectures'"
        )
    return ARCHITECTURES[named]


def _check_special_ids(peaks: Mapping[str, Any]) -> None:
    num_regions = peaks["vocab_size"] - len(OFFICIAL_SPECIAL_TOKENS)
    if num_regions < 1:
        raise ValueError(f"expected a vocabulary of regions and 7 special tokens, got vocab_size {peaks['vocab_size']}")
    for place, token in enumerate(OFFICIAL_SPECIAL_TOKENS):
        stated = peaks.get(f"{token}_token_id")
        if stated not in (None, num_regions + place):
            raise ValueError(
                f"a vocabulary of {peaks['vocab_size']:,} has its {token}_token_id at {num_regions + place:,}, behind "
                f"the regions; the checkpoint states {stated:,}"
            )


def _fields_of_genes(official: Mapping[str, Any]) -> dict[str, Any]:
    genes = official["geneformer_config"]
    described = {name: genes[name] for name in OF_GENE_ENCODER if name in genes}
    return {
        "gene_encoder": {"model_type": "bert", **described},
        "gene_vocab_size": genes["vocab_size"],
        "num_imputed_genes": genes["vocab_size"] - 2,  # all but padding and mask
        "projection_size": official["projection_dim"],
        "initial_logit_scale": official["logit_scale_init_value"],
    }


def _official_order(num_regions: int) -> Tensor:
    """(rows,) the official id of each of our rows."""
    place = {token: num_regions + i for i, token in enumerate(OFFICIAL_SPECIAL_TOKENS)}
    first, last = ([place[token] for token in tokens] for tokens in (FIRST, LAST))
    return torch.tensor([*first, *range(num_regions), *last])


def _rename(key: str) -> str | None:
    names = [match.expand(ours) for official, ours in RENAMED_KEYS if (match := re.fullmatch(official, key))]
    return names[0] if names else None


def _expected(model: EpiFoundationPreTrainedModel) -> dict[str, torch.Size]:
    """Names and shapes of the weights, tied ones once; of a model that imputes, with those of the alignment."""
    expected = {name: value.shape for name, value in model.state_dict().items()}
    if isinstance(model, EpiFoundationForExpressionImputation):
        aligned = on_meta_device(EpiFoundationForContrastiveAlignment, model.config)
        expected |= {name: value.shape for name, value in aligned.state_dict().items()}
    if isinstance(model, EpiFoundationForMaskedPeaks) and model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    return expected


__all__ = [
    "config_from_atacformer",
    "convert_atacformer_checkpoint",
    "convert_atacformer_state_dict",
    "ids_from_atacformer",
    "read_atacformer_checkpoint",
    "read_universe",
]
