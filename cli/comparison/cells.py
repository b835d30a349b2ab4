"""The cells of an evaluation: read from files of any kind, and divided into training and held-out cells."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders import load_cells, split_cells
from epifoundation.dataset_builders.readers.matrix_files import GENES, GeneFile, MatrixFile, modalities_of
from epifoundation.dataset_builders.tokenized.paired_cells import count_matrix, peak_matrix
from epifoundation.dataset_builders.tokenized.pairing import match_names
from epifoundation.tokenization import NUM_SPECIAL_TOKENS
from epifoundation.training import expression_levels

NUM_LEVELS = 10  # of expression, 0 among them (paper)
HOLDOUTS = ("cell", "batch", "split")
SINGLE_BATCH = "all"


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Cells with their labels.

    Attributes:
        name: of the data, for titles.
        barcodes: (cells,) names.
        peaks: (cells, peaks) raw counts, or 0 and 1.
        peak_names: (peaks,).
        cell_types: (cells,) names.
        batches: (cells,) names; "all" where none were named.
        genes: (cells, genes) raw counts, or None.
        gene_names: (genes,).
        genome: of the peaks.
        stored_split: (cells,) "train" or another name, where the data come divided.
    """

    name: str
    barcodes: np.ndarray
    peaks: sp.csr_matrix
    peak_names: tuple[str, ...]
    cell_types: np.ndarray
    batches: np.ndarray
    genes: sp.csr_matrix | None
    gene_names: tuple[str, ...]
    genome: str
    stored_split: np.ndarray | None = None

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return len(self.barcodes)

    @cached_property
    def digest(self) -> str:
        """A digest of names, labels and counts; hexadecimal text."""
        digest = hashlib.blake2b(digest_size=16)
        for names in (self.barcodes, self.cell_types, self.batches, self.peak_names, self.gene_names):
            digest.update("\n".join([str(len(names)), *map(str, names)]).encode())
        for matrix in (self.peaks, self.genes):
            for part in (matrix.indptr, matrix.indices, matrix.data) if matrix is not None else ():
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def rows(self, keep: np.ndarray) -> "EvaluationData":
        """Some of the cells, by positions or by True and False."""
        parts: dict[str, Any] = {
            name: getattr(self, name)[keep] for name in ("barcodes", "peaks", "cell_types", "batches")
        }
        parts["genes"] = None if self.genes is None else self.genes[keep]
        parts["stored_split"] = None if self.stored_split is None else self.stored_split[keep]
        return replace(self, **parts)

    def atac(self) -> AnnData:
        """The peaks as AnnData, with the labels."""
        data = AnnData(self.peaks)
        data.obs_names, data.var_names = self.barcodes, list(self.peak_names)
        data.obs["cell_type"], data.obs["batch"] = self.cell_types.astype(str), self.batches.astype(str)
        return data

    def rna(self) -> AnnData | None:
        """The genes as AnnData."""
        if self.genes is None:
            return None
        data = AnnData(self.genes)
        data.obs_names, data.var_names = self.barcodes, list(self.gene_names)
        return data


def read_data(
    path: Path,
    rna: Path | None = None,
    *,
    label_key: str = "cell_type",
    batch_key: str | None = None,
    genome: str = "hg38",
    no_types: Sequence[str] = (),
) -> EvaluationData:
    """Read cells from an .h5ad, an .h5mu, or a folder of tokenised cells; those without a cell type are left out.

    Args:
        path: of the peaks, and in an .h5mu or a folder of the genes too.
        rna: an .h5ad or .h5mu of the genes of the same cells; they are matched by barcode.
        label_key: column of the cell types.
        batch_key: column of the batches; by default all cells are one batch.
        genome: of the peaks; a folder of tokenised cells knows its own.
        no_types: labels that name no cell type, such as "unassigned".

    Raises:
        FileNotFoundError: if something is not there.
        ValueError: if a file cannot be used, a column or a label is missing, or no cell has a type.
    """
    data = _from_folder(path) if path.is_dir() else _from_files(path, rna, label_key, batch_key, genome)
    absent = sorted(set(no_types) - set(data.cell_types))
    if absent:
        raise ValueError(
            f"no cell of {path} is labelled {', '.join(absent)}: there are {', '.join(sorted(set(data.cell_types)))}"
        )
    is_known = np.array([bool(name) and name not in no_types for name in data.cell_types])
    if not is_known.any():
        raise ValueError(f"no cell of {path} has a cell type in {label_key!r}")
    return data if is_known.all() else data.rows(is_known)


