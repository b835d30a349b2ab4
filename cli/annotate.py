"""``epifoundation annotate``: a cell type per cell of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .inputs import (
    Barcodes,
    Counting,
    CountingRule,
    GenomeCheck,
    InputFiles,
    MinFragments,
    Prefix,
    peak_file,
    refuse_output,
)
from .options import Device, Dtype, MaxPeaks, MaxTokens, Modality, ModelOrSmall, Overwrite, Quiet, Revision
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 30


@one_line_errors
def annotate(
    inputs: InputFiles,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="What to write: .h5ad (.h5mu), a copy with the cell types added, or .parquet."
        ),
    ],
    model: ModelOrSmall = None,
    overwrite: Overwrite = False,
    min_peaks: Annotated[
        int, typer.Option(min=1, help="Open peaks known to the model that a cell needs to get a type.")
    ] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probabilities of all types.")
    ] = False,
    compare_with: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column of obs with known cell types: print how far both agree."),
    ] = None,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Name the type of each cell of a file, with its probability.

    Needs a model fine-tuned on annotated cells (see 'finetune classification'). Types it was not shown cannot be
    named: such cells get one of its types, often with a low probability. A cell with fewer than --min-peaks open
    peaks that the model knows gets none.

    Fragments are counted in the peaks of the model first.

    Written are obs["epifoundation_cell_type"] and obs["epifoundation_cell_type_probability"], or such columns.

    Example: epifoundation annotate atac.h5ad --model annotator --output annotated.h5ad

    Example: epifoundation annotate atac.h5ad --compare-with cell_type --output annotated.h5ad

    Example: epifoundation annotate fragments.tsv.gz --model annotator --output cell_types.parquet
    """
    from epifoundation.inference import annotate_file, default_checkpoint, load_tokenizer

    quiet_libraries()
    refuse_output(inputs, output, overwrite)
    checkpoint = model or str(default_checkpoint())
    with peak_file(
        inputs,
        lambda: load_tokenizer(checkpoint, revision).vocabulary,
        modality=modality,
        barcodes=barcodes,
        prefix=prefix,
        min_fragments=min_fragments,
        counting=counting,
        genome_check=genome_check,
        show_progress=not quiet,
    ) as path:
        known = None if compare_with is None else _known_types(path, compare_with)
        cell_types = annotate_file(
            path,
            checkpoint,
            output,
            overwrite=overwrite,
            min_peaks=min_peaks,
            add_probabilities=probabilities,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            modality=modality,
            show_progress=not quiet,
        )
    if known is not None:
        typer.echo(_comparison(known, cell_types, checkpoint))
    if not quiet:
        counts = cell_types.value_counts()
        shown = [f"  {name:<32}{count:>9,}" for name, count in counts[counts > 0].head(MOST_SHOWN).items()]
        num_unknown = int(cell_types.isna().sum())
        typer.echo(f"{output}: {len(cell_types):,} cells annotated, {num_unknown:,} of them without a type")
        typer.echo("\n".join(shown))


def _known_types(path: Path, column: str) -> "pd.Series[str]":
    import anndata

    obs = anndata.read_h5ad(path, backed="r").obs
    if column not in obs:
        raise ValueError(f"obs has no column {column!r} to compare with: it has {', '.join(obs.columns) or 'none'}")
    return obs[column]


def _comparison(known: "pd.Series[str]", predicted: "pd.Series[str]", checkpoint: str) -> str:
    """One line of agreement: over the cells that the checkpoint was tested on, if it tells which, else over all."""
    from epifoundation.evaluation.agreement import agreement
    from epifoundation.inference.carried import is_held_out

    held_out = is_held_out(checkpoint, known.index)
    rows, which = (slice(None), "cells") if held_out is None else (held_out, "cells that the model never saw")
    scores = agreement(known.to_numpy()[rows], predicted.to_numpy()[rows])
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
    return f"{len(known.to_numpy()[rows]):,} {which}: {values}"
