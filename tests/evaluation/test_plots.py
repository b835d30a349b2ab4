import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from epifoundation.evaluation import plots
from epifoundation.evaluation.neighbors import nearest_neighbors
from epifoundation.evaluation.plots import plot_cells, refuse_missing_plot_libraries, umap


def test_each_label_has_its_colour_its_marker_and_its_count() -> None:
    labels = [f"type {i}" for i in range(12)] * 2
    ax = plot_cells(np.random.default_rng(0).normal(size=(24, 2)), labels, title="cells")
    looks = {(tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes()) for points in ax.collections}
    assert len(looks) == 12
    assert ax.get_legend_handles_labels()[1][0] == "type 0 (2)"
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("cells", "UMAP 1", "UMAP 2")
    plt.close(ax.figure)


def test_the_given_axes_are_used() -> None:
    figure, ax = plt.subplots()
    assert plot_cells(np.zeros((2, 2)), ["a", "b"], ax) is ax
    assert [points.get_offsets().shape for points in ax.collections] == [(1, 2), (1, 2)]
    plt.close(figure)


def test_umap_is_the_same_for_the_same_seed() -> None:
    embedding = np.random.default_rng(0).normal(size=(40, 5))
    np.testing.assert_array_equal(umap(embedding, seed=3), umap(embedding, seed=3))


def test_umap_lays_out_by_the_neighbours_it_is_given() -> None:
    kinds = np.repeat([0, 1], 40)
    embedding = np.random.default_rng(0).normal(size=(80, 5))
    apart = nearest_neighbors(embedding + 20 * kinds[:, None], 14)  # neighbours are of one kind, embeddings tell none
    places = umap(embedding, 0, apart)
    centres = np.array([places[kinds == kind].mean(axis=0) for kind in (0, 1)])
    spread = np.linalg.norm(places - centres[kinds], axis=1).mean()
    assert np.linalg.norm(centres[0] - centres[1]) > 3 * spread
    np.testing.assert_array_equal(places, umap(embedding, 0, apart))


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_missing_plot_libraries()
    monkeypatch.setattr(plots, "find_spec", lambda name: None if name == "umap" else name)
    refuse_missing_plot_libraries(["matplotlib"])
    with pytest.raises(ImportError, match=r'the picture needs umap: pip install "epifoundation\[plot\]"'):
        refuse_missing_plot_libraries()
