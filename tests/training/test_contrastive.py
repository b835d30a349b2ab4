import torch
from datasets import Dataset

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.tokenized.gene_ranks import rank_genes
from epifoundation.training.contrastive import ContrastiveCollator


def test_a_batch_holds_peaks_and_ranked_genes(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)]
    batch = ContrastiveCollator(tokenizer, max_genes=3)(rows)
    for row, ids, mask in zip(rows, batch["gene_ids"], batch["gene_attention_mask"], strict=True):
        expected = rank_genes(row["gene_ids"], row["gene_counts"])[:3].tolist()
        assert ids[mask.bool()].tolist() == expected
        assert ids[~mask.bool()].eq(0).all()
    packed = ContrastiveCollator(tokenizer, max_genes=3, packing=True)(rows)
    assert torch.equal(packed["gene_ids"], batch["gene_ids"])
