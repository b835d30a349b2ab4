import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from epifoundation.evaluation.calibration import calibrated


@given(seed=st.integers(0, 1_000), is_sparse=st.booleans())
@settings(max_examples=30, deadline=None)
def test_lines_are_those_of_least_squares(seed, is_sparse):
    rng = np.random.default_rng(seed)
    scores, levels = (random_array((12, 4), density=0.6, rng=rng).toarray() for _ in range(2))
    new = rng.random((3, 4))
    expected = np.column_stack(
        [
            np.polyval(np.polyfit(scores[:, g], levels[:, g], 1), new[:, g])
            if np.ptp(scores[:, g])
            else np.full(3, levels[:, g].mean())
            for g in range(4)
        ]
    )
    train, test = (csr_matrix(scores), csr_matrix(new)) if is_sparse else (scores, new)
    np.testing.assert_allclose(calibrated(train, csr_matrix(levels), test), expected, rtol=1e-4, atol=1e-4)


def test_a_constant_score_gives_the_mean_level():
    levels = csr_matrix(np.array([[1.0], [2.0], [6.0]]))
    for scores in (np.full((3, 1), 0.1), csr_matrix((3, 1))):
        np.testing.assert_allclose(calibrated(scores, levels, scores), np.full((3, 1), 3.0), rtol=1e-6)
