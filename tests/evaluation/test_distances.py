import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from epifoundation.evaluation import distances
from epifoundation.evaluation.distances import read_distances


class Collector:
    """Keeps every block it is given."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.blocks: list[torch.Tensor] = []

    def read(self, start: int, distances: torch.Tensor) -> None:
        self.starts.append(start)
        self.blocks.append(distances.clone())


@pytest.mark.parametrize("offset", [0, 1e6])
def test_all_distances_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    monkeypatch.setattr(distances, "BYTES_PER_BLOCK", 7 * 8 * 30)
    embedding = np.random.default_rng(0).normal(size=(30, 5)) + offset
    first, second = Collector(), Collector()
    read_distances(embedding, first, second)
    assert first.starts == second.starts == [0, 7, 14, 21, 28]
    np.testing.assert_allclose(torch.cat(first.blocks), cdist(embedding, embedding), atol=1e-7)
    torch.testing.assert_close(first.blocks, second.blocks, rtol=0, atol=0)


def test_a_cell_is_at_distance_zero_of_itself_and_the_embedding_stays_as_it_was() -> None:
    embedding = np.random.default_rng(0).normal(size=(20, 3))
    before = embedding.copy()
    collector = Collector()
    read_distances(embedding, collector)
    np.testing.assert_array_equal(torch.cat(collector.blocks).diagonal(), np.zeros(20))
    np.testing.assert_array_equal(embedding, before)
