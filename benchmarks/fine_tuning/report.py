"""Results as JSON, with everything needed to repeat them, and as Markdown."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import DataSet

from epifoundation.training.record import versions

SETTINGS = Path(__file__).resolve().parent.parent / "settings"
TITLES = {
    "embedding": "Cell types from embeddings that were learned without them",
    "classification": "Annotation of held-out cells",
    "expression": "Expression in held-out cells",
}


@dataclass(frozen=True)
class Result:
    """Scores of a method in a task, for one split and seed."""

    task: str
    split: str
    seed: int
    method: str
    scores: dict[str, float]


def write_report(place: Path, data: DataSet, words: list[str], results: Sequence[Result], seconds: float) -> None:
    """Write `place`.json and `place`.md."""
    name = place.name.removeprefix("training_")
    # Only the names of the files: where they lie is no business of a reader.
    command = shlex.join(["python", "benchmarks/fine_tuning/run.py", *(_without_folders(word) for word in words)])
    content = {
        "command": command,
        "versions": versions(),
        "wall_seconds": round(seconds),
        "settings": {file.name: file.read_text() for file in sorted(SETTINGS.glob(f"{name}_*.yaml"))},
        "results": [asdict(result) for result in results],
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    seeds = sorted({result.seed for result in results})
    lines = [
        f"# Fine-tuning: {data.title}",
        "",
        f"`{command}`",
        "",
        f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}; a seed decides on the split and on "
        f"all that is drawn. {seconds / 60:.0f} minutes by the clock, one thread on a machine with other work. "
        f"Versions, settings and every single score are in [{place.name}.json]({place.name}.json).",
        "",
    ]
    for task in TITLES:
        lines += table(task, results)
    lines += trials(place.with_name(f"{place.name}_trials.json"))
    notes = Path(__file__).with_name(f"notes_{name}.md")
    if notes.is_file():
        lines += notes.read_text().splitlines()
    place.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")


def table(task: str, results: Sequence[Result]) -> list[str]:
    """The Markdown of a task, a table for each split."""
    lines = []
    for split in dict.fromkeys(result.split for result in results if result.task == task):
        rows = [result for result in results if (result.task, result.split) == (task, split)]
        columns = [name for name in rows[0].scores if name != "genes"]
        lines += [f"## {TITLES[task]}: {split}", "", f"| method | {' | '.join(columns)} |"]
        lines += ["| --- " * (len(columns) + 1) + "|"]
        for method in dict.fromkeys(row.method for row in rows):
            scores = np.array([[row.scores[c] for c in columns] for row in rows if row.method == method])
            values = [f"{m:.3f} ± {s:.3f}" for m, s in zip(scores.mean(0), scores.std(0), strict=True)]
            lines.append(f"| {method} | {' | '.join(values)} |")
        lines.append("")
        if "genes" in rows[0].scores:
            genes = sorted({int(row.scores["genes"]) for row in rows})
            lines += [f"Correlations over {genes[0]:,} to {genes[-1]:,} genes whose level varies among the cells.", ""]
    return lines


def add_trial(file: Path, name: str, words: dict[str, str], results: Sequence[Result], seconds: float) -> None:
    """Add a trial to those of a data set, in place of an earlier one of the same name."""
    found = json.loads(file.read_text()) if file.is_file() else []
    rows = [asdict(result) for result in results if result.method.startswith("EpiFoundation")]
    trial: dict[str, Any] = {"name": name, "options": words, "wall_seconds": round(seconds), "results": rows}
    found = [one for one in found if one["name"] != name] + [trial]
    file.write_text(json.dumps(found, indent=1) + "\n")


def trials(file: Path) -> list[str]:
    """The Markdown of the trials."""
    if not file.is_file():
        return []
    lines = ["## Trials, on validation cells", "", "| what was changed | options | scores |", "| --- | --- | --- |"]
    for trial in json.loads(file.read_text()):
        options = "; ".join(f"{task}: `{words}`" for task, words in trial["options"].items())
        scores = "; ".join(
            f"{row['task']} "
            + ", ".join(f"{name} {value:.3f}" for name, value in row["scores"].items() if name != "genes")
            for row in trial["results"]
            if "shuffled" not in row["method"]
        )
        lines.append(f"| {trial['name']} | {options or 'none'} | {scores} |")
    return [*lines, ""]


def _without_folders(word: str) -> str:
    return Path(word).name if word.endswith((".h5ad", ".h5mu")) else word
