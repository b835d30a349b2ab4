import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.evaluation import refuse_other_cells, shared_genes, types_of_one_batch
from epifoundation.evaluation.checks import checked_embedding, checked_labels


def test_a_good_embedding_comes_back_in_double_precision() -> None:
    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    checked = checked_embedding(embedding)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(checked, embedding)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        (np.zeros(4), r"dense array \(cells, dimensions\), got ndarray of shape \(4,\)"),
        (sp.csr_matrix(np.eye(4)), r"dense array .*got csr_matrix of shape \(4, 4\)"),
        (np.zeros((2, 4)), r"at least three cells .*got embedding \(2, 4\)"),
        (np.zeros((4, 0)), r"one dimension or more, got embedding \(4, 0\)"),
        (np.array([[1.0], [2], [np.nan], [np.inf]]), "2 of 4 cells have NaN or infinity in the embedding.* row 2"),
    ],
)
def test_what_is_no_embedding_is_refused(embedding: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_embedding(embedding)


def test_labels_become_numbers_in_the_order_of_their_first_cell() -> None:
    column = pd.Series(["b", "a", "b"], dtype=pd.CategoricalDtype(["a", "b", "unused"]))
    for labels in (column, ["b", "a", "b"], np.array(["b", "a", "b"])):
        codes, names = checked_labels(labels, 3, "cell types")
        assert codes.tolist() == [0, 1, 0]
        assert list(names) == ["b", "a"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], r"one of the batches for each of the 3 cells, got \(2,\): take both from the same table"),
        ([["a"], ["b"], ["c"]], r"for each of the 3 cells, got \(3, 1\)"),
        (["a", None, float("nan")], "2 of 3 cells have none of the batches: leave them out"),
        (["a", "a", "a"], "at least 2 different batches, all 3 cells have 'a'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_labels(labels, 3, "batches", min_labels=2)


def test_cells_in_another_order_are_told_from_other_cells() -> None:
    refuse_other_cells(["c1", "c2"], ["c1", "c2"])
    with pytest.raises(ValueError, match=r"another order \(row 0 is 'c2', expected 'c1'\): sort its rows by cell name"):
        refuse_other_cells(["c2", "c1"], ["c1", "c2"])
    with pytest.raises(ValueError, match=r"LSI has other cells \(row 1 is 'c3', expected 'c2'\)"):
        refuse_other_cells(["c1", "c3"], ["c1", "c2"], "LSI")
    with pytest.raises(ValueError, match="has 1 cells, expected 2"):
        refuse_other_cells(["c1"], ["c1", "c2"])


@given(st.lists(st.text(max_size=2), unique=True), st.lists(st.text(max_size=2), unique=True))
def test_shared_genes_are_those_of_both_lists(predicted: list[str], measured: list[str]) -> None:
    shared = [name for name in predicted if name in measured]
    if not shared:
        with pytest.raises(ValueError, match="none of the"):
            shared_genes(predicted, measured)
        return
    first, second = shared_genes(predicted, measured)
    assert [predicted[i] for i in first] == [measured[i] for i in second] == shared


def test_gene_lists_that_cannot_be_matched_are_explained() -> None:
    with pytest.raises(ValueError, match=r"none of the 1 predicted genes \(GATA1\).*4 measured ones \(a, b, c, …\)"):
        shared_genes(["GATA1"], ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="measured genes are named more than once: a"):
        shared_genes(["a"], ["a", "b", "a"])


def test_types_of_one_batch_are_named() -> None:
    assert types_of_one_batch(["b", "b", "c", "c", "a"], [1, 2, 1, 1, 2]) == ["a", "c"]
