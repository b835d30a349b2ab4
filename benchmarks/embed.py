"""End to end: from an .h5ad file to embeddings, and where the time goes.

    python benchmarks/embed.py [--cells 4] [--repeats 2] [--write]

The paper's encoder with 136,771 peaks, untrained. "paper" are made-up cells (lognormal, median 4,000 peaks, sigma 0.6);
"SNARE-seq" are cells of examples/data (median 763 peaks). The stages are those of `embed_file` seen by a profiler of
torch's operations: matrix products and attention, other operations, and what is not in torch (reading, tokenising,
writing, loading the model). ``--max-peaks`` shows the knob for laptops.
"""

import argparse
import tempfile
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch.profiler import ProfilerActivity, profile

from epifoundation import EpiFoundationConfig, EpiFoundationModel, PeakTokenizer
from epifoundation.inference import embed_file
from epifoundation.tokenization import PeakVocabulary

SNARE = Path(__file__).parent.parent / "examples" / "data" / "snare_cell_lines" / "atac.h5ad"
CASES = {
    "SNARE-seq": ("snare.h5ad", None),
    "SNARE-seq, 400 peaks": ("snare.h5ad", 400),
    "paper": ("paper.h5ad", None),
    "paper, 2,000 peaks": ("paper.h5ad", 2_000),
    "paper, 1,000 peaks": ("paper.h5ad", 1_000),
}
ARITHMETIC = ("aten::mm", "aten::addmm", "aten::bmm", "scaled_dot_product", "aten::_scaled_dot_product")


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=4, help="made-up cells; of SNARE-seq eight times as many")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), arguments.cells)
        runs = take_turns(__file__, CASES, arguments.repeats, "--folder", folder)
    report(runs, arguments.write)


def make_files(folder: Path, num_cells: int) -> None:
    """Cells of both kinds, and a checkpoint that knows their peaks."""
    snare = anndata.read_h5ad(SNARE)
    snare[: 8 * num_cells].copy().write_h5ad(folder / "snare.h5ad", compression="gzip")
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(np.log(4_000), 0.6, num_cells), 12_000).astype(int)
    columns = np.concatenate([np.sort(rng.choice(snare.n_vars, length, replace=False)) for length in lengths])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    values = sp.csr_matrix((np.ones(len(columns), np.float32), columns, indptr), shape=(num_cells, snare.n_vars))
    paper = AnnData(values, var=snare.var[[]])
    paper.obs_names = [f"cell{i}" for i in range(num_cells)]
    paper.write_h5ad(folder / "paper.h5ad", compression="gzip")
    tokenizer = PeakTokenizer(PeakVocabulary.from_anndata(snare, genome="hg38"))
    tokenizer.save_pretrained(folder / "checkpoint")
    torch.manual_seed(0)
    num_chromosomes = int(tokenizer.peak_chromosome_ids.max()) + 1
    config = EpiFoundationConfig(vocab_size=len(tokenizer), num_chromosomes=num_chromosomes)
    EpiFoundationModel(config).save_pretrained(folder / "checkpoint")


def run_child(case: str, folder: Path) -> None:
    """Time, cells and the shares of the stages."""
    torch.set_num_threads(1)
    file, max_peaks = CASES[case]
    warm_up(folder)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        figures, coverage = measured(
            lambda: embed_file(
                folder / file,
                folder / "checkpoint",
                folder / f"{case}.parquet",
                max_peaks=max_peaks,
                overwrite=True,
                show_progress=False,
            )
        )
    by_name = {event.key: event.self_cpu_time_total / 1e6 for event in recorded.key_averages()}
    arithmetic = sum(seconds for name, seconds in by_name.items() if any(part in name for part in ARITHMETIC))
    in_torch = sum(seconds for name, seconds in by_name.items() if name.startswith("aten::"))
    shares = {
        "products and attention": arithmetic / figures["wall"],
        "other operations": (in_torch - arithmetic) / figures["wall"],
        "outside torch": 1 - in_torch / figures["wall"],
    }
    report_figures(figures | {"rate": coverage.num_cells / figures["cpu"]} | shares)


def warm_up(folder: Path) -> None:
    """One tiny call, so that lazy imports and the first call of each kernel are not counted."""
    model = EpiFoundationModel.from_pretrained(folder / "checkpoint")
    with torch.inference_mode():
        ids = torch.tensor([[2, 5, 6]])
        model(input_ids=ids, chromosome_ids=ids, cell_embeddings_only=True)


def report(runs: dict, write: bool) -> None:
    """The table."""
    names = ("rate", "cpu", "wall", "memory", "products and attention", "other operations", "outside torch")
    rows = [(case, *(shown_spread(figures[name]) for name in names)) for case, figures in runs.items()]
    header = ("cells", "cells per CPU s", "CPU s", "wall s", "added MB", *names[4:])
    lines = ["One thread. The last three columns are shares of the wall time.", "", *table(header, rows)]
    ratios = {
        f"{case}: share of products and attention": figures["products and attention"]["median"]
        for case, figures in runs.items()
    }
    for case in ("paper, 2,000 peaks", "paper, 1,000 peaks"):
        ratios[f"{case}: times faster"] = runs[case]["rate"]["median"] / runs["paper"]["rate"]["median"]
    leave_results("embed", "Embedding a file", {"runs": runs, "ratios": ratios}, lines, write)


if __name__ == "__main__":
    main()
