"""Time and memory of a peak vocabulary of a million peaks: reading names, saving, loading, mapping.

    python benchmarks/peak_vocabulary.py [--peaks 1000000] [--repeats 5]

Loading is measured in fresh processes; memory is what the resident set grows by.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from epifoundation.tokenization import PeakVocabulary

LOAD = """
import json, resource, sys, time
from epifoundation.tokenization import PeakVocabulary
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, started = resident(), time.perf_counter()
vocabulary = PeakVocabulary.load(sys.argv[1])
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "mebibytes": (resident() - before) / 2**20, "peaks": len(vocabulary)}))
"""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peaks", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    names = peak_names(arguments.peaks)
    started = time.perf_counter()
    vocabulary = PeakVocabulary.from_names(names, genome="made up")
    rows = {"from names": time.perf_counter() - started}
    started = time.perf_counter()
    mapping = vocabulary.map(names)
    rows["map as many names"] = time.perf_counter() - started
    assert mapping.num_exact == len(names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peaks.npz"
        vocabulary.save(path)
        loads = [load_in_a_fresh_process(path) for _ in range(arguments.repeats)]
        size = path.stat().st_size / 2**20
    seconds = [load["seconds"] for load in loads]
    rows["load (median)"], rows["load (slowest)"] = statistics.median(seconds), max(seconds)

    print(f"{arguments.peaks:,} peaks, {arguments.repeats} loads; file {size:.1f} MiB, ", end="")
    print(f"memory after loading +{statistics.median(load['mebibytes'] for load in loads):.0f} MiB\n")
    print("| step | seconds |\n| --- | --- |")
    for step, value in rows.items():
        print(f"| {step} | {value:.3f} |")


def peak_names(num_peaks: int) -> list[str]:
    """Disjoint peaks of 500 bp, spread evenly over 24 chromosomes."""
    starts = np.arange(num_peaks) // 24 * 2500
    return [f"chr{1 + i % 24}:{start}-{start + 500}" for i, start in enumerate(starts.tolist())]


def load_in_a_fresh_process(path: Path) -> dict[str, float]:
    """Seconds and memory of one load."""
    run = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


if __name__ == "__main__":
    main()
