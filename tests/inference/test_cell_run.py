import numpy as np
import pytest
import torch

from epifoundation.dataset_builders import PeakTable
from epifoundation.inference.cell_run import CellTask, prepare_run, run_over_cells, run_record


def test_every_cell_is_stored_once_in_batches_that_keep_both_bounds(adata, trained_model, tokenizer):
    run = prepare_run(trained_model, tokenizer, max_tokens_per_batch=100, max_entries_per_block=300)
    sizes, stored = [], []

    def forward(input_ids, cu_seq_lens_q, **_):
        sizes.append((input_ids.shape[1], len(cu_seq_lens_q) - 1))
        return cu_seq_lens_q.diff()[:, None].float()

    def store(cells, numbers):
        stored.extend(zip(cells.tolist(), numbers[:, 0].tolist(), strict=True))

    coverage = run_over_cells(PeakTable(adata), run, CellTask("counting", "counts", "nothing", forward, store, 3))
    assert all(tokens <= 100 and cells <= 3 for tokens, cells in sizes)
    assert [cell for cell, _ in sorted(stored)] == list(range(40))
    # One token per readable peak, and [CLS].
    np.testing.assert_array_equal([n for _, n in sorted(stored)], coverage.num_matched_entries_per_cell + 1)
    assert run_record(run, coverage, more=1)["more"] == 1


def test_numbers_that_are_not_finite_are_an_error_that_names_them(adata, trained_model, tokenizer):
    def forward(cu_seq_lens_q, **_):
        return torch.full((len(cu_seq_lens_q) - 1, 1), torch.nan)

    task = CellTask("counting", "counts", "nothing", forward, lambda *_: None)
    with pytest.raises(ValueError, match="the model gives counts that are not finite: its weights are damaged"):
        run_over_cells(PeakTable(adata), prepare_run(trained_model, tokenizer), task)
