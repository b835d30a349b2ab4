import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.evaluation.baselines import MeasuredCells
from epifoundation.evaluation.integration_baselines import embed_harmony, embed_liger
from epifoundation.evaluation.linear_baselines import embed_lsi


def spread_of_batches(embedding, batches):
    """How far apart the means of two batches are, in units of the spread within them."""
    parts = [embedding[batches == name] for name in np.unique(batches)]
    within = np.sqrt(np.mean([part.var(axis=0).sum() for part in parts]))
    return np.linalg.norm(parts[0].mean(axis=0) - parts[1].mean(axis=0)) / within


def test_harmony_brings_batches_together(cells):
    pytest.importorskip("harmony")
    corrected = embed_harmony(cells, 0, num_dimensions=8)
    assert corrected.shape == (240, 8)
    before = spread_of_batches(embed_lsi(cells, 0, 8), cells.batches)
    assert spread_of_batches(corrected, cells.batches) < 0.5 * before
    np.testing.assert_array_equal(corrected, embed_harmony(cells, 0, num_dimensions=8))


@pytest.mark.filterwarnings("ignore")  # of pyliger, while it is imported
def test_liger_keeps_the_order_of_cells_and_tells_types_apart(cells):
    pytest.importorskip("pyliger")
    embedding = embed_liger(cells, 0, num_factors=5, max_iterations=5)
    assert embedding.shape == (240, 5)
    is_t = cells.cell_types == "T"
    means = embedding[is_t].mean(axis=0), embedding[~is_t].mean(axis=0)
    nearer = np.linalg.norm(embedding - means[0], axis=1) < np.linalg.norm(embedding - means[1], axis=1)
    assert (nearer == is_t).mean() > 0.9


@pytest.mark.parametrize(("embed", "name"), [(embed_harmony, "Harmony"), (embed_liger, "LIGER")])
def test_a_single_batch_is_refused(cells, embed, name):
    alone = MeasuredCells(cells.peaks, cells.is_train, np.repeat("a", 240), cells.cell_types)
    with pytest.raises(ValueError, match=f"{name} brings batches together, and there is one only"):
        embed(alone, 0)


def test_liger_says_so_when_batches_share_no_peaks(cells):
    pytest.importorskip("pyliger")
    peaks = csr_matrix(np.kron(np.eye(2), np.ones((120, 40))).astype(np.float32))
    apart = MeasuredCells(peaks, cells.is_train, np.repeat(["a", "b"], 120), cells.cell_types)
    with pytest.raises(ValueError, match="only 0 peaks are open in all 2 batches"):
        embed_liger(apart, 0)
