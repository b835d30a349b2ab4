"""Cards of models and data sets: templates filled from what the runs themselves wrote down, never by hand.

Facts that no run can know - where data came from, under which licence, what a model is meant for - stand in
``about.yaml`` beside the weights; see `records`.
"""

import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

from .records import (
    ABOUT_FILE,
    PREPARED_FILE,
    RUN_FILE,
    TOKENIZED_FILE,
    read_about,
    read_json,
    read_prepared,
    read_run,
    read_tokenized,
)

CARD_FILE = "README.md"
Card = TypeVar("Card", ModelCard, DatasetCard)

TAGS = ["epifoundation", "single-cell", "atac-seq", "chromatin-accessibility", "biology"]
OBJECTIVES = {
    "alignment": "peak-to-gene alignment",
    "replaced_peaks": "replaced-peak detection",
    "masked_peaks": "masked-peak prediction",
    "combined": "peak-to-gene alignment, replaced-peak detection and masked-peak prediction",
    "classification": "cell-type annotation",
    "expression": "expression prediction",
    "clustering": "cell embedding by triplets",
    "batch_correction": "batch correction by gradient reversal",
    "contrastive": "contrastive alignment of RNA and ATAC",
    "imputation": "expression imputation",
    "bulk": "cell types and assays of bulk samples",
}
AUTO_CLASSES = ("AutoModel", "AutoModelForPreTraining", "AutoModelForSequenceClassification", "AutoModelForMaskedLM")


def write_card(folder: Path, kind: str, about: Path | None = None, name: str | None = None) -> None:
    """Write ``README.md`` into a folder; it appears whole or not at all.

    Args:
        folder: of a checkpoint or of tokenised cells.
        kind: "model" or "dataset".
        about: a YAML file in place of the folder's own ``about.yaml``.
        name: title of a data set of which ``about.yaml`` tells none; by default that of the folder.

    Raises:
        ValueError: if a file that the card tells from is damaged.
    """
    text = str(model_card(folder, about) if kind == "model" else dataset_card(folder, about, name))
    partial = folder / f".{CARD_FILE}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / CARD_FILE)


def model_card(folder: Path, about: Path | None = None) -> ModelCard:
    """The card of a checkpoint, from its config, vocabularies, ``run.json``, ``tokenized.json`` and ``about.yaml``.

    Raises:
        ValueError: if one of these is damaged.
    """
    facts = read_about(about or folder / ABOUT_FILE)
    run = read_run(folder / RUN_FILE)
    peaks = PeakVocabulary.load(folder / "peaks.npz")
    config = read_json(folder / "config.json")
    name = facts.get("name") or Path(folder).resolve().name
    data = ModelCardData(
        license=facts.get("licence"),
        library_name="transformers",
        tags=[*TAGS, peaks.genome],
        model_name=name,
        eval_results=eval_results(run, facts) or None,
    )
    architecture = (config.get("architectures") or ["EpiFoundationModel"])[0]
    return _filled(
        ModelCard,
        "model_card.md",
        data,
        name=name,
        about=facts,
        config=config,
        architecture=architecture,
        auto_class=_auto_class(config, architecture),
        cell_types=_cell_types(config, architecture),
        peaks=peaks,
        genes=GeneVocabulary.load(folder / "genes.tsv") if (folder / "genes.tsv").is_file() else None,
        num_parameters=_num_parameters(folder),
        run=run,
        objective=OBJECTIVES.get(run.get("objective", ""), run.get("objective")),
        metrics=metrics_of(run),
        options=_stated(run.get("settings", {}).get("options", {})),
        arguments=_stated(run.get("settings", {}).get("arguments", {})),
        tokenized=read_tokenized(folder / TOKENIZED_FILE),
    )


