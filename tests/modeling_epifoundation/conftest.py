"""What the tests of the model share: small models with lively weights, made-up cells, the official outputs."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from epifoundation import EpiFoundationConfig
from epifoundation.convert_official_epifoundation import convert_official_checkpoint

OFFICIAL = Path(__file__).parents[1] / "reference" / "official_model"
SMALL = {
    "vocab_size": 60,
    "gene_vocab_size": 40,
    "num_chromosomes": 10,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "gene_decoder_size": 8,
    "num_labels": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# What the encoder of the published Atacformer leaves out.
ATACFORMER = {
    "use_chromosome_embeddings": False,
    "use_embedding_norms": False,
    "use_input_norm": False,
    "use_final_norm": False,
    "use_cls_token": False,
    "pooling": "mean",
}
ENCODERS = {"epifoundation": {}, "atacformer": ATACFORMER}


def build_config(**changes: Any) -> EpiFoundationConfig:
    return EpiFoundationConfig(**(SMALL | changes))


def build_model(model_class: type, seed: int = 0, **changes: Any) -> Any:
    """A small model in evaluation mode whose weights are large enough for mistakes to show."""
    model = model_class(build_config(**changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            weight.normal_(1.0 if is_scale else 0.0, 0.3, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0.0, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def build_cells(lengths: list[int], longest: int | None = None, seed: int = 1) -> dict[str, Tensor]:
    """Cells of these lengths, [CLS] counted, padded to `longest`; the same seed gives the same cells."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), longest or max(lengths))
    ids, chromosomes = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for i, length in enumerate(lengths):
        ids[i, 0] = chromosomes[i, 0] = 2
        ids[i, 1:length] = 4 + torch.randperm(SMALL["vocab_size"] - 4, generator=generator)[: length - 1]
        chromosomes[i, 1:length] = torch.randint(4, 10, (length - 1,), generator=generator)
    return {"input_ids": ids, "chromosome_ids": chromosomes, "attention_mask": (ids != 0).long()}


def build_genes(lengths: list[int], longest: int | None = None, seed: int = 2) -> dict[str, Tensor]:
    """Genes with labels for as many cells as there are lengths; -100 stands at padding and at the first gene."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), longest or max(lengths))
    ids, chromosomes = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for i, length in enumerate(lengths):
        ids[i, :length] = 4 + torch.randperm(SMALL["gene_vocab_size"] - 4, generator=generator)[:length]
        chromosomes[i, :length] = torch.randint(4, 10, (length,), generator=generator)
        labels[i, 1:length] = torch.randint(0, 2, (length - 1,), generator=generator)
    return {"gene_ids": ids, "gene_chromosome_ids": chromosomes, "labels": labels}


@cache
def read_official(case: str) -> SimpleNamespace:
    folder = OFFICIAL / case
    tensors = {file.stem: load_file(file) for file in folder.glob("*.safetensors")}
    return SimpleNamespace(name=case, **json.loads((folder / "config.json").read_text()), **tensors)


def pack_cells(cells: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same cells in one row without padding; labels of tokens too."""
    is_token = cells["attention_mask"].bool()
    per_token = ("input_ids", "chromosome_ids", "labels")
    row = {name: cells[name][is_token][None] for name in per_token if name in cells}
    rest = {name: values for name, values in cells.items() if name not in (*per_token, "attention_mask")}
    return row | rest | {"cu_seq_lens_q": nn.functional.pad(is_token.sum(dim=1).cumsum(0), (1, 0)).int()}


@pytest.fixture(scope="session", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields of the configuration of either encoder."""
    return ENCODERS[request.param]


@pytest.fixture(scope="session")
def atacformer() -> dict[str, Any]:
    """Fields of the configuration of an Atacformer."""
    return ATACFORMER


@pytest.fixture(scope="session")
def packed() -> Callable[..., dict[str, Tensor]]:
    return pack_cells


@pytest.fixture(scope="session")
def make_config() -> Callable[..., EpiFoundationConfig]:
    return build_config


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    return build_model


@pytest.fixture(scope="session")
def make_cells() -> Callable[..., dict[str, Tensor]]:
    return build_cells


@pytest.fixture(scope="session")
def make_genes() -> Callable[..., dict[str, Tensor]]:
    return build_genes


@pytest.fixture(scope="session")
def official() -> Callable[[str], SimpleNamespace]:
    """Name of a case -> its settings, weights, inputs and outputs; to be left as they are."""
    return read_official


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Name of a case -> the folder its checkpoint was converted to, and the report of the conversion."""

    @cache
    def convert(name: str) -> tuple[Path, Any]:
        case, folder = read_official(name), tmp_path_factory.mktemp(name)
        torch.save({"epoch": 1, "model": case.model}, folder / "Epoch_1.pth")
        heads = case.constructor["heads"]
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        report = convert_official_checkpoint(
            folder / "Epoch_1.pth", folder / "converted", num_attention_heads=heads, **no_dropout
        )
        return folder / "converted", report

    return convert
