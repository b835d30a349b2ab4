import pytest

from epifoundation.dataset_builders import gene_annotation
from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates, has_gene_coordinates, positions_of


def test_the_table_is_that_of_the_gene_annotation():
    genes, annotation = gene_coordinates("GRCh38"), gene_annotation("hg38")
    assert tuple(genes["symbol"]) == annotation.symbols
    assert tuple(genes["ensembl_id"]) == annotation.ensembl_ids
    assert genes["tss"].notna().sum() == 19_452
    assert (genes["start"] < genes["end"]).all()
    forward = genes[genes["strand"] == "+"]
    assert ((forward["tss"] >= forward["start"]) & (forward["tss"] < forward["end"])).mean() > 0.99


def test_a_table_given_away_is_not_shared():
    mine = gene_coordinates("hg38")
    mine.loc[0, "symbol"] = "changed"
    assert gene_coordinates("hg38").loc[0, "symbol"] != "changed"


def test_other_genomes_are_refused():
    assert not has_gene_coordinates("mm10")
    with pytest.raises(ValueError, match="no table of genes for 'mm10', only for hg38"):
        gene_coordinates("mm10")


def test_genes_are_found_by_symbol_and_by_ensembl_id():
    found = positions_of(["GAPDH", "not a gene", "ENSG00000111640.15"])
    assert found["chromosome"].isna().tolist() == [False, True, False]
    assert found["start"].tolist()[0] == found["start"].tolist()[2]
    assert found["chromosome"][0] == "chr12"


def test_genes_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match=r"none of the 2 genes, such as \['a', 'b'\], has a known position in hg38"):
        positions_of(["a", "b"])
    with pytest.raises(ValueError, match="no table of genes for 'mm10'"):
        positions_of(["Gapdh"], "mm10")
