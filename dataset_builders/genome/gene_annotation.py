"""The genes of a genome: names and chromosomes, from a table that comes with the package."""

import csv
import gzip
from functools import cache
from pathlib import Path

from epifoundation.tokenization import GeneVocabulary, canonical_genome

_ANNOTATIONS = Path(__file__).with_name("annotations")
_TABLES = {"hg38": "genes_hg38.tsv.gz"}


def gene_annotation(genome: str = "hg38") -> GeneVocabulary:
    """The genes of a genome, to be passed as `annotation` to the constructors of `GeneVocabulary`.

    Args:
        genome: "hg38" (32,057 genes of Ensembl 110), or another name of it.

    Raises:
        ValueError: for a genome without a table.
    """
    name = canonical_genome(genome)
    if name not in _TABLES:
        raise ValueError(
            f"there is no table of genes for {genome!r}, only for {', '.join(_TABLES)}: pass one of your own, "
            "made with GeneVocabulary(symbols, ensembl_ids, chromosomes) or read with GeneVocabulary.load(path)"
        )
    return _read(name)


@cache
def _read(genome: str) -> GeneVocabulary:
    with gzip.open(_ANNOTATIONS / _TABLES[genome], "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    symbols, ensembl_ids, chromosomes = (
        [row[column] for row in rows] for column in ("symbol", "ensembl_id", "chromosome")
    )
    return GeneVocabulary(symbols, ensembl_ids, chromosomes)
