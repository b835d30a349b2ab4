import numpy as np
import pytest

from epifoundation.evaluation import graph_connectivity, nearest_neighbors

# Two pairs of cells far from each other, and three cells in a row between them.
LINE = np.array([[0.0], [1], [50], [51], [52.5], [100], [101]])


def test_share_of_the_largest_piece_by_hand() -> None:
    neighbors = nearest_neighbors(LINE, 1)
    # Type a is in two pieces of two cells, b in one of three.
    assert graph_connectivity(neighbors, list("aabbbaa"), 1) == pytest.approx((2 / 4 + 1) / 2)
    # Paths do not lead through other types: 50 and 52.5 hang on 51 alone.
    assert graph_connectivity(neighbors, list("aabcbaa"), 1) == pytest.approx((2 / 4 + 1 / 2 + 1) / 3)


def test_an_edge_one_way_joins_as_well() -> None:
    # 52.5 is nearest to nobody, yet belongs to the piece of 51.
    assert graph_connectivity(nearest_neighbors(LINE, 1), list("aabbbcc"), 1) == 1


def test_one_type_and_more_neighbours_than_cells_are_possible() -> None:
    assert graph_connectivity(nearest_neighbors(LINE), ["a"] * 7) == 1
    with pytest.raises(ValueError, match="one of the cell types for each of the 7 cells"):
        graph_connectivity(nearest_neighbors(LINE), ["a"] * 6)
