"""``epifoundation expression``: predicted levels of expression per cell of a file."""

from pathlib import Path
from typing import Annotated

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
from .options import Device, Dtype, MaxPeaks, MaxTokens, Modality, Model, Overwrite, Quiet, Revision, gene_names
from .reporting import one_line_errors, quiet_libraries


@one_line_errors
def expression(
    inputs: InputFiles,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .h5ad to write: cells by genes.")],
    genes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Symbols or Ensembl ids, separated by commas; or a text file with one per line.",
            show_default="all genes of the model",
        ),
    ] = None,
    overwrite: Overwrite = False,
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
    """Predict how strongly the cells of a file express genes.

    Needs a model fine-tuned for expression (see 'finetune expression'). The output has a float32 matrix of levels:
    0 is not expressed, higher levels are ever higher quantiles among the genes that the same cell expresses. It takes
    4 bytes per cell and gene on the disk; the memory needed does not grow with it.

    Example: epifoundation expression atac.h5ad --model predictor --genes CD19,CD3E --output expression.h5ad
    """
    from epifoundation.inference import load_tokenizer, predict_expression_of_file

    quiet_libraries()
    if output.suffix != ".h5ad":
        raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad")
    refuse_output(inputs, output, overwrite)
    with peak_file(
        inputs,
        lambda: load_tokenizer(model, revision).vocabulary,
        modality=modality,
        barcodes=barcodes,
        prefix=prefix,
        min_fragments=min_fragments,
        counting=counting,
        genome_check=genome_check,
        show_progress=not quiet,
    ) as path:
        coverage = predict_expression_of_file(
            path,
            model,
            output,
            genes=None if genes is None else gene_names(genes),
            overwrite=overwrite,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            modality=modality,
            show_progress=not quiet,
        )
    if not quiet:
        typer.echo(f"{output}: expression predicted in {coverage.num_cells:,} cells. {coverage.summary()}")
