import gzip
from pathlib import Path

import pytest

from epifoundation.dataset_builders import gene_annotation, genome
from epifoundation.tokenization import CHROMOSOME_LENGTHS, GeneVocabulary

TABLE = Path(genome.__file__).parent / "annotations" / "genes_hg38.tsv.gz"


@pytest.mark.wheel
def test_the_genes_come_with_the_package():
    genes = gene_annotation("GRCh38")
    assert len(genes) == 32_057
    # HGNC and the UCSC browser: where everybody finds these genes
    found = dict(zip(genes.symbols, zip(genes.ensembl_ids, genes.chromosomes, strict=True), strict=True))
    assert found["TP53"] == ("ENSG00000141510", "chr17")
    assert found["GATA1"] == ("ENSG00000102145", "chrX")
    assert found["MT-CO1"] == ("ENSG00000198804", "chrM")


def test_it_annotates_symbols_and_ids():
    genes = GeneVocabulary.from_names(["TP53", "ENSG00000102145.12", "no such gene"], gene_annotation())
    assert genes.chromosomes == ("chr17", "chrX", "unknown")
    assert genes.symbols[1] == "GATA1"


def test_another_genome_needs_a_table_of_its_own():
    with pytest.raises(ValueError, match=r"no table of genes for 'mm10', only for hg38: pass one of your own"):
        gene_annotation("mm10")


def test_positions_lie_on_their_chromosomes():
    with gzip.open(TABLE, "rt") as file:
        header = file.readline().rstrip("\n").split("\t")
        rows = [dict(zip(header, line.rstrip("\n").split("\t"), strict=True)) for line in file]
    assert header == ["chromosome", "start", "end", "ensembl_id", "symbol", "strand", "tss"]
    lengths = CHROMOSOME_LENGTHS["hg38"]
    assert all(0 <= int(row["start"]) < int(row["end"]) <= lengths[row["chromosome"]] for row in rows)
    with_strand = [row for row in rows if row["tss"]]
    assert len(with_strand) == 19_452
    assert {row["strand"] for row in with_strand} == {"+", "-"}
