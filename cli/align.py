"""``epifoundation align``: cells by ATAC and by RNA in one space, and what follows from it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .inputs import (
    Barcodes,
    Counting,
    CountingRule,
    GenomeCheck,
    InputFiles,
    MinFragments,
    Prefix,
    all_existing,
    peak_file,
    refuse_output,
)
from .options import Device, Dtype, MaxPeaks, MaxTokens, Modality, Model, Overwrite, Quiet, Revision, gene_names
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation.evaluation.matching_report import EmbeddedCells
    from epifoundation.inference import AlignedCells

align = typer.Typer(
    name="align", no_args_is_help=True, help="Cells by ATAC and by RNA in one space: embed, impute RNA, match."
)


class NeighborWeights(StrEnum):
    """How the nearest cells are weighted."""

    similarity = "similarity"
    uniform = "uniform"


OptionalInputs = Annotated[
    list[Path] | None,
    typer.Argument(
        callback=lambda paths: all_existing(paths or []),
        metavar="[INPUT...]",
        help="Cells by ATAC: counts of peaks (.h5ad, .h5mu, .h5 or folder of Cell Ranger), fragment files, or bulk "
        "samples. None for RNA alone.",
    ),
]
Rna = Annotated[
    Path | None,
    typer.Option(
        help="Cells by RNA: raw counts of genes, named by symbol or Ensembl id (.h5ad, .h5mu, .h5 of Cell Ranger).",
        show_default="the input, if it is an .h5mu that holds both",
    ),
]
RnaModality = Annotated[
    str | None, typer.Option(help="The part of an .h5mu that holds the genes.", show_default="rna, gex or genes")
]
FloatCounts = Annotated[
    bool, typer.Option("--allow-float-counts", help="Take counts of genes that are not whole numbers.")
]


@align.command()
@one_line_errors
def embed(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: .h5ad or .parquet.")],
    inputs: OptionalInputs = None,
    rna: Rna = None,
    overwrite: Overwrite = False,
    key_added: Annotated[str, typer.Option(help="Key of obsm for the embeddings.")] = "X_epifoundation_aligned",
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    rna_modality: RnaModality = None,
    allow_float_counts: FloatCounts = False,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Embed cells of either modality, or of both, in one space.

    Needs a model of both (see 'finetune contrastive'). The output has a row for each cell and modality, without counts:
    vectors of length 1, whose cosine tells how alike two cells are, whichever modality each was measured by; and in obs
    the columns of the inputs, modality and barcode. Files are read in blocks, so they may be larger than the memory.

    Example: epifoundation align embed atac.h5ad --rna rna.h5ad --model aligned --output cells.h5ad

    Then in Python: scanpy.pp.neighbors(adata, use_rep="X_epifoundation_aligned")
    """
    from contextlib import nullcontext

    from epifoundation.inference import align_files, load_tokenizer

    quiet_libraries()
    paths = inputs or []
    refuse_output(paths, output, overwrite)
    rna = _rna_of(paths, rna)
    peaks: Any = nullcontext()
    if paths:
        peaks = peak_file(
            paths,
            lambda: load_tokenizer(model, revision).vocabulary,
            modality=modality,
            barcodes=barcodes,
            prefix=prefix,
            min_fragments=min_fragments,
            counting=counting,
            genome_check=genome_check,
            show_progress=not quiet,
        )
    with peaks as path:
        aligned = align_files(
            path,
            rna,
            model,
            output,
            overwrite=overwrite,
            key_added=key_added,
            atac_modality=modality,
            rna_modality=rna_modality,
            allow_float_counts=allow_float_counts,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
    if not quiet:
        typer.echo("\n".join([f"{output}: {aligned.table.n_obs:,} rows", *_coverages(aligned)]))


@align.command()
@one_line_errors
def impute(
    inputs: InputFiles,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .h5ad to write: cells by genes.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Cells by RNA to take levels from (.h5ad, .h5mu, .h5 of Cell Ranger): raw counts of genes.",
            show_default="none: the model has a head for it",
        ),
    ] = None,
    neighbors: Annotated[int, typer.Option(min=1, help="Cells of the reference that each cell is the mean of.")] = 15,
    weights: Annotated[
        NeighborWeights, typer.Option(help="Of these: the softmax of the model's scaled cosines, or all the same.")
    ] = NeighborWeights.similarity,
    genes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Symbols or Ensembl ids, separated by commas; or a text file with one per line.",
            show_default="all of the model, or of the reference",
        ),
    ] = None,
    overwrite: Overwrite = False,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    rna_modality: RnaModality = None,
    allow_float_counts: FloatCounts = False,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Impute the expression of genes from ATAC.

    Without --reference, by a model with a head for it (see 'finetune imputation'). With it, by a model of both
    modalities (see 'finetune contrastive'): each cell gets the mean of the reference cells nearest to it.

    The output has a float32 matrix of levels, log(1 + counts per 10,000).

    Example: epifoundation align impute atac.h5ad --model imputation --output expression.h5ad

    Example: epifoundation align impute atac.h5ad --model aligned --reference rna.h5ad --output expression.h5ad
    """
    from epifoundation.inference import impute_expression_of_file, load_tokenizer

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
        coverage = impute_expression_of_file(
            path,
            model,
            output,
            overwrite=overwrite,
            reference=reference,
            num_neighbors=neighbors,
            weights=weights.value,
            genes=None if genes is None else gene_names(genes),
            modality=modality,
            reference_modality=rna_modality,
            allow_float_counts=allow_float_counts,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
    if not quiet:
        way = "the head of the model" if reference is None else f"the nearest cells of {reference}"
        typer.echo(f"{output}: expression of {coverage.num_cells:,} cells by {way}. {coverage.summary()}")


@align.command()
@one_line_errors
def match(
    inputs: InputFiles,
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    rna: Rna = None,
    label_key: Annotated[
        str | None,
        typer.Option(help="Column of obs with labels, such as cell_type, to carry over.", show_default="none"),
    ] = None,
    neighbors: Annotated[int, typer.Option(min=1, help="Cells that vote on a label.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffled control and the picture.")] = 0,
    max_peaks: MaxPeaks = None,
    max_tokens_per_batch: MaxTokens = 32_768,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    modality: Modality = None,
    rna_modality: RnaModality = None,
    allow_float_counts: FloatCounts = False,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
    quiet: Quiet = False,
) -> None:
    """Tell how well a model brings cells by ATAC and by RNA together.

    Of cells measured by both (the same barcode): how many others lie nearer than the partner (FOSCTTM), and whether it
    is among the 1, 5 or 10 nearest. With --label-key: how often a cell has the label of its nearest cells of the other
    modality. Beside them stand the same with partners and labels shuffled. Use cells that the model did not learn from.

    The folder gets match.md, match.json, and match.png, a map of the cells of both modalities. Needs the extra 'plot'.

    Example: epifoundation align match atac.h5ad --rna rna.h5ad --model aligned --label-key cell_type --output matched
    """
    from epifoundation.evaluation.matching_report import matching_report, plot_modalities
    from epifoundation.evaluation.plots import refuse_missing_plot_libraries
    from epifoundation.inference import load_tokenizer
    from epifoundation.inference.alignment import align_sources, aligning_run, open_both
    from epifoundation.inference.output import new_folder

    quiet_libraries()
    refuse_missing_plot_libraries()
    rna = _rna_of(inputs, rna)
    if rna is None:
        raise ValueError("there are no cells by RNA to compare with: name their file with --rna")
    with (
        new_folder(output) as folder,
        peak_file(
            inputs,
            lambda: load_tokenizer(model, revision).vocabulary,
            modality=modality,
            barcodes=barcodes,
            prefix=prefix,
            min_fragments=min_fragments,
            counting=counting,
            genome_check=genome_check,
            show_progress=not quiet,
        ) as path,
        open_both(path, rna, modality, rna_modality) as (peaks, genes),
    ):
        _refuse_missing_column(label_key, peaks, genes)
        _refuse_without_pairs(peaks, genes, label_key)
        run = aligning_run(
            model,
            max_peaks=max_peaks,
            max_tokens_per_batch=max_tokens_per_batch,
            device=device,
            dtype=dtype,
            revision=revision,
            show_progress=not quiet,
        )
        aligned = align_sources(peaks, genes, run, allow_float_counts=allow_float_counts)
        by_atac, by_rna = (_cells(aligned, name, label_key) for name in ("ATAC", "RNA"))
        facts = {"model": Path(model).name, "ATAC": ", ".join(path.name for path in inputs), "RNA": rna.name}
        report = matching_report(by_atac, by_rna, num_neighbors=neighbors, seed=seed, facts=facts)
        (folder / "match.md").write_text(report.markdown(), encoding="utf-8")
        (folder / "match.json").write_text(report.json(), encoding="utf-8")
        plot_modalities(by_atac, by_rna, seed=seed).savefig(folder / "match.png", dpi=150)
    if not quiet:
        typer.echo("\n".join([report.markdown(), *_coverages(aligned)]))


def _rna_of(inputs: list[Path], rna: Path | None) -> Path | None:
    """The file of RNA: the one named, or a single input that holds genes too."""
    from epifoundation.dataset_builders.readers.matrix_files import GENES, modalities_of

    if rna is not None or len(inputs) != 1 or inputs[0].suffix != ".h5mu":
        return rna
    return inputs[0] if set(GENES.modalities) & set(modalities_of(inputs[0])) else None


def _refuse_without_pairs(peaks: Any, genes: Any, label_key: str | None) -> None:
    """What the report would refuse is told before minutes of embedding, not after."""
    from epifoundation.dataset_builders.tokenized.pairing import match_names

    if label_key is None or set(peaks.cell_names) & set(genes.cell_names):
        match_names(peaks.cell_names, genes.cell_names)


def _coverages(aligned: "AlignedCells") -> list[str]:
    parts = {"ATAC": aligned.atac, "RNA": aligned.rna}
    return [f"{name}: {coverage.summary()}" for name, coverage in parts.items() if coverage is not None]


def _refuse_missing_column(key: str | None, *sources: Any) -> None:
    columns = list(
        dict.fromkeys(name for source in sources for table in source.annotations[:1] for name in table.columns)
    )
    if key is not None and key not in columns:
        raise ValueError(f"no obs has a column {key!r} with labels: there are {', '.join(columns) or 'none'}")


def _cells(aligned: "AlignedCells", modality: str, label_key: str | None) -> "EmbeddedCells":
    from epifoundation.evaluation.matching_report import EmbeddedCells
    from epifoundation.inference.alignment import KEY_ADDED

    table = aligned.table
    rows = (table.obs["modality"] == modality).to_numpy()
    labels = None
    if label_key is not None:
        values = table.obs[label_key][rows].astype(object)
        labels = values.map(str).where(values.notna(), None).to_numpy(dtype=object)
    return EmbeddedCells(table.obs["barcode"][rows].tolist(), table.obsm[KEY_ADDED][rows], labels)
