"""How long something takes, and how much memory the process holds meanwhile."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_RESET_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Cost(NamedTuple):
    """What a computation cost.

    Attributes:
        seconds: by the clock.
        peak_gigabytes: highest resident memory of the process meanwhile (10^9 bytes), with the data and libraries it
            held before. Where the system cannot say (not Linux), the highest since the process began.
    """

    seconds: float
    peak_gigabytes: float


def measured(compute: Callable[[], T]) -> tuple[T, Cost]:
    """What `compute` returns, and its cost."""
    is_reset = _reset_peak()
    started = time.perf_counter()
    value = compute()
    seconds = time.perf_counter() - started
    return value, Cost(seconds, _peak_since_reset() if is_reset else _peak_of_process())


def _reset_peak() -> bool:
    try:
        _RESET_PEAK.write_text("5")  # see proc(5): the peak starts again at what is resident now
    except OSError:
        return False
    return True


def _peak_since_reset() -> float:
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e9


def _peak_of_process() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
