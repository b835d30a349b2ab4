import numpy as np
import pytest
import scanpy
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.clustering.expression import log_normalized, most_variable, principal_components


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    means = rng.gamma(0.5, 2.0, 300)
    values = rng.poisson(rng.gamma(2.0, means / 2, (80, 300)))
    values[:, 7] = 0
    values[5, 11] = 400  # one cell with a value far beyond the others, to be cut
    return csr_matrix(values.astype(np.uint16))


@pytest.fixture(scope="module")
def by_scanpy(counts):
    adata = AnnData(csr_matrix(counts, dtype=np.float64))
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    return adata


def test_normalised_values_are_those_of_scanpy(counts, by_scanpy):
    before = counts.copy()
    np.testing.assert_allclose(log_normalized(counts).toarray(), by_scanpy.X.toarray(), rtol=1e-9)
    assert (counts != before).nnz == 0


@pytest.mark.parametrize("number", [20, 150])
def test_variable_genes_are_those_of_scanpy(counts, by_scanpy, number):
    scanpy.pp.highly_variable_genes(by_scanpy, n_top_genes=number, flavor="seurat")
    expected = np.flatnonzero(by_scanpy.var["highly_variable"])
    assert most_variable(log_normalized(counts), number).tolist() == expected.tolist()


def test_empty_cells_stay_empty():
    assert log_normalized(csr_matrix([[0, 0], [1, 3]])).toarray().tolist() == [[0, 0], np.log1p([2500, 7500]).tolist()]


def test_genes_without_expression_do_not_vary(counts):
    assert 7 not in most_variable(log_normalized(counts), 300)


def test_components_are_those_of_scanpy(counts, by_scanpy):
    dense = AnnData(by_scanpy.X.toarray())
    scanpy.pp.scale(dense, max_value=10)
    # scanpy also cuts at -10, which only matters for genes that vary little
    scanpy.pp.pca(dense, n_comps=8, svd_solver="arpack")
    ours = principal_components(log_normalized(counts), 8)
    for i in range(8):
        assert abs(np.corrcoef(ours[:, i], dense.obsm["X_pca"][:, i])[0, 1]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(ours.std(axis=0), dense.obsm["X_pca"].std(axis=0), rtol=1e-5)


def test_components_repeat_and_are_as_many_as_there_can_be(counts):
    few = log_normalized(counts[:5])
    assert principal_components(few, 50).shape == (5, 4)
    np.testing.assert_array_equal(principal_components(few, 3), principal_components(few, 3))
