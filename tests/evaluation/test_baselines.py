import importlib

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from epifoundation.evaluation.baselines import (
    ANNOTATORS,
    EMBEDDINGS,
    EXPRESSION,
    UNKNOWN_TYPE,
    MeasuredCells,
    chosen,
    required,
    undisturbed,
)


def cells(**changes):
    given = {
        "peaks": csr_matrix(np.eye(4, dtype=np.float32)),
        "is_train": np.array([True, True, False, True]),
        "batches": np.array(["a", "a", "b", "b"]),
        "cell_types": np.array(["T", "B", "secret", "T"]),
    }
    return MeasuredCells(**given | changes)


def test_types_of_held_out_cells_are_never_told():
    assert cells().known_types.tolist() == ["T", "B", UNKNOWN_TYPE, "T"]
    assert cells().train_types.tolist() == ["T", "B", "T"]


def test_what_does_not_describe_the_same_cells_is_refused():
    with pytest.raises(ValueError, match=r"one row per cell in each, in the same order, got .*'batches': 3"):
        cells(batches=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match="cells held out, got 4 of 4 to learn from"):
        cells(is_train=np.ones(4, dtype=bool))
    with pytest.raises(ValueError, match="learns from cell types, and there are none"):
        _ = cells(cell_types=None).train_types


def test_methods_are_named_in_the_order_asked_for():
    assert [method.title for method in chosen(["lsi", "pca"], EMBEDDINGS)] == ["TF-IDF + LSI", "PCA"]
    with pytest.raises(ValueError, match="no method umap: choose of pca, lsi, harmony"):
        chosen(["lsi", "umap"], EMBEDDINGS)


@pytest.mark.parametrize("methods", [EMBEDDINGS, ANNOTATORS, EXPRESSION])
def test_every_method_is_there(methods):
    for name, method in methods.items():
        module, _, function = method.function.partition(":")
        assert callable(getattr(importlib.import_module(f"epifoundation.evaluation.{module}"), function))
        assert (method.extra is None) == (method.modules == ())
        assert name == method.name


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    with pytest.raises(ImportError, match=r'not_there_at_all.*pip install "epifoundation\[baselines\]"'):
        required("not_there_at_all", "baselines")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import pkg_resources_that_is_gone", "is installed but cannot be imported: No module named 'pkg_resources_th"),
        ("raise ImportError('needs bokeh')", "half_installed, which is installed but cannot be imported: needs bokeh"),
        ("raise ImportError('gone', name='pkg_resources')", r'an older setuptools: pip install "setuptools<81"'),
    ],
)
def test_a_library_that_does_not_work_says_why(line, reason, tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=reason):
        required("half_installed", "baselines")


def test_libraries_leave_the_seeds_of_the_caller_alone():
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with undisturbed():
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)
    np.testing.assert_array_equal(np.random.get_state()[1], expected[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[1])
