import numpy as np
import pandas as pd
import pytest

from epifoundation.evaluation.agreement import agreement


def test_by_hand():
    # a: 2 of 3 found, nothing else called a -> F1 = 4/5; b: found once, called once more -> 2/3; c: never found
    scores = agreement(["a", "a", "a", "b", "c"], ["a", "a", "b", "b", "x"])
    assert scores == {"accuracy": 3 / 5, "macro_f1": pytest.approx((4 / 5 + 2 / 3 + 0) / 3)}


def test_a_missing_prediction_is_wrong():
    assert agreement(["a", "b"], pd.Categorical(["a", None], categories=["a", "b"]))["accuracy"] == 0.5


@pytest.mark.parametrize("lengths", [(0, 0), (2, 3)])
def test_lengths_must_fit(lengths):
    with pytest.raises(ValueError, match="as many predictions as cells"):
        agreement(*(np.full(n, "a") for n in lengths))
