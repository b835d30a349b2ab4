import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation import linear_cross_entropy_epifoundation as module
from epifoundation.linear_cross_entropy_epifoundation import linear_cross_entropy


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 200)


def inputs(num_labels, num_rows, size=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    hidden, table = (2 * torch.randn(n, size, generator=generator, dtype=dtype) for n in (num_labels, num_rows))
    labels = torch.randint(0, num_rows, (num_labels,), generator=generator)
    return hidden.requires_grad_(), table.requires_grad_(), labels


def losses_and_gradients(function, hidden, table, labels):
    loss = function(hidden, table, labels)
    return loss.detach(), *torch.autograd.grad(3 * loss, (hidden, table))


def whole(hidden, table, labels):
    return F.cross_entropy(hidden @ table.T, labels, reduction="sum")


@settings(deadline=None, max_examples=40)
@given(num_labels=st.integers(1, 9), num_rows=st.integers(1, 60), chunk=st.sampled_from([1, 40, 200, 10_000]))
def test_chunks_give_the_loss_and_gradients_of_all_logits_at_once(num_labels, num_rows, chunk):
    given_inputs = inputs(num_labels, num_rows, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk)
        chunked = losses_and_gradients(linear_cross_entropy, *given_inputs)
    for ours, expected in zip(chunked, losses_and_gradients(whole, *given_inputs), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_gradients_agree_with_finite_differences(small_chunks):
    hidden, table, labels = inputs(4, 30, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, t: linear_cross_entropy(h, t, labels), (hidden, table))


def test_large_logits_stay_finite(small_chunks):
    hidden, table, labels = inputs(4, 30)
    loss, *gradients = losses_and_gradients(linear_cross_entropy, hidden * 1e3, table, labels)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_labels_the_loss_is_zero():
    hidden, table, labels = inputs(0, 30)
    loss, hidden_grad, table_grad = losses_and_gradients(linear_cross_entropy, hidden, table, labels)
    assert loss == 0
    assert hidden_grad.shape == (0, 5)
    assert table_grad.eq(0).all()


def test_mixed_precision_is_near_and_gives_gradients_in_the_type_of_the_weights(small_chunks):
    hidden, table, labels = inputs(6, 40)
    expected = losses_and_gradients(whole, hidden, table, labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, table, labels)
    gradients = torch.autograd.grad(3 * loss, (hidden, table))
    assert loss.dtype == torch.float32
    for ours, exact in zip((loss.detach(), *gradients), expected, strict=True):
        assert ours.dtype == exact.dtype
        assert (ours - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_no_more_than_a_chunk_of_logits_is_ever_made(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 8 * 16)
    sizes = []
    make = module._logits
    monkeypatch.setattr(module, "_logits", lambda *args: sizes.append(make(*args).numel()) or make(*args))
    losses_and_gradients(linear_cross_entropy, *inputs(8, 100))
    assert max(sizes) == 8 * 16
    assert sum(sizes) == 2 * 8 * 100  # once for the loss, once for the gradients
