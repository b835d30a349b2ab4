"""Compare new results with the committed ones: by ratios, never by absolute times, which belong to a machine.

    python benchmarks/encoder.py --write
    python benchmarks/compare.py [encoder ...] [--tolerance 0.2]

Each benchmark leaves ratios in which more is better. Those of benchmarks/results in the working tree are compared with
those of the last commit (or of ``--against REVISION``); a ratio that fell by more than the tolerance ends with code 1.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measuring import RESULTS, table


def main() -> None:
    """Compare, print, and fail if a ratio fell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="benchmarks; by default all that have results")
    parser.add_argument("--against", default="HEAD", help="revision whose results to compare with")
    parser.add_argument("--tolerance", type=float, default=0.2, help="share that a ratio may fall by")
    arguments = parser.parse_args()
    rows, num_worse = [], 0
    for name in arguments.names or sorted(file.stem for file in RESULTS.glob("*.json")):
        new = json.loads((RESULTS / f"{name}.json").read_text()).get("ratios", {})
        for key, before, now in changes(committed(name, arguments.against), new):
            is_worse = now < before * (1 - arguments.tolerance)
            num_worse += is_worse
            rows.append((name, key, float(before), float(now), "WORSE" if is_worse else ""))
    print("\n".join(table(("benchmark", "ratio", "committed", "now", ""), rows)))
    if num_worse:
        sys.exit(f"{num_worse} of {len(rows)} ratios fell by more than {arguments.tolerance:.0%}")


def committed(name: str, revision: str) -> dict[str, float]:
    """The ratios at a revision; none if the benchmark is new."""
    where = f"{revision}:./{RESULTS.name}/{name}.json"
    run = subprocess.run(["git", "show", where], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return json.loads(run.stdout).get("ratios", {}) if run.returncode == 0 else {}


def changes(before: dict[str, float], now: dict[str, float]) -> list[tuple[str, float, float]]:
    """Name, value before and value now of the ratios that both have."""
    return [(key, before[key], now[key]) for key in before if key in now]


if __name__ == "__main__":
    main()
