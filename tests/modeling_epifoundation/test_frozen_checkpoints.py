"""Checkpoints of every release so far load with the present code and give the numbers they gave then."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import epifoundation
from epifoundation.tokenization import PeakTokenizer

FROZEN = Path(__file__).parents[1] / "reference" / "frozen_checkpoints"
CHECKPOINTS = sorted(file.parent for file in FROZEN.glob("*/*/model.safetensors"))
# As the script that froze them has it.
PEAKS = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(30)]
CELLS = [PEAKS[:9], PEAKS[5:25:3], [PEAKS[12]], PEAKS[3:5], PEAKS[::2], PEAKS[1::7]]


def test_there_are_checkpoints_of_the_first_release():
    assert {folder.name for folder in CHECKPOINTS if folder.parent.name == "0.1"} >= {
        "Model",
        "ForPeakToGeneAlignment",
        "ForCellClassification",
        "ForExpressionPrediction",
    }


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: f"{folder.parent.name} {folder.name}")
def test_frozen_checkpoints_give_the_numbers_they_gave(folder):
    model_class = getattr(epifoundation, f"EpiFoundation{folder.name}")
    model, found = model_class.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    numbers = load_file(folder / "numbers.safetensors")
    inputs = {key.removeprefix("input "): value for key, value in numbers.items() if key.startswith("input ")}
    outputs = {key.removeprefix("output "): value for key, value in numbers.items() if key.startswith("output ")}
    with torch.no_grad():
        given = model(**inputs)
    assert outputs
    for key, value in outputs.items():
        torch.testing.assert_close(given[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("release", sorted({folder.parent for folder in CHECKPOINTS}), ids=lambda folder: folder.name)
def test_frozen_tokenizers_give_the_same_ids(release):
    tokenizer = PeakTokenizer.from_pretrained(release / "tokenizer")
    assert tokenizer.max_peaks == 50
    expected = load_file(release / "Model" / "numbers.safetensors")
    for key, value in tokenizer(CELLS, return_tensors="pt").items():
        assert torch.equal(value, expected[f"input {key}"])
