"""What runs and people left in a folder about it, checked before a card tells it on."""

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

RUN_FILE, TOKENIZED_FILE, PREPARED_FILE, ABOUT_FILE = "run.json", "tokenized.json", "prepared.json", "about.yaml"
ABOUT_KEYS = {
    "name": "title of the card",
    "description": "what it is, in a sentence or two",
    "licence": "of the weights or of the data, as the Hub names it, such as mit",
    "data": "a list: name, url, licence, citation, digest of each source",
    "intended_use": "what it is meant for",
    "limits": "what it is not meant for, and where it fails",
    "citation": "how to cite it",
}
# Place within a record -> type of what must stand there.
OF_RUN: dict[str, type | tuple[type, ...]] = {
    "objective": str,
    "steps": int,
    "device": str,
    "wall_seconds_since_start": (int, float),
    "versions": dict,
    "metrics": dict,
    "settings": dict,
    "settings.options": dict,
    "settings.arguments": dict,
    "settings.data": dict,
}
OF_TOKENIZED: dict[str, type | tuple[type, ...]] = {
    "num_entries": int,
    "num_matched_entries": int,
    "num_empty_cells": int,
    "peaks_per_cell": list,
    "cell_types": dict,
    "num_cells_of_split": dict,
    "split": dict,
}
OF_PREPARED: dict[str, type | tuple[type, ...]] = {
    "genome": str,
    "quality_control": dict,
    "least_number_of_fragments": int,
    "resolution": (int, float),
    "seed": int,
    "not_measured": list,
    "samples": dict,
}
OF_SAMPLE: dict[str, type | tuple[type, ...]] = {"input": str, "barcodes": int, "cells": int, "clusters": int}


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file, nothing if it is not there.

    Raises:
        ValueError: if it holds something else than a JSON object.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object, got {type(content).__name__}")
    return content


def read_run(file: Path) -> dict[str, Any]:
    """The record of a training run, nothing if there is none.

    Raises:
        ValueError: if it is not such a record.
    """
    run = read_json(file)
    if not run:
        return {}
    _check(run, OF_RUN, file, "the record of a training run")
    for part, data in run["settings"]["data"].items():
        place = {f"settings.data.{part}": dict, f"settings.data.{part}.cells": int, f"settings.data.{part}.sha256": str}
        _check(run, place, file, "the record of a training run")
        assert isinstance(data, dict)
    return run


def read_tokenized(file: Path) -> dict[str, Any]:
    """The report on tokenised cells, nothing if there is none.

    Raises:
        ValueError: if it is not such a report.
    """
    report = read_json(file)
    if not report:
        return {}
    _check(report, OF_TOKENIZED, file, "the report of 'tokenize'")
    numbers = [*report["peaks_per_cell"], *report["cell_types"].values(), *report["num_cells_of_split"].values()]
    if len(report["peaks_per_cell"]) != 3 or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{file} is not the report of 'tokenize': expected three quantiles, and counts of cells")
    return report


def read_prepared(file: Path) -> dict[str, Any]:
    """How 'prepare' made tokenised cells of raw files, nothing if it did not.

    Raises:
        ValueError: if it is not such a record.
    """
    record = read_json(file)
    if not record:
        return {}
    _check(record, OF_PREPARED, file, "the record of 'prepare'")
    for bounds in record["quality_control"].values():
        if not isinstance(bounds, dict) or not all(isinstance(bound, int | float) for bound in bounds.values()):
            raise ValueError(f"{file} is not the record of 'prepare': expected bounds, got {bounds!r}")
    for sample in record["samples"].values():
        _check(sample, OF_SAMPLE, file, "the record of 'prepare'")
    return record


def read_about(file: Path) -> dict[str, Any]:
    """What people say of a checkpoint or data set; nothing if there is no such file.

    Raises:
        ValueError: if it is no YAML, or has keys that no card would show.
    """
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not set(content) <= set(ABOUT_KEYS):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{file}: expected the keys {', '.join(ABOUT_KEYS)}, got {found}")
    sources = content.get("data", [])
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise ValueError(f"{file}: expected data as a list of sources, each with a name, a url and a licence")
    return content


def _check(content: dict[str, Any], places: dict[str, Any], file: Path, what: str) -> None:
    for place, kind in places.items():
        value: Any = content
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"{file} is not {what}: {place} is {'missing' if value is None else repr(value)[:50]}")
