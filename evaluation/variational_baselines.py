"""Variational autoencoders of scvi-tools: PeakVI, scANVI and MultiVI.

All cells and their batches are seen in training, which is how these methods are used; types (scANVI) and genes
(MultiVI) of training cells alone. Peaks open in less than 1 % of the cells are left out. Epochs are few compared with
the library's defaults, which are meant for GPUs.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, diags

from .baselines import UNKNOWN_TYPE, MeasuredCells, TypeProbabilities, required, undisturbed
from .calibration import calibrated

UNLABELLED = "unknown"
BATCH_SIZE = 128
GENES_AT_A_TIME = 1_000
MIN_SHARE_OF_CELLS, MIN_PEAKS = 0.01, 100  # rarer peaks are most of the weights and of the time


def embed_peakvi(cells: MeasuredCells, seed: int, epochs: int = 30, num_dimensions: int = 20) -> np.ndarray:
    """(cells, dimensions) PeakVI latent space, with batches as covariate.

    Raises:
        ImportError: if scvi-tools is not installed.
    """
    with _scvi(seed) as scvi:
        data = _table(cells, (frequent_peaks(cells.peaks) > 0).astype(np.float32))
        scvi.model.PEAKVI.setup_anndata(data, batch_key="batch")
        model = scvi.model.PEAKVI(data, n_latent=num_dimensions)
        _train(model, epochs, lr=1e-3, early_stopping=False, n_epochs_kl_warmup=max(1, epochs // 2))
        return np.asarray(model.get_latent_representation())


def embed_scanvi(
    cells: MeasuredCells, seed: int, epochs: int = 20, label_epochs: int = 10, num_dimensions: int = 20
) -> np.ndarray:
    """(cells, dimensions) scANVI latent space of counts of peaks: `epochs` of scVI, then `label_epochs` with types.

    Raises:
        ImportError: if scvi-tools is not installed.
    """
    with _scvi(seed) as scvi:
        return np.asarray(_scanvi(scvi, cells, epochs, label_epochs, num_dimensions).get_latent_representation())


def annotate_scanvi(
    cells: MeasuredCells, seed: int, epochs: int = 20, label_epochs: int = 10, num_dimensions: int = 20
) -> TypeProbabilities:
    """Type probabilities of the cells held out, by scANVI's classifier; see `embed_scanvi`."""
    with _scvi(seed) as scvi:
        model = _scanvi(scvi, cells, epochs, label_epochs, num_dimensions)
        table = model.predict(indices=np.flatnonzero(~cells.is_train), soft=True)
    types = np.unique(cells.train_types.astype(str))
    values = table[list(types)].to_numpy(dtype=np.float64)
    return TypeProbabilities(types, values / values.sum(axis=1, keepdims=True))


def predict_multivi(cells: MeasuredCells, seed: int, epochs: int = 30, num_dimensions: int = 20) -> np.ndarray:
    """(held-out cells, genes) levels from MultiVI's imputed expression, on a line per gene fitted on training cells.

    Training cells are seen with peaks and genes, the others with peaks alone; all are predicted from peaks alone.

    Raises:
        ImportError: if scvi-tools or mudata is not installed.
    """
    assert cells.gene_levels is not None
    levels = cells.gene_levels[cells.is_train]
    with _scvi(seed) as scvi:
        setting = {"batch_key": "batch", "modalities": {"rna_layer": "rna", "atac_layer": "atac", "batch_key": None}}
        data, blank = _paired(cells, cells.is_train), _paired(cells, np.zeros_like(cells.is_train))
        scvi.model.MULTIVI.setup_mudata(data, **setting)
        sizes = {"n_genes": data.mod["rna"].n_vars, "n_regions": data.mod["atac"].n_vars}
        model = scvi.model.MULTIVI(data, **sizes, n_latent=num_dimensions)
        _train(model, epochs, early_stopping=False)
        predicted = []
        for start in range(0, sizes["n_genes"], GENES_AT_A_TIME):
            part = slice(start, start + GENES_AT_A_TIME)
            genes = list(data.mod["rna"].var_names[part])
            scores = model.get_normalized_expression(blank, gene_list=genes, use_z_mean=True, return_numpy=True)
            scores = np.log1p(1e4 * np.asarray(scores, dtype=np.float64))
            predicted.append(calibrated(scores[cells.is_train], levels[:, part], scores[~cells.is_train]))
    return np.concatenate(predicted, axis=1)


def _paired(cells: MeasuredCells, has_genes: np.ndarray) -> Any:
    """A MuData of peaks of all cells and genes of some; the others have none."""
    mudata = required("mudata", "mudata")
    assert cells.genes is not None
    genes = csr_matrix(diags(has_genes.astype(np.float32)) @ cells.genes)
    genes.eliminate_zeros()
    peaks = (frequent_peaks(cells.peaks) > 0).astype(np.float32)
    data = mudata.MuData({"rna": _named(AnnData(genes), "gene"), "atac": _named(AnnData(peaks), "peak")})
    data.obs["_indices"] = np.arange(data.n_obs)  # scvi-tools asks for it when a model sees other data
    data.obs["batch"] = pd.Categorical(np.where(has_genes, "paired", "peaks"), ["paired", "peaks"])
    return data


def frequent_peaks(peaks: csr_matrix) -> csr_matrix:
    """The columns of peaks that are open in at least 1 % of the cells; all of them if these are fewer than 100."""
    num_cells = np.asarray((peaks > 0).sum(axis=0)).ravel()
    is_frequent = num_cells >= MIN_SHARE_OF_CELLS * peaks.shape[0]
    return peaks[:, is_frequent] if is_frequent.sum() >= MIN_PEAKS else peaks


def _scanvi(scvi: Any, cells: MeasuredCells, epochs: int, label_epochs: int, num_dimensions: int) -> Any:
    data = _table(cells, frequent_peaks(cells.peaks).astype(np.float32))
    known = cells.known_types
    data.obs["cell_type"] = np.where(known == UNKNOWN_TYPE, UNLABELLED, known).astype(str)
    scvi.model.SCVI.setup_anndata(data, batch_key="batch", labels_key="cell_type")
    base = scvi.model.SCVI(data, n_latent=num_dimensions, gene_likelihood="poisson")
    _train(base, epochs)
    model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=UNLABELLED)
    _train(model, label_epochs)
    return model


def _table(cells: MeasuredCells, counts: csr_matrix) -> AnnData:
    data = _named(AnnData(counts), "peak")
    data.obs["batch"] = cells.batches.astype(str)
    return data


def _named(data: AnnData, thing: str) -> AnnData:
    data.obs_names = [f"cell{i}" for i in range(data.n_obs)]
    data.var_names = [f"{thing}{i}" for i in range(data.n_vars)]
    return data


def _train(model: Any, epochs: int, **options: Any) -> None:
    model.train(
        max_epochs=epochs,
        accelerator="cpu",
        train_size=1.0,  # what is held out is held out already
        batch_size=BATCH_SIZE,
        enable_progress_bar=False,
        **options,
    )


@contextlib.contextmanager
def _scvi(seed: int) -> Iterator[Any]:
    """scvi-tools, seeded, without its log and its advice on how many processes to use."""
    with undisturbed():
        scvi = required("scvi", "baselines")
        for name in ("lightning", "lightning.fabric", "lightning.pytorch", "pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        scvi.settings.verbosity = logging.ERROR
        scvi.settings.seed = seed
        yield scvi
