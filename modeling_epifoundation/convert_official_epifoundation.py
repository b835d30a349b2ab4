"""Read checkpoints of the official EpiFoundation code (``Epoch_*.pth``) into the classes of this package.

The official file holds no configuration: sizes are read from the shapes of its tensors, and what shapes cannot tell,
above all the number of attention heads, is an argument.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .configuration_epifoundation import EpiFoundationConfig
from .modeling_epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationPreTrainedModel,
)

# Official name (a regular expression for a whole key) -> ours. Every key of an official file matches exactly one row.
LAYER = r"encoder\.transformer_encoder\.layers\.(\d+)\."
RENAMED_KEYS = (
    (r"atac_emb\.embedding\.weight", "epifoundation.peak_embeddings.embedding.weight"),
    (r"atac_emb\.enc_norm\.(weight|bias)", r"epifoundation.peak_embeddings.norm.\1"),
    (r"chr_emb\.embedding\.weight", "epifoundation.chromosome_embeddings.embedding.weight"),
    (r"chr_emb\.enc_norm\.(weight|bias)", r"epifoundation.chromosome_embeddings.norm.\1"),
    (r"bn_atac\.(.+)", r"epifoundation.input_norm.\1"),
    (LAYER + r"self_attn\.Wqkv\.(.+)", r"epifoundation.layers.\1.attention.qkv_proj.\2"),
    (LAYER + r"self_attn\.out_proj\.(.+)", r"epifoundation.layers.\1.attention.o_proj.\2"),
    (LAYER + r"norm1\.(.+)", r"epifoundation.layers.\1.attention_norm.\2"),
    (LAYER + r"linear1\.(.+)", r"epifoundation.layers.\1.up_proj.\2"),
    (LAYER + r"linear2\.(.+)", r"epifoundation.layers.\1.down_proj.\2"),
    (LAYER + r"norm2\.(.+)", r"epifoundation.layers.\1.feed_forward_norm.\2"),
    (r"norm\.(weight|bias)", r"epifoundation.norm.\1"),
    (r"rna_emb\.embedding\.weight", "gene_embeddings.embedding.weight"),
    (r"rna_emb\.enc_norm\.(weight|bias)", r"gene_embeddings.norm.\1"),
    (r"bn_rna\.(.+)", r"gene_norm.\1"),
    (r"batch_emb\.embedding\.weight", "batch_embeddings.embedding.weight"),
    (r"batch_emb\.enc_norm\.(weight|bias)", r"batch_embeddings.norm.\1"),
    (r"cls_decoder\._decoder\.0\.(weight|bias)", r"classifier.layers.0.\1"),
    (r"cls_decoder\._decoder\.2\.(weight|bias)", r"classifier.norms.0.\1"),
    (r"cls_decoder\._decoder\.3\.(weight|bias)", r"classifier.layers.1.\1"),
    (r"cls_decoder\._decoder\.5\.(weight|bias)", r"classifier.norms.1.\1"),
    (r"cls_decoder\.out_layer\.(weight|bias)", r"classifier.output.\1"),
)  # fmt: skip

# The same for a gene decoder; `fc1.weight` is cut into the parts for cell, batch and gene, see `_split_first_layer`.
DECODERS = {"mvc_decoder": "alignment_decoder", "value_decoder": "expression_decoder"}
RENAMED_DECODER_KEYS = (
    (r"gene2query\.(weight|bias)", r"gene_proj.\1"),
    (r"fc1\.bias", "query_proj.bias"),
    (r"hidden_activation\.weight", "activation.weight"),
    (r"fc2\.(weight|bias)", r"output.\1"),
)

# Weights without which the sizes of a model cannot be told.
SIZED_BY = (
    "atac_emb.embedding.weight",
    "rna_emb.embedding.weight",
    "encoder.transformer_encoder.layers.0.linear1.weight",
)

PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")


class SavesItself(Protocol):
    """A tokenizer, as far as this file is concerned."""

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Any:
        """Write the vocabulary into a folder."""


@dataclass(frozen=True)
class ConversionReport:
    """What became of every tensor of an official checkpoint.

    Attributes:
        renamed: official key -> our keys, several where a tensor was cut.
        left_out: official key -> why this package has no place for it.
        architecture: the class that was saved.
    """

    renamed: dict[str, list[str]]
    left_out: dict[str, str]
    architecture: str

    def lines(self) -> list[str]:
        """One line per official key."""
        kept = [f"{official} -> {', '.join(ours)}" for official, ours in self.renamed.items()]
        return kept + [f"{official} left out: {why}" for official, why in self.left_out.items()]


def read_official_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights in an official ``.pth``, from DDP or FSDP, with optimiser state or without, under official names.

    Only tensors and plain containers are unpickled (``weights_only=True``), and the file is memory-mapped, so that the
    optimiser's share, two thirds of it, is never read.

    Raises:
        ValueError: if the file is not a PyTorch checkpoint or holds no EpiFoundation weights.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many kinds: pickle, zip, runtime
        raise ValueError(
            f"{os.fspath(path)!r} cannot be read as a PyTorch checkpoint of plain tensors: {error}"
        ) from error
    weights = content.get("model", content) if isinstance(content, Mapping) else {}
    weights = weights if isinstance(weights, Mapping) else {}
    weights = {PREFIXES.sub("", key): value for key, value in weights.items() if isinstance(value, Tensor)}
    if "atac_emb.embedding.weight" not in weights:
        found = ", ".join(list(weights)[:3]) or "no tensors"
        raise ValueError(
            f"{os.fspath(path)!r} holds no official EpiFoundation model: expected 'atac_emb.embedding.weight' "
            f"among its weights, found {found}"
        )
    return weights


def config_from_official(
    state_dict: Mapping[str, Tensor], num_attention_heads: int = 8, **overrides: Any
) -> EpiFoundationConfig:
    """The configuration of an official model, read from the shapes of its weights.

    Args:
        state_dict: weights under their official names.
        num_attention_heads: cannot be read from shapes; 8 in every published setting.
        **overrides: further fields of the configuration that the file does not tell, such as dropout.

    Raises:
        ValueError: if a weight whose shape is needed is missing.
    """
    shapes = {PREFIXES.sub("", key): value.shape for key, value in state_dict.items()}
    missing = [key for key in SIZED_BY if key not in shapes]
    if missing:
        raise ValueError(f"every official EpiFoundation model has these keys, this one lacks: {', '.join(missing)}")
    layers = {match[1] for key in shapes if (match := re.match(LAYER, key))}
    fields: dict[str, Any] = {
        "vocab_size": shapes["atac_emb.embedding.weight"][0],
        "hidden_size": shapes["atac_emb.embedding.weight"][1],
        "gene_vocab_size": shapes["rna_emb.embedding.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": num_attention_heads,
        "intermediate_size": shapes["encoder.transformer_encoder.layers.0.linear1.weight"][0],
        "use_chromosome_embeddings": "chr_emb.embedding.weight" in shapes,
        "use_batch_embeddings": "batch_emb.embedding.weight" in shapes,
    }
    if fields["use_chromosome_embeddings"]:
        fields["num_chromosomes"] = shapes["chr_emb.embedding.weight"][0]
    if fields["use_batch_embeddings"]:
        fields["num_batches"] = shapes["batch_emb.embedding.weight"][0]
    if "cls_decoder.out_layer.weight" in shapes:
        fields["num_labels"] = shapes["cls_decoder.out_layer.weight"][0]
    decoders = [d for d in DECODERS if f"{d}.gene2query.weight" in shapes and not _why_unsupported(d, state_dict)]
    if decoders:
        fields["gene_decoder_size"] = shapes[f"{decoders[0]}.gene2query.weight"][0]
    return EpiFoundationConfig(**(fields | overrides))


def convert_official_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official weights under the names of this package: one dictionary from which each class takes its keys.

    Raises:
        ValueError: naming every key that no official EpiFoundation model has.
    """
    return _convert(state_dict)[0]


