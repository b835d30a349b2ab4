import numpy as np
from datasets import Dataset

from epifoundation.dataset_builders.tokenized import gene_ranks
from epifoundation.dataset_builders.tokenized.gene_ranks import rank_genes, typical_gene_counts


def test_genes_come_in_the_order_of_their_expression():
    ids, counts = [4, 6, 7, 9], [2.0, 5.0, 2.0, 9.0]
    assert rank_genes(ids, counts).tolist() == [9, 6, 4, 7]
    typical = np.ones(10)
    typical[9] = 90  # high in every cell
    assert rank_genes(ids, counts, typical).tolist() == [6, 4, 7, 9]
    assert rank_genes([], []).tolist() == [2]


def test_typical_counts_are_means_over_the_cells_that_express_a_gene(monkeypatch):
    monkeypatch.setattr(gene_ranks, "BLOCK", 2)  # the three cells come in two blocks
    cells = Dataset.from_dict({"gene_ids": [[4, 5], [5], [5, 7]], "gene_counts": [[1.0, 3.0], [2.0], [4.0, 4.0]]})
    # Gene 5 makes 3/4, all and half of the counts of a cell; genes 0 to 3 and 6 are expressed in none.
    np.testing.assert_allclose(typical_gene_counts(cells, 8), [1, 1, 1, 1, 2500, 7500, 1, 5000])
