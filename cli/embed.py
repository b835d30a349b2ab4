"""``epifoundation embed``: one vector per cell of a file."""

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
from .options import Modality, ModelOrSmall, Overwrite, Revision
from .reporting import one_line_errors, quiet_libraries


@one_line_errors
def embed(
    inputs: InputFiles,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="What to write: .h5ad (.h5mu), a copy with the embeddings added, or .parquet."
        ),
    ],
    model: ModelOrSmall = None,
    overwrite: Overwrite = False,
    key_added: Annotated[str, typer.Option(help="Key of obsm for the embeddings.")] = "X_epifoundation",
    max_peaks: Annotated[
        int | None,
        typer.Option(min=1, help="Peaks read of a cell at most.", show_default="as the checkpoint says"),
    ] = None,
    max_tokens_per_batch: Annotated[
        int, typer.Option(min=1, help="Tokens computed at a time; lower it if the memory does not suffice.")
    ] = 32_768,
    device: Annotated[
        str | None, typer.Option(help="Where to compute, such as cpu or cuda:1.", show_default="cuda, else cpu")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision; bfloat16 is faster on a GPU.", show_default="as the checkpoint, float32 on a CPU"
        ),
    ] = None,
    revision: Revision = None,
    modality: Modality = None,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no report.")] = False,
) -> None:
    """Embed the cells of a file: one vector per cell.

    Files are read in blocks, so they may be larger than the memory. The output appears complete or not at all, and
    is checked before the work starts. Peaks are matched to those of the model by overlap; see 'coverage' for how
    well they do. Fragments are counted in the peaks of the model, and the output holds these counts too.

    Time grows with up to the square of a cell's peaks. With --max-peaks at the median of your cells embeddings hardly
    change and take a third of the time; half of that suffices for a first look. Which peaks are read follows from the
    cell alone, so the embeddings repeat.

    Example: epifoundation embed atac.h5ad --model checkpoint --output new.h5ad

    Example: epifoundation embed fragments.tsv.gz --barcodes barcodes.tsv --model checkpoint --output new.h5ad

    Then in Python: scanpy.pp.neighbors(adata, use_rep="X_epifoundation")
    """
    from epifoundation.inference import default_checkpoint, embed_file, load_tokenizer

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
        coverage = embed_file(
            path,
            checkpoint,
            output,
            overwrite=overwrite,
            key_added=key_added,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            modality=modality,
            show_progress=not quiet,
        )
    if not quiet:
        typer.echo(f"{output}: {coverage.num_cells:,} cells embedded. {coverage.summary()}")
