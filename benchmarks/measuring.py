"""What the measurements of this folder share: runs in fresh processes that take turns, medians, results as files.

A benchmark is called twice over: by you, and by itself as ``--child CASE`` in a process of its own, where it prints
the figures of one run as JSON. Time is CPU seconds beside wall time, memory what the work adds to the process at its
peak. Linux only, as memory is read from /proc.
"""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
Figures = dict[str, float]


def measured(work: Callable[[], Any]) -> tuple[Figures, Any]:
    """Seconds of wall and CPU and added memory (MB) of one call, and what it returns."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), cpu_seconds()
    result = work()
    figures = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
    return figures | {"memory": memory("VmHWM") - before}, result


def cpu_seconds() -> float:
    """CPU time of this process and of the processes it waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def memory(key: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


def report_figures(figures: Mapping[str, Any]) -> None:
    """End a child: what it prints last is what `take_turns` reads."""
    print(json.dumps(figures))


def in_fresh_process(script: str, case: str, *words: str, threads: int = 1) -> Figures:
    """Figures of one run of a case of `script`."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, script, *words, f"--child={case}"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **limits})
    if run.returncode:
        raise RuntimeError(f"the case {case!r} of {Path(script).name} ended with {run.returncode}")
    figures: Figures = json.loads(run.stdout.strip().split("\n")[-1])
    return figures


def kept(place: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `compute` returns, written to a file; of a file that is there, what it holds: nothing is done twice."""
    if not place.is_file():
        figures = compute()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(figures, indent=1))
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def file_name(*words: str) -> str:
    """Words as the name of a file."""
    return "-".join(re.sub(r"[^a-zA-Z0-9.]+", "-", word).strip("-").lower() for word in words) + ".json"


def take_turns(
    script: str, cases: Iterable[str], repeats: int, *words: str, threads: int = 1
) -> dict[str, dict[str, Figures]]:
    """Median, lowest and highest of each figure of each case; the cases take turns, so that none has the quiet hour."""
    runs: dict[str, list[Figures]] = {case: [] for case in cases}
    for turn in range(repeats):
        for case, of_case in runs.items():
            of_case.append(in_fresh_process(script, case, *words, threads=threads))
            found = ", ".join(f"{key} {shown(value)}" for key, value in of_case[-1].items())
            print(f"  turn {turn + 1} of {repeats}: {case}: {found}", file=sys.stderr, flush=True)
    return {case: {key: spread(run[key] for run in of_case) for key in of_case[0]} for case, of_case in runs.items()}


def spread(values: Iterable[float]) -> Figures:
    """Median, lowest and highest."""
    listed = list(values)
    return {"median": statistics.median(listed), "low": min(listed), "high": max(listed)}


def environment(*packages: str) -> dict[str, Any]:
    """Versions and kind of machine, without names of the machine or its users."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    versions = {name: version(name) for name in ("epifoundation", "torch", "transformers", *packages)}
    return {"python": platform.python_version(), **versions, "cpu": cpu, "cores": os.cpu_count()}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table; numbers are rounded to three digits."""
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    return [*lines, *(f"| {' | '.join(map(shown, row))} |" for row in rows)]


def shown(value: Any) -> str:
    """A number as a reader wants it."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown_spread(figures: Figures) -> str:
    """Median and, in brackets, lowest and highest."""
    return f"{shown(figures['median'])} ({shown(figures['low'])} to {shown(figures['high'])})"


def leave_results(
    name: str,
    title: str,
    report: dict[str, Any],
    lines: Sequence[str],
    write: bool,
    words: str = "--write",
    notes: Path | None = None,
    script: str | None = None,
) -> None:
    """Print the Markdown; with `write` keep it and the JSON in the folder of results.

    What ``report["ratios"]`` holds is what `compare.py` watches: names and how many times better than the peer.
    `words` are those of the command; `notes` is a file of Markdown that says what the figures mean;
    `script` is the name of the script, if the results have another.
    """
    report = {"environment": environment(), **report}
    facts = ", ".join(f"{key} {value}" for key, value in report["environment"].items())
    said = notes.read_text().splitlines() if notes is not None and notes.is_file() else []
    text = "\n".join(
        [f"# {title}", "", f"`python benchmarks/{script or name}.py {words}`", "", f"{facts}.", "", *lines, *said]
    )
    text = text.rstrip() + "\n"
    print(text)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
        (RESULTS / f"{name}.md").write_text(text)
