"""``epifoundation remap``: counts in one set of peaks to counts in another."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import InputFile, Modality, Overwrite
from .peak_sets import vocabulary_of
from .reporting import one_line_errors


class Counting(StrEnum):
    """What becomes of the counts of peaks that go to the same peak."""

    sum = "sum"
    binary = "binary"


@one_line_errors
def remap(
    path: InputFile,
    peaks: Annotated[str, typer.Option("--peaks", "-p", help="The peaks to map to: a BED file or a checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .h5ad file to write.")],
    counting: Annotated[
        Counting, typer.Option(help="Counts of peaks that go to the same one: add them, or give 1 for any.")
    ] = Counting.sum,
    genome: Annotated[str, typer.Option(help="Assembly of the BED file.")] = "hg38",
    modality: Modality = None,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no report.")] = False,
) -> None:
    """Map counts of cells to other peaks, such as those of a model.

    Each peak of the input gives its counts to the one peak with which it shares most base pairs; peaks that overlap
    none are left out, and the report says how many. The file is read in blocks, so it may be larger than the memory.
    Where there are fragments, counting them anew is better: epifoundation prepare.

    Example: epifoundation remap atac.h5ad --peaks peaks.bed --output remapped.h5ad
    """
    from epifoundation.dataset_builders.matrices.remapping import remap_file
    from epifoundation.inference.output import new_file

    if output.suffix != ".h5ad":
        raise ValueError(f"cannot write {output}: expected a name that ends with .h5ad")
    with new_file(output, overwrite=overwrite) as partial:
        coverage = remap_file(
            path,
            vocabulary_of(peaks, genome),
            partial,
            counting=counting.value,
            modality=modality,
            show_progress=not quiet,
        )
    if not quiet:
        typer.echo(f"{output}: {coverage.num_cells:,} cells mapped. {coverage.summary()}")
