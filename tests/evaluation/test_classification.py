import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from transformers import EvalPrediction

from epifoundation.evaluation import classification_scores, expected_calibration_error, mean_probabilities
from epifoundation.training.metrics import classification_metrics

CLASSES = ["B", "NK", "T"]


def some_cells(num_cells: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Types and probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 3, num_cells)
    types[:3] = range(3)
    probabilities = rng.dirichlet([0.7] * 3, num_cells) + 0.5 * np.eye(3)[types]
    return np.array(CLASSES)[types], probabilities / probabilities.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 60))
def test_scores_are_those_of_scikit_learn(seed: int, num_cells: int) -> None:
    types, probabilities = some_cells(num_cells, seed)
    predicted = np.array(CLASSES)[probabilities.argmax(axis=1)]
    scores = classification_scores(types, probabilities, CLASSES)
    assert scores.titled() == pytest.approx(
        {
            "ACC": sk.accuracy_score(types, predicted),
            "macro F1": sk.f1_score(types, predicted, average="macro", zero_division=0),
            "micro F1": sk.f1_score(types, predicted, average="micro"),
            "ROC-AUC": sk.roc_auc_score(types, probabilities, multi_class="ovr", labels=CLASSES),
            "ECE": scores.calibration_error,
        },
        abs=1e-12,
    )
    np.testing.assert_array_equal(scores.confusion, sk.confusion_matrix(types, predicted, labels=CLASSES))
    assert scores.ranked == tuple(CLASSES)
    assert scores.absent == ()


def test_three_cells_by_hand() -> None:
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    scores = classification_scores(["a", "b", "b"], probabilities, ["a", "b"])
    assert scores.accuracy == scores.micro_f1 == pytest.approx(2 / 3)
    assert scores.macro_f1 == pytest.approx(2 / 3)  # 2·1/(2 + 1) for a, 2·1/(1 + 2) for b
    assert scores.roc_auc == pytest.approx(0.5)  # of the two pairs of a and b, one is in order
    assert scores.confusion.tolist() == [[1, 0], [1, 1]]


def test_the_definitions_are_those_of_training() -> None:
    types, probabilities = some_cells()
    codes = np.array([CLASSES.index(name) for name in types])
    codes[codes == 1] = 0  # an absent class that is predicted all the same
    scores = classification_scores(np.array(CLASSES)[codes], probabilities, CLASSES)
    while_training = classification_metrics(EvalPrediction(probabilities.argmax(axis=1), codes))
    assert (scores.accuracy, scores.macro_f1, scores.micro_f1) == pytest.approx(
        tuple(while_training[key] for key in ("accuracy", "macro_f1", "micro_f1"))
    )


def test_absent_classes_have_no_area_and_are_said() -> None:
    types, probabilities = some_cells()
    kept = types != "NK"
    scores = classification_scores(types[kept], probabilities[kept], CLASSES)
    assert scores.absent == ("NK",)
    assert scores.ranked == ("B", "T")
    areas = [sk.roc_auc_score(types[kept] == name, probabilities[kept, CLASSES.index(name)]) for name in "BT"]
    assert scores.roc_auc == pytest.approx(np.mean(areas))


def test_types_no_training_cell_had_count_as_wrong() -> None:
    types, probabilities = some_cells()
    changed = types.astype(object)
    changed[:10] = "new"
    scores = classification_scores(changed, probabilities, CLASSES)
    predicted = np.array(CLASSES)[probabilities.argmax(axis=1)]
    assert scores.accuracy == pytest.approx((types[10:] == predicted[10:]).sum() / 90)
    assert scores.classes == ("B", "NK", "T", "new")
    assert scores.confusion[3].sum() == 10
    assert scores.confusion[:, 3].sum() == 0
    assert scores.ranked == tuple(CLASSES)


def test_one_type_alone_has_no_area() -> None:
    scores = classification_scores(["B"] * 3, np.full((3, 3), 1 / 3), CLASSES)
    assert np.isnan(scores.roc_auc)
    assert scores.ranked == ()
    assert scores.accuracy == 1  # the first of equals


def test_calibration_error_by_hand() -> None:
    # Bins (0, .5] and (.5, 1]: a cell at .5 belongs to the first.
    is_right, confidence = np.array([1, 0, 1, 1]), np.array([0.5, 0.4, 0.9, 0.6])
    error = expected_calibration_error(is_right, confidence, num_bins=2)
    assert error == pytest.approx(2 / 4 * abs(0.45 - 0.5) + 2 / 4 * abs(0.75 - 1))


def test_the_bins_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(500), [0, 1, 1 / 15, 0.2])
    is_right = rng.random(504) < confidence
    total = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        inside |= (confidence == 0) & (k == 0)
        if inside.any():
            total += inside.sum() / 504 * abs(confidence[inside].mean() - is_right[inside].mean())
    assert expected_calibration_error(is_right, confidence) == pytest.approx(total)


def test_mean_probabilities_of_each_true_type() -> None:
    probabilities = np.array([[0.6, 0.4], [0.8, 0.2], [0.1, 0.9], [0.5, 0.5]])
    means, rows = mean_probabilities(["b", "b", "a", "new"], probabilities, ["a", "b"])
    assert rows == ("a", "b", "new")
    np.testing.assert_allclose(means, [[0.1, 0.9], [0.7, 0.3], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("types", "probabilities", "classes", "message"),
    [
        (["x", "y", "x"], np.full((3, 2), 0.5), ["a", "b"], r"none of the cell types \(x, y\) is a class .* \(a, b\)"),
        (["a", "b"], np.full((3, 2), 0.5), ["a", "b"], "one of the cell types for each of the 3 cells"),
        (["a"], np.full((1, 3), 1 / 3), ["a", "b"], r"probabilities \(cells, 2 classes\), got \(1, 3\)"),
        (["a"], np.array([[2.0, -1.0]]), ["a", "b"], "sum to 1 for each cell, got values from -1 to 2 .*logits"),
        (["a"], np.array([[np.nan, 1.0]]), ["a", "b"], "sum to 1 for each cell, got values from nan"),
        (["a"], np.array([[0.5, 0.5]]), ["a", "a"], "a class is named twice"),
    ],
)
def test_what_does_not_fit_is_refused(
    types: list[str], probabilities: np.ndarray, classes: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_scores(types, probabilities, classes)
