"""Reading training cells: ours beside the official loader's way, one row at a time from a backed AnnData.

    python benchmarks/dataloader.py [--cells 1000] [--repeats 3] [--write]

Made-up paired cells: lognormal numbers of open peaks (median 4,000, sigma 0.6) of 200,000, and of expressed genes
(median 2,000) of 20,000. Both ways end with batches of eight cells, peaks and half expressed genes drawn, as tensors.
"official way" reads row i of both files from the sparse ``X`` of an AnnData in backed mode, makes the row of genes
dense, draws from it and pads, as the official ``PairedSCDataset`` does; it runs on fewer cells, as it takes long. It
reads gzipped files, as MiniAtlas has them, and files without compression. "rows of a block" is AnnData's backed mode at
its best: 32 rows at a time, not shuffled. "ours, no genes" leaves the drawing of genes out. The cells of ours were
tokenised once, which is given apart.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from anndata import AnnData
from datasets import load_from_disk
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training import AlignmentCollator, CellBatchSampler
from epifoundation.training.batches import CellsToDraw, token_lengths
from epifoundation.training.collators import CellCollator

NUM_PEAKS, NUM_GENES, CELLS_PER_BATCH = 200_000, 20_000, 8
MAX_PEAKS, MAX_GENES = 12_000, 8_000
CELLS_OF_PEER = {"official way": 128, "official way, no gzip": 512, "rows of a block": 512}
GZIPPED, PLAIN = ("atac.h5ad", "rna.h5ad"), ("atac_plain.h5ad", "rna_plain.h5ad")
CASES = (*CELLS_OF_PEER, "ours", "ours, no genes", "ours, tokenising")


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
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
    """Two .h5ad files as MiniAtlas has them, gzipped, the same without compression, and the tokenised cells."""
    rng = np.random.default_rng(0)
    peaks = [f"chr{1 + i % 22}:{2_000 * i}-{2_000 * i + 500}" for i in range(NUM_PEAKS)]
    atac = made_up(rng, num_cells, NUM_PEAKS, 4_000, peaks)
    rna = made_up(rng, num_cells, NUM_GENES, 2_000, [f"GENE{i}" for i in range(NUM_GENES)])
    for adata, gzipped, plain in zip((atac, rna), GZIPPED, PLAIN, strict=True):
        adata.write_h5ad(folder / gzipped, compression="gzip")
        adata.write_h5ad(folder / plain)
    tokenizer_of(atac).save_pretrained(folder / "cells")
    paired_cells(atac, rna, tokenizer_of(atac)).save_to_disk(folder / "cells")


def made_up(rng: np.random.Generator, num_cells: int, num_columns: int, median: int, names: list[str]) -> AnnData:
    lengths = np.minimum(rng.lognormal(np.log(median), 0.6, num_cells), MAX_PEAKS).astype(int)
    columns = [np.sort(rng.choice(num_columns, length, replace=False)) for length in lengths]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    values = np.ones(indptr[-1], dtype=np.float32)
    adata = AnnData(sp.csr_matrix((values, np.concatenate(columns), indptr), shape=(num_cells, num_columns)))
    adata.var_names, adata.obs_names = names, [f"cell{i}" for i in range(num_cells)]
    return adata


def tokenizer_of(atac: AnnData) -> PeakTokenizer:
    genes = GeneVocabulary([f"GENE{i}" for i in range(NUM_GENES)], [""] * NUM_GENES, ["chr1"] * NUM_GENES)
    return PeakTokenizer(PeakVocabulary.from_anndata(atac, genome="made up"), genes, max_peaks=MAX_PEAKS)


def run_child(case: str, folder: Path) -> None:
    """Cells read, and the seconds it took."""
    torch.set_num_threads(1)
    if case == "ours, tokenising":
        atac, rna = (anndata.read_h5ad(folder / name) for name in GZIPPED)
        tokenizer = tokenizer_of(atac)
        figures, cells = measured(lambda: len(paired_cells(atac, rna, tokenizer)))
    else:
        # Opening is not counted: it comes once.
        batches = batches_of_peer(folder, case) if case in CELLS_OF_PEER else batches_of_ours(folder, case)
        figures, cells = measured(lambda: sum(batches))
    report_figures(figures | {"cells": cells, "rate": cells / figures["cpu"]})


class PeaksAlone(CellCollator):
    """The cells of a batch and nothing else: what is left of the time is spent on drawing genes."""

    def _targets(self, rows: Sequence[Any], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        return {}


def batches_of_ours(folder: Path, case: str) -> Iterator[int]:
    """Cells of each batch that the Trainer would get, in this process."""
    tokenizer = PeakTokenizer.from_pretrained(folder / "cells")
    cells = load_from_disk(str(folder / "cells"))
    sampler = CellBatchSampler(token_lengths(cells, MAX_PEAKS), max_cells=CELLS_PER_BATCH, is_packed=True)
    collator = AlignmentCollator(tokenizer, max_genes=MAX_GENES, packing=True)
    if "no genes" in case:
        collator = PeaksAlone(tokenizer, packing=True)
    loader = DataLoader(CellsToDraw(cells), batch_sampler=sampler, collate_fn=collator)
    return (len(batch["cu_seq_lens_q"]) - 1 for batch in loader)


def batches_of_peer(folder: Path, case: str) -> Iterator[int]:
    """Cells of each batch, padded to 12,000 peaks and 8,000 genes as the official loader gives them."""
    names = PLAIN if "no gzip" in case else GZIPPED
    files = [anndata.read_h5ad(folder / name, backed="r") for name in names]
    atac, rna = (file.X for file in files)
    chromosomes = np.arange(NUM_PEAKS) % 24, np.arange(NUM_GENES) % 24
    size = 32 if case == "rows of a block" else 1
    rng = np.random.default_rng(0)
    starts = rng.permutation(files[0].n_obs // size)[: CELLS_OF_PEER[case] // size] * size

    def batches() -> Iterator[int]:
        waiting: list[tuple[Tensor, ...]] = []
        for start in starts.tolist():
            rows = ([x[start]] if size == 1 else list(x[start : start + size]) for x in (atac, rna))
            waiting += [official_item(rng, *pair, *chromosomes) for pair in zip(*rows, strict=True)]
            while len(waiting) >= CELLS_PER_BATCH:
                tensors = default_collate(waiting[:CELLS_PER_BATCH])
                del waiting[:CELLS_PER_BATCH]
                yield len(tensors[0])

    return batches()


def official_item(
    rng: np.random.Generator,
    peaks: sp.csr_matrix,
    genes: sp.csr_matrix,
    chromosome_of_peak: np.ndarray,
    chromosome_of_gene: np.ndarray,
) -> tuple[Tensor, ...]:
    """A cell as the official data set makes it: open peaks, a dense row of genes, as many zero as non-zero ones."""
    open_peaks = peaks.indices
    if len(open_peaks) >= MAX_PEAKS:
        open_peaks = rng.choice(open_peaks, MAX_PEAKS - 1, replace=False)
    counts = genes.toarray().flatten()
    expressed, others = np.nonzero(counts)[0], np.nonzero(counts == 0)[0]
    half = min(MAX_GENES // 2, len(expressed))
    drawn = np.r_[rng.choice(expressed, half, replace=False), rng.choice(others, half, replace=False)]
    drawn = rng.permutation(drawn)
    columns = (
        (np.r_[2, open_peaks + 4], MAX_PEAKS, 0),
        (np.r_[2, chromosome_of_peak[open_peaks]], MAX_PEAKS, 0),
        (drawn + 4, MAX_GENES, 0),
        (counts[drawn], MAX_GENES, 2),
        (chromosome_of_gene[drawn], MAX_GENES, 0),
    )
    return tuple(F.pad(torch.from_numpy(x).long(), (0, size - len(x)), value=fill) for x, size, fill in columns)


def report(runs: dict, write: bool) -> None:
    """The table."""
    names = ("cells", "rate", "cpu", "wall", "memory")
    rows = [(case, *(shown_spread(figures[name]) for name in names)) for case, figures in runs.items()]
    lines = ["One process, one thread; files in the page cache.", ""]
    lines += table(("way", "cells", "cells per CPU s", "CPU s", "wall s", "added MB"), rows)
    mine = runs["ours"]["rate"]["median"]
    ratios = {f"ours over {case}: cells per CPU s": mine / runs[case]["rate"]["median"] for case in CELLS_OF_PEER}
    share = 1 - runs["ours, no genes"]["cpu"]["median"] / runs["ours"]["cpu"]["median"]
    lines += ["", f"Drawing genes takes {share:.0%} of the CPU time of ours: it is what is left to make faster.", ""]
    lines += table(("", "times better"), ratios.items())
    leave_results("dataloader", "Reading training cells", {"runs": runs, "ratios": ratios}, lines, write)


if __name__ == "__main__":
    main()
