"""``epifoundation tokenize``: from count matrices to the folder that ``pretrain`` and ``finetune`` take."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Overwrite
from .peak_sets import peaks_of
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation.dataset_builders.tokenized.tokenized_folder import TokenizedReport
    from epifoundation.tokenization import PeakTokenizer


class SplitRule(StrEnum):
    """How cells are divided."""

    cell = "cell"
    stratified = "stratified"
    batch = "batch"
    donor = "donor"
    tissue = "tissue"


Key = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs.", show_default="none")]


@one_line_errors
def tokenize(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="An .h5ad of peaks, an .h5mu, with --subset a folder of MiniAtlas, with --labels one of BED files.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    rna: Annotated[
        Path | None, typer.Option(help="An .h5ad of gene counts of the same cells.", show_default="none")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(help="Subset of MiniAtlas: full, bmmc, kidney or pbmc.", show_default="none")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Bulk samples: a table of file, cell_type, assay (and batch, donor, tissue).",
            show_default="none",
        ),
    ] = None,
    cell_type_key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of obs with the cell types.", show_default="none; annot for MiniAtlas"
        ),
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of obs with the batches.", show_default="none; batch for MiniAtlas"
        ),
    ] = None,
    donor_key: Key = None,
    tissue_key: Key = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Take its peaks and genes; or the peaks of a BED file.",
            show_default="the file's own peaks and genes",
        ),
    ] = None,
    genome: Annotated[str, typer.Option(help="Assembly of the file's own peaks, or of the BED file.")] = "hg38",
    min_cells_per_peak: Annotated[
        int, typer.Option(min=1, help="Leave out own peaks that are open in fewer cells than this.")
    ] = 1,
    min_cells_per_gene: Annotated[
        int, typer.Option(min=1, help="Leave out own genes that are expressed in fewer cells than this.")
    ] = 10,
    split: Annotated[
        SplitRule, typer.Option(help="What decides on the split: chance, cell types, or whole groups.")
    ] = SplitRule.cell,
    validation: Annotated[float, typer.Option(help="Share of cells, or groups, to validate on; 0 for none.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of cells, or groups, that training never sees.")] = 0.1,
    validation_group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A group to validate on, in place of a share; repeatable.", show_default="none"
        ),
    ] = None,
    test_group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A group for the test, in place of a share; repeatable.", show_default="none"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another one gives another split.")] = 0,
    allow_float_counts: Annotated[
        bool, typer.Option("--allow-float-counts", help="Take gene counts that are not whole numbers.")
    ] = False,
    atac_modality: Annotated[
        str | None, typer.Option(help="Part of an .h5mu with the peaks.", show_default="atac, peaks, or the only one")
    ] = None,
    rna_modality: Annotated[
        str | None, typer.Option(help="Part of an .h5mu with the genes.", show_default="rna, gex or genes")
    ] = None,
    num_proc: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Turn count matrices into cells that 'pretrain' and 'finetune' take: Parquet files with their tokenizer.

    Cells are matched by barcode, whatever their order. The cells are divided into train, validation and test;
    training takes the first and evaluates on the second. Give --tokenizer to fine-tune a model on data of your own.

    For example:

    epifoundation tokenize atac.h5ad --rna rna.h5ad --cell-type-key cell_type -o cells

    epifoundation tokenize MiniAtlas --subset kidney --split batch -o kidney

    epifoundation tokenize bed_files --labels samples.tsv --tokenizer checkpoint -o samples

    Then: epifoundation pretrain examples/settings/pretrain_small.yaml --data cells --output_dir pretrained
    """
    from datasets import disable_progress_bars

    from epifoundation.dataset_builders.tokenized.bulk_samples import tokenize_bed_files
    from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files

    quiet_libraries()
    if not sys.stderr.isatty():  # a log file would fill with them
        disable_progress_bars()
    keys = {"cell_type_key": cell_type_key, "batch_key": batch_key, "donor_key": donor_key, "tissue_key": tissue_key}
    shared: dict[str, Any] = {
        "tokenizer": _tokenizer(tokenizer, genome),
        "split": Split(
            rule=split.value,
            validation=validation,
            test=test,
            validation_groups=tuple(validation_group or ()),
            test_groups=tuple(test_group or ()),
            seed=seed,
        ),
        "overwrite": overwrite,
        "num_proc": num_proc,
    }
    if labels is not None:
        _refuse_with_labels(
            {"--rna": rna, "--subset": subset, **{f"--{k.replace('_', '-')}": v for k, v in keys.items()}}
        )
        if shared["tokenizer"] is None:
            raise ValueError("bulk samples have peaks of their own each: name common ones by --tokenizer")
        report = tokenize_bed_files(labels, path, output, **shared)
    else:
        atac, rna_file = _files(path, rna, subset)
        report = tokenize_files(
            atac,
            rna_file,
            output,
            genome=genome,
            min_cells_per_peak=min_cells_per_peak,
            min_cells_per_gene=min_cells_per_gene,
            allow_float_counts=allow_float_counts,
            atac_modality=atac_modality,
            rna_modality=rna_modality,
            **(shared | _keys(keys, is_mini_atlas=subset is not None)),
        )
    typer.echo("\n".join([*_lines(report), f"{output}: {report.pairing.num_cells:,} cells tokenised"]))


