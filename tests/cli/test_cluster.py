import gzip

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from epifoundation.inference import embed_cells
from epifoundation_cli.cluster import _largest_first

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


def test_bad_input_is_one_line_and_leaves_nothing(run_badly, peaks_file, two_kinds, checkpoint, tmp_path):
    two_kinds.write_h5ad(tmp_path / "many.h5ad")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    before = names(tmp_path)
    out = ("-m", checkpoint, "-o", tmp_path / "out")
    assert "has no column 'type' in obs: it has kind" in run_badly(
        "cluster", tmp_path / "many.h5ad", *out, "--label-key", "type"
    )
    assert "at least 16 cells to cluster, got 12" in run_badly("cluster", peaks_file, *out)
    assert "does not exist" in run_badly("cluster", tmp_path / "none.h5ad", *out)
    assert "exists: choose another name" in run_badly(
        "cluster", tmp_path / "many.h5ad", "-m", checkpoint, "-o", tmp_path / "full"
    )
    assert names(tmp_path) == before


def test_clusters_are_numbered_by_size():
    assert _largest_first(np.array([7, 7, 2, 2, 2, 5])).tolist() == [1, 1, 0, 0, 0, 2]
    assert _largest_first(np.array([4, 1, 4, 1])).tolist() == [0, 1, 0, 1]
