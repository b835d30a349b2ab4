import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from epifoundation import EpiFoundationForCellClassification, EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.training.collators import (
    DRAW_SEED,
    AlignmentCollator,
    BulkCollator,
    ClassificationCollator,
    ExpressionCollator,
    draw_genes,
    draw_peaks,
)
from epifoundation.training.expression import expression_levels

from .conftest import NUM_GENES

ALL_GENES = np.arange(4, 40)


def drawn_genes(expressed: list[int], max_genes: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Ids of the expressed genes drawn, and of the others."""
    places, others = draw_genes(np.array(expressed, dtype=np.int32), ALL_GENES, max_genes, rng)
    return np.array(expressed, dtype=np.int32)[places].tolist(), others.tolist()


@given(st.sets(st.integers(4, 39)), st.integers(0, 60), st.integers(0, 2**32))
def test_half_of_the_drawn_genes_are_expressed(expressed: set[int], max_genes: int, seed: int) -> None:
    ones, others = drawn_genes(sorted(expressed), max_genes, np.random.default_rng(seed))
    assert len({*ones, *others}) == len(ones) + len(others) <= max_genes
    assert set(ones) <= expressed
    assert not set(others) & expressed
    num_each = min(max_genes // 2, len(expressed))
    assert len(ones) == num_each
    assert len(others) == min(num_each, len(ALL_GENES) - len(expressed))


def test_every_gene_is_as_likely_to_be_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([np.concatenate(drawn_genes(list(range(4, 24)), 10, rng)) for _ in range(4000)])
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
    with pytest.raises(ValueError, match="holds no genes"):
        AlignmentCollator(PeakTokenizer(tokenizer.vocabulary))


def test_what_is_drawn_follows_the_seed_of_the_row(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    collator = AlignmentCollator(tokenizer, max_peaks=5, max_genes=6)
    rows = [{**cells[i], DRAW_SEED: [0, 1, i]} for i in range(6)]
    together = collator(rows)
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    alone = collator([rows[4]])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(together["input_ids"][4], alone["input_ids"][0])
    assert torch.equal(together["gene_ids"][4], alone["gene_ids"][0])
    next_epoch = collator([{**rows[4], DRAW_SEED: [0, 2, 4]}])
    assert not torch.equal(next_epoch["gene_ids"], alone["gene_ids"])


@pytest.mark.parametrize("kind", [AlignmentCollator, ExpressionCollator, ClassificationCollator])
def test_packing_changes_no_number(
    kind: type, cells: Dataset, tokenizer: PeakTokenizer, model: EpiFoundationForPeakToGeneAlignment
) -> None:
    rows = [{**cells[i], DRAW_SEED: [0, 0, i]} for i in range(5)]
    padded, packed = (kind(tokenizer, packing=packing, max_peaks=20)(rows) for packing in (False, True))
    assert packed["input_ids"].shape == packed["chromosome_ids"].shape == (1, int(padded["attention_mask"].sum()))
    targets = padded.keys() - {"input_ids", "chromosome_ids", "attention_mask"}
    assert targets == packed.keys() - {"input_ids", "chromosome_ids", "cu_seq_lens_q"}
    for name in targets:
        assert torch.equal(padded[name], packed[name])
    encoder = model.epifoundation.eval()
    cell_names = ("input_ids", "chromosome_ids", "attention_mask", "cu_seq_lens_q")
    embeddings = [
        encoder(**{name: batch[name] for name in cell_names if name in batch}).pooler_output
        for batch in (padded, packed)
    ]
    torch.testing.assert_close(*embeddings)


def test_evaluation_reads_the_peaks_of_inference(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    limited = PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=7)
    names = [limited.convert_ids_to_tokens(cells[i]["input_ids"][1:]) for i in range(4)]
    expected = limited(names, return_tensors="pt")["input_ids"]
    rows = [cells[i] for i in range(4)]
    for collator in (AlignmentCollator(limited, gene_ids=[4]), ClassificationCollator(limited, deterministic=True)):
        assert torch.equal(collator(rows)["input_ids"], expected)


def test_cell_types_become_labels_and_unknown_ones_are_ignored(
    cells: Dataset, tokenizer: PeakTokenizer, model: EpiFoundationForPeakToGeneAlignment
) -> None:
    rows = [{**cells[i], "cell_type": label} for i, label in enumerate([2, -1, 0])]
    batch = ClassificationCollator(tokenizer)(rows)
    assert batch["labels"].tolist() == [2, -100, 0]
    model.config.num_labels = 3
    assert torch.isfinite(EpiFoundationForCellClassification(model.config)(**batch).loss)


def test_bulk_samples_have_two_labels(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [{**cells[i], "cell_type": i, "assay": label} for i, label in enumerate([1, -1, 0])]
    batch = BulkCollator(tokenizer)(rows)
    assert (batch["labels"].tolist(), batch["assay_labels"].tolist()) == ([0, 1, 2], [1, -100, 0])


def test_expression_asks_for_the_levels_of_the_cell(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    rows = [cells[i] for i in range(6)]
    for collator in (
        ExpressionCollator(tokenizer, max_genes=12, num_bins=4),
        ExpressionCollator(tokenizer, max_genes=12, num_bins=4, balanced=False),
        ExpressionCollator(tokenizer, num_bins=4, gene_ids=range(4, 4 + NUM_GENES)),
    ):
        batch = collator(rows)
        assert batch["labels"].dtype == torch.float32
        gene_ids = batch["gene_ids"].expand(len(rows), -1) if batch["gene_ids"].ndim == 1 else batch["gene_ids"]
        for row, ids, levels in zip(rows, gene_ids.tolist(), batch["labels"].tolist(), strict=True):
            level_of = dict(zip(row["gene_ids"], expression_levels(row["gene_counts"], 4).tolist(), strict=True))
            assert levels == [-100 if i == 0 else level_of.get(i, 0) for i in ids]


def test_genes_may_be_drawn_with_equal_chances(cells: Dataset, tokenizer: PeakTokenizer) -> None:
    few = ExpressionCollator(tokenizer, max_genes=10, balanced=False)([cells[0]])["gene_ids"]
    assert few.shape == (1, 10)
    assert len(set(few[0].tolist())) == 10
    every = ExpressionCollator(tokenizer, max_genes=100, balanced=False)([cells[0]])["gene_ids"]
    assert every.tolist() == [list(range(4, 4 + NUM_GENES))]
