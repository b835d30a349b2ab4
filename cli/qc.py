"""``epifoundation qc``: the quality of the barcodes of a fragment file."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Overwrite
from .peak_sets import vocabulary_of
from .reporting import one_line_errors

QualityControl = Annotated[
    str, typer.Option("--qc", metavar="paper|none|FILE.yaml", help="Which barcodes are cells; see above.")
]
Blacklist = Annotated[
    Path | None, typer.Option(help="BED file of stretches without meaning, such as ENCODE's.", show_default="none")
]
Genome = Annotated[str, typer.Option(help="Assembly of the files.")]
MinFragments = Annotated[int, typer.Option(min=1, help="Unique fragments that a barcode needs to be looked at.")]


@one_line_errors
def qc(
    path: Annotated[Path, typer.Argument(metavar="FRAGMENTS", help="A fragment file: .tsv or .tsv.gz.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table to write: .tsv or .parquet; the figure lies beside it, .png.")
    ],
    quality_control: QualityControl = "paper",
    peaks: Annotated[
        str | None,
        typer.Option("--peaks", "-p", help="BED file or checkpoint, for the fraction in peaks.", show_default="none"),
    ] = None,
    blacklist: Blacklist = None,
    genome: Genome = "hg38",
    min_fragments: MinFragments = 100,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no report.")] = False,
) -> None:
    """Measure the quality of each barcode of a fragment file, and draw it.

    Columns: fragments (all, unique), fractions (duplicate, mitochondrial, in peaks, in the blacklist), nucleosome
    signal, and TSS enrichment as defined by Signac and by muon. 'passes' tells which barcodes pass --qc: 'paper'
    asks for 1,000 to 100,000 unique fragments, 1,000 to 25,000 RNA counts, a nucleosome signal below 2 and a TSS
    enrichment above 1; a YAML file gives your own bounds, such as

      tss_enrichment: {above: 4}

    Example: epifoundation qc fragments.tsv.gz --output quality.tsv --blacklist hg38-blacklist.v2.bed
    """
    from epifoundation.dataset_builders.genome.gene_coordinates import has_gene_coordinates
    from epifoundation.dataset_builders.genome.genome_sets import MergedIntervals, TranscriptionStarts
    from epifoundation.dataset_builders.quality.fragment_quality import fragment_quality
    from epifoundation.dataset_builders.quality.quality_filters import QualityFilters
    from epifoundation.dataset_builders.readers.fragment_files import FragmentFile
    from epifoundation.evaluation.plots import refuse_missing_plot_libraries
    from epifoundation.evaluation.quality_plots import plot_quality
    from epifoundation.inference.output import new_file

    if output.suffix not in (".tsv", ".parquet"):
        raise ValueError(f"cannot tell what {output} is to be: expected a name that ends with .tsv or .parquet")
    refuse_missing_plot_libraries(["matplotlib"])
    filters = QualityFilters.named(quality_control)
    figure_path = output.with_suffix(".png")
    with new_file(output, overwrite=overwrite) as table_file, new_file(figure_path, overwrite=overwrite) as figure_file:
        quality = fragment_quality(
            FragmentFile(path, genome=genome),
            starts=TranscriptionStarts.of_genome(genome) if has_gene_coordinates(genome) else None,
            peaks=None if peaks is None else vocabulary_of(peaks, genome),
            blacklist=None if blacklist is None else MergedIntervals.from_bed(blacklist, genome),
            min_fragments=min_fragments,
            show_progress=not quiet,
        )
        table = quality.table.assign(passes=filters.passing(quality.table))
        table.to_parquet(table_file) if output.suffix == ".parquet" else table.to_csv(table_file, sep="\t")
        plot_quality(quality, filters, path.name).savefig(figure_file, format="png", dpi=150)
    if not quiet:
        typer.echo("\n".join([*missing_parts(genome, blacklist), *filters.report(table)]))
        typer.echo(f"{output}: {int(table['passes'].sum()):,} of {len(table):,} barcodes pass; see {figure_path}")


def missing_parts(genome: str, blacklist: Path | None) -> list[str]:
    """What could not be measured, and why; a line each."""
    from epifoundation.dataset_builders.genome.gene_coordinates import has_gene_coordinates

    lines = [] if blacklist is not None else ["blacklist fraction: not measured, as no --blacklist was given"]
    if not has_gene_coordinates(genome):
        lines.append(f"TSS enrichment: not measured, as there is no table of the genes of {genome}")
    return lines
