import numpy as np
import pytest
from anndata import read_h5ad
from scipy.sparse import block_diag, csr_matrix
from sklearn.metrics import adjusted_rand_score

from epifoundation.dataset_builders.clustering.clusters import accessibility_embedding, cluster_cells, louvain

from ..raw_samples import NUM_CELLS, NUM_PEAKS, NUM_TYPES, write_atac, write_rna


@pytest.fixture(scope="module")
def matrices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    return read_h5ad(write_atac(folder / "a.h5ad")).X, read_h5ad(write_rna(folder / "r.h5ad")).X[::-1]


TYPES = np.arange(NUM_CELLS) % NUM_TYPES


def test_types_of_cells_are_found_by_accessibility(matrices):
    clusters = cluster_cells(matrices[0])
    assert adjusted_rand_score(TYPES, clusters.of_cell) > 0.9
    assert set(clusters.embeddings) == {"X_lsi"}
    assert clusters.rna_weight is None


def test_types_are_found_by_both_measurements(matrices):
    clusters = cluster_cells(*matrices)
    assert adjusted_rand_score(TYPES, clusters.of_cell) > 0.9
    assert set(clusters.embeddings) == {"X_lsi", "X_pca"}
    assert ((clusters.rna_weight > 0) & (clusters.rna_weight < 1)).all()


def test_clusters_repeat(matrices):
    first, second = cluster_cells(*matrices), cluster_cells(*matrices)
    np.testing.assert_array_equal(first.of_cell, second.of_cell)
    np.testing.assert_array_equal(first.embeddings["X_pca"], second.embeddings["X_pca"])


def test_separate_cliques_are_clusters_the_largest_first():
    graph = csr_matrix(block_diag([np.ones((n, n)) for n in (3, 6, 4)]))
    assert louvain(graph).tolist() == [2] * 3 + [0] * 6 + [1] * 4


def test_cells_without_neighbours_are_alone():
    assert louvain(csr_matrix((3, 3))).tolist() == [0, 1, 2]


def test_a_higher_resolution_gives_more_clusters(matrices):
    sizes = [cluster_cells(matrices[0], resolution=resolution).of_cell.max() for resolution in (0.1, 3.0)]
    assert sizes[0] < sizes[1]


def test_rare_peaks_play_no_part(matrices):
    rare = matrices[0].tolil()
    rare[:4, 0] = 1
    rare[4:, 0] = 0
    without = accessibility_embedding(rare.tocsr()[:, 1:])
    np.testing.assert_allclose(np.abs(accessibility_embedding(rare.tocsr())), np.abs(without), atol=1e-9)


def test_too_few_cells_or_peaks_are_refused(matrices):
    with pytest.raises(ValueError, match="9 cells are too few for clusters: expected at least 10"):
        cluster_cells(matrices[0][:9])
    with pytest.raises(ValueError, match=f"only 3 of {NUM_PEAKS} peaks are open in 5 cells or more"):
        cluster_cells(csr_matrix(matrices[0].toarray() * (np.arange(NUM_PEAKS) < 3)))
