"""Comparisons of methods on the same cells: a result for each method and seed, kept as soon as it is there."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import epifoundation
from epifoundation.evaluation.baselines import Baseline, MeasuredCells
from epifoundation.evaluation.measuring import measured
from epifoundation.evaluation.result_store import Result, ResultStore, digest_of

from .cells import EvaluationData, held_out
from .models import SMALL

VALIDATION_SHARE = 0.2
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Options:
    """What all comparisons have in common; all of it enters the digest of a result, but for `output`.

    Attributes:
        output: folder for results, models, tables and figures.
        seeds: of the divisions and of the methods.
        holdout: see `held_out`.
        share: see `held_out`.
        test_batches: see `held_out`.
        on_validation: compare on a fifth of the training cells of each type, and leave the cells held out alone.
        min_cells_per_gene: genes expressed in fewer training cells are left out.
        settings: see `SplitModels`.
        method_options: name of a method -> its further arguments.
    """

    output: Path
    seeds: Sequence[int] = (0,)
    holdout: str = "cell"
    share: float = 0.2
    test_batches: Sequence[str] = ()
    on_validation: bool = False
    min_cells_per_gene: int = 20
    settings: Mapping[str, Path] = field(default_factory=dict)
    method_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def split_words(self) -> str:
        """How cells are held out, for a reader."""
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        if self.on_validation:
            return f"validation: {VALIDATION_SHARE:.0%} of the training cells of each type, {seeds}"
        if self.holdout == "split":
            return f"the divisions of the data, {seeds}"
        if self.test_batches:
            return f"held out: the batches {', '.join(self.test_batches)}, {seeds}"
        things = "the cells of each type" if self.holdout == "cell" else "the batches"
        return f"held out: {self.share:.0%} of {things}, {seeds}"


@dataclass(frozen=True, eq=False)
class Split:
    """Training and held-out cells of one seed.

    Attributes:
        seed: the seed.
        data: all cells.
        train_rows: rising positions of the training cells.
        test_rows: rising positions of the others.
        genes: (genes,) bool, those to predict; or None.
        levels: (cells, those genes) levels of expression; or None.
    """

    seed: int
    data: EvaluationData
    train_rows: np.ndarray
    test_rows: np.ndarray
    genes: np.ndarray | None = None
    levels: Any = None

    @cached_property
    def train(self) -> EvaluationData:
        """The training cells."""
        return self.data.rows(self.train_rows)

    @cached_property
    def test(self) -> EvaluationData:
        """The cells held out."""
        return self.data.rows(self.test_rows)

    @cached_property
    def gene_names(self) -> list[str]:
        """Names of the genes to predict."""
        return [] if self.genes is None else [self.data.gene_names[i] for i in np.flatnonzero(self.genes)]

    @cached_property
    def cells(self) -> MeasuredCells:
        """What the other methods get: the cells of this split, in the order of the data."""
        is_train = np.zeros(self.data.num_cells, dtype=bool)
        is_train[self.train_rows] = True
        keep = np.sort(np.concatenate([self.train_rows, self.test_rows]))
        data = self.data.rows(keep)
        return MeasuredCells(
            data.peaks,
            is_train[keep],
            data.batches,
            data.cell_types,
            None if self.genes is None or data.genes is None else data.genes[:, self.genes],
            None if self.levels is None else self.levels[keep],
            data.peak_names,
            tuple(self.gene_names),
            data.genome,
        )


class Job(NamedTuple):
    """A method to run.

    Attributes:
        method: its name.
        title: in tables.
        run: gives its answer.
        uses: what it learns from.
    """

    method: str
    title: str
    run: Callable[[], Any]
    uses: str


class Results(NamedTuple):
    """What methods answered.

    Attributes:
        finished: method by method, seed by seed.
        left_out: title of a method that could not be used -> why.
    """

    finished: list[Result]
    left_out: dict[str, str]


def split_of(data: EvaluationData, options: Options, seed: int) -> Split:
    """The split of a seed."""
    train, test = held_out(data, options.holdout, options.share, seed, options.test_batches)
    if options.on_validation:
        train, test = (train[rows] for rows in held_out(data.rows(train), "cell", VALIDATION_SHARE, seed))
    return Split(seed, data, train, test)


def baseline_jobs(methods: Sequence[Baseline], split: Split, options: Options, finish: Callable[..., Any]) -> list[Job]:
    """A job for each of the methods; `finish` takes from its answer what concerns the held-out cells."""

    def job(method: Baseline) -> Job:
        given = options.method_options.get(method.name, {})
        return Job(method.name, method.title, lambda: finish(method.run(split.cells, split.seed, **given)), method.uses)

    return [job(method) for method in methods]


def run_jobs(
    task: str,
    data_digest: str,
    options: Options,
    splits: Sequence[Split],
    jobs_of: Callable[[Split], list[Job]],
    score: Callable[[Split, Any], Scores],
) -> Results:
    """Results of all methods and seeds; finished ones are taken from the store.

    A method that cannot be used on these data, or whose library does not work, is left out with a warning.

    Raises:
        ValueError: if no method is left.
    """
    store = ResultStore(options.output / "results" / task)
    by_method: dict[str, list[Result]] = {}
    todo = [(split, job) for split in splits for job in jobs_of(split)]
    left_out: dict[str, str] = {}
    with tqdm(total=len(todo), desc=task, unit="run", disable=None) as progress:
        for split, job in todo:
            progress.set_postfix_str(f"{job.title}, seed {split.seed}")
            if job.title not in left_out:
                try:
                    result = _result(store, job, split, data_digest, options, task, score)
                    by_method.setdefault(job.method, []).append(result)
                except (ValueError, ImportError) as error:
                    left_out[job.title] = str(error)
                    warnings.warn(f"{job.title} is left out: {error}", stacklevel=2)
            progress.update()
    if not by_method:
        raise ValueError("no method could be used; the warnings above tell why")
    return Results([result for job in jobs_of(splits[0]) for result in by_method.get(job.method, [])], left_out)


def _result(
    store: ResultStore,
    job: Job,
    split: Split,
    data_digest: str,
    options: Options,
    task: str,
    score: Callable[[Split, Any], Scores],
) -> Result:
    digest = _digest(job, split, data_digest, options, task)
    found = store.load(job.method, split.seed, digest)
    if found is not None:
        return found
    answer, cost = measured(job.run)
    metrics, arrays = score(split, answer)
    result = Result(job.method, job.title, split.seed, digest, metrics, cost.seconds, cost.peak_gigabytes)
    store.save(result, arrays)
    return result


def _digest(job: Job, split: Split, data_digest: str, options: Options, task: str) -> str:
    contents = {name: path.read_text(encoding="utf-8") for name, path in options.settings.items()}
    return digest_of(
        version=epifoundation.__version__,
        task=task,
        method=job.method,
        title=job.title,
        data=data_digest,
        seed=split.seed,
        train=digest_of(rows=split.train_rows.tolist()),
        test=digest_of(rows=split.test_rows.tolist()),
        min_cells_per_gene=options.min_cells_per_gene,
        genes=split.gene_names,
        settings=SMALL | contents,
        method_options=options.method_options.get(job.method, {}),
    )


def usable(methods: Sequence[Baseline], *, are_named: bool) -> list[Baseline]:
    """The methods whose libraries are installed.

    Raises:
        ImportError: if one that the user named is not, with the command that installs it.
    """
    found = []
    for method in methods:
        missing = [name for name in method.modules if find_spec(name) is None]
        message = f'{method.title} needs {", ".join(missing)}: pip install "epifoundation[{method.extra}]"'
        if not missing:
            found.append(method)
        elif are_named:
            raise ImportError(message)
        else:
            warnings.warn(f"{message}; it is left out", stacklevel=2)
    return found
