"""From count matrices to a folder that training takes: tokenised cells in splits, their tokenizer, and a report."""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features

from epifoundation.sharing import complete_dataset
from epifoundation.tokenization import PeakTokenizer

from ..matrices.full_disk import full_disk_explained
from ..readers.matrix_files import GENES, GeneFile, MatrixFile, modalities_of
from .own_vocabulary import ColumnCounts, count_columns, own_tokenizer
from .paired_cells import PairedCells, PathLike
from .pairing import PairingReport
from .splits import split_cells
from .stored_cells import save_cells

REPORT_FILE = "tokenized.json"
QUANTILES = (0.05, 0.5, 0.95)

SplitRule = Literal["cell", "stratified", "batch", "donor", "tissue"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """How cells are divided; `split_cells` has the details.

    Attributes:
        rule: by "cell", "stratified" by cell type, or by whole groups: "batch", "donor" or "tissue".
        validation: share of the cells, or of the groups, for validation; 0 for none.
        test: likewise for the test.
        validation_groups: names of the groups for validation, in place of a share.
        test_groups: names of the groups for the test, in place of a share.
        seed: another one gives another division.
    """

    rule: SplitRule = "cell"
    validation: float = 0.1
    test: float = 0.1
    validation_groups: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()
    seed: int = 0

    def divide(self, cells: Dataset) -> DatasetDict:
        """The splits of a tokenised data set.

        Raises:
            ValueError: if the columns or shares do not allow it.
        """
        return split_cells(
            cells,
            validation=0 if self.validation_groups else self.validation,
            test=0 if self.test_groups else self.test,
            by=None if self.rule in ("cell", "stratified") else self.rule,
            stratify_by="cell_type" if self.rule == "stratified" else None,
            validation_groups=self.validation_groups,
            test_groups=self.test_groups,
            seed=self.seed,
        )


@dataclass(frozen=True)
class TokenizedReport:
    """What became of the data, as ``tokenized.json`` keeps it.

    Attributes:
        pairing: cells, peaks and genes that were matched.
        genome: assembly of the tokenizer's peaks.
        vocabulary_size: its peaks.
        vocabulary_digest: `PeakVocabulary.digest()`.
        gene_vocabulary_size: its genes; None if it has none.
        num_entries: open peaks of all cells of the ATAC file.
        num_matched_entries: those that overlap a peak of the tokenizer.
        peaks_per_cell: number of peaks in a cell of the data set, at 5 %, 50 % and 95 % of the cells.
        num_empty_cells: cells without any.
        cell_types: cells of each type; empty where there are no types.
        split: how the cells were divided.
        num_cells_of_split: cells of each split.
    """

    pairing: PairingReport
    genome: str
    vocabulary_size: int
    vocabulary_digest: str
    gene_vocabulary_size: int | None
    num_entries: int
    num_matched_entries: int
    peaks_per_cell: tuple[float, ...]
    num_empty_cells: int
    cell_types: dict[str, int]
    split: Split
    num_cells_of_split: dict[str, int]


def tokenize_files(
    atac: PathLike,
    rna: PathLike | None,
    folder: PathLike,
    *,
    tokenizer: PeakTokenizer | None = None,
    genome: str = "hg38",
    min_cells_per_peak: int = 1,
    min_cells_per_gene: int = 10,
    split: Split | None = None,
    overwrite: bool = False,
    num_proc: int | None = None,
    **options: Any,
) -> TokenizedReport:
    """Write a folder for pre-training and fine-tuning: ``data/*.parquet``, tokenizer, ``tokenized.json`` and a card.

    `load_cells` and ``datasets.load_dataset(folder)`` read it. It appears complete or not at all. Files of any size
    are read, a block of cells at a time; the disk needs room for the cells uncompressed, beside the folder.

    Args:
        atac: an .h5ad of peaks, or an .h5mu of peaks and genes.
        rna: an .h5ad of genes; None to take those of an .h5mu, if there are any.
        folder: what to write.
        tokenizer: that of a checkpoint; by default one is made of the files' own peaks and genes.
        genome: assembly of own peaks.
        min_cells_per_peak: own peaks open in fewer cells are left out.
        min_cells_per_gene: own genes expressed in fewer cells are left out.
        split: how the cells are divided; by default a tenth each for validation and test, by cell.
        overwrite: replace `folder` if it is such a folder.
        num_proc: processes.
        options: further arguments of `PairedCells`, such as ``cell_type_key``.

    Raises:
        FileExistsError: if there is something at `folder`, unless it is such a folder and `overwrite`.
        FileNotFoundError: if a file, or the folder above `folder`, is not there.
        ValueError: for the reasons of `PairedCells`, `split_cells` and `own_tokenizer`.
    """
    split = split or Split()
    rna = _place_of_genes(atac, rna, options.get("rna_modality"))
    with new_folder(folder, overwrite) as partial, tempfile.TemporaryDirectory(dir=partial) as cache:
        with MatrixFile.open(atac, options.get("atac_modality")) as file:
            peaks = count_columns(file)
        if tokenizer is None:
            genes = None if rna is None else _count_genes(rna, options.get("rna_modality"))
            limits = {"min_cells_per_peak": min_cells_per_peak, "min_cells_per_gene": min_cells_per_gene}
            tokenizer = own_tokenizer(peaks, genes, genome=genome, **limits)
        builder = PairedCells(atac, rna, tokenizer=tokenizer, cache_dir=cache, **options)
        split.divide(_labels(builder))  # refuses a split that is not possible before the long work, not after it
        builder.download_and_prepare(num_proc=num_proc)
        cells = builder.as_dataset("train")
        parts = split.divide(cells)
        save_cells(parts, partial / "data")
        tokenizer.save_pretrained(partial)
        report = _report(builder, peaks, cells, split, parts)
        (partial / REPORT_FILE).write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        complete_dataset(partial, name=Path(os.path.realpath(folder)).name)
    return report


@contextlib.contextmanager
def new_folder(folder: PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `folder`, which takes its name when the block ends well and vanishes otherwise.

    Raises:
        FileExistsError: if there is something at `folder`, unless it is a folder of tokenised cells and `overwrite`.
        FileNotFoundError: if the folder above is not there.
    """
    target = Path(os.path.realpath(folder))
    _refuse_to_replace(target, folder, overwrite)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {folder}: {target.parent} is not a folder; make it first")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        with full_disk_explained(target):
            yield partial
        _exchange(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exchange(partial: Path, target: Path) -> None:
    old = partial.with_suffix(".old")
    if target.exists():
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _refuse_to_replace(target: Path, folder: PathLike, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / REPORT_FILE).is_file():
        raise FileExistsError(f"{folder} exists and is no folder of tokenised cells: choose another name")
    if not overwrite:
        raise FileExistsError(f"{folder} exists: choose another name, or replace it with overwrite (--overwrite)")


def _place_of_genes(atac: PathLike, rna: PathLike | None, modality: str | None) -> PathLike | None:
    is_in_atac = modality is not None or not set(GENES.modalities).isdisjoint(modalities_of(atac))
    return atac if rna is None and is_in_atac else rna


def _count_genes(path: PathLike, modality: str | None) -> ColumnCounts:
    with GeneFile.open(path, modality) as file:
        return count_columns(file)


def _labels(builder: PairedCells) -> Dataset:
    """The cells without their peaks and genes."""
    labels = builder.pairing.labels
    features = Features({name: builder.pairing.features[name] for name in ("barcode", *labels)})
    return Dataset(pa.table({"barcode": builder.pairing.barcodes, **labels}, schema=features.arrow_schema))


def _report(
    builder: PairedCells, peaks: ColumnCounts, cells: Dataset, split: Split, parts: DatasetDict
) -> TokenizedReport:
    vocabulary, genes = builder.tokenizer.vocabulary, builder.tokenizer.genes
    is_matched = builder.pairing.peaks.ids >= 0
    lists = cells.select_columns("input_ids").with_format("arrow").iter(10_000)
    num_peaks = np.concatenate([pc.list_value_length(block["input_ids"]).to_numpy() for block in lists]) - 1
    return TokenizedReport(
        pairing=builder.report,
        genome=vocabulary.genome,
        vocabulary_size=len(vocabulary),
        vocabulary_digest=vocabulary.digest(),
        gene_vocabulary_size=None if genes is None else len(genes),
        num_entries=int(peaks.num_cells.sum()),
        num_matched_entries=int(peaks.num_cells[is_matched].sum()),
        peaks_per_cell=tuple(np.quantile(num_peaks, QUANTILES).tolist()),
        num_empty_cells=int((num_peaks == 0).sum()),
        cell_types=_class_sizes(cells),
        split=split,
        num_cells_of_split={name: len(part) for name, part in parts.items()},
    )


def _class_sizes(cells: Dataset) -> dict[str, int]:
    feature = cells.features.get("cell_type")
    if not isinstance(feature, ClassLabel):
        return {}
    values = np.asarray(cells.with_format("arrow")[:]["cell_type"])
    return dict(
        zip(feature.names, np.bincount(values[values >= 0], minlength=len(feature.names)).tolist(), strict=True)
    )
