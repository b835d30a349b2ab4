import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation import attention_epifoundation
from epifoundation.attention_epifoundation import Packing, attend, flash_attention_fits, flash_attn_varlen_func

HEADS, SIZE = 2, 8
LENGTHS = [5, 1, 9, 3]
IMPLEMENTATIONS = ["eager", "sdpa"]
masks = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5).map(
    lambda rows: torch.tensor([[True, *row] for row in rows])  # [CLS] is never padding
)


def boundaries_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def random_tokens(count, seed):
    return torch.randn(count, HEADS, SIZE, generator=torch.Generator().manual_seed(seed))


def attention_by_hand(query, key, value, query_lengths, lengths):
    """The softmax of Vaswani et al. (2017), eq. 1, token by token, each cell and head for itself."""
    context, weights, first_query, first_key = torch.zeros_like(query), [], 0, 0
    for query_length, length in zip(query_lengths, lengths, strict=True):
        of_cell = torch.zeros(HEADS, query_length, length)
        for head in range(HEADS):
            for i in range(query_length):
                q = query[first_query + i, head]
                scores = [q.dot(key[first_key + j, head]) / SIZE**0.5 for j in range(length)]
                exps = torch.stack(scores).exp()
                of_cell[head, i] = exps / exps.sum()
                for j in range(length):
                    context[first_query + i, head] += of_cell[head, i, j] * value[first_key + j, head]
        weights.append(of_cell)
        first_query, first_key = first_query + query_length, first_key + length
    return context, weights


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("is_one_per_cell", [False, True])
def test_attention_is_the_softmax_within_each_cell(implementation, is_one_per_cell):
    query_lengths = [1] * len(LENGTHS) if is_one_per_cell else LENGTHS
    query, key, value = (random_tokens(n, i) for i, n in enumerate((sum(query_lengths), sum(LENGTHS), sum(LENGTHS))))
    packing = Packing.from_boundaries(boundaries_of(LENGTHS), sum(LENGTHS))
    context, weights = attend(query, key, value, packing, implementation, dropout=0.0)
    expected, expected_weights = attention_by_hand(query, key, value, query_lengths, LENGTHS)
    torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-5)
    if implementation == "sdpa":
        assert weights is None
        return
    assert weights.shape == (len(LENGTHS), HEADS, max(query_lengths), max(LENGTHS))
    for i, of_cell in enumerate(expected_weights):
        torch.testing.assert_close(weights[i, :, : query_lengths[i], : LENGTHS[i]], of_cell)
        assert weights[i, :, :, LENGTHS[i] :].eq(0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_cells_of_cls_alone_attend_to_themselves(implementation):
    query, key, value = (random_tokens(3, seed) for seed in range(3))
    context, _ = attend(query, key, value, Packing.from_boundaries(boundaries_of([1, 1, 1]), 3), implementation, 0.0)
    torch.testing.assert_close(context, value)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_acts_on_the_weights_and_only_when_asked(implementation):
    query, key, value = (random_tokens(sum(LENGTHS), seed) for seed in range(3))
    packing = Packing.from_boundaries(boundaries_of(LENGTHS), sum(LENGTHS))
    torch.manual_seed(0)
    plain, dropped = (attend(query, key, value, packing, implementation, p)[0] for p in (0.0, 0.5))
    assert not torch.allclose(plain, dropped)
    # The cell of one token keeps its only weight, doubled, or loses it, in each head.
    assert all(
        torch.allclose(head, torch.zeros(SIZE)) or torch.allclose(head, 2 * value[5, i], atol=1e-6)
        for i, head in enumerate(dropped[5])
    )


def test_flash_attention_is_told_where_cells_begin_and_end(monkeypatch):
    """The GPU package is replaced by the softmax above, which checks what it is given, not the kernel."""
    calls = []

    def stand_in(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p):
        calls.append((cu_seqlens_q.dtype, cu_seqlens_k.dtype, max_seqlen_q, max_seqlen_k, dropout_p))
        return attention_by_hand(q, k, v, cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist())[0]

    monkeypatch.setattr(attention_epifoundation, "flash_attn_varlen_func", stand_in)
    packing = Packing.from_boundaries(boundaries_of(LENGTHS), sum(LENGTHS))
    key, value = random_tokens(sum(LENGTHS), 1), random_tokens(sum(LENGTHS), 2)
    for count, longest in ((sum(LENGTHS), max(LENGTHS)), (len(LENGTHS), 1)):
        query = random_tokens(count, 0)
        flash, weights = attend(query, key, value, packing, "flash_attention_2", 0.25)
        assert weights is None
        torch.testing.assert_close(flash, attend(query, key, value, packing, "sdpa", 0.0)[0])
        assert calls[-1] == (torch.int32, torch.int32, longest, max(LENGTHS), 0.25)


@pytest.mark.skipif(flash_attn_varlen_func is not None, reason="flash-attn is installed")
def test_asking_for_flash_attention_without_the_package_says_what_to_do():
    query = random_tokens(2, 0)
    packing = Packing.from_boundaries(boundaries_of([2]), 2)
    with pytest.raises(ImportError, match=r"needs the package flash-attn; leave attn_implementation out"):
        attend(query, query, query, packing, "flash_attention_2", 0.0)


def test_an_attention_that_is_not_here_is_refused_rather_than_replaced():
    query = random_tokens(2, 0)
    packing = Packing.from_boundaries(boundaries_of([2]), 2)
    with pytest.raises(ValueError, match=r"'sdpa' or 'flash_attention_2', got 'flash_attention_3'"):
        attend(query, query, query, packing, "flash_attention_3", 0.0)


def test_flash_attention_never_fits_on_a_cpu():
    assert not flash_attention_fits(random_tokens(2, 0))
    assert not flash_attention_fits(random_tokens(2, 0).bfloat16())


@given(masks)
@settings(deadline=None, max_examples=50)
def test_what_was_packed_unpacks_to_the_same_with_zeros_at_padding(mask):
    padded = torch.arange(1.0, 1 + mask.numel() * 3).reshape(*mask.shape, 3)
    packing = Packing.from_mask(mask)
    packed = packing.pack(padded)
    torch.testing.assert_close(packed, padded[mask])
    torch.testing.assert_close(packing.unpack(packed), padded * mask[..., None])
    assert packing.lengths == mask.sum(dim=1).tolist() == packing.boundaries.diff().tolist()
    assert packing.longest == mask.sum(dim=1).max()
    torch.testing.assert_close(packed[packing.first_tokens], padded[:, 0])


@given(masks)
@settings(deadline=None, max_examples=50)
def test_the_mean_is_that_over_the_tokens_of_each_cell(mask):
    padded = torch.randn(*mask.shape, 3, generator=torch.Generator().manual_seed(0))
    packing = Packing.from_mask(mask)
    expected = torch.stack([cell[keep].mean(dim=0) for cell, keep in zip(padded, mask, strict=True)])
    torch.testing.assert_close(packing.mean(packing.pack(padded)), expected)


def test_a_packed_input_keeps_its_layout():
    packing = Packing.from_boundaries(boundaries_of(LENGTHS).long(), sum(LENGTHS))
    row = torch.randn(1, sum(LENGTHS), 3)
    assert packing.boundaries.dtype == torch.int32
    assert packing.lengths == LENGTHS
    torch.testing.assert_close(packing.unpack(packing.pack(row)), row)


def test_a_cell_without_tokens_is_refused():
    with pytest.raises(ValueError, match=r"cell 1 of the batch has no token; .*\[CLS\]"):
        Packing.from_mask(torch.tensor([[1, 1], [0, 0]]))


@pytest.mark.parametrize("bounds", [[0, 3, 3, 7], [1, 3, 7], [0, 3, 6], [0, 5, 3, 7], [0], []])
def test_boundaries_that_do_not_cut_the_tokens_into_cells_are_refused(bounds):
    with pytest.raises(ValueError, match=r"cu_seq_lens_q must rise from 0 to the number of tokens, 7"):
        Packing.from_boundaries(torch.tensor(bounds), 7)


def test_the_mean_of_many_half_precision_tokens_does_not_overflow():
    packing = Packing.from_boundaries(torch.tensor([0, 12_000]), 12_000)
    assert packing.mean(torch.full((12_000, 2), 6.0, dtype=torch.float16)).tolist() == [[6.0, 6.0]]


# Cells without tokens


def test_empty_cells_are_refused_unless_they_may_be():
    mask = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="cell 1 of the batch has no token"):
        Packing.from_mask(mask)
    assert Packing.from_mask(mask, allow_empty=True).lengths == [2, 0]
    bounds = torch.tensor([0, 2, 2, 3])
    with pytest.raises(ValueError, match="at least one token"):
        Packing.from_boundaries(bounds, 3)
    assert Packing.from_boundaries(bounds, 3, allow_empty=True).lengths == [2, 0, 1]
    with pytest.raises(ValueError, match="no cell ending before it begins, got"):
        Packing.from_boundaries(torch.tensor([0, 4, 3]), 3, allow_empty=True)


