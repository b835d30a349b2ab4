import sys
import time

import numpy as np
import pytest

from epifoundation.evaluation import measuring
from epifoundation.evaluation.measuring import measured


def test_value_and_time_come_back():
    value, cost = measured(lambda: time.sleep(0.05) or "done")
    assert value == "done"
    assert 0.05 <= cost.seconds < 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a part of a process")
def test_memory_that_is_given_back_counts_in_its_own_peak_alone():
    _, small = measured(lambda: None)
    _, large = measured(lambda: np.ones(40_000_000).sum())  # 320 MB
    _, after = measured(lambda: None)
    assert 0.25 < large.peak_gigabytes - small.peak_gigabytes < 0.6
    assert after.peak_gigabytes < large.peak_gigabytes - 0.2


def test_elsewhere_the_peak_of_the_process_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "_RESET_PEAK", tmp_path / "no" / "file")
    assert 0.05 < measured(lambda: None)[1].peak_gigabytes < 100
