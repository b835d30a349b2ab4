"""``epifoundation regions``: regions of the genome as the model sees them in cells of a type."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Dtype, InputFile, MaxPeaks, MaxTokens, Modality, ModelOrSmall, Overwrite, Quiet, Revision
from .reporting import one_line_errors, quiet_libraries

regions = typer.Typer(name="regions", no_args_is_help=True, help="Embed regions in context, find promoters.")


@regions.command()
@one_line_errors
def embed(
    path: InputFile,
    wanted: Annotated[
        str,
        typer.Option("--regions", metavar="REGIONS", help="A BED file, or names such as chr1:100-600, with commas."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: .h5ad or .parquet.")],
    model: ModelOrSmall = None,
    groupby: Annotated[
        str | None, typer.Option(help="Column of obs with the groups, such as cell_type.", show_default="all cells")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group to keep; can be given several times.", show_default="all")
    ] = None,
    overwrite: Overwrite = False,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    quiet: Quiet = False,
) -> None:
    """Embed regions in context: one vector per region and group of cells.

    In each cell that has the region open, the encoder gives it a vector that depends on what else is open there. These
    are averaged over the cells of a group. Beside them stand the number of these cells, and the region's row of the
    peak table, which is the same in all cells. A region means the peak of the model that it overlaps most. Cells are
    read in blocks, so the file may be larger than the memory.

    Example: epifoundation regions embed atac.h5ad --model checkpoint --regions enhancers.bed --groupby cell_type
    --output regions.h5ad
    """
    from epifoundation.dataset_builders import open_peak_file
    from epifoundation.inference import default_checkpoint
    from epifoundation.inference.cell_run import prepare_run
    from epifoundation.inference.output import new_file
    from epifoundation.inference.regions import cell_groups, embed_regions, region_ids, region_table, write_region_table

    quiet_libraries()
    if output.suffix not in (".h5ad", ".parquet"):
        raise ValueError(f"cannot tell from its ending what {output} is to be: expected .h5ad or .parquet")
    with ExitStack() as stack:
        file = stack.enter_context(open_peak_file(path, modality))
        partial = stack.enter_context(new_file(output, overwrite=overwrite, inputs=[path]))
        groups = cell_groups(file, groupby, group)
        run = prepare_run(
            model or str(default_checkpoint()),
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
        ids = region_ids(wanted, run.tokenizer.vocabulary)
        found, coverage = embed_regions(file, run, groups, ids)
        table = region_table(found, run, coverage, groupby)
        write_region_table(table, partial, output.suffix)
    if not quiet:
        num_open = table.obs["region"].nunique()
        typer.echo(
            f"{output}: {num_open:,} of {len(ids):,} regions are open in {coverage.num_cells:,} cells of "
            f"{len(groups.names):,} groups; {table.n_obs:,} rows. {coverage.summary()}"
        )


@regions.command()
@one_line_errors
def find(
    path: InputFile,
    groupby: Annotated[str, typer.Option(help="Column of obs with the cell types.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    model: ModelOrSmall = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A cell type; can be given several times.", show_default="all")
    ] = None,
    genome: Annotated[
        str | None, typer.Option(help="Genome of the table of genes.", show_default="that of the model")
    ] = None,
    min_cells: Annotated[int, typer.Option(min=1, help="Cells of a type in which a region has to be open.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the random sets and of what is held out.")] = 0,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    quiet: Quiet = False,
) -> None:
    """Find regions that look like active promoters of a cell type.

    Known promoters are regions within 1,000 base pairs of a start of transcription that are open in cells of the type.
    Each other region open there is scored by the cosine between its embedding in context and the mean of theirs, in
    axes along which all regions vary alike (whitened): a plain cosine hears little but the few directions along which
    they vary most. The p-value compares with 10,000 random sets of as many regions (permuted labels), the
    FDR is Benjamini and Hochberg's.

    The folder gets for each type a .bed with the regions that are no known promoters, best first, and a picture of the
    embeddings; and recovery.csv: how well a fifth of the promoters, held out, is told from as many other regions
    (average precision, 0.5 by chance), beside the peak table and accessibility alone. Memory holds 4 bytes times
    regions, types and numbers of an embedding: 2 GB for a type of a million regions at 512 numbers.

    Example: epifoundation regions find atac.h5ad --model checkpoint --groupby cell_type --group K562 --output found
    """
    from epifoundation.dataset_builders import open_peak_file
    from epifoundation.inference import default_checkpoint
    from epifoundation.inference.cell_run import prepare_run
    from epifoundation.inference.output import new_folder
    from epifoundation.inference.regions import cell_groups, embed_regions

    from .promoters import promoters_of_genome, search_promoters

    quiet_libraries()
    with ExitStack() as stack:
        file = stack.enter_context(open_peak_file(path, modality))
        folder = stack.enter_context(new_folder(output))
        groups = cell_groups(file, groupby, group)
        run = prepare_run(
            model or str(default_checkpoint()),
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
        annotation = promoters_of_genome(run.tokenizer.vocabulary, genome)
        found, coverage = embed_regions(file, run, groups)
        lines = search_promoters(found, annotation, folder, min_cells, seed, show_progress=not quiet)
    if not quiet:
        typer.echo("\n".join([f"{output}: {coverage.num_cells:,} cells. {coverage.summary()}", *lines]))
