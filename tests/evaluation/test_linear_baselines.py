import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from epifoundation.evaluation.baselines import MeasuredCells
from epifoundation.evaluation.linear_baselines import annotate_knn, annotate_logistic, embed_lsi, embed_pca


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    types = np.repeat(["B", "T"], 30)
    rates = np.where((types == "T")[:, None], *(rng.random((2, 1, 50)) < 0.3)) * 0.8 + 0.1
    peaks = csr_matrix((rng.random((60, 50)) < rates).astype(np.float32))
    return MeasuredCells(peaks, np.arange(60) % 3 != 0, np.repeat("a", 60), types)


def test_pca_agrees_with_a_dense_one(cells):
    counts = cells.peaks.toarray().astype(float)
    logged = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    dense = PCA(5, svd_solver="full").fit(logged[cells.is_train]).transform(logged)
    ours = embed_pca(cells, 0, num_dimensions=5)
    np.testing.assert_allclose(np.abs(ours), np.abs(dense), atol=1e-6)  # signs are free


@pytest.mark.parametrize("embed", [embed_pca, embed_lsi])
def test_held_out_cells_do_not_change_what_is_learned(cells, embed):
    changed = cells.peaks.toarray()
    changed[np.flatnonzero(~cells.is_train)[0]] = 1
    other = MeasuredCells(csr_matrix(changed), cells.is_train, cells.batches, cells.cell_types)
    np.testing.assert_allclose(embed(cells, 0)[cells.is_train], embed(other, 0)[cells.is_train])


def test_lsi_has_unit_length(cells):
    np.testing.assert_allclose(np.linalg.norm(embed_lsi(cells, 0, 4), axis=1), 1)


@pytest.mark.parametrize("annotate", [annotate_logistic, annotate_knn])
def test_types_are_found(cells, annotate):
    answer = annotate(cells, 0, num_dimensions=4)
    assert answer.types.tolist() == ["B", "T"]
    assert answer.values.shape == (20, 2)
    np.testing.assert_allclose(answer.values.sum(axis=1), 1)
    found = answer.types[answer.values.argmax(axis=1)]
    assert (found == cells.cell_types[~cells.is_train]).mean() > 0.9


def test_a_single_type_is_refused(cells):
    alone = MeasuredCells(cells.peaks, cells.is_train, cells.batches, np.repeat("T", 60))
    with pytest.raises(ValueError, match="all of the type 'T'"):
        annotate_logistic(alone, 0)
