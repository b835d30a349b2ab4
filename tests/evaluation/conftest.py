import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.evaluation.baselines import MeasuredCells


@pytest.fixture
def cells():
    """240 cells of two types in two batches, in each of which other peaks are open; a quarter is held out."""
    rng = np.random.default_rng(0)
    types, batches = np.arange(240) // 4 % 2, rng.integers(0, 2, 240)
    rates = 0.15 + 0.4 * (rng.random((2, 80)) < 0.3)[types] + 0.35 * (rng.random((2, 80)) < 0.3)[batches]
    peaks = csr_matrix((rng.random((240, 80)) < rates).astype(np.float32))
    return MeasuredCells(peaks, np.arange(240) % 4 != 0, np.array(["a", "b"])[batches], np.array(["T", "B"])[types])
