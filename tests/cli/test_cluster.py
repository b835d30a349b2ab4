import gzip
import warnings

import anndata
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from epifoundation.evaluation import plots
from epifoundation.inference import default_checkpoint, embed_cells, load_tokenizer
from epifoundation_cli.cluster import _draw, _largest_first

from .conftest import NAMES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:umap")


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def two_kinds():
    """60 cells: the first 40 with peaks of one half, the others with peaks of the other half."""
    generator = np.random.default_rng(0)
    values = generator.random((60, 40)) < 0.5
    values[:40, 20:] = False
    values[40:, :20] = False
    obs = pd.DataFrame({"kind": ["x"] * 40 + ["y"] * 20}, index=[f"c{i}" for i in range(60)])
    return AnnData(csr_matrix(values.astype(np.float32)), obs, pd.DataFrame(index=NAMES))


def test_clusters_of_a_count_matrix(run, two_kinds, checkpoint, tmp_path):
    two_kinds.write_h5ad(tmp_path / "cells.h5ad")
    output = tmp_path / "out"
    words = ("--label-key", "kind", "--resolution", 0.1)
    result = run("cluster", tmp_path / "cells.h5ad", "-m", checkpoint, "-o", output, *words)
    assert result.exit_code == 0
    assert names(output) == ["cells.h5ad", "clusters.csv", "clusters.png"]
    table = pd.read_csv(output / "clusters.csv", index_col="barcode")
    assert table.columns.tolist() == ["cluster", "umap_1", "umap_2", "num_peaks"]
    np.testing.assert_array_equal(table["num_peaks"], np.diff(two_kinds.X.indptr))
    sizes = table["cluster"].value_counts().sort_index()
    assert sizes.is_monotonic_decreasing
    rand = adjusted_rand_score(two_kinds.obs["kind"], table["cluster"])
    assert f"Adjusted Rand index with kind: {rand:.3f}" in result.stdout
    written = anndata.read_h5ad(output / "cells.h5ad")
    assert written.obs_names.tolist() == table.index.tolist() == two_kinds.obs_names.tolist()
    assert written.obs["epifoundation_cluster"].astype(int).tolist() == table["cluster"].tolist()
    np.testing.assert_allclose(written.obsm["X_umap"], table[["umap_1", "umap_2"]], rtol=1e-5)
    embed_cells(two_kinds, checkpoint)
    np.testing.assert_allclose(written.obsm["X_epifoundation"], two_kinds.obsm["X_epifoundation"], atol=1e-5)


def test_clusters_of_fragments(run, two_kinds, checkpoint, tmp_path):
    lines = []
    for cell, peak in zip(*two_kinds.X.nonzero(), strict=True):
        chromosome, span = NAMES[peak].split(":")
        start = int(span.split("-")[0]) + 50
        lines.append((chromosome, start, start + 100, two_kinds.obs_names[cell], 1))
    path = tmp_path / "fragments.tsv.gz"
    with gzip.open(path, "wt") as file:
        file.writelines("\t".join(map(str, line)) + "\n" for line in sorted(lines))
    words = ("--min-fragments", 1, "--no-genome-check", "--quiet")
    result = run("cluster", path, "-m", checkpoint, "-o", tmp_path / "out", *words)
    assert (result.exit_code, result.output) == (0, "")
    table = pd.read_csv(tmp_path / "out" / "clusters.csv", index_col="barcode")
    expected = pd.Series(np.diff(two_kinds.X.indptr), index=two_kinds.obs_names)
    assert table["num_peaks"].to_dict() == expected.to_dict()


