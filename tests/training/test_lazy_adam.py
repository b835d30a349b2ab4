"""The lazy optimiser, beside those of torch."""

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from epifoundation import EpiFoundationForPeakToGeneAlignment
from epifoundation.training.lazy_adam import LazyAdamW, clip_sparse_gradients, make_tables_sparse
from epifoundation.training.options import PretrainOptions, read_options
from epifoundation.training.runs import pretrain

from .conftest import SMALL_MODEL, SMALL_RUN, words

NUM_ROWS, WIDTH = 30, 5


class Network(nn.Module):
    """A table and a dense map, in double precision so that only the equations can differ."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(NUM_ROWS, WIDTH, sparse=sparse, dtype=torch.float64)
        self.out = nn.Linear(WIDTH, 2, dtype=torch.float64)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def lose(self, rows: torch.Tensor) -> None:
        self.out(self.table(rows)).sigmoid().sum().backward()


def rows_of_step(step: int) -> torch.Tensor:
    return torch.randint(2 + step, 12 + step, (9,), generator=torch.Generator().manual_seed(step))


def train(network: Network, optimizers: list[torch.optim.Optimizer], batches: list[torch.Tensor]) -> None:
    schedules = [torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=10) for o in optimizers]
    for rows in batches:
        network.zero_grad()
        network.lose(rows)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rows_with_a_gradient_in_each_step_are_those_of_adamw(weight_decay: float) -> None:
    lazy, plain = Network(sparse=True), Network(sparse=False)
    batches = [torch.arange(NUM_ROWS)] * 10
    train(lazy, [LazyAdamW(lazy.parameters(), lr=0.05, weight_decay=weight_decay)], batches)
    train(plain, [torch.optim.AdamW(plain.parameters(), lr=0.05, weight_decay=weight_decay)], batches)
    torch.testing.assert_close(lazy.state_dict(), plain.state_dict(), rtol=0, atol=1e-12)


def test_rows_with_a_gradient_now_and_then_are_those_of_sparse_adam() -> None:
    lazy, theirs = Network(sparse=True), Network(sparse=True)
    batches = [rows_of_step(step) for step in range(10)]
    # torch adds eps before it corrects the bias, we as AdamW after that; a tiny one makes both the same.
    train(lazy, [LazyAdamW(lazy.parameters(), lr=0.05, eps=1e-14, weight_decay=0.0)], batches)
    sparse = torch.optim.SparseAdam(theirs.table.parameters(), lr=0.05, eps=1e-14)
    dense = torch.optim.AdamW(theirs.out.parameters(), lr=0.05, eps=1e-14, weight_decay=0.0)
    train(theirs, [sparse, dense], batches)
    torch.testing.assert_close(lazy.state_dict(), theirs.state_dict(), rtol=0, atol=1e-9)


def test_other_rows_stay_and_take_no_memory() -> None:
    network = Network(sparse=True)
    before = network.table.weight.detach().clone()
    optimizer = LazyAdamW(network.parameters(), weight_decay=0.1)
    train(network, [optimizer], [torch.tensor([3, 7, 3])] * 2)
    has_changed = (network.table.weight != before).any(dim=1)
    assert has_changed.nonzero().flatten().tolist() == [3, 7]
    assert len(optimizer.state[network.table.weight]["exp_avg"]) == 3  # one to spare


def test_a_step_without_rows_changes_nothing() -> None:
    network = Network(sparse=True)
    before = network.table.weight.detach().clone()
    train(network, [LazyAdamW(network.parameters())], [torch.zeros(0, dtype=torch.int64)])
    torch.testing.assert_close(network.table.weight.detach(), before, rtol=0, atol=0)


def test_goes_on_from_a_saved_state() -> None:
    batches = [rows_of_step(step) for step in range(8)]
    whole, halved = Network(sparse=True), Network(sparse=True)
    one = LazyAdamW(whole.parameters(), lr=0.05)
    first = LazyAdamW(halved.parameters(), lr=0.05)
    for rows in batches:
        step(whole, one, rows)
    for rows in batches[:5]:
        step(halved, first, rows)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = LazyAdamW(halved.parameters(), lr=0.05)
    second.load_state_dict(torch.load(file, weights_only=True))
    for rows in batches[5:]:
        step(halved, second, rows)
    torch.testing.assert_close(halved.state_dict(), whole.state_dict(), rtol=0, atol=0)


def step(network: Network, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> None:
    network.zero_grad()
    network.lose(rows)
    optimizer.step()


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_clipping_is_that_of_torch(max_norm: float) -> None:
    lazy, plain = Network(sparse=True), Network(sparse=False)
    for network in (lazy, plain):
        network.lose(torch.tensor([1, 1, 1, 4]))
    norm = clip_sparse_gradients(lazy.parameters(), max_norm)
    expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), max_norm)
    torch.testing.assert_close(norm, expected)
    for mine, theirs in zip(lazy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.to_dense(), theirs.grad)


def test_the_first_step_of_a_model_is_that_of_adamw(model: EpiFoundationForPeakToGeneAlignment) -> None:
    inputs = {
        "input_ids": torch.tensor([[2, 5, 9, 20], [2, 6, 9, 0]]),
        "chromosome_ids": torch.tensor([[2, 4, 5, 4], [2, 5, 5, 0]]),
        "gene_ids": torch.tensor([[4, 8, 9], [5, 8, 0]]),
        "gene_chromosome_ids": torch.tensor([[4, 5, 4], [5, 5, 0]]),
        "labels": torch.tensor([[1, 0, 1], [0, 1, -100]]),
    }
    start = {name: value.clone() for name, value in model.state_dict().items()}
    results = []
    for kind in (torch.optim.AdamW, LazyAdamW):
        model.load_state_dict(start)
        if kind is LazyAdamW:
            make_tables_sparse(model)
        optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.0)
        model.zero_grad()
        model.train()(**inputs).loss.backward()
        optimizer.step()
        results.append({name: value.clone() for name, value in model.state_dict().items()})
    assert model.get_input_embeddings().weight.grad.is_sparse
    assert model.gene_embeddings.embedding.weight.grad.is_sparse
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_a_run_goes_on_from_a_checkpoint(data_folder: Path, tmp_path: Path) -> None:
    common = {**SMALL_MODEL, **SMALL_RUN, "data": data_folder, "lazy_adam": "true", "max_grad_norm": 0.5}

    def run() -> tuple[int | None, dict[str, torch.Tensor]]:
        record = pretrain(*read_options(PretrainOptions, words(**common, output_dir=tmp_path)))
        return record["resumed_from_step"], load_file(tmp_path / "model.safetensors")

    _, whole = run()
    for file in (tmp_path / "model.safetensors", *(tmp_path / "checkpoint-18").glob("*")):
        file.unlink()  # as if the last epoch had never ended
    resumed_from, again = run()
    assert resumed_from == 12
    torch.testing.assert_close(again, whole, rtol=0, atol=0)
