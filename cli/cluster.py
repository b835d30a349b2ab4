"""``epifoundation cluster``: from fragments or counts to clusters, a picture and a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .inputs import (
    Barcodes,
    Counting,
    CountingRule,
    GenomeCheck,
    InputFiles,
    MinFragments,
    Prefix,
    peak_file,
)
from .options import Device, Dtype, MaxPeaks, MaxTokens, ModelOrSmall, Quiet, Revision
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CELLS = "cells.h5ad"
KEY = "X_epifoundation"
CLUSTER_KEY = "epifoundation_cluster"
CLUSTERS_PER_COLUMN, MAX_COLUMNS = 30, 3  # of the legend; what finds no room there is among the smallest


@one_line_errors
def cluster(
    inputs: InputFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    model: ModelOrSmall = None,
    resolution: Annotated[float, typer.Option(min=0.0, help="Higher for more clusters.")] = 1.0,
    label_key: Annotated[
        str | None,
        typer.Option(help="Column of obs with cell types, to compare the clusters with.", show_default="none"),
    ] = None,
    min_peaks: Annotated[
        int, typer.Option(min=1, help="Cells with fewer peaks that the model knows get no cluster.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the clusters and the picture.")] = 0,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Cluster the cells of fragment files or of a count matrix.

    Fragments are counted in the peaks of the model, the cells embedded, joined to their nearest neighbours, clustered
    (Leiden) and laid out in the plane (UMAP). The folder gets clusters.csv (barcode, cluster, umap_1, umap_2,
    num_peaks), clusters.png, and cells.h5ad with the same in obs and obsm. Clusters are numbered from 0, the largest
    first; cells without peaks have none. Neighbours are exact: minutes for 100,000 cells. Needs the extras 'clustering'
    and 'plot'.

    Example: epifoundation cluster fragments.tsv.gz --barcodes barcodes.tsv --output clusters

    Example: epifoundation cluster atac.h5ad --model checkpoint --output clusters --label-key cell_type
    """
    from epifoundation.evaluation.clustering import refuse_missing_libraries
    from epifoundation.evaluation.plots import refuse_missing_plot_libraries
    from epifoundation.inference import default_checkpoint, embed_file, load_tokenizer
    from epifoundation.inference.output import new_folder

    checkpoint = model or str(default_checkpoint())
    quiet_libraries()
    refuse_missing_libraries()
    refuse_missing_plot_libraries()
    with (
        new_folder(output) as folder,
        peak_file(
            inputs,
            lambda: load_tokenizer(checkpoint, revision).vocabulary,
            modality=None,
            barcodes=barcodes,
            prefix=prefix,
            min_fragments=min_fragments,
            counting=counting,
            genome_check=genome_check,
            show_progress=not quiet,
        ) as path,
    ):
        labels = _labels(path, label_key)
        coverage = embed_file(
            path,
            checkpoint,
            folder / CELLS,
            key_added=KEY,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
        table = _clusters(folder / CELLS, min_peaks, resolution, seed, show_progress=not quiet)
        table.to_csv(folder / "clusters.csv")
        _draw(folder / "clusters.png", table)
    if not quiet:
        typer.echo(f"{output}: {_summary(table, label_key, labels)} {coverage.summary()}")


def _labels(path: Path, key: str | None) -> "pd.Series | None":
    """The cell types, checked before the work starts."""
    from epifoundation.dataset_builders import open_peak_file

    with open_peak_file(path) as file:
        if file.table_path != "/":
            raise ValueError(f"{path} holds several modalities: save the one of the peaks as .h5ad first")
        if key is None:
            return None
        columns = file.annotations[0].columns
        if key not in columns:
            raise ValueError(f"{path} has no column {key!r} in obs: it has {', '.join(columns) or 'none'}")
        return file.annotations[0].read(key)


def _clusters(cells: Path, min_peaks: int, resolution: float, seed: int, *, show_progress: bool) -> "pd.DataFrame":
    """Cluster embedded cells; the file gets the results too."""
    import h5py
    import numpy as np
    import pandas as pd
    from anndata.io import read_elem, write_elem

    from epifoundation.evaluation.clustering import leiden_clusters, umap_graph
    from epifoundation.evaluation.graph_connectivity import GRAPH_NEIGHBORS
    from epifoundation.evaluation.neighbors import nearest_neighbors
    from epifoundation.evaluation.plots import umap
    from epifoundation.inference.results import NUM_PEAKS_KEY

    with h5py.File(cells, "r+") as file:
        obs = read_elem(file["obs"])
        num_peaks = obs[NUM_PEAKS_KEY].to_numpy()
        chosen = np.flatnonzero(num_peaks >= min_peaks)
        if len(chosen) < GRAPH_NEIGHBORS + 2:
            raise ValueError(
                f"expected at least {GRAPH_NEIGHBORS + 2} cells to cluster, got {len(chosen)} with {min_peaks} or more "
                "peaks of the model"
            )
        embeddings: Any = file["obsm"][KEY][:][chosen]
        neighbors = nearest_neighbors(embeddings, GRAPH_NEIGHBORS, show_progress=show_progress)
        found = _largest_first(leiden_clusters(umap_graph(neighbors), resolution, seed))
        numbers = pd.Series(pd.NA, obs.index.rename("barcode"), "Int64")
        numbers.iloc[chosen] = found
        places = np.full((len(obs), 2), np.nan, dtype=np.float32)
        places[chosen] = umap(embeddings, seed, neighbors)
        names = [str(number) for number in range(found.max() + 1)]
        obs[CLUSTER_KEY] = pd.Categorical(numbers.astype("string").to_numpy(object), names)
        write_elem(file, "obs", obs)
        write_elem(file["obsm"], "X_umap", places)
    return pd.DataFrame({"cluster": numbers, "umap_1": places[:, 0], "umap_2": places[:, 1], "num_peaks": num_peaks})


def _largest_first(clusters: "np.ndarray") -> "np.ndarray":
    """Number clusters from 0 by their size, equal ones by their first cell."""
    import numpy as np

    _, first, inverse, sizes = np.unique(clusters, return_index=True, return_inverse=True, return_counts=True)
    number_of = np.empty(len(sizes), dtype=np.int64)
    number_of[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return np.asarray(number_of[inverse])


def _summary(table: "pd.DataFrame", label_key: str | None, labels: "pd.Series | None") -> str:
    clusters = table["cluster"]
    text = f"{clusters.count():,} cells in {clusters.nunique()} clusters."
    if num_left_out := int(clusters.isna().sum()):
        text += f" {num_left_out:,} cells have too few peaks for one."
    if labels is not None:
        text += f" Adjusted Rand index with {label_key}: {_rand(clusters, labels):.3f}."
    return text


def _rand(clusters: "pd.Series", labels: "pd.Series") -> float:
    """Adjusted Rand index over the cells that have both."""
    from sklearn.metrics import adjusted_rand_score

    has_both = labels.notna().to_numpy() & clusters.notna().to_numpy()
    return float(adjusted_rand_score(labels.to_numpy()[has_both].astype(str), clusters.to_numpy()[has_both]))


def _draw(path: Path, table: "pd.DataFrame") -> None:
    from matplotlib.figure import Figure

    from epifoundation.evaluation.plots import plot_cells

    shown = table[table["cluster"].notna()]
    num_clusters = shown["cluster"].nunique()
    width = len(str(num_clusters - 1))
    labels = [f"{number:0{width}d}" for number in shown["cluster"]]
    num_columns = min(-(-num_clusters // CLUSTERS_PER_COLUMN), MAX_COLUMNS)
    figure: Any = Figure(figsize=(6.5 + 1.5 * num_columns, 6), layout="constrained")
    axes = plot_cells(shown[["umap_1", "umap_2"]].to_numpy(), labels, figure.subplots(), f"{len(shown):,} cells")
    entries, names = axes.get_legend_handles_labels()
    room = num_columns * CLUSTERS_PER_COLUMN
    more = f"\nand {num_clusters - room} smaller" if num_clusters > room else ""
    axes.legend(
        entries[:room],
        names[:room],
        title=f"cluster (cells){more}",
        ncols=num_columns,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        fontsize="small",
    )
    figure.savefig(path, dpi=150, format="png")
