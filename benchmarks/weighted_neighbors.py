"""Weighted nearest neighbours of paired cells: this package beside muon, on the SNARE cell lines of the repository.

    python benchmarks/weighted_neighbors.py

Both get the same embeddings (50 principal components of expression, 49 of LSI). Needs ``pip install muon``. muon finds
neighbours by an approximation, here they are exact, so the two agree but for that. Writes
benchmarks/results/weighted_neighbors.md.
"""

import time
import warnings
from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.clustering.clusters import accessibility_embedding, expression_embedding
from epifoundation.dataset_builders.clustering.weighted_neighbors import weighted_neighbors

DATA = Path(__file__).parents[1] / "examples" / "data" / "snare_cell_lines"
RESULTS = Path(__file__).parent / "results" / "weighted_neighbors.md"
NUM_NEIGHBORS = 20


def main() -> None:
    """Measure, print a Markdown table, and write it."""
    atac = read_h5ad(DATA / "atac.h5ad")
    rna = read_h5ad(DATA / "rna.h5ad")[atac.obs_names]
    labels = atac.obs["cell_type"].to_numpy()
    embeddings = {
        "rna": expression_embedding(csr_matrix(rna.X, dtype=np.float32)),
        "atac": accessibility_embedding(csr_matrix(atac.X, dtype=np.float32)),
    }
    started = time.process_time()
    ours, weights = weighted_neighbors(embeddings["rna"], embeddings["atac"], NUM_NEIGHBORS)
    of_ours, started = time.process_time() - started, time.process_time()
    theirs, their_weights = by_muon(embeddings)
    of_muon = time.process_time() - started
    shared = np.mean([len(np.intersect1d(a, b)) / NUM_NEIGHBORS for a, b in zip(ours, theirs, strict=True)])
    purity = [
        np.mean([(labels[near] == label).mean() for near, label in zip(x, labels, strict=True)]) for x in (ours, theirs)
    ]
    text = (
        "# Weighted nearest neighbours beside muon\n\n`python benchmarks/weighted_neighbors.py`\n\n"
        f"{len(labels):,} cells of the SNARE cell lines, {NUM_NEIGHBORS} neighbours.\n\n"
        "| | here | muon |\n| --- | --- | --- |\n"
        f"| CPU s, compiling included | {of_ours:.1f} | {of_muon:.1f} |\n"
        f"| neighbours of the cell's own type | {purity[0]:.3f} | {purity[1]:.3f} |\n"
        f"| mean weight of expression | {weights.mean():.3f} | {their_weights.mean():.3f} |\n\n"
        f"{shared:.1%} of the neighbours are the same; the weights correlate by "
        f"{np.corrcoef(weights, their_weights)[0, 1]:.3f}.\n"
    )
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def by_muon(embeddings: dict[str, np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Neighbours of each cell, and the weight of expression, by muon; embeddings at unit length, as muon asks for."""
    import muon
    import scanpy
    from mudata import MuData

    parts = {}
    for name, embedding in embeddings.items():
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        parts[name] = AnnData(np.zeros((len(unit), 1), np.float32), obsm={"X_embedding": unit})
        scanpy.pp.neighbors(parts[name], n_neighbors=NUM_NEIGHBORS + 1, use_rep="X_embedding")
    data = MuData(parts)
    muon.pp.neighbors(data, n_neighbors=NUM_NEIGHBORS)
    graph = csr_matrix(data.obsp["distances"])
    neighbors = [graph.indices[slice(*graph.indptr[i : i + 2])] for i in range(graph.shape[0])]
    return neighbors, data.obs["rna:mod_weight"].to_numpy()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
