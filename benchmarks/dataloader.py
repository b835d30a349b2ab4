"""Reading training cells: ours beside the official loader's way, one row at a time from a backed AnnData.

    python benchmarks/dataloader.py [--cells 4000] [--repeats 3] [--write]

Made-up paired cells: lognormal numbers of open peaks (median 4,000, sigma 0.6) of 200,000, and of expressed genes
(median 2,000) of 20,000. Both ways end with batches of eight cells, peaks and half expressed genes drawn, as tensors.
"official way" reads row i of both files with ``adata[i].X`` in backed mode, makes dense rows and draws from them, as
the official ``PairedSCDataset`` does; it runs on fewer cells, as it takes long. "rows of a block" is AnnData's backed
mode at its best: 32 rows at a time, not shuffled. The cells of ours were tokenised once, which is given apart.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from datasets import load_from_disk
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch.utils.data import DataLoader

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training import AlignmentCollator, CellBatchSampler
from epifoundation.training.batches import CellsToDraw, token_lengths

NUM_PEAKS, NUM_GENES, CELLS_PER_BATCH = 200_000, 20_000, 8
MAX_PEAKS, MAX_GENES = 12_000, 8_000
CELLS_OF_PEER = {"official way": 64, "rows of a block": 512}
CASES = (*CELLS_OF_PEER, "ours", "ours, tokenising")


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=4_000)
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
    """Two .h5ad files as MiniAtlas has them, gzipped, and the tokenised cells."""
    rng = np.random.default_rng(0)
    peaks = [f"chr{1 + i % 22}:{2_000 * i}-{2_000 * i + 500}" for i in range(NUM_PEAKS)]
    atac = made_up(rng, num_cells, NUM_PEAKS, 4_000, peaks)
    rna = made_up(rng, num_cells, NUM_GENES, 2_000, [f"GENE{i}" for i in range(NUM_GENES)])
    atac.write_h5ad(folder / "atac.h5ad", compression="gzip")
    rna.write_h5ad(folder / "rna.h5ad", compression="gzip")
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
        atac, rna = (anndata.read_h5ad(folder / name) for name in ("atac.h5ad", "rna.h5ad"))
        tokenizer = tokenizer_of(atac)
        figures, cells = measured(lambda: len(paired_cells(atac, rna, tokenizer)))
    else:
        # Opening is not counted: it comes once.
        files = [anndata.read_h5ad(folder / name, backed="r") for name in ("atac.h5ad", "rna.h5ad")]
        batches = batches_of_ours(folder) if case == "ours" else batches_of_peer(*files, case)
        figures, cells = measured(lambda: sum(batches))
    report_figures(figures | {"cells": cells, "rate": cells / figures["cpu"]})


def batches_of_ours(folder: Path) -> Iterator[int]:
    """Cells of each batch that the Trainer would get, in this process."""
    tokenizer = PeakTokenizer.from_pretrained(folder / "cells")
    cells = load_from_disk(str(folder / "cells"))
    sampler = CellBatchSampler(token_lengths(cells, MAX_PEAKS), max_cells=CELLS_PER_BATCH, is_packed=True)
    collator = AlignmentCollator(tokenizer, max_genes=MAX_GENES, packing=True)
    loader = DataLoader(CellsToDraw(cells), batch_sampler=sampler, collate_fn=collator)
    return (len(batch["gene_ids"]) for batch in loader)


def batches_of_peer(atac: AnnData, rna: AnnData, case: str) -> Iterator[int]:
    """Cells of each batch, padded to 12,000 peaks and 8,000 genes as the official loader gives them."""
    rng = np.random.default_rng(0)
    size = 1 if case == "official way" else 32
    starts = rng.permutation(atac.n_obs // size)[: CELLS_OF_PEER[case] // size] * size
    waiting: list[tuple[np.ndarray, ...]] = []
    for start in starts.tolist():
        block, genes = atac[start : start + size].X, rna[start : start + size].X
        waiting += [official_item(rng, block[row], genes[row]) for row in range(size)]
        while len(waiting) >= CELLS_PER_BATCH:
            columns = zip(*waiting[:CELLS_PER_BATCH], strict=True)
            tensors = [torch.from_numpy(np.stack(column)) for column in columns]
            del waiting[:CELLS_PER_BATCH]
            yield len(tensors[0])


def official_item(rng: np.random.Generator, peaks: sp.csr_matrix, genes: sp.csr_matrix) -> tuple[np.ndarray, ...]:
    """A cell as the official data set makes it: dense rows, non-zero peaks, as many zero as non-zero genes."""
    is_open, counts = peaks.toarray()[0], genes.toarray()[0]
    peak_ids = np.flatnonzero(is_open)
    peak_ids = rng.permutation(peak_ids)[: MAX_PEAKS - 1]
    expressed, others = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    half = min(MAX_GENES // 2, len(expressed))
    gene_ids = np.r_[rng.choice(expressed, half, replace=False), rng.choice(others, half, replace=False)]
    rng.shuffle(gene_ids)
    padded = (np.zeros(MAX_PEAKS, np.int64), np.zeros(MAX_GENES, np.int64), np.full(MAX_GENES, 2, np.int64))
    padded[0][1 : len(peak_ids) + 1], padded[0][0] = peak_ids + 4, 2
    padded[1][: len(gene_ids)], padded[2][: len(gene_ids)] = gene_ids + 4, counts[gene_ids] > 0
    return padded


def report(runs: dict, write: bool) -> None:
    """The table."""
    names = ("cells", "rate", "cpu", "wall", "memory")
    rows = [(case, *(shown_spread(figures[name]) for name in names)) for case, figures in runs.items()]
    lines = ["One process, one thread; 80 MB of gzipped files in the page cache.", ""]
    lines += table(("way", "cells", "cells per CPU s", "CPU s", "wall s", "added MB"), rows)
    mine = runs["ours"]["rate"]["median"]
    ratios = {f"ours over {case}: cells per CPU s": mine / runs[case]["rate"]["median"] for case in CELLS_OF_PEER}
    lines += ["", *table(("", "times better"), ratios.items())]
    leave_results("dataloader", "Reading training cells", {"runs": runs, "ratios": ratios}, lines, write)


if __name__ == "__main__":
    main()
