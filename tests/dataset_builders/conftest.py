"""Cells with peaks and genes, in memory and in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import PeakTokenizer
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

NUM_CELLS, NUM_PEAKS, NUM_GENES = 60, 40, 12
PEAKS = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(NUM_PEAKS)]
GENES = [f"GENE{i:02d}" for i in range(NUM_GENES)]

Write = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session")
def multiome() -> tuple[AnnData, AnnData]:
    """ATAC and RNA of the same cells in the same order; one cell without peaks, one without genes."""
    rng = np.random.default_rng(0)
    peaks = rng.integers(1, 4, (NUM_CELLS, NUM_PEAKS)) * (rng.random((NUM_CELLS, NUM_PEAKS)) < 0.3)
    counts = rng.poisson(0.6, (NUM_CELLS, NUM_GENES))
    peaks[5], counts[7] = 0, 0
    obs = pd.DataFrame(
        {
            "annot": [["B", "T", "NK"][i % 3] for i in range(NUM_CELLS)],
            "batch": [f"batch{i % 4}" for i in range(NUM_CELLS)],
            "donor": [f"donor{i % 5}" for i in range(NUM_CELLS)],
        },
        index=[f"CELL{i:03d}-1" for i in range(NUM_CELLS)],
    )
    atac = AnnData(csr_matrix(peaks, dtype=np.float32), obs, pd.DataFrame(index=PEAKS))
    rna = AnnData(csr_matrix(counts, dtype=np.float32), obs[[]].copy(), pd.DataFrame(index=GENES))
    return atac, rna


@pytest.fixture(scope="session")
def tokenizer() -> PeakTokenizer:
    """All peaks, and all genes but two."""
    genes = GeneVocabulary(GENES[:-2], [""] * (NUM_GENES - 2), ["chr1"] * (NUM_GENES - 2))
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes, max_peaks=5)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the two modalities; their paths come back."""

    def written(atac: AnnData, rna: AnnData, compression: str | None = "gzip") -> tuple[Path, Path]:
        paths = tmp_path / "atac.h5ad", tmp_path / "rna.h5ad"
        for data, path in zip((atac, rna), paths, strict=True):
            data.write_h5ad(path, compression=compression)
        return paths

    return written
