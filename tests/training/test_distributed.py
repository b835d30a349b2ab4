"""Two processes, and small batches whose gradients are accumulated, do what one process does with the large batch."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from .conftest import SMALL_GENE_ENCODER, SMALL_MODEL, SMALL_RUN, words
from .gradients import OBJECTIVES, observe

SCRIPT = Path(__file__).parent / "gradients.py"
NUM_EPOCHS, NUM_CELLS = 2, 30

# Without dropout, whose draws follow the process, and with BatchNorm at its statistics, which each process would
# otherwise take from its own half of the batch.
SAME_FUNCTION = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "freeze_batch_norm": "true"}
RUN = {
    **SMALL_RUN,
    **SAME_FUNCTION,
    "eval_strategy": "no",
    "save_strategy": "no",
    "validation_share": 0,
    "curves": "false",
    "num_train_epochs": NUM_EPOCHS,
}
OPTIONS = {
    "alignment": {**SMALL_MODEL, "max_genes": 16},
    "replaced_peaks": {**SMALL_MODEL, "objective": "replaced_peaks"},
    "masked_peaks": {**SMALL_MODEL, "objective": "masked_peaks"},
    "combined": {**SMALL_MODEL, "objective": "combined", "max_genes": 16},
    "classification": {"class_weights": "balanced"},
    "expression": {"max_genes": 16, "max_tokens_per_batch": 50},
    "clustering": {},
    "batch_correction": {},
    "contrastive": SMALL_GENE_ENCODER,
    "imputation": {},
    "bulk": {},
}


def run_words(objective: str, out: Path, data: Path, starts: dict[str, Path], **options: object) -> list[str]:
    model = {"model": starts[objective]} if objective in starts else {}
    return words(**({"data": data, "output_dir": out / objective} | model | OPTIONS[objective] | RUN | options))


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.fixture(scope="module")
def of_two_processes(
    data_folder: Path, starts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> list[dict]:
    """What each of two processes observed, by objective."""
    out = tmp_path_factory.mktemp("two")
    jobs = []
    for objective in OBJECTIVES:
        jobs += ["--", objective, *run_words(objective, out, data_folder, starts, num_processes=2)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*launcher, str(SCRIPT), str(out), *jobs]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=270)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_two_processes_give_the_gradients_of_one(
    objective: str, of_two_processes: list[dict], data_folder: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    first, second = (part[objective] for part in of_two_processes)
    one = observe(objective, run_words(objective, tmp_path, data_folder, starts, gradient_accumulation_steps=2))
    assert_same(first["gradients"], one["gradients"])
    for name, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][name])
    seen = Counter((epoch, cell) for part in (first, second) for _, epoch, cell in part["seen"])
    assert seen == {(epoch, cell): 1 for epoch in range(NUM_EPOCHS) for cell in range(NUM_CELLS)}
    assert min(len(first["seen"]), len(second["seen"])) > NUM_CELLS / 2


# Among four cells a cell is found more easily than among sixteen: contrastive batches do not add up.
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "contrastive"])
def test_four_batches_of_four_give_the_gradients_of_one_of_sixteen(
    objective: str, data_folder: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    small, large = (
        observe(
            objective,
            run_words(
                objective,
                tmp_path / str(num_cells),
                data_folder,
                starts,
                per_device_train_batch_size=num_cells,
                gradient_accumulation_steps=16 // num_cells,
                max_tokens_per_batch=10_000,
            ),
        )
        for num_cells in (4, 16)
    )
    assert_same(small["gradients"], large["gradients"])
    # The same cells, and the same peaks and genes drawn for them.
    assert sorted(small["seen"][:16]) == sorted(large["seen"][:16])


def test_another_number_of_processes_than_meant_is_an_error(
    data_folder: Path, starts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match="meant for 2 processes but has 1: start it with 'torchrun --nproc_per_node 2'"
    ):
        observe("alignment", run_words("alignment", tmp_path, data_folder, starts, num_processes=2))