def _tokenizer(name: str | None, genome: str) -> "PeakTokenizer | None":
    from epifoundation.tokenization import PeakTokenizer

    if name is None:
        return None
    peaks = peaks_of(name, genome)
    return peaks if isinstance(peaks, PeakTokenizer) else PeakTokenizer(peaks)


def _refuse_with_labels(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]} and --labels cannot be combined: the labels of bulk samples are in the table")


def _files(path: Path, rna: Path | None, subset: str | None) -> tuple[Any, Any]:
    from epifoundation.dataset_builders.tokenized.mini_atlas import mini_atlas_files

    if subset is None:
        if path.is_dir():
            raise IsADirectoryError(
                f"{path} is a folder: expected an .h5ad or .h5mu file, or --subset for MiniAtlas, or --labels for BED"
            )
        return path, rna
    if rna is not None:
        raise ValueError("--rna and --subset cannot be combined: a subset of MiniAtlas has its own file of genes")
    atac, rna_of_subset = mini_atlas_files(subset, path)
    return atac, rna_of_subset


def _keys(keys: dict[str, str | None], *, is_mini_atlas: bool) -> dict[str, str | None]:
    """The columns to read; "none" stands for none where MiniAtlas would have one."""
    defaults = {"cell_type_key": "annot", "batch_key": "batch"} if is_mini_atlas else {}
    named = {name: defaults.get(name) if key is None else key for name, key in keys.items()}
    return {name: None if key == "none" else key for name, key in named.items()}


def _lines(report: "TokenizedReport") -> list[str]:
    pairing = report.pairing
    low, median, high = report.peaks_per_cell
    peaks = _part(pairing.num_matched_peaks, pairing.num_peaks)
    rows = [
        ("cells", _cells(report)),
        ("peaks", f"{peaks}, of a vocabulary of {report.vocabulary_size:,} ({report.genome})"),
        ("open peaks", _part(report.num_matched_entries, report.num_entries)),
    ]
    if pairing.num_matched_genes is not None and pairing.num_genes is not None:
        genes = _part(pairing.num_matched_genes, pairing.num_genes)
        rows.append(("genes", f"{genes}, of a vocabulary of {report.gene_vocabulary_size:,}"))
    rows.append(("peaks per cell", f"{median:,.0f} ({low:,.0f} at 5 %, {high:,.0f} at 95 % of the cells)"))
    if report.num_empty_cells:
        rows.append(("empty cells", f"{report.num_empty_cells:,} without a peak of the vocabulary"))
    rows += [(f"no {name}", f"{number:,} cells") for name, number in pairing.num_unlabelled.items() if number]
    if report.cell_types:
        rows.append(("cell types", _sizes(report.cell_types)))
    rows.append(("splits", f"{_sizes(report.num_cells_of_split)} (by {report.split.rule})"))
    return [f"{name:<16}{value}" for name, value in rows]


def _cells(report: "TokenizedReport") -> str:
    pairing = report.pairing
    if pairing.num_rna_cells is None:
        return f"{pairing.num_cells:,}, ATAC alone"
    left_out = [*(f"{name} (ATAC)" for name in pairing.atac_only), *(f"{name} (RNA)" for name in pairing.rna_only)]
    both = (
        f"{pairing.num_cells:,} of {pairing.num_atac_cells:,} ATAC and {pairing.num_rna_cells:,} RNA cells are in both"
    )
    return f"{both}; only in one: {', '.join(left_out)}" if left_out else both


def _part(part: int, whole: int) -> str:
    share = f" ({100 * part / whole:.1f} %)" if whole else ""
    return f"{part:,} of {whole:,} usable{share}"


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sizes.items())