def dataset_card(folder: Path, about: Path | None = None, name: str | None = None) -> DatasetCard:
    """The card of a folder of tokenised cells, from ``tokenized.json``, ``prepared.json``, its peaks, ``about.yaml``.

    Raises:
        ValueError: if one of these is damaged.
    """
    facts = read_about(about or folder / ABOUT_FILE)
    name = facts.get("name") or name or Path(folder).resolve().name
    prepared = read_prepared(folder / PREPARED_FILE)
    has_peaks = (folder / "peaks.npz").is_file()
    data = DatasetCardData(license=facts.get("licence"), pretty_name=name, tags=TAGS, configs=_configs(folder))
    return _filled(
        DatasetCard,
        "dataset_card.md",
        data,
        name=name,
        about=facts,
        tokenized=read_tokenized(folder / TOKENIZED_FILE),
        prepared=prepared,
        criteria=_criteria(prepared),
        peaks=PeakVocabulary.load(folder / "peaks.npz") if has_peaks else None,
    )


def eval_results(run: dict[str, Any], about: dict[str, Any]) -> list[EvalResult]:
    """The metrics of a run on held-out cells, for the ``model-index`` of a card."""
    held_out = run.get("settings", {}).get("data", {}).get("held_out", {})
    sources = [source.get("name", "") for source in about.get("data", [])]
    name = " + ".join(filter(None, sources)) or "tokenised cells"
    objective = run.get("objective", "")
    return [
        EvalResult(
            task_type=objective,
            task_name=OBJECTIVES.get(objective, objective),
            dataset_type="tokenised-cells",
            dataset_name=name,
            dataset_split="held-out",
            dataset_revision=held_out.get("sha256"),
            dataset_args={"seed": run["settings"]["arguments"].get("seed"), "cells": held_out.get("cells")},
            metric_type=metric,
            metric_name=metric.replace("_", " "),
            metric_value=value,
        )
        for metric, value in metrics_of(run).items()
    ]


def metrics_of(run: dict[str, Any]) -> dict[str, float]:
    """Finite metrics of a run on held-out cells, by their names without ``eval_``."""
    return {
        name.removeprefix("eval_"): value
        for name, value in run.get("metrics", {}).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _filled(kind: type[Card], template: str, data: Any, **facts: Any) -> Card:
    """A card from a template, without the empty lines that parts left out leave behind."""
    text = files(__package__).joinpath("templates", template).read_text(encoding="utf-8")
    card = kind.from_template(data, template_str=text, **facts)
    return kind(re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n")


def _configs(folder: Path) -> list[dict[str, Any]] | None:
    """Which files hold which split, for ``load_dataset``."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet"))
    splits = [split for split in ("train", "validation", "test") if any(f"{split}-" in name for name in names)]
    place = "data/" if any(name.startswith("data/") for name in names) else ""
    parts = [{"split": split, "path": f"{place}{split}-*.parquet"} for split in splits]
    return [{"config_name": "default", "data_files": parts}] if parts else None


def _criteria(prepared: dict[str, Any]) -> list[str]:
    """What was asked of a barcode to be a cell, in words."""
    measured = {k: v for k, v in prepared.get("quality_control", {}).items() if k not in prepared["not_measured"]}
    return [
        f"{name} {' and '.join(f'{side} {bound:,g}' for side, bound in bounds.items())}"
        for name, bounds in measured.items()
    ]


def _auto_class(config: dict[str, Any], architecture: str) -> str:
    """The class of Transformers that opens the model with its head, else the one that opens the encoder alone."""
    places = config.get("auto_map", {})
    return next((name for name in AUTO_CLASSES if places.get(name, "").endswith(f".{architecture}")), "AutoModel")


def _cell_types(config: dict[str, Any], architecture: str) -> list[str]:
    return list(config.get("id2label", {}).values()) if "Classification" in architecture else []


def _num_parameters(folder: Path) -> int:
    """Numbers in the weights, told from the headers of the files alone."""
    from safetensors import safe_open

    total = 0
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def _stated(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that say something; a path is shown by its last part, for it is of one machine."""
    return {
        name: Path(value).name if isinstance(value, str) and "/" in value else value
        for name, value in values.items()
        if value is not None and value != {}
    }
