"""What a comparison says: its table, on which cells it was made, and how far it can be believed."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import epifoundation
from epifoundation.evaluation.checks import types_of_one_batch
from epifoundation.evaluation.report import Report, rows_of
from epifoundation.evaluation.result_store import Result

from .request import Request
from .runs import Results, Split

NOT_COMPARABLE = (
    "Not comparable with the tables of the EpiFoundation paper, number by number: the data are others, and a model "
    "trained here is a small one that has seen these training cells alone. What can be compared is the order of the "
    "methods, all of which saw the same cells."
)
TITLES = {
    "batch": "Cell embeddings: types apart, batches together",
    "annotation": "Cell types of held-out cells",
    "expression": "Expression of genes in held-out cells",
    "ablation": "Ablation: batch labels and chromosomes",
}


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        task: "batch", "annotation", "expression" or "ablation".
        report: the table.
        held_out: how cells were held out, in words.
        splits: of each seed.
        results: of all methods and seeds.
    """

    task: str
    report: Report
    held_out: str
    splits: Sequence[Split]
    results: Sequence[Result]


def comparison(
    request: Request, task: str, splits: Sequence[Split], results: Results, remarks: Sequence[str]
) -> Comparison:
    """The report of what came out: its facts, its table, what was left out, and the remarks of the task."""
    data, options = request.data, request.options
    left_out = [f"{title} is left out: {reason}." for title, reason in results.left_out.items()]
    facts = {
        "data": f"{data.name}, {data.num_cells:,} cells × {len(data.peak_names):,} peaks, "
        f"{len(set(data.cell_types))} cell types, {len(set(data.batches))} batches",
        "cells": f"{options.split_words()}; {len(splits[0].train_rows):,} to learn from and "
        f"{len(splits[0].test_rows):,} held out (seed {splits[0].seed})",
        "spread": "mean ± sample standard deviation over seeds, which draw the division and seed the methods",
        "costs": "seconds by the clock with the reading of libraries and with training, but for models that a line "
        "above or another comparison in this folder had trained; peak memory of the process with the data",
        "command": _command(),
        "versions": f"epifoundation {epifoundation.__version__}, torch {torch.__version__}",
        "machine": f"{'GPU' if torch.cuda.is_available() else 'CPU'}, {torch.get_num_threads()} threads of "
        f"{os.cpu_count()} cores",
    }
    if splits[0].genes is not None:
        facts["genes"] = f"{len(splits[0].gene_names):,} (seed {splits[0].seed})"
    return Comparison(
        task,
        Report(TITLES[task], rows_of(results.finished), facts, [*left_out, *remarks, NOT_COMPARABLE]),
        options.split_words(),
        splits,
        results.finished,
    )


def types_of_one_batch_remark(splits: Sequence[Split]) -> list[str]:
    """A remark on held-out cells of types that are in one batch only, if there are any."""
    alone = sorted({name for s in splits for name in types_of_one_batch(s.test.cell_types, s.test.batches)})
    if not alone:
        return []
    return [f"Held-out cells of these types come from one batch only, which bASW leaves out: {', '.join(alone)}."]


def _command() -> str:
    """The command line, with files by their names alone."""
    words = [Path(word).name if "/" in word and Path(word).exists() else word for word in sys.argv[1:]]
    return f"`{shlex.join(['epifoundation', *words])}`"
