"""How cost grows with cells, peaks per cell, size of the vocabulary and processes.

    python benchmarks/scaling.py [--repeats 2] [--write]

An encoder 256 wide of 2 layers embeds made-up cells. Each curve varies one thing; its exponent b is that of the fitted
cost = a * size^b (least squares of the logarithms), so 1 is proportional, 2 quadratic, 0 no growth. With processes the
same cells are divided among so many of one thread each; there the speed-up is given, in wall time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns

from epifoundation import EpiFoundationConfig, EpiFoundationModel, PeakTokenizer
from epifoundation.inference import embed_cells
from epifoundation.tokenization import PeakVocabulary

# cells, peaks per cell, peaks of the vocabulary
CURVES = {
    "cells": [(count, 1_000, 100_000) for count in (8, 16, 32, 64)],
    "peaks per cell": [(4, count, 100_000) for count in (500, 1_000, 2_000, 4_000, 8_000)],
    "vocabulary": [(16, 1_000, count) for count in (30_000, 100_000, 300_000, 1_000_000)],
}
PROCESSES = (1, 2)


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child)
        return
    cases = {case_of(point) for points in CURVES.values() for point in points}
    cases |= {f"{case_of((64, 1_000, 100_000))}/{count}" for count in PROCESSES}
    report(take_turns(__file__, sorted(cases), arguments.repeats), arguments.write)


def case_of(point: tuple[int, int, int]) -> str:
    return "/".join(map(str, point))


def run_child(case: str) -> None:
    """Figures of "cells/peaks per cell/vocabulary[/processes]"."""
    numbers = [int(word) for word in case.split("/")]
    if len(numbers) == 4:
        report_figures(divided(*numbers))
        return
    torch.set_num_threads(1)
    adata, model, tokenizer = made_up(*numbers)
    embed_cells(adata[:1].copy(), model, tokenizer, show_progress=False)
    figures, _ = measured(lambda: embed_cells(adata, model, tokenizer, show_progress=False))
    report_figures(figures)


def made_up(num_cells: int, peaks_per_cell: int, num_peaks: int) -> tuple[AnnData, EpiFoundationModel, PeakTokenizer]:
    """Cells of equally many peaks, and a model for them."""
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.sort(rng.choice(num_peaks, peaks_per_cell, replace=False)) for _ in range(num_cells)])
    indptr = np.arange(num_cells + 1) * peaks_per_cell
    matrix = sp.csr_matrix((np.ones(len(columns), np.float32), columns, indptr), shape=(num_cells, num_peaks))
    adata = AnnData(matrix)
    adata.obs_names = [f"cell{i}" for i in range(num_cells)]
    starts = np.arange(num_peaks) // 24 * 2_500
    adata.var_names = [f"chr{1 + i % 24}:{start}-{start + 500}" for i, start in enumerate(starts.tolist())]
    tokenizer = PeakTokenizer(PeakVocabulary.from_anndata(adata, genome="made up"))
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer), num_chromosomes=28, hidden_size=256, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=512,
    )  # fmt: skip
    return adata, EpiFoundationModel(config), tokenizer


def divided(num_cells: int, peaks_per_cell: int, num_peaks: int, num_processes: int) -> dict[str, float]:
    """Wall time of the slowest of several processes that embed their share at once, start not counted."""
    share = case_of((num_cells // num_processes, peaks_per_cell, num_peaks))
    command = [sys.executable, __file__, "--child", share]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(i)) for i in range(num_processes)]
        processes = [subprocess.Popen(command, stdout=output.open("w")) for output in outputs]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f"a process that embeds {share} ended badly")
        figures = [json.loads(output.read_text().strip().split("\n")[-1]) for output in outputs]
    return {key: max(f[key] for f in figures) for key in figures[0]}


def report(runs: dict, write: bool) -> None:
    """The tables."""
    exponents = {}
    lines = ["One thread. CPU seconds and added memory, median (lowest to highest)."]
    for place, (name, points) in enumerate(CURVES.items()):
        rows = []
        for point in points:
            figures = runs[case_of(point)]
            rows.append((point[place], shown_spread(figures["cpu"]), shown_spread(figures["memory"])))
        sizes = np.log([point[place] for point in points])
        for figure in ("cpu", "memory"):
            costs = np.log([max(runs[case_of(point)][figure]["median"], 1e-3) for point in points])
            exponents[f"{name}: {figure}"] = float(np.polyfit(sizes, costs, 1)[0])
        lines += ["", f"## {name}", "", *table((name, "CPU s", "added MB"), rows)]
        lines += ["", f"Exponent of the CPU time: {exponents[f'{name}: cpu']:.2f}."]
    walls = {count: runs[f"{case_of((64, 1_000, 100_000))}/{count}"]["wall"]["median"] for count in PROCESSES}
    lines += ["", f"Two processes: {walls[1] / walls[2]:.2f} times as fast as one ({os.cpu_count()} cores)."]
    report_ = {"runs": runs, "exponents": exponents, "ratios": {"two processes over one": walls[1] / walls[2]}}
    leave_results("scaling", "How cost grows", report_, lines, write)


if __name__ == "__main__":
    main()
