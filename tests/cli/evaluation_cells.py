"""Small paired cells for the commands that compare: two types, three batches, real gene names."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.genome.gene_coordinates import positions_of

GENES = ["GAPDH", "ACTB", "ALB", "CD4", "CD8A", "INS"]


def peak_names() -> list[str]:
    """Ten peaks in each gene."""
    places = positions_of(GENES)[["chromosome", "start"]].itertuples(index=False)
    return [f"{name}:{start + 200 * i}-{start + 200 * i + 100}" for name, start in places for i in range(10)]


def write_cells(folder: Path, num_cells: int = 120) -> tuple[Path, Path]:
    """``atac.h5ad`` and ``rna.h5ad``; half of the genes are open and expressed in one type, half in the other."""
    rng = np.random.default_rng(0)
    is_t = np.arange(num_cells) % 2 == 0
    of_t = np.arange(6) % 2 == 0
    is_high = is_t[:, None] == of_t
    peaks = rng.random((num_cells, 60)) < np.where(np.repeat(is_high, 10, axis=1), 0.5, 0.1)
    genes = rng.poisson(np.where(is_high, 4, 0.5))
    obs = pd.DataFrame(
        {"cell_type": np.where(is_t, "T", "B"), "batch": np.array(["a", "b", "c"])[np.arange(num_cells) // 2 % 3]},
        index=[f"c{i}" for i in range(num_cells)],
    )
    atac = AnnData(csr_matrix(peaks.astype(np.float32)), obs, pd.DataFrame(index=peak_names()))
    # In another order, as files often are.
    rna = AnnData(csr_matrix(genes.astype(np.float32)), obs[[]], pd.DataFrame(index=GENES))[::-1].copy()
    atac.write_h5ad(folder / "atac.h5ad")
    rna.write_h5ad(folder / "rna.h5ad")
    return folder / "atac.h5ad", folder / "rna.h5ad"
