r"""Clusters of cells beside other methods: do they match the cell types, and how long do they take?

    python benchmarks/clustering.py --data FOLDER [--write]

FOLDER holds granja_bmmc_atac/atac.hg38lift.h5ad (bone marrow, Granja et al. 2019, in the repository epiCHAOS, MIT) and
pbmc10k_tiny (fragments.tsv.gz and atac.epiagent_cCRE.h5ad with the cell types; chromatinhd, MIT). The SNARE cell lines
come with the project. PeakVI and SnapATAC2 are run where they are installed (pip install scvi-tools snapatac2).

The rule, fixed before the first run and the same for all: a method gives an embedding; 14 exact nearest neighbours, the
graph of UMAP and Leiden clusters follow as in `epifoundation cluster`, at ten resolutions and for three seeds. Told are
the adjusted Rand index at resolution 1, the default of the command; at the resolution whose number of clusters comes
nearest to that of the types (the lower one of equals); and the best of the ten, which nobody can choose without labels.
No method sees labels, except where it is said. Each runs in a process of its own on one thread. A run that is done is
not repeated.

End to end, `epifoundation cluster` and the usual steps of SnapATAC2 go from fragments to clusters and a UMAP, each as
a command in a fresh process, one thread. Of the SNARE cells, whose fragments are not at hand, each open peak is one
fragment.
"""

import argparse
import gzip
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from measuring import (
    environment,
    file_name,
    in_fresh_process,
    kept,
    leave_results,
    measured,
    report_figures,
    table,
    take_turns,
)
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import Normalizer

HERE = Path(__file__).resolve().parent
SNARE = HERE.parent / "examples" / "data" / "snare_cell_lines"
SETTINGS = HERE / "settings"
DATA = ("snare", "bone marrow", "PBMC")
RESOLUTIONS = tuple(round(0.2 * i, 1) for i in range(1, 11))
SEEDS = (0, 1, 2)
DIMENSIONS = 30
REPEATS = 3
# Method -> what it needs beside this package.
METHODS = {
    "TF-IDF + LSI": None,
    "SnapATAC2 spectral": "snapatac2",
    "PeakVI": "scvi",
    "epifoundation, carried checkpoint": None,
    "epifoundation, pre-trained on these cells": None,
}
SNAPATAC2 = """
import sys, pandas as pd, snapatac2 as snap
from pathlib import Path
fragments, barcodes, output = map(Path, sys.argv[1:])
cells = barcodes.read_text().split()
data = snap.pp.import_fragments(fragments, snap.genome.hg38, min_num_fragments=0, sorted_by_barcode=False,
                                whitelist=cells, n_jobs=1, tempdir=output)
snap.pp.add_tile_matrix(data)
snap.pp.select_features(data, n_features=250000)
snap.tl.spectral(data, n_comps=30)
snap.pp.knn(data)
snap.tl.leiden(data)
snap.tl.umap(data)
pd.DataFrame({"cluster": list(data.obs["leiden"])}, index=list(data.obs_names)).to_csv(output / "clusters.csv")
"""


def main() -> None:
    """Measure each method on each data set, and end to end."""
    arguments = read_arguments()
    if arguments.child:
        report_figures(child(arguments))
        return
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    words = ["--data", str(arguments.data), "--work", str(work)]
    seconds = {name: checkpoint(name, arguments.data, work)[1] for name in arguments.only}
    report: dict[str, Any] = {"environment": environment(*installed_peers()), "pretraining_seconds": seconds}
    report["clusters"] = {
        name: {method: case_of(name, method, work, words) for method in methods(arguments)} for name in arguments.only
    }
    cases = end_to_end_cases() if arguments.repeats else []
    report["end_to_end"] = take_turns(__file__, cases, arguments.repeats, *words) if cases else {}
    lines = [*cluster_tables(report), *end_to_end_tables(report["end_to_end"])]
    words = ["--data FOLDER", *words_of("only", arguments.only, DATA), *words_of("methods", arguments.methods, METHODS)]
    words += [] if arguments.repeats == REPEATS else [f"--repeats {arguments.repeats}"]
    said = " ".join([*words, "--write"])
    leave_results("clustering", "Clusters of cells", report, lines, arguments.write, words=said, notes=NOTES)


def words_of(option: str, chosen: Sequence[str], every: Iterable[str]) -> list[str]:
    """The words of an option, none if nothing was left out."""
    return [] if list(chosen) == list(every) else [f"--{option}", *(shlex.quote(word) for word in chosen)]


def case_of(name: str, method: str, work: Path, words: list[str]) -> dict[str, Any]:
    """The figures of one method on one data set."""
    place = work / "cases" / file_name(name, method)
    return kept(place, lambda: in_fresh_process(__file__, f"{name}/{method}", *words))


