"""``epifoundation prepare``: from raw files to tokenised cells."""

from contextlib import nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .peak_sets import peaks_of
from .qc import Blacklist, Genome, MinFragments, QualityControl, missing_parts
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation.dataset_builders.curation.preparation import PreparationReport
    from epifoundation.dataset_builders.curation.sample_preparation import Sample
    from epifoundation.dataset_builders.quality.quality_filters import QualityFilters

ENDINGS = (".gz", ".bgz", ".tsv", ".txt", ".bed", ".h5ad", ".h5mu", ".h5", ".fragments")


class SplitRule(StrEnum):
    """How cells are divided."""

    cell = "cell"
    stratified = "stratified"
    batch = "batch"


class Engine(StrEnum):
    """Where files are worked on."""

    processes = "processes"
    ray = "ray"


@one_line_errors
def prepare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Fragment files (.tsv.gz), or counts in peaks (.h5ad, .h5mu, 10x .h5)."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    peaks: Annotated[
        str | None,
        typer.Option(
            "--peaks",
            "-p",
            metavar="CHECKPOINT|FILE.bed|call",
            help="Peaks to count in; 'call' runs MACS3 on all cells together.",
            show_default="those of .h5ad inputs",
        ),
    ] = None,
    rna: Annotated[
        list[Path] | None,
        typer.Option(help="Gene counts of an input (.h5ad, 10x .h5); repeat it, in the order of the inputs."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name of an input; repeat it, in their order.", show_default="the name of the file"),
    ] = None,
    quality_control: QualityControl = "paper",
    blacklist: Blacklist = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Profiles of cell types, a .tsv of genes by types, to name clusters.", show_default="none"),
    ] = None,
    genome: Genome = "hg38",
    min_fragments: MinFragments = 100,
    resolution: Annotated[float, typer.Option(help="Higher gives more clusters.")] = 1.0,
    split: Annotated[
        SplitRule, typer.Option(help="What decides on the split: chance, cell types, or whole samples (batch).")
    ] = SplitRule.cell,
    validation: Annotated[float, typer.Option(help="Share of cells, or samples, to validate on; 0 for none.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of cells, or samples, that training never sees.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another one gives another split and other clusters.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Inputs worked on at a time.")] = 1,
    engine: Annotated[
        Engine, typer.Option(help="Processes of this machine, or a Ray cluster (RAY_ADDRESS).")
    ] = Engine.processes,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make anew what other options had made.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no report.")] = False,
) -> None:
    """Prepare raw files for training: quality control, counts, clusters, cell types, tokenised cells.

    The folder gets, for each input, quality/NAME (a table) and samples/NAME (counts with clusters, .h5ad), then
    matrices (all cells together) and cells, for 'pretrain' and 'finetune'. Ended at any time, or after an input
    failed, the same command does what is missing. --qc: 'paper' asks for 1,000 to 100,000 unique fragments, 1,000 to
    25,000 RNA counts, a nucleosome signal below 2 and a TSS enrichment above 1; a YAML file gives your own bounds.

    Clusters are sought in each input by itself, so that no correction of batches is needed before, and an input need
    not be done again when others come: the clusters of an input are called NAME:0, NAME:1, ...; cell types, by
    --reference, are the same for all. Peaks are called on all inputs together, as in the paper, which also clusters
    them together; for that: epifoundation cluster prepared/matrices/atac.h5ad --output clusters.

    Examples:
    epifoundation prepare a.tsv.gz b.tsv.gz --peaks checkpoint --output prepared --jobs 2

    epifoundation prepare a.tsv.gz --rna a.h5ad --peaks peaks.bed --reference profiles.tsv --output prepared

    Then: epifoundation pretrain examples/settings/pretrain_small.yaml --data prepared/cells --output_dir pretrained
    """
    from datasets.utils import disable_progress_bars

    from epifoundation.dataset_builders.curation.preparation import CALL, PreparationSettings
    from epifoundation.dataset_builders.curation.preparation import prepare as run
    from epifoundation.dataset_builders.quality.quality_filters import QualityFilters
    from epifoundation.dataset_builders.tokenized.tokenized_folder import Split

    quiet_libraries()
    disable_progress_bars()  # those of each small file; the whole has its own
    samples = _samples(paths, rna, name)
    settings = PreparationSettings(
        filters=QualityFilters.named(quality_control),
        genome=genome,
        blacklist=blacklist,
        reference=reference,
        min_fragments=min_fragments,
        resolution=resolution,
        seed=seed,
        split=Split(rule=split.value, validation=validation, test=test, seed=seed),
    )
    try:
        report = run(
            samples,
            output,
            peaks=peaks if peaks is None or peaks == CALL else peaks_of(peaks, genome),
            settings=settings,
            jobs=jobs,
            engine=engine.value,
            overwrite=overwrite,
            show_progress=not quiet,
        )
    except ImportError as error:  # of an extra; its message says how to install it
        raise ValueError(str(error)) from error
    with suppress(OSError) if report.failed else nullcontext():  # what went wrong first is what matters
        _draw(samples, output, settings.filters)
    if not quiet:
        typer.echo("\n".join([*missing_parts(genome, blacklist), *_lines(report)]))
    for sample, reason in report.failed.items():
        typer.echo(f"error: {sample}: {' '.join(reason.split())}", err=True)
    if report.failed:
        finished = len(samples) - len(report.failed)
        typer.echo(f"{finished} of {len(samples)} inputs are done; the same command tries the others again", err=True)
        raise typer.Exit(1)
    if not quiet:
        typer.echo(f"{output / 'cells'}: {report.num_cells:,} cells of {len(samples)} inputs, ready for training")


