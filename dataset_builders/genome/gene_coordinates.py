"""Where the genes of a genome lie and where their transcription starts, from a table that comes with the package."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from epifoundation.tokenization import canonical_genome

_ANNOTATIONS = Path(__file__).with_name("annotations")


def gene_coordinates(genome: str = "hg38") -> pd.DataFrame:
    """The genes of a genome, one per row, in order of position.

    Columns: ``chromosome``, ``start``, ``end`` (base pairs, 0-based, end not included), ``ensembl_id``, ``symbol``,
    ``strand`` ("+", "-", or missing) and ``tss`` (base pair where transcription starts, 0-based; missing where the
    strand is). See ``annotations/README.md`` for the source.

    Args:
        genome: "hg38" (32,057 genes of Ensembl 110), or another name of it.

    Raises:
        ValueError: for a genome without a table.
    """
    if not has_gene_coordinates(genome):
        known = ", ".join(sorted(file.name[6:-7] for file in _ANNOTATIONS.glob("genes_*.tsv.gz")))
        raise ValueError(f"there is no table of genes for {genome!r}, only for {known}")
    return _read(_path(genome)).copy()


def positions_of(names: Sequence[str], genome: str = "hg38") -> pd.DataFrame:
    """Where genes lie: a row for each name, by symbol first, then by Ensembl id, as `gene_coordinates` has it.

    A gene without a known position has a missing ``chromosome``. Of several genes with one symbol the first is meant.

    Raises:
        ValueError: if there is no table of this genome, or none of the genes is in it.
    """
    table = gene_coordinates(genome)
    plain = pd.Index([str(name) for name in names])
    symbols = table.loc[table["symbol"] != "", "symbol"].drop_duplicates()
    rows = pd.Series(symbols.index, symbols).reindex(plain).to_numpy(np.float64)
    by_id = pd.Series(table.index, table["ensembl_id"]).reindex(plain.str.replace(r"\.\d+$", "", regex=True))
    rows = np.where(np.isnan(rows), by_id.to_numpy(np.float64), rows)
    if np.isnan(rows).all():
        raise ValueError(
            f"none of the {len(plain):,} genes, such as {list(plain[:3])}, has a known position in {genome}, whose "
            f"table has names such as {list(symbols[:3])}: check genome and gene names"
        )
    return table.reindex(np.nan_to_num(rows, nan=-1).astype(np.int64)).reset_index(drop=True)


def has_gene_coordinates(genome: str) -> bool:
    """Whether there is a table for this genome."""
    return _path(genome).is_file()


def _path(genome: str) -> Path:
    return _ANNOTATIONS / f"genes_{canonical_genome(genome)}.tsv.gz"


@cache
def _read(path: Path) -> pd.DataFrame:
    # quoting=3: quotes mean nothing; the texts "NA" and the like would otherwise become missing symbols
    table = pd.read_csv(path, sep="\t", quoting=3, keep_default_na=False, na_values={"strand": [""], "tss": [""]})
    return table.astype({"tss": "Int64"})