def convert_official_checkpoint(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    tokenizer: SavesItself | None = None,
    num_attention_heads: int = 8,
    **overrides: Any,
) -> ConversionReport:
    """Write an official ``.pth`` as a folder from which every class of this package loads.

    Args:
        path: the official file.
        output: the folder to write; it is made.
        tokenizer: saved beside the weights, if given.
        num_attention_heads: see `config_from_official`.
        **overrides: see `config_from_official`.

    Raises:
        ValueError: if the file is no official checkpoint, or its keys are not exactly those of a known model.
    """
    weights = read_official_checkpoint(path)
    converted, renamed, left_out = _convert(weights)
    config = config_from_official(weights, num_attention_heads, **overrides)
    if "expression_decoder.output.weight" in converted:
        model_class: type[EpiFoundationPreTrainedModel] = EpiFoundationForExpressionPrediction
        # Official fine-tuning draws this decoder anew and freezes it: it never learned anything.
        for key in [key for key in weights if key.startswith("mvc_decoder.") and key in renamed]:
            left_out[key] = "official fine-tuning for expression leaves this decoder untrained"
            for name in renamed.pop(key):
                converted.pop(name, None)
    else:
        model_class = EpiFoundationForPeakToGeneAlignment
    model = on_meta_device(model_class, config)
    _check_keys(model, converted, left_out_decoders={DECODERS[key.split(".")[0]] for key in left_out})
    model.save_pretrained(output, state_dict=converted)
    if tokenizer is not None:
        tokenizer.save_pretrained(output)
    return ConversionReport(renamed, left_out, model_class.__name__)


def _convert(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, list[str]], dict[str, str]]:
    converted: dict[str, Tensor] = {}
    renamed: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    unknown = []
    state_dict = {PREFIXES.sub("", key): value for key, value in state_dict.items()}
    for key, value in state_dict.items():
        decoder = key.split(".")[0]
        why = _why_unsupported(decoder, state_dict) if decoder in DECODERS else None
        if why is not None:
            left_out[key] = why
            continue
        parts = _rename(key, value, state_dict)
        if not parts:
            unknown.append(key)
        renamed[key] = list(parts)
        converted.update(parts)
    if unknown:
        raise ValueError(f"no official EpiFoundation model has these keys: {', '.join(unknown)}")
    return converted, renamed, left_out


