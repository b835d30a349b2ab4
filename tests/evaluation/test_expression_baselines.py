import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epifoundation.dataset_builders.genome.gene_coordinates import positions_of
from epifoundation.evaluation.baselines import MeasuredCells
from epifoundation.evaluation.expression_baselines import (
    predict_distance_activity,
    predict_gene_activity,
    predict_gene_mean,
    predict_lsi_ridge,
)
from epifoundation.evaluation.linear_baselines import embed_lsi

GENES = ("GAPDH", "ACTB")


@pytest.fixture
def cells():
    """One peak in each gene, and a far one; a gene is expressed in proportion to the share of its peak."""
    rng = np.random.default_rng(0)
    names = [f"{row.chromosome}:{row.start}-{row.start + 100}" for row in positions_of(GENES).itertuples()]
    peaks = rng.integers(1, 9, (20, 3)).astype(np.float32)
    shares = np.log1p(1e4 * peaks[:, :2] / peaks[:, :2].sum(axis=1, keepdims=True))
    return MeasuredCells(
        csr_matrix(peaks),
        np.arange(20) < 14,
        np.repeat("a", 20),
        gene_levels=csr_matrix(2 * shares + 1),
        peak_names=(*names, "chr3:1000-2000"),
        gene_names=GENES,
    )


@pytest.mark.parametrize("predict", [predict_gene_activity, predict_distance_activity])
def test_what_follows_from_activity_is_predicted(cells, predict):
    np.testing.assert_allclose(predict(cells), cells.gene_levels[14:].toarray(), rtol=1e-4)


def test_the_mean_is_that_of_training_cells(cells):
    expected = cells.gene_levels[:14].toarray().mean(axis=0)
    np.testing.assert_allclose(predict_gene_mean(cells), np.tile(expected, (6, 1)), rtol=1e-6)


def test_ridge_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    peaks = csr_matrix((rng.random((40, 90)) < 0.3).astype(np.float32))
    levels = csr_matrix(rng.integers(0, 3, (40, 5)).astype(np.float32))
    data = MeasuredCells(peaks, np.arange(40) < 30, np.repeat("a", 40), gene_levels=levels)
    embedding = embed_lsi(data, 0, 64)
    model = make_pipeline(StandardScaler(), Ridge(alpha=3)).fit(embedding[:30], levels[:30].toarray())
    np.testing.assert_allclose(predict_lsi_ridge(data, 0), model.predict(embedding[30:]), atol=1e-5)
