"""Methods that bring batches together: Harmony and LIGER. They see the counts and batches of all cells, no types."""

import contextlib
import io

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from .baselines import MeasuredCells, required, undisturbed
from .linear_baselines import NUM_DIMENSIONS, embed_lsi

CELL = "cell"  # before the number of its row
MIN_SHARE_OF_CELLS = 0.01  # of each batch, for LIGER, whose factors are dense in peaks


def embed_harmony(cells: MeasuredCells, seed: int, num_dimensions: int = NUM_DIMENSIONS) -> np.ndarray:
    """(cells, dimensions) LSI of the training cells, all cells then moved together by Harmony (harmony-pytorch).

    Raises:
        ImportError: if harmony-pytorch is not installed.
        ValueError: if there is one batch only.
    """
    _refuse_single_batch(cells, "Harmony")
    harmony = required("harmony", "baselines")
    lsi = embed_lsi(cells, seed, num_dimensions)
    table = pd.DataFrame({"batch": cells.batches.astype(str)})
    return np.asarray(harmony.harmonize(lsi, table, "batch", random_state=seed, n_jobs=1, verbose=False))


def embed_liger(cells: MeasuredCells, seed: int, num_factors: int = 20, max_iterations: int = 30) -> np.ndarray:
    """(cells, factors) of LIGER (pyliger): integrative factorisation of each batch's counts, then quantile alignment.

    Peaks open in a single cell or in less than 1 % of the cells of some batch are left out: LIGER scales within each.

    Raises:
        ImportError: if pyliger is not installed.
        ValueError: if there is one batch only, or too few peaks are open in all of them.
    """
    _refuse_single_batch(cells, "LIGER")
    with undisturbed():
        pyliger = required("pyliger", "baselines-gpl")
    names, batch_of = np.unique(cells.batches.astype(str), return_inverse=True)
    rows = [np.flatnonzero(batch_of == i) for i in range(len(names))]
    is_kept = np.ones(cells.peaks.shape[1], dtype=bool)
    for members in rows:
        num_cells = np.asarray((cells.peaks[members] > 0).sum(axis=0)).ravel()
        is_kept &= num_cells >= max(2, MIN_SHARE_OF_CELLS * len(members))
    if is_kept.sum() <= num_factors:
        raise ValueError(f"only {is_kept.sum()} peaks are open in all {len(names)} batches, too few for LIGER")
    parts = [_batch(cells.peaks[members][:, is_kept], members, name) for members, name in zip(rows, names, strict=True)]
    silent = io.StringIO()  # it prints, and has bars of its own
    with undisturbed(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        data = pyliger.create_liger(parts, remove_missing=False)
        pyliger.normalize(data, remove_missing=False)
        data.var_genes = data.adata_list[0].var_names.to_numpy()
        pyliger.scale_not_center(data, remove_missing=False)
        pyliger.optimize_ALS(data, k=num_factors, max_iters=max_iterations, rand_seed=seed + 1)  # it subtracts 1
        pyliger.quantile_norm(data, rand_seed=seed)
    embedding = np.zeros((len(batch_of), num_factors))
    for part in data.adata_list:
        embedding[[int(name.removeprefix(CELL)) for name in part.obs_names]] = part.obsm["H_norm"]
    return embedding


def _refuse_single_batch(cells: MeasuredCells, name: str) -> None:
    if len(np.unique(cells.batches)) < 2:
        raise ValueError(f"{name} brings batches together, and there is one only: name the column of the batches")


def _batch(counts: csr_matrix, rows: np.ndarray, name: str) -> AnnData:
    part = AnnData(counts.astype(np.float64))
    part.obs_names = [f"{CELL}{row}" for row in rows]
    part.var_names = [f"peak{i}" for i in range(counts.shape[1])]
    part.obs.index.name, part.var.index.name = "cell", "peak"
    part.uns["sample_name"] = name
    return part
