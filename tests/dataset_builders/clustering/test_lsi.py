import numpy as np
import pytest
import scipy.sparse as sp

from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex


def random_peaks(num_cells: int = 40, num_peaks: int = 60, seed: int = 0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix((rng.random((num_cells, num_peaks)) < 0.2).astype(np.float32))


def tf_idf_by_hand(matrix: np.ndarray) -> np.ndarray:
    term = matrix / matrix.sum(axis=1, keepdims=True)
    seen = matrix.sum(axis=0)
    idf = np.where(seen > 0, np.log(1 + len(matrix) / np.maximum(seen, 1)), 0)
    return np.log(1 + 1e4 * term * idf)


def test_dimensions_are_those_of_a_full_decomposition() -> None:
    matrix = random_peaks()
    index = LatentSemanticIndex.fit(matrix, 5)
    left, singular, right = np.linalg.svd(tf_idf_by_hand(matrix.toarray()), full_matrices=False)
    signs = np.sign((index.components * right[:5]).sum(axis=1))
    np.testing.assert_allclose(index.components * signs[:, None], right[:5], atol=1e-6)
    np.testing.assert_allclose(index.transform(matrix) * signs, (left * singular)[:, :5], atol=1e-5)


@pytest.mark.parametrize(("num_cells", "num_peaks"), [(40, 60), (60, 40)])
def test_torch_takes_the_components(num_cells: int, num_peaks: int) -> None:
    assert LatentSemanticIndex.fit(random_peaks(num_cells, num_peaks), 5).components.flags["C_CONTIGUOUS"]


def test_only_zero_or_not_zero_counts() -> None:
    matrix = random_peaks()
    np.testing.assert_allclose(
        LatentSemanticIndex.fit(matrix * 3, 4).transform(matrix * 7),
        LatentSemanticIndex.fit(matrix, 4).transform(matrix),
    )


def test_explicit_zeros_are_not_open() -> None:
    matrix = random_peaks()
    with_zeros = matrix.copy()
    with_zeros.data[::2] = 0
    without = with_zeros.copy()
    without.eliminate_zeros()
    np.testing.assert_allclose(
        LatentSemanticIndex.fit(with_zeros, 4).transform(with_zeros),
        LatentSemanticIndex.fit(without, 4).transform(without),
    )


def test_a_peak_never_seen_in_fitting_changes_nothing() -> None:
    matrix = random_peaks().tolil()
    matrix[:, 0] = 0
    index = LatentSemanticIndex.fit(matrix.tocsr(), 4)
    np.testing.assert_allclose(index.components[:, 0], 0, atol=1e-12)


def test_a_cell_without_peaks_lies_at_the_origin() -> None:
    matrix = sp.vstack([random_peaks(), sp.csr_matrix((1, 60), dtype=np.float32)]).tocsr()
    np.testing.assert_array_equal(LatentSemanticIndex.fit(matrix, 4).transform(matrix)[-1], 0)


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(ValueError, match=r"LSI of 50 dimensions needs more cells .* got 40 cells and 60 peaks"):
        LatentSemanticIndex.fit(random_peaks(), 50)