def read_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/clustering"), help="folder of checkpoints")
    parser.add_argument("--only", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of the end-to-end runs; 0 for none")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """One method on one data set, or one end-to-end run."""
    name, method = arguments.child.split("/")
    if method.startswith("end to end"):
        return end_to_end(name, method, arguments.data, arguments.work)
    return embedded_clusters(name, method, arguments.data, arguments.work)


def methods(arguments: argparse.Namespace) -> list[str]:
    """Those asked for whose libraries are here."""
    return [name for name in arguments.methods if METHODS[name] is None or find_spec(METHODS[name])]


def installed_peers() -> list[str]:
    """For the versions in the report."""
    return [name for module, name in (("scvi", "scvi-tools"), ("snapatac2", "snapatac2")) if find_spec(module)]


def cells_of(name: str, data: Path) -> AnnData:
    """Cells by peaks, with the column cell_type."""
    files = {
        "snare": SNARE / "atac.h5ad",
        "bone marrow": data / "granja_bmmc_atac" / "atac.hg38lift.h5ad",
        "PBMC": data / "pbmc10k_tiny" / "atac.epiagent_cCRE.h5ad",
    }
    cells = anndata.read_h5ad(files[name])
    cells.X = cells.X.astype(np.float32)
    return cells


def checkpoint(name: str, data: Path, work: Path) -> tuple[Path, float]:
    """A model pre-trained on the cells of a data set without labels, and the seconds that took.

    By alignment to genes where they were measured in the same cells (SNARE), else by replaced peaks; two epochs.
    """
    from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files
    from epifoundation.training.options import PretrainOptions, read_options
    from epifoundation.training.runs import pretrain

    folder = work / name.replace(" ", "_")
    if not (folder / "model" / "run.json").is_file():
        is_paired = name == "snare"
        cells = folder / "cells.h5ad"
        folder.mkdir(parents=True, exist_ok=True)
        cells_of(name, data).write_h5ad(cells)
        split = Split(rule="cell", validation=0, test=0)
        tokenize_files(cells, SNARE / "rna.h5ad" if is_paired else None, folder / "tokenized", split=split)
        words = [str(SETTINGS / "clustering_pretrain.yaml")]
        if is_paired:
            words = [str(SETTINGS / "snare_pretrain.yaml"), "--validation_share", "0", "--eval_strategy", "no"]
            words += ["--save_strategy", "no", "--num_train_epochs", "2"]
        words += ["--data", str(folder / "tokenized"), "--output_dir", str(folder / "model"), "--disable_tqdm", "true"]
        pretrain(*read_options(PretrainOptions, words))
    record = pd.read_json(folder / "model" / "run.json", typ="series")
    return folder / "model", float(record["wall_seconds_since_start"])


def embedded_clusters(name: str, method: str, data: Path, work: Path) -> dict[str, Any]:
    """Time of the embedding and of the clusters, and how they match the types."""
    from epifoundation.evaluation.clustering import leiden_clusters, umap_graph
    from epifoundation.evaluation.graph_connectivity import GRAPH_NEIGHBORS
    from epifoundation.evaluation.neighbors import nearest_neighbors

    cells = cells_of(name, data)
    embed = embedding_function(method, name, work)
    figures, embedding = measured(lambda: embed(cells))
    started = time.process_time()
    graph = umap_graph(nearest_neighbors(embedding, GRAPH_NEIGHBORS))
    clusters = {(r, seed): leiden_clusters(graph, r, seed) for r in RESOLUTIONS for seed in SEEDS}
    figures["cpu_clusters"] = time.process_time() - started
    types = cells.obs["cell_type"].astype(str).to_numpy()
    rand = [[adjusted_rand_score(types, clusters[r, seed]) for r in RESOLUTIONS] for seed in SEEDS]
    sizes = [[len(np.unique(clusters[r, seed])) for r in RESOLUTIONS] for seed in SEEDS]
    return figures | {"adjusted_rand": rand, "clusters": sizes, "types": len(np.unique(types))}


def embedding_function(method: str, name: str, work: Path) -> Callable[[AnnData], np.ndarray]:
    """Cells -> (cells, dimensions), with all libraries imported before the clock starts."""
    if method == "TF-IDF + LSI":
        from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex

        def lsi(cells: AnnData) -> np.ndarray:
            return Normalizer().fit_transform(LatentSemanticIndex.fit(cells.X, DIMENSIONS).transform(cells.X))

        return lsi
    if method == "SnapATAC2 spectral":
        import snapatac2

        def spectral(cells: AnnData) -> np.ndarray:
            copy = AnnData(cells.X, obs=cells.obs[[]], var=cells.var[[]])
            snapatac2.pp.select_features(copy, n_features=250_000)
            snapatac2.tl.spectral(copy, n_comps=DIMENSIONS)
            return np.asarray(copy.obsm["X_spectral"])

        return spectral
    if method == "PeakVI":
        import scvi  # noqa: F401

        from epifoundation.evaluation.baselines import MeasuredCells
        from epifoundation.evaluation.variational_baselines import embed_peakvi

        # It sees the counts of all cells, whichever are called held out.
        return lambda cells: embed_peakvi(
            MeasuredCells(cells.X, np.arange(cells.n_obs) > 0, np.zeros(cells.n_obs, dtype=int)), seed=0
        )
    from epifoundation.inference import default_checkpoint, embed_cells

    model = default_checkpoint() if "carried" in method else work / name.replace(" ", "_") / "model"

    def ours(cells: AnnData) -> np.ndarray:
        copy = AnnData(cells.X, obs=cells.obs[[]], var=cells.var[[]])
        embed_cells(copy, str(model), show_progress=False)
        return np.asarray(copy.obsm["X_epifoundation"])

    return ours


def end_to_end_cases() -> list[str]:
    """A case for each data set with fragments and each way."""
    ways = ["end to end, carried checkpoint", "end to end, pre-trained on these cells"]
    ways += ["end to end, SnapATAC2"] if find_spec("snapatac2") else []
    return [f"{name}/{way}" for name in ("PBMC", "snare") for way in ways]


def end_to_end(name: str, way: str, data: Path, work: Path) -> dict[str, Any]:
    """From fragments to clusters, a command in a process of its own."""
    import subprocess

    cells = cells_of(name, data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "barcodes.tsv").write_text("\n".join(cells.obs_names))
        fragments = data / "pbmc10k_tiny" / "fragments.tsv.gz"
        if name == "snare":
            fragments = work / "snare_fragments.tsv.gz"
            if not fragments.is_file():
                write_fragments(cells, fragments)
        output = folder / "clusters"
        if way.endswith("SnapATAC2"):
            output.mkdir()
            command = [sys.executable, "-c", SNAPATAC2, fragments, folder / "barcodes.tsv", output]
        else:
            model = [] if "carried" in way else ["--model", work / name.replace(" ", "_") / "model"]
            command = [sys.executable, "-m", "epifoundation_cli", "cluster", fragments, *model]
            command += ["--barcodes", folder / "barcodes.tsv", "--output", output, "--quiet"]
        figures, _ = measured(lambda: subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr))
        clusters = pd.read_csv(output / "clusters.csv", index_col=0)["cluster"].dropna()
    types = cells.obs["cell_type"].astype(str).reindex(clusters.index)
    wanted = {"wall": figures["wall"], "cpu": figures["cpu"], "cells": float(len(clusters))}
    return wanted | {"clusters": float(clusters.nunique()), "adjusted_rand": adjusted_rand_score(types, clusters)}


def write_fragments(cells: AnnData, path: Path) -> None:
    """One fragment of the width of the peak for each open peak of each cell, by position."""
    from epifoundation.tokenization import parse_peaks

    peaks = parse_peaks(cells.var_names)
    entries = cells.X.tocoo()
    order = np.lexsort((peaks.starts[entries.col], peaks.codes[entries.col]))
    rows, columns = entries.row[order], entries.col[order]
    barcodes = cells.obs_names.to_numpy()[rows]
    names = np.array(peaks.chromosomes)[peaks.codes[columns]]
    frame = pd.DataFrame({"c": names, "s": peaks.starts[columns], "e": peaks.ends[columns], "b": barcodes, "n": 1})
    with gzip.open(path, "wt", compresslevel=4) as file:
        frame.to_csv(file, sep="\t", header=False, index=False)


def cluster_tables(report: dict[str, Any]) -> list[str]:
    """Markdown of the agreement with cell types."""
    lines = []
    for name, found in report["clusters"].items():
        rows = []
        for method, figures in found.items():
            rand, sizes = np.array(figures["adjusted_rand"]), np.array(figures["clusters"])
            at_one = RESOLUTIONS.index(1.0)
            nearest = np.abs(sizes - figures["types"]).argmin(axis=1)
            chosen = rand[np.arange(len(SEEDS)), nearest]
            rows.append(
                [
                    method,
                    spread_of(rand[:, at_one]),
                    f"{sizes[:, at_one].mean():.0f}",
                    spread_of(chosen),
                    spread_of(rand.max(axis=1)),
                    figures["cpu"],
                ]
            )
        heads = ["embedding by", "ARI at resolution 1", "clusters", "at as many clusters as types", "best of ten"]
        lines += [f"## {name}: {figures['types']} types", "", *table([*heads, "CPU s of the embedding"], rows), ""]
    return [*lines, "Mean ± standard deviation over three seeds of Leiden; the embeddings are from one run each.", ""]


def end_to_end_tables(found: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown of the times from fragments."""
    rows = []
    for case, figures in found.items():
        name, way = case.split("/")
        wall, cpu = (f"{figures[k]['median']:.1f} ({figures[k]['low']:.1f}-{figures[k]['high']:.1f})" for k in TIMES)
        rows.append([name, way.removeprefix("end to end, "), wall, cpu, f"{figures['adjusted_rand']['median']:.3f}"])
    heads = ["fragments of", "way", "wall s", "CPU s", "ARI at the default resolution"]
    return ["## From fragments to clusters and a UMAP", "", *table(heads, rows), ""] if rows else []


def spread_of(values: np.ndarray) -> str:
    """Mean and standard deviation."""
    return f"{values.mean():.3f} ± {values.std():.3f}"


TIMES = ("wall", "cpu")
NOTES = HERE / "notes_clustering.md"

if __name__ == "__main__":
    main()
