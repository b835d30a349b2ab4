"""How well cell types are predicted, and whether the confidence in them can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from .checks import checked_labels

NUM_BINS = 15  # of the calibration error, as Guo et al. 2017
SUM_TOLERANCE = 1e-3  # of the probabilities of a cell; half precision keeps three digits


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of predicted cell types; all but the last four in [0, 1].

    Attributes:
        accuracy: share of cells that are given their type.
        macro_f1: F1 of each type, averaged over types that occur or are predicted; F1 is 0 where nothing is right.
        micro_f1: F1 over all cells; equals the accuracy, as each cell has one type.
        roc_auc: area under the ROC curve of each type against the rest, averaged over `ranked`; NaN if there are none.
        calibration_error: see `expected_calibration_error`; less is better.
        classes: rows and columns of `confusion`: the classes predicted from, then types that are none of them.
        confusion: (classes, classes) number of cells, the true type in rows, the predicted one in columns.
        ranked: types with an area: classes that some cells have and others have not.
        absent: classes that no cell has; they have no area, and no F1 unless they are predicted.
    """

    accuracy: float
    macro_f1: float
    micro_f1: float
    roc_auc: float
    calibration_error: float
    classes: tuple[str, ...]
    confusion: np.ndarray
    ranked: tuple[str, ...]
    absent: tuple[str, ...]

    def titled(self) -> dict[str, float]:
        """The scores under their short titles."""
        return {
            "ACC": self.accuracy,
            "macro F1": self.macro_f1,
            "micro F1": self.micro_f1,
            "ROC-AUC": self.roc_auc,
            "ECE": self.calibration_error,
        }


def classification_scores(cell_types: Any, probabilities: np.ndarray, classes: Sequence[str]) -> ClassificationScores:
    """Scores of probabilities: the likeliest class is the one predicted, the first of equals.

    A cell whose type is none of the classes, because no training cell had it, counts as wrong in all but ROC-AUC,
    where it belongs to the rest of each class. Numbers are those of scikit-learn.

    Args:
        cell_types: the true one of each cell.
        probabilities: (cells, classes), each row summing to 1.
        classes: names of the columns.

    Raises:
        ValueError: if shapes do not fit, probabilities are none, or no cell has one of the classes.
    """
    columns = [str(name) for name in classes]
    probabilities = checked_probabilities(probabilities, columns)
    codes, names = checked_labels(cell_types, len(probabilities), "cell types")
    truth = names.astype(str)[codes]
    unknown = sorted(set(truth) - set(columns))
    if len(unknown) == len(names):
        raise ValueError(
            f"none of the cell types ({', '.join(unknown[:3])}) is a class of the model ({', '.join(columns[:3])}): "
            "expected the same names on both sides"
        )
    predicted = np.array(columns)[probabilities.argmax(axis=1)]
    areas = ranking_areas(truth, probabilities, columns)
    all_classes = (*columns, *unknown)
    return ClassificationScores(
        accuracy=float(accuracy_score(truth, predicted)),
        macro_f1=float(f1_score(truth, predicted, average="macro", zero_division=0)),
        micro_f1=float(f1_score(truth, predicted, average="micro", zero_division=0)),
        roc_auc=float(np.mean(list(areas.values()))) if areas else float("nan"),
        calibration_error=expected_calibration_error(truth == predicted, probabilities.max(axis=1)),
        classes=all_classes,
        confusion=confusion_matrix(truth, predicted, labels=list(all_classes)),
        ranked=tuple(areas),
        absent=tuple(name for name in columns if name not in set(truth)),
    )


def ranking_areas(cell_types: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Area under the ROC curve of each class against the rest, where some cells have the class and others have not."""
    areas = {}
    for name, column in zip(classes, probabilities.T, strict=True):
        is_class = cell_types == name
        if 0 < is_class.sum() < len(is_class):
            areas[name] = float(roc_auc_score(is_class, column))
    return areas


def expected_calibration_error(is_right: np.ndarray, confidence: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Mean distance in [0, 1] between confidence and share of right answers; 0 if 80 % sure means right in 80 %.

    Cells fall into bins of equal width by the probability of their predicted class, each bin open below and closed
    above; bins weigh by their cells (Guo et al. 2017, equation 3, 15 bins).

    Args:
        is_right: (cells,) whether the prediction is right.
        confidence: (cells,) probability of the predicted class.
        num_bins: how many bins.
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    surplus = np.bincount(bins, confidence - is_right, minlength=num_bins)
    return float(np.abs(surplus).sum() / len(bins))


def mean_probabilities(
    cell_types: Any, probabilities: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """What each true type is taken for on average: (types, classes) mean probabilities, and the types of the rows.

    Types that are classes come in the order of `classes`, others sorted after them; absent classes have no row.
    """
    columns = [str(name) for name in classes]
    probabilities = checked_probabilities(probabilities, columns)
    codes, names = checked_labels(cell_types, len(probabilities), "cell types")
    truth = names.astype(str)[codes]
    found = set(truth)
    rows = [name for name in columns if name in found] + sorted(found - set(columns))
    return np.stack([probabilities[truth == name].mean(axis=0) for name in rows]), tuple(rows)


def checked_probabilities(probabilities: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The same as float64.

    Raises:
        ValueError: if they are not (cells, classes) numbers from 0 to 1 that sum to 1 for each cell.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice: each column of probabilities needs a name of its own")
    if values.ndim != 2 or values.shape[1] != len(classes) or not len(values):
        raise ValueError(f"expected probabilities (cells, {len(classes)} classes), got {values.shape}")
    sums = values.sum(axis=1)
    if not (values >= 0).all() or not (np.abs(sums - 1) <= SUM_TOLERANCE).all():
        raise ValueError(
            f"expected probabilities that sum to 1 for each cell, got values from {values.min():.3g} to "
            f"{values.max():.3g} and sums from {sums.min():.3g} to {sums.max():.3g}: are they logits?"
        )
    return values
