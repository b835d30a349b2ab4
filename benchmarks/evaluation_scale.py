"""Time and memory of all embedding metrics on made-up cells, beside scib-metrics where it is installed.

    pip install "epifoundation[clustering,oracle]"
    python benchmarks/evaluation_scale.py [--cells 100000] [--dimensions 512] [--peer-cells 10000] [--write]

20 cell types of unequal size in 10 batches. Each case runs in a process of its own with two threads; memory is what
it adds to the process, the embedding not counted. scib-metrics runs on fewer cells, with the same beside it.
"""

import argparse
import os
from importlib.util import find_spec
from typing import Any

import numpy as np
from measuring import environment, in_fresh_process, leave_results, measured, report_figures, table

NUM_TYPES, NUM_BATCHES, NUM_THREADS = 20, 10, 2
COSTS = {"wall": "wall s", "cpu": "CPU s", "memory": "added MB", "load": "load"}


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--peer-cells", type=int, default=10_000)
    parser.add_argument("--write", action="store_true", help="keep the results in benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, cells = arguments.child.split()
        run_case(name, int(cells), arguments.dimensions)
        return

    cases = [f"epifoundation {arguments.cells}", f"epifoundation {arguments.peer_cells}"]
    if find_spec("scib_metrics") is not None:
        cases.append(f"scib-metrics {arguments.peer_cells}")
    words = ("--dimensions", str(arguments.dimensions))
    figures = {case: in_fresh_process(__file__, case, *words, threads=NUM_THREADS) for case in cases}
    metrics = [key for key in figures[cases[0]] if key not in COSTS]
    rows = [
        [*case.split(), *(of[key] for key in COSTS), *(of.get(key, "-") for key in metrics)]
        for case, of in figures.items()
    ]
    lines = table(["library", "cells", *COSTS.values(), *metrics], rows)
    report: dict[str, Any] = {"environment": environment("scikit-learn", "umap-learn"), "figures": figures}
    if len(cases) == 3:
        seconds, of_peer = figures[cases[1]]["wall"], figures[cases[2]]["wall"]
        report["ratios"] = {"wall time of scib-metrics": of_peer / seconds}
    title = f"All embedding metrics, {arguments.dimensions} dimensions, two threads"
    leave_results("evaluation_scale", title, report, [*lines, "", *NOTES], arguments.write)


NOTES = [
    "scib-metrics finds neighbours approximately, computes in single precision and compiles as it goes; its clusters",
    "come from igraph. It has none of the other metrics: its graph connectivity is not that of scib.",
    "Load is the average number of jobs that wanted a core in the last five minutes: above two, wall time says little.",
    "On an idle machine it is at most the CPU time. Both hold the imports: numba alone, for UMAP's graph, takes about",
    "ten seconds in either.",
]


def made_up_cells(num_cells: int, dimensions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding (float32), types and batches: clouds around 20 centres, each batch shifted."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, NUM_TYPES + 1)
    types = rng.choice(NUM_TYPES, num_cells, p=shares / shares.sum())
    batches = rng.integers(0, NUM_BATCHES, num_cells)
    batches[types == NUM_TYPES - 1] %= 2  # one type is isolated
    centres = 0.5 * rng.normal(size=(NUM_TYPES, dimensions))
    shifts = 0.2 * rng.normal(size=(NUM_BATCHES, dimensions))
    embedding = rng.normal(size=(num_cells, dimensions)).astype(np.float32)
    for start in range(0, num_cells, 10_000):
        rows = slice(start, start + 10_000)
        embedding[rows] += centres[types[rows]] + shifts[batches[rows]]
    return embedding, types, batches


def run_case(name: str, num_cells: int, dimensions: int) -> None:
    """Report time, memory and metrics of one library."""
    cells = made_up_cells(num_cells, dimensions)
    figures, metrics = measured(lambda: (ours if name == "epifoundation" else theirs)(*cells))
    report_figures(figures | {"load": os.getloadavg()[1]} | metrics)


def ours(embedding: np.ndarray, types: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    from epifoundation.evaluation import embedding_metrics

    return embedding_metrics(embedding, types, batches)


def theirs(embedding: np.ndarray, types: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    import scib_metrics
    from scib_metrics.nearest_neighbors import pynndescent

    nearest = pynndescent(embedding, n_neighbors=90, random_state=0, n_jobs=NUM_THREADS)
    clusters = scib_metrics.nmi_ari_cluster_labels_leiden(nearest.subset_neighbors(15), types)
    metrics = {
        "ISO": scib_metrics.isolated_labels(embedding, types, batches),
        "NMI": clusters["nmi"],
        "ARI": clusters["ari"],
        "cASW": scib_metrics.silhouette_label(embedding, types),
        "cLISI": scib_metrics.clisi_knn(nearest, types),
        "bASW": scib_metrics.silhouette_batch(embedding, types, batches),
        "iLISI": scib_metrics.ilisi_knn(nearest, batches),
    }
    return {title: float(value) for title, value in metrics.items()}


if __name__ == "__main__":
    main()
