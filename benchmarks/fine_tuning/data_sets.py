"""The data sets of the benchmark: which files, which labels, and how cells are held out."""

from dataclasses import dataclass, field
from pathlib import Path

import anndata
from datasets import DatasetDict

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders import load_cells, save_cells, split_cells
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files


@dataclass(frozen=True)
class DataSet:
    """A data set and its splits.

    Attributes:
        title: for the report.
        is_paired: genes were measured too.
        genome: assembly.
        batch_key: column of obs with the batches.
        splits: ways to hold cells out, by name; the seed is put in later.
        without_type: a label that names no cell type; such cells are not annotated.
        has_gene_positions: genes have known places, so that gene activity can be computed.
        min_cells_per_gene: genes expressed in fewer cells are left out, of training too.
        min_cells_per_peak: likewise peaks.
    """

    title: str
    is_paired: bool
    splits: dict[str, Split] = field(default_factory=dict)
    genome: str = "hg38"
    batch_key: str | None = None
    without_type: str | None = None
    has_gene_positions: bool = True
    min_cells_per_gene: int = 50
    min_cells_per_peak: int = 1


DATA_SETS = {
    "snare": DataSet(
        "SNARE-seq, four human cell lines",
        is_paired=True,
        splits={"cells held out": Split(rule="stratified", validation=0.1, test=0.2)},
    ),
    "bone_marrow": DataSet(
        "human bone marrow, ATAC alone, two batches",
        is_paired=False,
        batch_key="batch",
        splits={
            f"train on {one}, test on {other}": Split(rule="batch", validation=0, test_groups=(other,))
            for one, other in (("BMMC_D6T1", "BMMC_D5T1"), ("BMMC_D5T1", "BMMC_D6T1"))
        },
    ),
    "cortex": DataSet(
        "SNARE-seq, mouse cortex, 12 batches",
        is_paired=True,
        genome="mm10",
        batch_key="batch",
        splits={"3 of 12 batches held out": Split(rule="batch", validation=1 / 12, test=3 / 12)},
        without_type="Mis",
        has_gene_positions=False,
    ),
}


def tokenised(data: DataSet, files: list[Path], split: Split, folder: Path) -> tuple[DatasetDict, PeakTokenizer]:
    """The cells of a split and their tokenizer, made in `folder` unless they are there."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        atac, rna = files[0], files[1] if data.is_paired else None
        if data.without_type is not None:
            atac = _with_unknown_types(atac, data.without_type, folder.with_suffix(".h5ad"))
        keys = {"cell_type_key": "cell_type", "batch_key": data.batch_key}
        fewest = {name: getattr(data, name) for name in ("min_cells_per_gene", "min_cells_per_peak")}
        options = {"genome": data.genome, "split": split, **fewest, **keys}
        if split.validation:
            tokenize_files(atac, rna, folder, **options)
        else:
            whole = folder.with_name("whole")
            tokenize_files(atac, rna, whole, **options)
            _save_with_validation(load_cells(whole), split.seed, folder)
            PeakTokenizer.from_pretrained(whole).save_pretrained(folder)
    return load_cells(folder), PeakTokenizer.from_pretrained(folder)


def _save_with_validation(cells: DatasetDict, seed: int, folder: Path) -> None:
    """Where all other batches are for the test, a tenth of the training batch serves to validate on."""
    parts = split_cells(cells["train"], validation=0.1, test=0, stratify_by="cell_type", seed=seed)
    save_cells(DatasetDict({**parts, "test": cells["test"]}), folder)


def _with_unknown_types(file: Path, label: str, copy: Path) -> Path:
    cells = anndata.read_h5ad(file)
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.remove_categories([label])
    cells.write_h5ad(copy)
    return copy
