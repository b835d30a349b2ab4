import math

import pytest
import torch
from datasets import Dataset

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.tokenized.gene_ranks import rank_genes
from epifoundation.training.contrastive import ContrastiveCollator, ImputationCollator

from .conftest import NUM_GENES


def test_a_batch_holds_peaks_and_ranked_genes(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)]
    batch = ContrastiveCollator(tokenizer, max_genes=3)(rows)
    for row, ids, mask in zip(rows, batch["gene_ids"], batch["gene_attention_mask"], strict=True):
        expected = rank_genes(row["gene_ids"], row["gene_counts"])[:3].tolist()
        assert ids[mask.bool()].tolist() == expected
        assert ids[~mask.bool()].eq(0).all()
    packed = ContrastiveCollator(tokenizer, max_genes=3, packing=True)(rows)
    assert torch.equal(packed["gene_ids"], batch["gene_ids"])


def test_imputation_asks_for_the_expression_of_every_gene(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)] + [dict(cells[4]) | {"gene_ids": [], "gene_counts": []}]
    labels = ImputationCollator(tokenizer, packing=True)(rows)["labels"]
    assert labels.shape == (5, NUM_GENES)
    for row, values in zip(rows, labels.tolist(), strict=True):
        total = sum(row["gene_counts"])
        count = dict(zip(row["gene_ids"], row["gene_counts"], strict=True))
        expected = [math.log(1 + 10_000 * count[i] / total) if i in count else 0 for i in range(4, 4 + NUM_GENES)]
        assert values == pytest.approx(expected, rel=1e-5)