@pytest.mark.parametrize("lengths", [[3, 0, 2], [2, 0], [0, 2], [0, 0], [1, 1]])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_empty_cells_change_nothing_for_the_others(implementation, lengths):
    query, key, value = (random_tokens(sum(lengths), i) for i in range(3))
    packing = Packing.from_boundaries(boundaries_of(lengths), sum(lengths), allow_empty=True)
    context, _ = attend(query, key, value, packing, implementation, dropout=0.0)
    expected, _ = attention_by_hand(query, key, value, lengths, lengths)
    torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-5)


def test_an_empty_cell_has_the_mean_zero():
    packing = Packing.from_boundaries(boundaries_of([2, 0, 1]), 3, allow_empty=True)
    packed = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]])
    assert packing.mean(packed).tolist() == [[2.0, 4.0], [0.0, 0.0], [5.0, 5.0]]


def test_tokens_of_a_packed_row_can_be_left_out():
    packing = Packing.from_boundaries(boundaries_of([3, 1, 2]), 6)
    kept = packing.keeping(torch.tensor([[False, True, True, False, False, True]]))
    assert kept.lengths == [2, 0, 1]
    assert kept.boundaries.tolist() == [0, 2, 2, 3]
    row = torch.arange(6.0)[None, :, None]
    assert kept.pack(row).flatten().tolist() == [1, 2, 5]
    assert kept.unpack(kept.pack(row)).flatten().tolist() == [0, 1, 2, 0, 0, 5]


@settings(deadline=None)
@given(mask=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5).map(torch.tensor))
def test_places_count_the_tokens_of_each_cell(mask):
    expected = [place for row in mask.tolist() for place in range(sum(row))]
    assert Packing.from_mask(mask, allow_empty=True).places.tolist() == expected
