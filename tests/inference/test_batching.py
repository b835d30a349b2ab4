import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.inference import token_budget_batches
from epifoundation.inference.batching import compute_batches, ready_for_inference


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_every_cell_is_in_one_batch_within_the_budget(lengths, max_tokens):
    batches = token_budget_batches(lengths, max_tokens)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        assert sum(lengths[i] for i in batch) <= max_tokens or len(batch) == 1
    # full: the first cell of a batch did not fit into the one before
    for before, batch in itertools.pairwise(batches):
        assert sum(lengths[i] for i in before) + lengths[batch[0]] > max_tokens


def test_the_longest_cells_come_first_and_equals_keep_their_order():
    batches = token_budget_batches([2, 5, 2, 9, 2], 6)
    assert [batch.tolist() for batch in batches] == [[3], [1], [0, 2, 4]]


def test_the_model_is_as_before_whatever_happens(trained_model):
    encoder = trained_model.base_model
    encoder.train()
    encoder.input_norm.eval()  # frozen by its user
    before = {module: module.training for module in encoder.modules()}

    def work():
        with ready_for_inference(encoder, torch.device("cpu")):
            assert not any(module.training for module in encoder.modules())
            assert torch.is_inference_mode_enabled()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert {module: module.training for module in encoder.modules()} == before
    encoder.eval()


def test_too_little_memory_names_the_option_that_helps():
    def forward(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    ids = [np.ones(3, dtype=np.int32)] * 2
    with pytest.raises(MemoryError, match=r"a batch of 6 tokens .* lower max_tokens_per_batch"):
        list(compute_batches(forward, torch.device("cpu"), ids, ids, 10))


def test_batches_are_bounded_in_cells_too():
    assert [batch.tolist() for batch in token_budget_batches([1] * 5, 100, 2)] == [[0, 1], [2, 3], [4]]
