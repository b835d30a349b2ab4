"""Inputs of any kind for commands that read one table of cells by peaks, and the options to read fragments by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from epifoundation.tokenization import PeakVocabulary

MIN_FRAGMENTS = 1_000  # where no barcodes are named: a raw fragment file holds half a million of empty droplets


def all_existing(paths: list[Path]) -> list[Path]:
    """Refuse a mistyped name at once: importing what would read the files takes seconds."""
    for path in paths:
        if not path.exists():
            typer.echo(f"error: {path} does not exist", err=True)
            raise typer.Exit(1)
    return paths


InputFiles = Annotated[
    list[Path],
    typer.Argument(
        callback=all_existing,
        metavar="INPUT...",
        help="Counts of cells by peaks (.h5ad, .h5mu, .h5 or folder of Cell Ranger), fragment files (.tsv, .tsv.gz), "
        "or bulk samples (.bed, .narrowPeak). Several only of the last two.",
    ),
]
Barcodes = Annotated[
    Path | None,
    typer.Option(
        help="Of fragments: a file with the barcodes to keep, one a line (.tsv, .csv; .gz too).", show_default="all"
    ),
]
Prefix = Annotated[
    list[str] | None,
    typer.Option(help="Of fragments: put before the barcodes of a file; give one for each file.", show_default="none"),
]
MinFragments = Annotated[
    int | None,
    typer.Option(
        min=0, help="Of fragments: leave out barcodes with fewer.", show_default=f"{MIN_FRAGMENTS:,}, 0 with --barcodes"
    ),
]


class CountingRule(StrEnum):
    """What counts in a peak."""

    fragment = "fragment"
    insertion = "insertion"


Counting = Annotated[
    CountingRule, typer.Option(help="Of fragments: count each that overlaps a peak, or the cut sites at its two ends.")
]
GenomeCheck = Annotated[
    bool,
    typer.Option(
        "--genome-check/--no-genome-check", help="Refuse data that lie in the model's peaks no more than by chance."
    ),
]


def refuse_output(inputs: list[Path], output: Path, overwrite: bool) -> None:
    """Check an output before fragments are counted for minutes; a count matrix is quick to open and checked then.

    Raises:
        ValueError: if its ending tells nothing known.
        OSError: if it exists and is not to be replaced, or cannot be written.
    """
    from epifoundation.dataset_builders.readers.peak_inputs import is_matrix_file
    from epifoundation.inference.output import checked_target

    if len(inputs) == 1 and is_matrix_file(inputs[0]):
        return
    if output.suffix not in (".h5ad", ".parquet"):
        raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad or .parquet")
    checked_target(output, overwrite=overwrite)


@contextmanager
def peak_file(
    inputs: list[Path],
    vocabulary: "Callable[[], PeakVocabulary]",
    *,
    modality: str | None,
    barcodes: Path | None,
    prefix: list[str] | None,
    min_fragments: int | None,
    counting: CountingRule,
    genome_check: bool,
    show_progress: bool,
) -> Iterator[Path]:
    """Give the path of an .h5ad or .h5mu file with the counts; a temporary one where the input is none.

    Raises:
        ValueError: if the input cannot be read, or the file of barcodes is empty.
        OSError: if a file does not exist, or the temporary disk is full.
    """
    from epifoundation.dataset_builders.readers.peak_inputs import FragmentOptions, as_peak_file, read_barcodes

    wanted = None if barcodes is None else read_barcodes(barcodes)
    if min_fragments is None:
        min_fragments = MIN_FRAGMENTS if wanted is None else 0
    options = FragmentOptions(wanted, prefix, min_fragments, counting.value, genome_check, show_progress)
    with as_peak_file(inputs, vocabulary, modality, options) as path:
        yield path