def _rename(key: str, value: Tensor, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The new names and tensors of one official tensor; empty if the key is unknown."""
    decoder, _, rest = key.partition(".")
    if decoder in DECODERS:
        prefix = DECODERS[decoder]
        if rest == "fc1.weight":
            parts = _split_first_layer(decoder, state_dict)
            return {f"{prefix}.{name}": part for name, part in parts.items()}
        return {f"{prefix}.{name}": value for name in _matches(rest, RENAMED_DECODER_KEYS)}
    return dict.fromkeys(_matches(key, RENAMED_KEYS), value)


def _matches(key: str, table: tuple[tuple[str, str], ...]) -> list[str]:
    return [match.expand(ours) for official, ours in table if (match := re.fullmatch(official, key))]


def _split_first_layer(decoder: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut the map of (cell, batch if any, gene query), laid side by side, into one map for each."""
    weight, query = state_dict[f"{decoder}.fc1.weight"], state_dict.get(f"{decoder}.gene2query.weight")
    if query is None:
        raise ValueError(f"the checkpoint holds {decoder}.fc1.weight, but {decoder}.gene2query.weight is missing")
    hidden_size, query_size = state_dict["atac_emb.embedding.weight"].shape[1], query.shape[0]
    if weight.shape[1] not in (hidden_size + query_size, 2 * hidden_size + query_size):
        raise ValueError(
            f"{decoder}.fc1.weight has shape {tuple(weight.shape)}, expected {hidden_size + query_size} columns "
            f"(cell and gene), or {2 * hidden_size + query_size} with batches"
        )
    sizes = [hidden_size, weight.shape[1] - hidden_size - query_size, query_size]
    parts = zip(("cell_proj", "batch_proj", "query_proj"), weight.split(sizes, dim=1), strict=True)
    return {f"{name}.weight": part.contiguous() for name, part in parts if part.shape[1]}


def _why_unsupported(decoder: str, state_dict: Mapping[str, Tensor]) -> str | None:
    """Why a gene decoder is not carried over; None for the paper's, which joins ('concat query') cell and gene."""
    shapes = {PREFIXES.sub("", key): value.shape for key, value in state_dict.items()}
    if f"{decoder}.W.weight" in shapes:
        return "decoder of the 'inner product' style, which trains nowhere in the official code"
    if f"{decoder}.fc1.weight" not in shapes:
        return None
    hidden_size = shapes["atac_emb.embedding.weight"][1]
    if shapes[f"{decoder}.fc1.weight"][1] <= hidden_size:
        return "decoder of the 'sum query' style, which trains nowhere in the official code"
    num_outputs = shapes[f"{decoder}.fc2.weight"][0] if f"{decoder}.fc2.weight" in shapes else 2
    if decoder == "mvc_decoder" and num_outputs != 2:
        return f"decoder into {num_outputs} levels of expression, where alignment knows two"
    return None


def on_meta_device(
    model_class: type[EpiFoundationPreTrainedModel], config: EpiFoundationConfig
) -> EpiFoundationPreTrainedModel:
    """A model without memory for its weights: their names and shapes."""
    with torch.device("meta"):
        return model_class(config)


def _check_keys(
    model: EpiFoundationPreTrainedModel, converted: Mapping[str, Tensor], left_out_decoders: set[str]
) -> None:
    """Compare with what the model and its classifier hold, in both directions, shapes included."""
    expected = {key: value.shape for key, value in model.state_dict().items()}
    if any(key.startswith("classifier.") for key in converted):
        classifier = on_meta_device(EpiFoundationForCellClassification, model.config)
        expected |= {k: v.shape for k, v in classifier.state_dict().items() if k.startswith("classifier.")}
    expected = {key: shape for key, shape in expected.items() if key.split(".")[0] not in left_out_decoders}
    refuse_misfit(expected, converted)


def refuse_misfit(expected: Mapping[str, torch.Size], converted: Mapping[str, Tensor]) -> None:
    """Compare the weights of a checkpoint with the keys and shapes that a model has.

    Raises:
        ValueError: naming every weight that is missing, has no place or another shape.
    """
    problems = [f"{key} is missing" for key in expected if key not in converted]
    problems += [f"{key} has no place" for key in converted if key not in expected]
    problems += [
        f"{key} has shape {tuple(converted[key].shape)}, expected {tuple(shape)}"
        for key, shape in expected.items()
        if key in converted and converted[key].shape != shape
    ]
    if problems:
        raise ValueError("the checkpoint does not fit the model it describes: " + "; ".join(problems))


__all__ = [
    "ConversionReport",
    "config_from_official",
    "convert_official_checkpoint",
    "convert_official_state_dict",
    "read_official_checkpoint",
]
