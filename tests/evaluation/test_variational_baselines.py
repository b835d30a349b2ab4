"""These need the extra `baselines`, which the tests are usually run without; then they are skipped."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.evaluation.baselines import MeasuredCells
from epifoundation.evaluation.variational_baselines import (
    annotate_scanvi,
    embed_peakvi,
    embed_scanvi,
    frequent_peaks,
    predict_multivi,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of lightning and scvi-tools


def test_rare_peaks_are_left_out_unless_few_are_left():
    counts = np.ones((1_000, 150), dtype=np.float32)
    counts[10:, 0] = 0
    counts[9:, 1] = 0
    assert frequent_peaks(csr_matrix(counts)).shape == (1_000, 149)
    counts[5:, 2:80] = 0
    assert frequent_peaks(csr_matrix(counts)).shape == (1_000, 150)


def test_embeddings_have_a_row_per_cell_and_repeat(cells):
    pytest.importorskip("scvi")
    peakvi = embed_peakvi(cells, 0, epochs=1, num_dimensions=4)
    assert peakvi.shape == (240, 4)
    np.testing.assert_array_equal(peakvi, embed_peakvi(cells, 0, epochs=1, num_dimensions=4))
    assert embed_scanvi(cells, 0, epochs=1, label_epochs=1, num_dimensions=4).shape == (240, 4)


def test_scanvi_annotates_the_cells_held_out(cells):
    pytest.importorskip("scvi")
    answer = annotate_scanvi(cells, 0, epochs=15, label_epochs=15, num_dimensions=4)
    assert answer.types.tolist() == ["B", "T"]
    np.testing.assert_allclose(answer.values.sum(axis=1), 1, atol=1e-6)
    found = answer.types[answer.values.argmax(axis=1)]
    assert (found == cells.cell_types[~cells.is_train]).mean() > 0.8


def test_multivi_predicts_from_peaks_alone(cells):
    pytest.importorskip("scvi")
    pytest.importorskip("mudata")
    is_t = (cells.cell_types == "T")[:, None]
    genes = np.random.default_rng(1).poisson(np.where(is_t, [[5, 1, 1]], [[1, 5, 1]])).astype(np.float32)

    def measured(genes):
        counts = csr_matrix(genes)
        return MeasuredCells(cells.peaks, cells.is_train, cells.batches, cells.cell_types, counts, counts)

    predicted = predict_multivi(measured(genes), 0, epochs=1, num_dimensions=4)
    assert predicted.shape == (60, 3)
    assert np.isfinite(predicted).all()
    genes[~cells.is_train] = 9  # what is held out must not matter
    np.testing.assert_array_equal(predict_multivi(measured(genes), 0, epochs=1, num_dimensions=4), predicted)