def drawn(data: EvaluationData, max_cells: int) -> EvaluationData:
    """At most so many of the cells, the same share of each type; the same ones at every call.

    Raises:
        ValueError: if these are too few to leave each type a cell.
    """
    if data.num_cells <= max_cells:
        return data
    return data.rows(held_out(data, "cell", max_cells / data.num_cells, seed=0)[1])


def held_out(
    data: EvaluationData, how: str, share: float, seed: int, test_batches: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Which cells train and which are held out: two arrays of rising positions, the same at every call.

    Args:
        data: the cells.
        how: "cell", a share of each cell type; "batch", whole batches; "split", as the data come divided.
        share: of the cells of each type, or of the batches, to hold out.
        seed: another one gives another division; it plays no part in "split" and for named batches.
        test_batches: names of the batches to hold out, in place of a share of them.

    Raises:
        ValueError: if the data do not allow for it.
    """
    if how not in HOLDOUTS:
        raise ValueError(f"expected one of {', '.join(HOLDOUTS)} as what to hold out, got {how!r}")
    if how == "split":
        if data.stored_split is None:
            raise ValueError("these data come undivided: hold out by cell or by batch")
        is_train = data.stored_split == "train"
        return np.flatnonzero(is_train), np.flatnonzero(~is_train)
    rows = _labels_as_rows(data)
    if how == "cell":
        parts = split_cells(rows, validation=0, test=share, stratify_by="cell_type", seed=seed)
    else:
        parts = split_cells(rows, validation=0, test=share, by="batch", test_groups=list(test_batches), seed=seed)
    return np.asarray(parts["train"]["row"]), np.asarray(parts["test"]["row"])


def expressed_genes(data: EvaluationData, is_train: np.ndarray, min_cells: int) -> np.ndarray:
    """(genes,) bool: those that at least `min_cells` training cells express.

    Raises:
        ValueError: if there are no genes, or none is left.
    """
    if data.genes is None:
        raise ValueError(f"{data.name} has peaks alone: name the file of the genes of the same cells (--rna)")
    num_cells = np.asarray((data.genes[is_train] > 0).sum(axis=0)).ravel()
    if num_cells.max() < min_cells:
        raise ValueError(
            f"no gene is expressed in {min_cells:,} training cells, the most frequent in {num_cells.max():,}: lower "
            "--min-cells-per-gene"
        )
    return num_cells >= min_cells


def levels_of(counts: sp.csr_matrix, num_levels: int = NUM_LEVELS) -> sp.csr_matrix:
    """(cells, genes) float32 levels of expression of each cell by its own counts, as in training; 0 stays 0."""
    levels = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    levels.eliminate_zeros()
    for start, stop in zip(levels.indptr[:-1], levels.indptr[1:], strict=True):
        levels.data[start:stop] = expression_levels(levels.data[start:stop], num_levels)
    return levels


def _from_files(path: Path, rna: Path | None, label_key: str, batch_key: str | None, genome: str) -> EvaluationData:
    with MatrixFile.open(path) as file:
        barcodes, peak_names = np.array(file.cell_names, dtype=object), tuple(file.column_names)
        cell_types = _column(file, label_key, "--label-key")
        batches = np.full(len(barcodes), SINGLE_BATCH, dtype=object)
        if batch_key is not None:
            batches = _column(file, batch_key, "--batch-key")
        peaks = _matrix(file)
    data = EvaluationData(
        f"{path.resolve().parent.name}/{path.name}", barcodes, peaks, peak_names, cell_types, batches, None, (), genome
    )
    if batch_key is not None and not all(batches):
        raise ValueError(f"{sum(not name for name in batches):,} cells have no value in the column {batch_key!r}")
    has_genes = any(name in GENES.modalities for name in modalities_of(path))
    return data if rna is None and not has_genes else _with_genes(data, rna or path)


def _with_genes(data: EvaluationData, path: Path) -> EvaluationData:
    with GeneFile.open(path) as file:
        _, atac_rows, rna_rows, _ = match_names(data.barcodes.tolist(), file.cell_names)
        genes, gene_names = _matrix(file)[rna_rows], tuple(file.column_names)
    return replace(data.rows(atac_rows), genes=genes, gene_names=gene_names)


def _from_folder(folder: Path) -> EvaluationData:
    cells, tokenizer = load_cells(folder), PeakTokenizer.from_pretrained(folder)
    parts = cells if isinstance(cells, DatasetDict) else {"train": cells}
    split = np.concatenate([np.repeat(name, len(part)) for name, part in parts.items()]).astype(object)
    cells = concatenate_datasets(list(parts.values()))
    if "cell_type" not in cells.features:
        raise ValueError(f"the cells in {folder} have no cell_type: tokenise them with --cell-type-key")
    genes = None
    if "gene_ids" in cells.features and tokenizer.genes is not None:
        genes = count_matrix(cells, NUM_SPECIAL_TOKENS + len(tokenizer.genes))[:, NUM_SPECIAL_TOKENS:]
    return EvaluationData(
        folder.resolve().name,
        np.array(cells["barcode"], dtype=object),
        peak_matrix(cells, len(tokenizer))[:, NUM_SPECIAL_TOKENS:],
        tuple(tokenizer.vocabulary.names()),
        _class_names(cells, "cell_type"),
        _class_names(cells, "batch") if "batch" in cells.features else np.full(len(cells), SINGLE_BATCH, object),
        genes,
        () if genes is None else tuple(tokenizer.genes.names),
        tokenizer.vocabulary.genome,
        split if len(parts) > 1 else None,
    )


def _class_names(cells: Dataset, column: str) -> np.ndarray:
    names = [*cells.features[column].names, ""]  # -1, the last, stands for unknown
    return np.array([names[code] for code in cells[column]], dtype=object)


def _matrix(file: MatrixFile) -> sp.csr_matrix:
    matrix = sp.csr_matrix(sp.vstack(list(file.blocks()), format="csr"))
    if matrix.nnz and (not np.isfinite(matrix.data).all() or matrix.data.min() < 0):
        raise ValueError(f"{file.path}: X holds values below 0 or none at all; put raw counts there")
    return sp.csr_matrix(matrix, dtype=np.float32)


def _column(file: MatrixFile, key: str, option: str) -> np.ndarray:
    """(cells,) texts, "" where there is no value."""
    for table in file.annotations:
        if key in table.columns:
            values = table.read(key).set_axis(list(table.cell_names())).reindex(file.cell_names)
            return np.array(["" if value is None or value != value else str(value) for value in values], dtype=object)
    found = list(dict.fromkeys(column for table in file.annotations for column in table.columns))
    raise ValueError(f"{file.path} has no column {key!r} in obs, only {found}: name one of them with {option}")


def _labels_as_rows(data: EvaluationData) -> Dataset:
    columns: dict[str, Any] = {"barcode": data.barcodes.tolist(), "row": np.arange(data.num_cells)}
    features: dict[str, Any] = {"barcode": Value("string"), "row": Value("int64")}
    for name, values in (("cell_type", data.cell_types), ("batch", data.batches)):
        names, codes = np.unique(values.astype(str), return_inverse=True)
        columns[name], features[name] = codes, ClassLabel(names=names.tolist())
    return Dataset.from_dict(columns, features=Features(features))
