"""How far predicted cell types agree with known ones, where there are no probabilities."""

from typing import Any

import numpy as np
from sklearn.metrics import f1_score


def agreement(cell_types: Any, predicted: Any) -> dict[str, float]:
    """Accuracy, and F1 averaged over the types that occur (`macro_f1`); both in [0, 1].

    A cell without a prediction (NaN) counts as wrong.

    Args:
        cell_types: the true one of each cell.
        predicted: the predicted one, in the same order.

    Raises:
        ValueError: if there are no cells, or the lengths differ.
    """
    truth, given = np.asarray(cell_types, dtype=str), np.asarray(predicted, dtype=str)
    if len(truth) != len(given) or not len(truth):
        raise ValueError(f"expected as many predictions as cells, got {len(given)} for {len(truth)}")
    f1 = f1_score(truth, given, labels=np.unique(truth), average="macro", zero_division=0)
    return {"accuracy": float((truth == given).mean()), "macro_f1": float(f1)}
