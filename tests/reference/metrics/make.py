"""What scib and scib-metrics say of the cells in cells.npz: writes both files anew.

pip install scib scib-metrics && python make.py
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata
import jax
import numpy as np
import scanpy as sc
import scib
import scib_metrics
from scib_metrics.nearest_neighbors import NeighborsResults
from sklearn.neighbors import NearestNeighbors

HERE = Path(__file__).parent
jax.config.update("jax_enable_x64", True)


def made_up_cells():
    """Name -> (embedding, cell types, batches): 240 cells of 5 types in 3 batches, two of the types not in all."""
    rng = np.random.default_rng(0)
    types = rng.choice(5, 240, p=[0.4, 0.25, 0.2, 0.1, 0.05])
    batches = rng.integers(0, 3, 240)
    batches[types == 4] = 1
    batches[(types == 3) & (batches == 2)] = 0
    centres = rng.normal(size=(5, 8))
    shifts = rng.normal(size=(3, 8))
    noise = rng.normal(size=(240, 8))
    embeddings = {
        "apart": 4 * centres[types] + 0.2 * shifts[batches] + noise,
        "overlapping": centres[types] + shifts[batches] + noise,
        "far_from_the_origin": 1000 + centres[types] + noise,
        "noise": noise,
    }
    return {name: (embedding, types, batches) for name, embedding in embeddings.items()}


def answers(embedding, types, batches):
    """Title of a metric -> what the oracle says."""
    adata = anndata.AnnData(embedding, obsm={"X_emb": embedding})
    adata.obs["type"] = [f"type {i}" for i in types]
    adata.obs["batch"] = [f"batch {i}" for i in batches]
    adata.obs = adata.obs.astype("category")
    sc.pp.neighbors(adata, n_neighbors=15, use_rep="X_emb")
    distances, indices = NearestNeighbors(n_neighbors=90).fit(embedding).kneighbors(embedding)
    nearest = NeighborsResults(indices=indices, distances=distances)
    keys = {"label_key": "type", "batch_key": "batch", "embed": "X_emb", "verbose": False}
    return {
        "ISO": scib.me.isolated_labels_asw(adata, **keys),
        "cASW": scib.me.silhouette(adata, label_key="type", embed="X_emb"),
        "bASW": scib.me.silhouette_batch(adata, **keys),
        "GC": scib.me.graph_connectivity(adata, label_key="type"),
        "cLISI": scib_metrics.clisi_knn(nearest, types),
        "iLISI": scib_metrics.ilisi_knn(nearest, batches),
        "NMI": scib_metrics.nmi_ari_cluster_labels_leiden(nearest.subset_neighbors(15), types)["nmi"],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    cells = made_up_cells()
    _, types, batches = cells["noise"]
    np.savez_compressed(HERE / "cells.npz", types=types, batches=batches, **{name: of[0] for name, of in cells.items()})
    said = {name: {title: float(value) for title, value in answers(*of).items()} for name, of in cells.items()}
    versions = {name: version(name) for name in ("scib", "scib-metrics", "scikit-learn", "scanpy", "numpy")}
    (HERE / "oracles.json").write_text(json.dumps({"versions": versions, "metrics": said}, indent=1) + "\n")