def _samples(paths: list[Path], rna: list[Path] | None, names: list[str] | None) -> "list[Sample]":
    from epifoundation.dataset_builders.curation.sample_preparation import Sample

    for option, values in (("--rna", rna), ("--name", names)):
        if values and len(values) != len(paths):
            raise ValueError(f"{option} was given {len(values)} times for {len(paths)} inputs: give it once for each")
    of_genes: list[Path | None] = list(rna) if rna else [None] * len(paths)
    called = names or [_name(path) for path in paths]
    return [Sample(name, path, genes) for name, path, genes in zip(called, paths, of_genes, strict=True)]


def _name(path: Path) -> str:
    """The name of a file without its endings."""
    while path.suffix in ENDINGS:
        path = path.with_suffix("")
    return path.name


def _draw(samples: "list[Sample]", output: Path, filters: "QualityFilters") -> None:
    """A figure beside the quality of each sample of fragments."""
    from epifoundation.dataset_builders.curation.preparation import QUALITY
    from epifoundation.dataset_builders.curation.sample_preparation import read_quality
    from epifoundation.dataset_builders.matrices.full_disk import full_disk_explained
    from epifoundation.evaluation.quality_plots import plot_quality
    from epifoundation.inference.output import new_file

    for sample in samples:
        folder = output / QUALITY / sample.name
        if sample.has_fragments and folder.is_dir():
            target = output / QUALITY / f"{sample.name}.png"
            with full_disk_explained(target), new_file(target, overwrite=True) as partial:
                plot_quality(read_quality(folder), filters, sample.name).savefig(partial, format="png", dpi=150)


def _lines(report: "PreparationReport") -> list[str]:
    lines = []
    for name, sample in report.samples.items():
        types = "".join(f", {count:,} {kind}" for kind, count in sample.cell_types.items())
        lines.append(
            f"{name}: {sample.num_cells:,} cells of {sample.num_barcodes:,} barcodes, {sample.num_peaks:,} open "
            f"peaks, {sample.num_clusters} clusters{types}"
        )
        lines += [f"  {line}" for line in sample.quality]
    lines += [f"{name}: done before" for name in report.finished]
    return lines
