"""From raw files to tokenised cells: quality control, peaks, counts, clusters, cell types, splits.

The curation of appendix A of the EpiFoundation paper, with one difference: cells are clustered within each sample,
not all together, so that a sample is prepared once, whatever others come with it, and no correction of batches is
needed before. The output is a folder of sealed folders (`sealed_folders`); a call that finds some of them done goes
on with the others.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from epifoundation.sharing import complete_dataset
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary, canonical_genome

from ..genome.genome_sets import MergedIntervals, num_overlapping_peaks
from ..matrices.matrix_joining import join_matrices
from ..quality.quality_filters import QualityFilters
from ..readers.peak_files import open_peak_file
from ..tokenized.tokenized_folder import Split, TokenizedReport, tokenize_files
from .file_engine import Engine, Outcome, work_on_files
from .peak_calling import call_peaks, without_blacklist
from .preparation_record import write_record
from .sample_preparation import ATAC, RNA, Sample, SampleReport, measure_sample, prepare_sample, read_quality
from .sealed_folders import file_digest, is_sealed, sealed_folder, text_digest

VERSION = 1  # of what the folders hold: to be raised when the same recipe would give something else
CALL = "call"
PEAKS, QUALITY, SAMPLES, MATRICES, CELLS = "peaks", "quality", "samples", "matrices", "cells"
PEAKS_FILE = "peaks.npz"


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """How samples are prepared.

    Attributes:
        filters: which barcodes are cells.
        genome: assembly of the files.
        blacklist: BED file of stretches without meaning; peaks in it are left out, unless they are a tokenizer's.
        reference: profiles of cell types, see `read_reference`; without them no types are named.
        min_fragments: fragments a barcode needs to be looked at.
        resolution: of the clusters.
        seed: of clusters.
        split: how cells are divided for training.
    """

    filters: QualityFilters = field(default_factory=lambda: QualityFilters.named("paper"))
    genome: str = "hg38"
    blacklist: Path | None = None
    reference: Path | None = None
    min_fragments: int = 100
    resolution: float = 1.0
    seed: int = 0
    split: Split = field(default_factory=Split)


@dataclass(frozen=True)
class PreparationReport:
    """What became of the samples.

    Attributes:
        samples: reports by the name of the sample, of those prepared in this call.
        finished: names of the samples that were prepared before.
        failed: what went wrong, by the name of the sample.
        tokenized: report on the tokenised cells, if they were written in this call.
        num_cells: cells of all samples; 0 if some failed.
    """

    samples: dict[str, SampleReport]
    finished: list[str]
    failed: dict[str, str]
    tokenized: TokenizedReport | None
    num_cells: int


def prepare(
    samples: Sequence[Sample],
    output: str | os.PathLike[str],
    *,
    peaks: PeakTokenizer | PeakVocabulary | str | None = None,
    settings: PreparationSettings | None = None,
    jobs: int = 1,
    engine: Engine = "processes",
    overwrite: bool = False,
    show_progress: bool = True,
) -> PreparationReport:
    """Prepare samples; see `PreparationReport.failed` for those that could not be.

    Below `output` appear, each complete or not at all: ``quality/SAMPLE`` (`measure_sample`), ``peaks``,
    ``samples/SAMPLE`` (`prepare_sample`), and once all samples are done ``matrices`` (``atac.h5ad`` and ``rna.h5ad``
    of all cells together) and ``cells``, the tokenised cells for training. Called again, it does what is missing; with
    more samples than before, the last two are made anew.

    Args:
        samples: the samples; either all or none have RNA.
        output: a folder, made if needed.
        peaks: a tokenizer, whose peaks and genes are used; a vocabulary; "call" to call peaks by MACS3 on all cells
            of all samples; None to take the peaks of the samples, which then must be counts in the same peaks.
        settings: how they are prepared.
        jobs: samples worked on at a time.
        engine: where, see `work_on_files`.
        overwrite: make anew what was made with other settings.
        show_progress: show progress on a terminal.

    Raises:
        FileExistsError: if something was made with other settings, unless `overwrite`.
        FileNotFoundError: if a file is not there.
        ImportError: if an extra is needed and not installed.
        ValueError: if the arguments do not fit each other, or the joined data cannot be tokenised.
        OSError: if another process works in `output`, or the disk is full.
    """
    output = Path(os.path.realpath(output))
    settings = settings or PreparationSettings()
    _check(samples, peaks)
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", blocking=False):
            run = _Run(output, samples, settings, peaks, jobs, engine, overwrite, show_progress)
            return run.all_steps()
    except Timeout:
        raise OSError(f"another process is preparing {output}: wait for it, or choose another output") from None


def _check(samples: Sequence[Sample], peaks: object) -> None:
    if not samples:
        raise ValueError("there are no samples: expected at least one file")
    for path in (path for sample in samples for path in (sample.path, sample.rna) if path is not None):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    names = [sample.name for sample in samples]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two samples are called {repeated[0]!r}: give each a name of its own (--name)")
    bad = [name for name in names if not name or name.startswith(".") or "/" in name]
    if bad:
        raise ValueError(f"{bad[0]!r} cannot be the name of a sample: it becomes the name of a folder")
    if len({sample.genes_path is None for sample in samples}) > 1:
        raise ValueError("some samples have RNA and others have not: prepare them apart from each other")
    of_fragments = [sample for sample in samples if sample.has_fragments]
    if of_fragments and peaks is None:
        raise ValueError(f"{of_fragments[0].path} holds fragments: name the peaks to count them in (--peaks)")
    if peaks == CALL and len(of_fragments) < len(samples):
        raise ValueError("peaks can only be called on fragments: give counts together with the peaks to map them to")


@dataclass(frozen=True)
class _Run:
    """One call of `prepare`; each step gives the recipe of its folder, by which it is known again."""

    output: Path
    samples: Sequence[Sample]
    settings: PreparationSettings
    peaks: PeakTokenizer | PeakVocabulary | str | None
    jobs: int
    engine: Engine
    overwrite: bool
    show_progress: bool

    def all_steps(self) -> PreparationReport:
        """Do what is not done yet."""
        given = None if self.peaks == CALL else self._given_peaks()
        measured, failed = self._measure(given)
        if given is None and failed:  # peaks are called on all samples together
            return PreparationReport({}, [], failed, None, 0)
        vocabulary = self._called_peaks(measured) if given is None else given
        reports, finished, more = self._prepare(measured, vocabulary)
        failed = {name: failed.get(name, more.get(name, "")) for name in self._names if name in failed | more}
        if failed:
            return PreparationReport(reports, finished, failed, None, 0)
        tokenized, num_cells = self._tokenize(measured, vocabulary)
        return PreparationReport(reports, finished, {}, tokenized, num_cells)

    @property
    def _names(self) -> list[str]:
        return [sample.name for sample in self.samples]

    @property
    def _peaks_file(self) -> Path:
        return self.output / PEAKS / PEAKS_FILE

    def _given_peaks(self) -> PeakVocabulary:
        """The peaks that are known beforehand, written to the folder of the peaks."""
        if isinstance(self.peaks, PeakTokenizer):
            vocabulary = self.peaks.vocabulary
        else:
            vocabulary = self.peaks if isinstance(self.peaks, PeakVocabulary) else self._peaks_of_samples()
            if self.settings.blacklist is not None:
                blacklist = MergedIntervals.from_bed(self.settings.blacklist, vocabulary.genome)
                vocabulary = without_blacklist(vocabulary, blacklist)
        if vocabulary.genome != canonical_genome(self.settings.genome):
            raise ValueError(f"the peaks are of {vocabulary.genome}, the samples of {self.settings.genome} (--genome)")
        recipe = {"version": VERSION, "set of peaks": vocabulary.digest()}
        if not is_sealed(self.output / PEAKS, recipe, overwrite=self.overwrite):
            with sealed_folder(self.output / PEAKS, recipe) as partial:
                _save(vocabulary, partial)
        if num_overlapping := num_overlapping_peaks(vocabulary):
            warnings.warn(
                f"{num_overlapping:,} of {len(vocabulary):,} peaks overlap another one, so a fragment may count in "
                "several: join them first (such as with bedtools merge) for separate features",
                stacklevel=3,
            )
        return vocabulary

    def _peaks_of_samples(self) -> PeakVocabulary:
        found: dict[str, PeakVocabulary] = {}
        for sample in self.samples:
            with open_peak_file(sample.path) as file:
                found[sample.name] = PeakVocabulary.from_names(file.column_names, self.settings.genome)
        first, *others = found.items()
        for name, vocabulary in others:
            if vocabulary != first[1]:
                raise ValueError(
                    f"{first[0]} and {name} have different peaks: name those to map all of them to (--peaks)"
                )
        return first[1]

    def _measure(self, peaks: PeakVocabulary | None) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """The recipes of the samples whose quality is known, and what went wrong with the others."""
        recipes, failed = {}, {}
        for sample in self.samples:
            recipes[sample.name] = {
                "version": VERSION,
                "input": file_digest(sample.path),
                "RNA": None if sample.genes_path is None else file_digest(sample.genes_path),
                "genome": canonical_genome(self.settings.genome),
                "set of peaks": None if peaks is None else peaks.digest(),
                "blacklist": _digest(self.settings.blacklist),
                "least number of fragments": self.settings.min_fragments,
            }
        tasks = {
            sample.name: {
                "sample": sample,
                "folder": self.output / QUALITY / sample.name,
                "recipe": recipes[sample.name],
                "genome": self.settings.genome,
                "peaks": None if peaks is None else self._peaks_file,
                "blacklist": self.settings.blacklist,
                "min_fragments": self.settings.min_fragments,
            }
            for sample in self.samples
        }
        outcomes = self._work(measure_sample, tasks, "quality control")
        failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
        return {name: recipe for name, recipe in recipes.items() if name not in failed}, failed

    def _called_peaks(self, measured: Mapping[str, Any]) -> PeakVocabulary:
        filters = self.settings.filters
        recipe = {
            "version": VERSION,
            "set of samples": measured,
            "quality control": filters.as_mapping(),
            "blacklist": _digest(self.settings.blacklist),
        }
        if not is_sealed(self.output / PEAKS, recipe, overwrite=self.overwrite):
            blacklist = self.settings.blacklist
            cells = {sample.path: list(self._cells_of(sample).index) for sample in self.samples}
            vocabulary = call_peaks(
                cells,
                genome=self.settings.genome,
                blacklist=None if blacklist is None else MergedIntervals.from_bed(blacklist, self.settings.genome),
                scratch=self.output,
            )
            with sealed_folder(self.output / PEAKS, recipe) as partial:
                _save(vocabulary, partial)
        return PeakVocabulary.load(self._peaks_file)

    def _cells_of(self, sample: Sample) -> pd.DataFrame:
        table = read_quality(self.output / QUALITY / sample.name).table
        return self.settings.filters.kept(table, str(sample.path))

    def _prepare(
        self, measured: Mapping[str, Any], vocabulary: PeakVocabulary
    ) -> tuple[dict[str, SampleReport], list[str], dict[str, str]]:
        settings = self.settings
        tasks = {
            sample.name: {
                "sample": sample,
                "folder": self.output / SAMPLES / sample.name,
                "recipe": self._sample_recipe(measured[sample.name], vocabulary),
                "quality": self.output / QUALITY / sample.name,
                "filters": settings.filters,
                "peaks": self._peaks_file,
                "reference": settings.reference,
                "resolution": settings.resolution,
                "seed": settings.seed,
            }
            for sample in self.samples
            if sample.name in measured
        }
        outcomes = self._work(prepare_sample, tasks, "counts and clusters")
        failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
        reports = {name: outcome.result for name, outcome in outcomes.items() if outcome.error is None}
        return reports, [name for name in tasks if name not in outcomes], failed

    def _sample_recipe(self, measured: Mapping[str, Any], vocabulary: PeakVocabulary) -> dict[str, Any]:
        return {
            **measured,
            "set of peaks": vocabulary.digest(),
            "quality control": self.settings.filters.as_mapping(),
            "set of reference profiles": _digest(self.settings.reference),
            "resolution": self.settings.resolution,
            "seed": self.settings.seed,
        }

    def _work(self, work: Any, tasks: dict[str, dict[str, Any]], description: str) -> dict[str, Outcome]:
        """Do the tasks whose folder is not there yet."""
        missing = {
            name: {**task, "show_progress": self.show_progress and self.jobs == 1 and self.engine == "processes"}
            for name, task in tasks.items()
            if not is_sealed(task["folder"], task["recipe"], overwrite=self.overwrite)
        }
        options: dict[str, Any] = {"jobs": self.jobs, "engine": self.engine, "description": description}
        return work_on_files(work, missing, **options, show_progress=self.show_progress) if missing else {}

    def _tokenize(self, measured: Mapping[str, Any], vocabulary: PeakVocabulary) -> tuple[TokenizedReport | None, int]:
        """Join the samples and tokenise their cells."""
        recipes = {name: self._sample_recipe(measured[name], vocabulary) for name in self._names}
        folders = [self.output / SAMPLES / name for name in self._names]
        joined = self.output / MATRICES
        if not is_sealed(joined, {"set of samples": recipes}, may_grow="set of samples"):
            with sealed_folder(joined, {"set of samples": recipes}) as partial:
                join_matrices([folder / ATAC for folder in folders], partial / ATAC)
                if (folders[0] / RNA).is_file():
                    join_matrices([folder / RNA for folder in folders], partial / RNA)
        tokenizer = self.peaks if isinstance(self.peaks, PeakTokenizer) else None
        split = self.settings.split
        genes = None if tokenizer is None or tokenizer.genes is None else "\n".join(tokenizer.genes.names)
        recipe = {"set of samples": recipes, "split": asdict(split), "set of genes": genes and text_digest(genes)}
        report = None
        if not is_sealed(self.output / CELLS, recipe, overwrite=self.overwrite, may_grow="set of samples"):
            with sealed_folder(self.output / CELLS, recipe) as partial:
                report = tokenize_files(
                    joined / ATAC,
                    joined / RNA if (joined / RNA).is_file() else None,
                    partial,
                    tokenizer=tokenizer,
                    genome=self.settings.genome,
                    split=split,
                    cell_type_key=None if self.settings.reference is None else "cell_type",
                    batch_key="sample",
                )
                write_record(partial, recipes, self.output / QUALITY, self.output / SAMPLES)
                complete_dataset(partial, name=self.output.name, renew_card=True)
        with open_peak_file(joined / ATAC) as file:
            return report, file.num_cells


def _digest(path: Path | None) -> str | None:
    return None if path is None else file_digest(path)


def _save(vocabulary: PeakVocabulary, folder: Path) -> None:
    vocabulary.save(folder / PEAKS_FILE)
    columns = (vocabulary.chromosome_codes.tolist(), vocabulary.starts.tolist(), vocabulary.ends.tolist())
    lines = (f"{vocabulary.chromosomes[code]}\t{start}\t{end}\n" for code, start, end in zip(*columns, strict=True))
    (folder / "peaks.bed").write_text("".join(lines), encoding="utf-8")
