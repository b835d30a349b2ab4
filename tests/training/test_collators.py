import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from epifoundation import EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.training.collators import AlignmentCollator, draw_genes, draw_peaks

from .conftest import NUM_GENES

ALL_GENES = np.arange(4, 40)


@given(st.sets(st.integers(4, 39)), st.integers(0, 60), st.integers(0, 2**32))
def test_half_of_the_drawn_genes_are_expressed(expressed: set[int], max_genes: int, seed: int) -> None:
    ids, is_expressed = draw_genes(sorted(expressed), ALL_GENES, max_genes, np.random.default_rng(seed))
    assert len(set(ids.tolist())) == len(ids) <= max_genes
    assert {i for i, e in zip(ids.tolist(), is_expressed, strict=True) if e} <= expressed
    assert not {i for i, e in zip(ids.tolist(), is_expressed, strict=True) if not e} & expressed
    num_each = min(max_genes // 2, len(expressed))
    assert is_expressed.sum() == num_each
    assert (1 - is_expressed).sum() == min(num_each, len(ALL_GENES) - len(expressed))


def test_every_gene_is_as_likely_to_be_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_genes(range(4, 24), ALL_GENES, 10, rng)[0] for _ in range(4000)])
    counts = np.bincount(drawn, minlength=40)[4:]
    np.testing.assert_allclose(counts[:20], 1000, rtol=0.12)  # 5 of 20 expressed ones
    np.testing.assert_allclose(counts[20:], 1250, rtol=0.12)  # 5 of 16 others


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 2**32))
def test_drawn_peaks_keep_cls_and_order(num_peaks: int, max_peaks: int, seed: int) -> None:
    ids = np.r_[2, np.arange(10, 10 + 3 * num_peaks, 3)]
    drawn = draw_peaks(ids, max_peaks, np.random.default_rng(seed))
    assert drawn[0] == 2
    assert len(drawn) == 1 + min(num_peaks, max_peaks)
    assert (np.diff(drawn[1:]) > 0).all()
    assert set(drawn) <= set(ids)


def test_a_batch_is_what_the_model_takes(
    cells: Dataset, tokenizer: PeakTokenizer, model: EpiFoundationForPeakToGeneAlignment
) -> None:
    batch = AlignmentCollator(tokenizer, max_peaks=10, max_genes=12)([cells[i] for i in range(5)])
    assert batch["input_ids"].shape == batch["chromosome_ids"].shape == batch["attention_mask"].shape
    assert batch["input_ids"].shape[1] <= 11
    chromosomes = torch.tensor(tokenizer.peak_chromosome_ids).long()
    is_token = batch["attention_mask"].bool()
    torch.testing.assert_close(batch["chromosome_ids"][is_token], chromosomes[batch["input_ids"][is_token]])
    assert torch.isfinite(model(**batch).loss)


def test_labels_say_whether_the_cell_expresses_the_gene(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(6)]
    batch = AlignmentCollator(tokenizer, max_genes=20)(rows)
    for row, ids, labels in zip(rows, batch["gene_ids"].tolist(), batch["labels"].tolist(), strict=True):
        for gene_id, label in zip(ids, labels, strict=True):
            assert label == (-100 if gene_id == 0 else int(gene_id in row["gene_ids"]))


def test_draws_follow_the_seed_of_torch(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator = AlignmentCollator(tokenizer, max_peaks=5, max_genes=6)
    rows = [cells[i] for i in range(4)]
    torch.manual_seed(1)
    first, second = collator(rows), collator(rows)
    torch.manual_seed(1)
    again = collator(rows)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["gene_ids"], second["gene_ids"])


def test_a_generator_of_ones_own_leaves_torch_alone(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    state = torch.random.get_rng_state()
    own = AlignmentCollator(tokenizer, generator=torch.Generator().manual_seed(3))([cells[0]])
    assert torch.equal(torch.random.get_rng_state(), state)
    same = AlignmentCollator(tokenizer, generator=torch.Generator().manual_seed(3))([cells[0]])
    assert torch.equal(own["gene_ids"], same["gene_ids"])


def test_fixed_genes_do_not_depend_on_the_labels(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(4)]
    batch = AlignmentCollator(tokenizer, gene_ids=[5, 9, 4])(rows)
    assert batch["gene_ids"].tolist() == [5, 9, 4]
    assert batch["gene_chromosome_ids"].tolist() == tokenizer.gene_chromosome_ids[[5, 9, 4]].tolist()
    assert batch["labels"].tolist() == [[int(g in row["gene_ids"]) for g in (5, 9, 4)] for row in rows]


@pytest.mark.parametrize("expressed", [[], list(range(4, 4 + NUM_GENES))])
def test_cells_with_no_or_all_genes_expressed(
    expressed: list[int],
    cells: Dataset,
    tokenizer: PeakTokenizer,
    model: EpiFoundationForPeakToGeneAlignment,
) -> None:
    batch = AlignmentCollator(tokenizer)([{**cells[0], "gene_ids": expressed}, {**cells[1], "gene_ids": expressed}])
    assert torch.isfinite(model(**batch).loss)


def test_batches_are_passed_on_only_when_asked_for(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[0], cells[1]]
    assert "batch_ids" not in AlignmentCollator(tokenizer)(rows)
    assert AlignmentCollator(tokenizer, use_batches=True)(rows)["batch_ids"].tolist() == [0, 1]


def test_a_tokenizer_without_genes_is_refused(tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match="alignment needs genes"):
        AlignmentCollator(PeakTokenizer(tokenizer.vocabulary))
