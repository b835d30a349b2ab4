"""Latent semantic indexing of a peak matrix: TF-IDF, then a truncated singular value decomposition."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD

SCALE = 1e4  # as in Signac and muon: log(1 + 10,000 * term frequency * inverse document frequency)


@dataclass(frozen=True)
class LatentSemanticIndex:
    """A fitted LSI, the usual unsupervised embedding of chromatin accessibility.

    Attributes:
        inverse_document_frequency: (peaks,) log(1 + cells / cells in which the peak is open); 0 if in none.
        components: (dimensions, peaks) right singular vectors; column k holds the loadings of peak k.
    """

    inverse_document_frequency: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, matrix: sp.csr_matrix, num_dimensions: int, seed: int = 0) -> Self:
        """Learn the index from `matrix`, (cells, peaks), of which only zero or not zero is used.

        Raises:
            ValueError: if there are not more cells and peaks than dimensions.
        """
        if min(matrix.shape) <= num_dimensions:
            raise ValueError(
                f"LSI of {num_dimensions} dimensions needs more cells and more peaks than that, "
                f"got {matrix.shape[0]} cells and {matrix.shape[1]} peaks"
            )
        cells_per_peak = np.asarray((matrix != 0).sum(axis=0)).ravel()
        is_seen = cells_per_peak > 0
        idf = np.where(is_seen, np.log1p(matrix.shape[0] / np.maximum(cells_per_peak, 1)), 0.0)
        # ARPACK is exact; the randomised default differs in the third digit where the spectrum is flat, as here.
        svd = TruncatedSVD(num_dimensions, algorithm="arpack", random_state=seed)
        svd.fit(_tf_idf(matrix, idf))
        # With more cells than peaks the solver hands out a reversed view, which torch cannot take.
        return cls(idf, np.ascontiguousarray(svd.components_))

    def transform(self, matrix: sp.csr_matrix) -> np.ndarray:
        """(cells, peaks) -> (cells, dimensions)."""
        return np.asarray(_tf_idf(matrix, self.inverse_document_frequency) @ self.components.T)


def _tf_idf(matrix: sp.csr_matrix, idf: np.ndarray) -> sp.csr_matrix:
    weights = sp.csr_matrix(matrix != 0, dtype=np.float64)
    peaks_per_cell = np.diff(weights.indptr)
    weights.data = np.log1p(SCALE * idf[weights.indices] / np.repeat(peaks_per_cell, peaks_per_cell))
    return weights
