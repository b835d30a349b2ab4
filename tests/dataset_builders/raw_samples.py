"""Small made-up samples: fragments of three kinds of cells, with gene counts, as they come from a machine."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates

NUM_TYPES, CELLS_PER_TYPE, NUM_PEAKS, FRAGMENTS_PER_CELL = 3, 14, 90, 80
NUM_CELLS = NUM_TYPES * CELLS_PER_TYPE
FIRST, SPACING, WIDTH = 1_000_000, 40_000, 1_000
GENES = [f"GENE{i:02d}" for i in range(60)]
TYPES = ["B", "NK", "T"]


def peak_names() -> list[str]:
    return [f"chr1:{FIRST + i * SPACING}-{FIRST + i * SPACING + WIDTH}" for i in range(NUM_PEAKS)]


def barcodes() -> list[str]:
    """Those of the cells; cell i is of the type i % 3."""
    return [f"CELL{i:03d}-1" for i in range(NUM_CELLS)]


def write_fragments(path: Path, seed: int = 0) -> Path:
    """Fragments of the cells, 4 of 5 of them in peaks of their type, and of 10 barcodes with 3 fragments each."""
    rng = np.random.default_rng(seed)
    lines = []
    for i, barcode in enumerate([*barcodes(), *(f"JUNK{i}-1" for i in range(10))]):
        for _ in range(FRAGMENTS_PER_CELL if i < NUM_CELLS else 3):
            peak = int(rng.integers(NUM_PEAKS))
            if i < NUM_CELLS and rng.random() < 0.8:
                peak = peak // NUM_TYPES * NUM_TYPES + i % NUM_TYPES
            start = FIRST + peak * SPACING + int(rng.integers(WIDTH - 100))
            lines.append(("chr1", start, start + int(rng.integers(40, 400)), barcode, int(rng.integers(1, 4))))
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines("\t".join(map(str, line)) + "\n" for line in sorted(lines))
    return path


def write_rna(path: Path, seed: int = 0) -> Path:
    """Gene counts of the cells in reverse order; gene g is a marker of the type g % 3."""
    counts = np.random.default_rng(seed).poisson(0.4, (NUM_CELLS, len(GENES)))
    for i in range(NUM_CELLS):
        counts[i, i % NUM_TYPES :: NUM_TYPES] += 3
    names = pd.DataFrame(index=barcodes()[::-1])
    AnnData(csr_matrix(counts[::-1].astype(np.float32)), names, pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


def write_atac(path: Path, seed: int = 0) -> Path:
    """Counts in the peaks."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.2, (NUM_CELLS, NUM_PEAKS))
    for i in range(NUM_CELLS):
        counts[i, i % NUM_TYPES :: NUM_TYPES] += rng.poisson(2, NUM_PEAKS // NUM_TYPES)
    names = pd.DataFrame(index=barcodes())
    AnnData(csr_matrix(counts.astype(np.uint8)), names, pd.DataFrame(index=peak_names())).write_h5ad(path)
    return path


def write_bed(path: Path) -> Path:
    path.write_text("".join(name.replace(":", "\t").replace("-", "\t") + "\n" for name in peak_names()))
    return path


def write_rna_reference(path: Path) -> Path:
    """Profiles of the three types, by markers."""
    rng = np.random.default_rng(1)
    profiles = {kind: [3.4 if g % 3 == t else 0.4 for g in range(len(GENES))] for t, kind in enumerate(TYPES)}
    noise = rng.random((len(GENES), NUM_TYPES)) / 10
    (pd.DataFrame(profiles, index=GENES) + noise).to_csv(path, sep="\t")
    return path


def write_atac_reference(path: Path) -> Path:
    """Profiles of the three types: how many of their peaks lie in or near each real gene of the region."""
    genes = gene_coordinates("hg38")
    genes = genes[(genes["chromosome"] == "chr1") & (genes["end"] > FIRST)]
    genes = genes[genes["start"] < FIRST + NUM_PEAKS * SPACING].drop_duplicates("symbol")
    profiles = np.zeros((len(genes), NUM_TYPES))
    for peak in range(NUM_PEAKS):
        start = FIRST + peak * SPACING
        near = (genes["start"] - 2_000 < start + WIDTH) & (genes["end"] + 2_000 > start)
        profiles[near.to_numpy(), peak % NUM_TYPES] += 1
    pd.DataFrame(profiles, index=genes["symbol"].tolist(), columns=TYPES).to_csv(path, sep="\t")
    return path