def test_cells_with_few_peaks_get_no_cluster(run, two_kinds, checkpoint, tmp_path):
    values = two_kinds.X.toarray()
    values[5], values[7] = 0, np.arange(40) < 3
    two_kinds.X = csr_matrix(values)
    two_kinds.write_h5ad(tmp_path / "cells.h5ad")
    for min_peaks, without in ((1, ["c5"]), (4, ["c5", "c7"])):
        output = tmp_path / f"out{min_peaks}"
        words = ("--min-peaks", min_peaks, "--label-key", "kind")
        result = run("cluster", tmp_path / "cells.h5ad", "-m", checkpoint, "-o", output, *words)
        assert f"{60 - len(without)} cells in" in result.stdout
        assert f"{len(without)} cells have too few peaks" in result.stdout
        table = pd.read_csv(output / "clusters.csv", index_col="barcode")
        assert table.index[table["cluster"].isna()].tolist() == without
        assert table.index[table["umap_1"].isna()].tolist() == without
        has_cluster = table["cluster"].notna().to_numpy()
        rand = adjusted_rand_score(two_kinds.obs["kind"][has_cluster], table["cluster"][has_cluster])
        assert f"Adjusted Rand index with kind: {rand:.3f}" in result.stdout
        written = anndata.read_h5ad(output / "cells.h5ad")
        assert written.obs_names[written.obs["epifoundation_cluster"].isna()].tolist() == without
        assert written.n_obs == 60


def test_without_a_model_the_carried_one_is_used(run, tmp_path):
    names = load_tokenizer(default_checkpoint()).vocabulary.names()[:400]
    values = np.random.default_rng(0).random((20, 400)) < 0.3
    cells = AnnData(csr_matrix(values.astype(np.float32)), var=pd.DataFrame(index=names))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert run("cluster", tmp_path / "cells.h5ad", "-o", tmp_path / "out").exit_code == 0
    assert anndata.read_h5ad(tmp_path / "out" / "cells.h5ad").obsm["X_epifoundation"].shape == (20, 64)


def test_the_picture_of_many_clusters_names_the_largest(tmp_path, monkeypatch):
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k))
    )
    places = np.random.default_rng(0).normal(size=(300, 2))
    table = pd.DataFrame({"cluster": np.arange(300) % 140, "umap_1": places[:, 0], "umap_2": places[:, 1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where the legend leaves no room for the picture
        _draw(tmp_path / "clusters.png", table)
    legend = figures[0].axes[0].get_legend()
    assert legend.get_title().get_text() == "cluster (cells)\nand 50 smaller"
    assert len(legend.get_texts()) == 90


def test_bad_input_is_one_line_and_leaves_nothing(run_badly, peaks_file, two_kinds, checkpoint, tmp_path, monkeypatch):
    two_kinds.write_h5ad(tmp_path / "many.h5ad")
    of_other_genome = [f"chr9:{start}-{start + 50}" for start in range(0, 4_000, 100)]
    AnnData(two_kinds.X, var=pd.DataFrame(index=of_other_genome)).write_h5ad(tmp_path / "mouse.h5ad")
    with gzip.open(tmp_path / "mouse.tsv.gz", "wt") as file:
        file.writelines(f"chr1\t{start}\t{start + 90}\tcell\t1\n" for start in range(9_000_000, 9_200_000, 100))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    before = names(tmp_path)
    out = ("-m", checkpoint, "-o", tmp_path / "out")
    assert "has no column 'type' in obs: it has kind" in run_badly(
        "cluster", tmp_path / "many.h5ad", *out, "--label-key", "type"
    )
    assert "at least 16 cells to cluster, got 12" in run_badly("cluster", peaks_file, *out)
    assert "got 0 with 99 or more peaks" in run_badly("cluster", tmp_path / "many.h5ad", *out, "--min-peaks", 99)
    assert "none of the 40 peaks overlaps" in run_badly("cluster", tmp_path / "mouse.h5ad", *out)
    assert "none of the 2,000 fragments overlaps" in run_badly(
        "cluster", tmp_path / "mouse.tsv.gz", *out, "--min-fragments", 1
    )
    assert "does not exist" in run_badly("cluster", tmp_path / "none.h5ad", *out)
    assert "exists: choose another name" in run_badly(
        "cluster", tmp_path / "many.h5ad", "-m", checkpoint, "-o", tmp_path / "full"
    )
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert "the picture needs matplotlib and umap" in run_badly("cluster", tmp_path / "many.h5ad", *out)
    assert names(tmp_path) == before


def test_clusters_are_numbered_by_size():
    assert _largest_first(np.array([7, 7, 2, 2, 2, 5])).tolist() == [1, 1, 0, 0, 0, 2]
    assert _largest_first(np.array([4, 1, 4, 1])).tolist() == [0, 1, 0, 1]
