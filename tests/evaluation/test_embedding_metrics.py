import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epifoundation.evaluation import (
    EMBEDDING_METRICS,
    batch_lisi,
    batch_silhouette,
    best_nmi,
    cell_type_lisi,
    cell_type_silhouette,
    clustering,
    embedding_metrics,
    graph_connectivity,
    isolated_label_silhouette,
    knn_purity,
    nearest_neighbors,
    overall_batch_silhouette,
)

REFERENCE = Path(__file__).parents[1] / "reference" / "metrics"
NAMES = ("apart", "overlapping", "far_from_the_origin", "noise")


@pytest.fixture(scope="module")
def cells() -> dict[str, np.ndarray]:
    return dict(np.load(REFERENCE / "cells.npz"))


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, float]]:
    return json.loads((REFERENCE / "oracles.json").read_text())["metrics"]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_those_scib_and_scib_metrics_gave(name: str, cells: Any, said: Any) -> None:
    found = embedding_metrics(cells[name], cells["types"], cells["batches"], resolutions=())
    expected = {title: value for title, value in said[name].items() if title != "NMI"}
    assert {title: found[title] for title in expected} == pytest.approx(expected, abs=1e-10)


@pytest.mark.slow
def test_metrics_are_those_scib_and_scib_metrics_give_now(cells: Any) -> None:
    pytest.importorskip("scib_metrics")
    pytest.importorskip("scanpy")
    specification = importlib.util.spec_from_file_location("make", REFERENCE / "make.py")
    assert specification is not None
    assert specification.loader is not None
    make = importlib.util.module_from_spec(specification)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            specification.loader.exec_module(make)
        except ImportError as error:
            pytest.skip(str(error))
        expected = make.answers(cells["overlapping"], cells["types"], cells["batches"])
    del expected["NMI"]
    found = embedding_metrics(cells["overlapping"], cells["types"], cells["batches"], resolutions=())
    assert {title: found[title] for title in expected} == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_nmi_differs_from_that_of_igraph_as_much_as_between_seeds(name: str, cells: Any, said: Any) -> None:
    """Same graph, same NMI, another implementation of Leiden: 240 cells in doubtful clusters are the worst case."""
    pytest.importorskip("graspologic_native")
    neighbors = nearest_neighbors(cells[name])
    of_seeds = [best_nmi(neighbors, cells["types"], seed=seed).nmi for seed in range(3)]
    assert min(of_seeds) - 0.03 <= said[name]["NMI"] <= max(of_seeds) + 0.03


def test_one_pass_gives_what_the_functions_give_alone(cells: Any) -> None:
    pytest.importorskip("graspologic_native")
    embedding, types, batches = cells["overlapping"], cells["types"], cells["batches"]
    neighbors = nearest_neighbors(embedding)
    clusters = best_nmi(neighbors, types)
    expected = {
        "ISO": isolated_label_silhouette(embedding, types, batches),
        "NMI": clusters.nmi,
        "ARI": clusters.adjusted_rand,
        "cASW": cell_type_silhouette(embedding, types),
        "cLISI": cell_type_lisi(neighbors, types),
        "GC": graph_connectivity(neighbors, types),
        "purity": knn_purity(neighbors, types),
        "bASW": batch_silhouette(embedding, types, batches),
        "bASW all": overall_batch_silhouette(embedding, batches),
        "iLISI": batch_lisi(neighbors, batches),
    }
    found = embedding_metrics(embedding, types, batches)
    assert found == pytest.approx(expected, abs=1e-12)
    assert list(found) == list(EMBEDDING_METRICS)


def test_names_order_and_precision_of_the_input_do_not_matter(cells: Any) -> None:
    embedding, types, batches = cells["overlapping"], cells["types"], cells["batches"]
    expected = embedding_metrics(embedding, types, batches, resolutions=())
    order = np.random.default_rng(0).permutation(240)
    names = [f"type {i}" for i in types[order]]
    found = embedding_metrics(embedding[order].astype(np.float32), names, batches[order].astype(str), resolutions=())
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_batches_the_metrics_of_types_are_left(cells: Any) -> None:
    found = embedding_metrics(cells["apart"], cells["types"], resolutions=())
    assert list(found) == ["cASW", "cLISI", "GC", "purity"]


def test_few_cells_have_fewer_neighbours(cells: Any) -> None:
    found = embedding_metrics(cells["noise"][:6], list("aaabbb"), list("xyxyxy"), resolutions=())
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"embedding": np.full((6, 2), np.nan)}, "6 of 6 cells have NaN"),
        ({"embedding": np.eye(2)}, "at least three cells"),
        ({"embedding": np.eye(5), "cell_types": list("aabbb"), "batches": None}, "LISI needs at least 5 neighbours"),
        ({"cell_types": ["a"] * 6}, "at least 2 different cell types, all 6 cells have 'a'"),
        ({"cell_types": ["a", "b"]}, "one of the cell types for each of the 6 cells"),
        ({"batches": ["x"] * 6}, "at least 2 different batches, all 6 cells have 'x'"),
        ({"batches": list("xxxyyy")}, "2 of 2 are found in one batch only"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(changed: dict[str, Any], message: str, cells: Any) -> None:
    given: dict[str, Any] = {
        "embedding": cells["noise"][:6],
        "cell_types": list("aaabbb"),
        "batches": list("xyxyxy"),
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        embedding_metrics(**given, resolutions=())


def test_missing_libraries_are_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"epifoundation\[clustering\]"):
        embedding_metrics(np.full((6, 2), np.nan), list("aaabbb"))
