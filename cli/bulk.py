"""``epifoundation bulk``: cell type and assay of BED files."""

from pathlib import Path
from typing import Annotated

import typer

from .inputs import GenomeCheck
from .options import Device, MaxPeaks, Model, Overwrite, Quiet, Revision
from .reporting import one_line_errors, quiet_libraries


@one_line_errors
def bulk(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="BED, narrowPeak or broadPeak files.")],
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .tsv to write.", show_default="printed")
    ] = None,
    overwrite: Overwrite = False,
    max_peaks: MaxPeaks = None,
    device: Device = None,
    revision: Revision = None,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Name the cell type and the assay of bulk samples, by a model of 'finetune bulk'.

    Example: epifoundation bulk sample1.bed sample2.narrowPeak.gz --model bulk
    """
    from epifoundation.inference.bulk import annotate_bed_files

    quiet_libraries()
    if output is not None and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists: choose another name, or replace it with --overwrite")
    table = annotate_bed_files(
        files,
        model,
        max_peaks=max_peaks,
        device=device,
        revision=revision,
        check_genome=genome_check,
        show_progress=not quiet,
    )
    text = table.to_csv(sep="\t", float_format="%.4f", lineterminator="\n")
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    if not quiet:
        typer.echo(f"{output}: {len(table):,} samples")
