"""What a prepared data set tells of its making: ``prepared.json``, from which its card is filled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from epifoundation.sharing.records import PREPARED_FILE

from .sample_preparation import CLUSTER_TABLE, QUALITY_TABLE

SHARED_KEYS = ("genome", "quality control", "least number of fragments", "resolution", "seed", "blacklist")


def write_record(folder: Path, recipes: Mapping[str, Mapping[str, Any]], quality: Path, samples: Path) -> None:
    """Write ``prepared.json``: for each sample its files' digests, barcodes, cells and clusters; and what all share.

    Args:
        folder: of the tokenised cells.
        recipes: of the samples, by their names, as their folders are sealed with.
        quality: folder of the folders that `measure_sample` wrote.
        samples: folder of those that `prepare_sample` wrote.
    """
    shared = next(iter(recipes.values()))
    record = {
        **{key.replace(" ", "_"): shared[key] for key in SHARED_KEYS},
        "reference_profiles": shared["set of reference profiles"],
        "not_measured": _not_measured(shared["quality control"], [quality / name for name in recipes]),
        "samples": {
            name: {
                "input": recipe["input"],
                "rna": recipe["RNA"],
                "barcodes": pq.read_metadata(quality / name / QUALITY_TABLE).num_rows,
                **_sizes(samples / name / CLUSTER_TABLE),
            }
            for name, recipe in recipes.items()
        },
    }
    (folder / PREPARED_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _sizes(cluster_table: Path) -> dict[str, int]:
    clusters = pd.read_csv(cluster_table, sep="\t")
    return {"cells": int(clusters["num_cells"].sum()), "clusters": len(clusters)}


def _not_measured(filters: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """Measures that the filters ask for and no sample has."""
    columns = {name for folder in folders for name in pq.read_schema(folder / QUALITY_TABLE).names}
    return [name for name in filters if name not in columns]
