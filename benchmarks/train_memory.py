"""Memory and time of training's optimiser: AdamW for all rows, or for those of the batch alone.

    python benchmarks/train_memory.py [--peaks 524151] [--repeats 2] [--write]

The peak table of the paper (524,151 peaks, 512 wide) under an encoder without layers. Each step reads eight cells of
4,000 peaks out of 136,771, as many as the SNARE-seq cell lines have; ten steps, backward and clipping included, of
which the first is left out of the times. Memory is what training adds to the process at its peak; the state on disk is
that of the optimiser. "torch SparseAdam" is the peer with the same sparse gradients.
"""

import argparse
import io
import time

import numpy as np
import torch
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch import nn

from epifoundation import EpiFoundationConfig, EpiFoundationModel
from epifoundation.training.lazy_adam import LazyAdamW, clip_sparse_gradients, make_tables_sparse

PEAKS_OF_DATA, CELLS, PEAKS_OF_CELL, STEPS = 136_771, 8, 4_000, 10
CASES = ("AdamW", "AdamW, fused", "torch SparseAdam", "LazyAdamW")


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peaks", type=int, default=524_151)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        report_figures(train(arguments.child, arguments.peaks))
        return
    runs = take_turns(__file__, CASES, arguments.repeats, "--peaks", str(arguments.peaks))
    report(runs, arguments)


def train(case: str, num_peaks: int) -> dict[str, float]:
    """Figures of ten steps."""
    table = TableAlone(num_peaks)
    seconds: list[float] = []
    optimizers: list[torch.optim.Optimizer] = []

    def work() -> None:
        optimizers.append(optimizer_of(case, table))
        for step in range(STEPS):
            table.backward(step)
            started = time.process_time()
            if case in ("torch SparseAdam", "LazyAdamW"):
                clip_sparse_gradients(table.parameters(), 1.0)
            else:
                nn.utils.clip_grad_norm_(table.parameters(), 1.0)
            optimizers[0].step()
            seconds.append(time.process_time() - started)
            table.zero_grad()

    figures, _ = measured(work)
    state = io.BytesIO()
    torch.save(optimizers[0].state_dict(), state)
    size = {"state": state.tell() / 1e6, "step": float(np.median(seconds[1:]))}
    return figures | size


class TableAlone(nn.Module):
    """The peak table of a model, and gradients of its rows as a batch of cells gives them."""

    def __init__(self, num_peaks: int) -> None:
        super().__init__()
        config = EpiFoundationConfig(vocab_size=num_peaks + 4, num_hidden_layers=0, use_chromosome_embeddings=False)
        self.model = EpiFoundationModel(config)
        self.embedding = self.model.get_input_embeddings()
        rng = np.random.default_rng(0)
        self.ids_of_data = np.sort(rng.choice(num_peaks, min(PEAKS_OF_DATA, num_peaks), replace=False)) + 4
        # Peaks differ in how many cells have them open.
        self.chances = rng.lognormal(0, 1, len(self.ids_of_data))
        self.chances /= self.chances.sum()

    def backward(self, step: int) -> None:
        """Give the rows of a batch, drawn by the number of the step, a gradient."""
        rng = np.random.default_rng(step)
        ids = np.concatenate([rng.choice(self.ids_of_data, PEAKS_OF_CELL, p=self.chances) for _ in range(CELLS)])
        self.embedding(torch.from_numpy(ids)).square().sum().backward()


def optimizer_of(case: str, table: TableAlone) -> torch.optim.Optimizer:
    parameters = list(table.embedding.parameters())
    if case == "AdamW":
        return torch.optim.AdamW(parameters, lr=1e-4)
    if case == "AdamW, fused":
        return torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    make_tables_sparse(table.model)
    kind = LazyAdamW if case == "LazyAdamW" else torch.optim.SparseAdam
    return kind(parameters, lr=1e-4)


def report(runs: dict, arguments: argparse.Namespace) -> None:
    """The table."""
    columns = {"step": "optimiser, CPU s a step", "cpu": "ten steps, CPU s", "memory": "added MB"}
    rows = [
        (case, *(shown_spread(figures[name]) for name in columns), figures["state"]["median"])
        for case, figures in runs.items()
    ]
    weights = arguments.peaks * 512 * 4 / 1e6
    lines = [f"{arguments.peaks:,} peaks, 512 wide: {weights:,.0f} MB of weights. One thread.", ""]
    lines += table(("optimiser", *columns.values(), "state on disk, MB"), rows)
    lazy = runs["LazyAdamW"]
    ratios = {
        f"{peer} over LazyAdamW: {text}": runs[peer][name]["median"] / lazy[name]["median"]
        for peer in ("AdamW", "AdamW, fused")
        for name, text in columns.items()
    }
    lines += ["", *table(("", "times better"), ratios.items())]
    leave_results("train_memory", "Memory of training", {"runs": runs, "ratios": ratios}, lines, arguments.write)


if __name__ == "__main__":
    main()
