import numpy as np
import pytest
import torch
from datasets import Dataset

from epifoundation import PeakTokenizer
from epifoundation.training import contrastive
from epifoundation.training.contrastive import ContrastiveCollator, rank_genes, typical_gene_counts

from .conftest import NUM_GENES


def test_genes_come_in_the_order_of_their_expression() -> None:
    ids, counts = [4, 6, 7, 9], [2.0, 5.0, 2.0, 9.0]
    assert rank_genes(ids, counts).tolist() == [9, 6, 4, 7]
    typical = np.ones(10)
    typical[9] = 90  # high in every cell
    assert rank_genes(ids, counts, typical).tolist() == [6, 4, 7, 9]
    assert rank_genes([], []).tolist() == [2]


def test_typical_counts_are_means_over_the_cells_that_express_a_gene(
    cells: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "BLOCK", 7)
    seen: dict[int, list[float]] = {}
    for row in cells:
        total = sum(row["gene_counts"])
        for gene, count in zip(row["gene_ids"], row["gene_counts"], strict=True):
            seen.setdefault(gene, []).append(count / total * 10_000)
    expected = [np.mean(seen.get(gene, [1.0])) for gene in range(NUM_GENES + 4)]
    np.testing.assert_allclose(typical_gene_counts(cells, NUM_GENES + 4), expected)


def test_a_batch_holds_peaks_and_ranked_genes(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)]
    batch = ContrastiveCollator(tokenizer, max_genes=3)(rows)
    for row, ids, mask in zip(rows, batch["gene_ids"], batch["gene_attention_mask"], strict=True):
        expected = rank_genes(row["gene_ids"], row["gene_counts"])[:3].tolist()
        assert ids[mask.bool()].tolist() == expected
        assert ids[~mask.bool()].eq(0).all()
    packed = ContrastiveCollator(tokenizer, max_genes=3, packing=True)(rows)
    assert torch.equal(packed["gene_ids"], batch["gene_ids"])
