"""A tokenizer made of the peaks and genes of one's own files: those that enough cells have."""

import warnings
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

from ..genome.gene_annotation import gene_annotation
from ..readers.matrix_files import MatrixFile

SECONDS_BEFORE_BAR = 3  # a quick count needs no progress bar


class ColumnCounts(NamedTuple):
    """In how many cells each peak is open, or each gene expressed.

    Attributes:
        names: of the columns of a file.
        num_cells: (columns,) int64, cells with a value above 0.
    """

    names: list[str]
    num_cells: np.ndarray

    def frequent(self, min_cells: int, things: str) -> list[str]:
        """Names of the columns that at least `min_cells` cells have.

        Raises:
            ValueError: if there are none.
        """
        kept = np.flatnonzero(self.num_cells >= min_cells)
        if not len(kept):
            raise ValueError(
                f"none of the {len(self.names):,} {things} is found in {min_cells:,} cells, the most frequent in "
                f"{self.num_cells.max():,}: ask for fewer cells, and check that X holds raw counts"
            )
        return [self.names[i] for i in kept]


def count_columns(file: MatrixFile) -> ColumnCounts:
    """Count the cells of each column, in one pass over the matrix and with little memory.

    Raises:
        ValueError: if the file is damaged.
    """
    num_cells = np.zeros(len(file.column_names), dtype=np.int64)
    if file.is_stored_by_columns:
        blocks = ((columns, values) for _, columns, values in file.column_entries())
    else:
        blocks = ((block.indices, block.data) for block in file.blocks())
    for columns, values in tqdm(
        blocks, desc=f"counting {file.measured.things}", unit=" blocks", delay=SECONDS_BEFORE_BAR
    ):
        num_cells += np.bincount(columns[values > 0], minlength=len(num_cells))
    return ColumnCounts(file.column_names, num_cells)


def own_tokenizer(
    peaks: ColumnCounts,
    genes: ColumnCounts | None,
    *,
    genome: str = "hg38",
    min_cells_per_peak: int = 1,
    min_cells_per_gene: int = 10,
) -> PeakTokenizer:
    """A tokenizer of the peaks and genes that enough cells have; genes get their chromosomes where these are known.

    Args:
        peaks: those of a file.
        genes: likewise; None for a tokenizer without genes.
        genome: assembly of the peaks.
        min_cells_per_peak: peaks open in fewer cells are left out.
        min_cells_per_gene: genes expressed in fewer cells are left out.

    Raises:
        ValueError: if none is left, a name occurs twice, or peaks do not fit the genome.

    Warns:
        UserWarning: if the genome has no table of genes, whose chromosomes are then unknown.
    """
    vocabulary = PeakVocabulary.from_names(peaks.frequent(min_cells_per_peak, "peaks"), genome)
    if genes is None:
        return PeakTokenizer(vocabulary)
    names = genes.frequent(min_cells_per_gene, "genes")
    return PeakTokenizer(vocabulary, GeneVocabulary.from_names(names, _annotation(vocabulary.genome)))


def _annotation(genome: str) -> GeneVocabulary | None:
    try:
        return gene_annotation(genome)
    except ValueError:
        warnings.warn(f"no table of genes for {genome}: the chromosomes of the genes stay unknown", stacklevel=3)
        return None
