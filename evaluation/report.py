"""One table of all methods: mean and spread over seeds, run time and memory; as Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .result_store import Result, json_text, write_text

LESS_IS_BETTER = ("MSE", "ECE")


class Spread(NamedTuple):
    """A number over seeds.

    Attributes:
        mean: of the seeds where it is defined; NaN if it is in none.
        deviation: sample standard deviation; NaN for fewer than two values.
        num_values: how many seeds it is defined for.
    """

    mean: float
    deviation: float
    num_values: int


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: its name.
        title: in tables.
        num_seeds: how many seeds there are results for.
        metrics: title of a metric -> its spread.
        seconds: mean run time.
        peak_gigabytes: highest peak.
        notes: of all its results, each once.
    """

    method: str
    title: str
    num_seeds: int
    metrics: Mapping[str, Spread]
    seconds: float
    peak_gigabytes: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A comparison.

    Attributes:
        title: of the table.
        rows: a method each, in the order given.
        facts: name -> what was compared on what: data, split, seeds, command, versions.
        remarks: paragraphs below the table.
    """

    title: str
    rows: Sequence[Row]
    facts: Mapping[str, Any]
    remarks: Sequence[str] = ()

    @property
    def metrics(self) -> list[str]:
        """Titles of all metrics, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.metrics))

    def markdown(self) -> str:
        """Facts, table and remarks; the best mean of each metric in bold."""
        names = self.metrics
        arrows = ["↓" if name in LESS_IS_BETTER else "↑" for name in names]
        best = {name: self._best(name) for name in names}
        titles = [f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=True)]
        lines = [f"# {self.title}", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        lines += ["", _line(["method", *titles, "seconds", "peak GB"]), _line(["---"] * (len(names) + 3))]
        for row in self.rows:
            cells = [_cell(row.metrics.get(name), row.method in best[name]) for name in names]
            lines.append(_line([row.title, *cells, f"{row.seconds:.1f}", f"{row.peak_gigabytes:.2f}"]))
        notes = [f"- {row.title}: {note}" for row in self.rows for note in row.notes]
        lines += ["", *notes, *([""] if notes else [])]
        for remark in self.remarks:
            lines += [remark, ""]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """A row per method and metric: method, metric, mean, standard deviation, number of values."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", "metric", "mean", "standard_deviation", "num_values"])
        for row in self.rows:
            costs = {"seconds": row.seconds, "peak_gigabytes": row.peak_gigabytes}
            spreads = {**row.metrics, **{name: Spread(value, np.nan, row.num_seeds) for name, value in costs.items()}}
            for name, spread in spreads.items():
                writer.writerow([row.method, name, *("" if np.isnan(x) else f"{x:.6g}" for x in spread[:2]), spread[2]])
        return text.getvalue()

    def json(self) -> str:
        """All of it; values that are not defined are null."""
        rows = [asdict(row) | {"metrics": {k: v._asdict() for k, v in row.metrics.items()}} for row in self.rows]
        return json_text({"title": self.title, "facts": self.facts, "rows": rows, "remarks": list(self.remarks)})

    def write(self, folder: Path, name: str) -> None:
        """Write ``name.md``, ``name.csv`` and ``name.json``; each appears whole or not at all."""
        for ending, text in ((".md", self.markdown()), (".csv", self.csv()), (".json", self.json())):
            write_text(folder / f"{name}{ending}", text)

    def _best(self, metric: str) -> set[str]:
        """The methods whose mean, as it is printed, is the best; none if there is a single method."""
        means = {row.method: round(row.metrics[metric].mean, 3) for row in self.rows if metric in row.metrics}
        means = {method: mean for method, mean in means.items() if not np.isnan(mean)}
        if len(means) < 2:
            return set()
        best = (min if metric in LESS_IS_BETTER else max)(means.values())
        return {method for method, mean in means.items() if mean == best}


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Results of several seeds as a row per method, in the order of their first appearance."""
    by_method: dict[str, list[Result]] = {}
    for result in results:
        by_method.setdefault(result.method, []).append(result)
    return [_row(of_method) for of_method in by_method.values()]


def _row(results: Sequence[Result]) -> Row:
    names = dict.fromkeys(name for result in results for name in result.metrics)
    return Row(
        results[0].method,
        results[0].title,
        len(results),
        {name: _spread([result.metrics.get(name, np.nan) for result in results]) for name in names},
        float(np.mean([result.seconds for result in results])),
        max(result.peak_gigabytes for result in results),
        tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


def _spread(values: Sequence[float]) -> Spread:
    defined = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    if not len(defined):
        return Spread(float("nan"), float("nan"), 0)
    deviation = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
    return Spread(float(defined.mean()), deviation, len(defined))


def _cell(spread: Spread | None, is_best: bool) -> str:
    if spread is None or np.isnan(spread.mean):
        return "–"
    mean = f"**{spread.mean:.3f}**" if is_best else f"{spread.mean:.3f}"
    return mean if np.isnan(spread.deviation) else f"{mean} ± {spread.deviation:.3f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
