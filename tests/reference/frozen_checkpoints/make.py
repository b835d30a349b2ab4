"""Freeze one tiny checkpoint of each class, with inputs and outputs, at a release.

    python tests/reference/frozen_checkpoints/make.py

writes a folder named for the version of the package. It is run once, when a version is released, and its output is
never written again: later versions must load it.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import epifoundation
from epifoundation import EpiFoundationConfig
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

HERE = Path(__file__).parent
PEAKS = [f"chr{1 + i % 3}:{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(30)]
CELLS = [PEAKS[:9], PEAKS[5:25:3], [PEAKS[12]], PEAKS[3:5], PEAKS[::2], PEAKS[1::7]]
GENES = GeneVocabulary(
    ["CD19", "CD3E", "GATA1"], ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"], ["chr1", "unknown", "chr3"]
)
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "gene_decoder_size": 8,
    "projection_size": 8,
    "num_labels": 3,
}
# The encoder of Atacformer.
ATACFORMER: dict[str, Any] = {
    "use_chromosome_embeddings": False,
    "use_embedding_norms": False,
    "use_input_norm": False,
    "use_final_norm": False,
    "use_cls_token": False,
    "pooling": "mean",
}
GENE_ENCODER = {
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
# Class without "EpiFoundation" -> its settings, and which inputs it takes besides the cells.
CLASSES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "Model": ({}, ()),
    "ForPeakToGeneAlignment": ({"use_gene_bias": True}, ("gene_ids", "gene_chromosome_ids")),
    "ForCellClassification": ({}, ()),
    "ForExpressionPrediction": ({}, ("gene_ids", "gene_chromosome_ids")),
    "ForMaskedPeaks": (ATACFORMER, ()),
    "ForReplacedPeaks": (ATACFORMER, ()),
    "ForCellClustering": (ATACFORMER, ()),
    "ForBatchCorrection": (ATACFORMER | {"num_batches": 2}, ()),
    "ForContrastiveAlignment": (ATACFORMER | {"gene_encoder": GENE_ENCODER}, ("rank_ids",)),
    "ForExpressionImputation": (ATACFORMER, ()),
}


def inputs_for(tokenizer: PeakTokenizer, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    inputs = dict(tokenizer(CELLS, return_tensors="pt"))
    gene_ids = torch.tensor([6, 4, 5])
    if "gene_ids" in names:
        chromosome_ids = torch.as_tensor(np.asarray(tokenizer.gene_chromosome_ids)).long()
        inputs |= {"gene_ids": gene_ids, "gene_chromosome_ids": chromosome_ids[gene_ids]}
    if "rank_ids" in names:
        ranks = torch.arange(len(CELLS) * 4).reshape(len(CELLS), 4) % 11 + 1
        inputs |= {"gene_ids": ranks, "gene_attention_mask": torch.ones_like(ranks)}
    return inputs


def lively(model: nn.Module) -> None:
    """Give every weight a value that shows in the outputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = "norm" in name.lower() and name.endswith("weight")
            weight.normal_(1.0 if is_scale else 0.0, 0.3, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0.0, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)


def main() -> None:
    target = HERE / ".".join(epifoundation.__version__.split(".")[:2])
    target.mkdir()
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(PEAKS), GENES, max_peaks=50)
    tokenizer.save_pretrained(target / "tokenizer")
    for name, (settings, extra) in CLASSES.items():
        sizes = {"vocab_size": len(tokenizer), "gene_vocab_size": 4 + len(GENES), "num_chromosomes": 8}
        model = getattr(epifoundation, f"EpiFoundation{name}")(EpiFoundationConfig(**(SIZES | sizes | settings))).eval()
        lively(model)
        inputs = inputs_for(tokenizer, extra)
        with torch.no_grad():
            outputs = {key: value for key, value in model(**inputs).items() if isinstance(value, torch.Tensor)}
        model.save_pretrained(target / name)
        numbers = {f"input {key}": value for key, value in inputs.items()}
        numbers |= {f"output {key}": value for key, value in outputs.items()}
        save_file({key: value.contiguous() for key, value in numbers.items()}, target / name / "numbers.safetensors")
    # The code is that of the version's own tag; what is frozen here is what code of later versions has to read.
    for file in target.glob("*/*.py"):
        file.unlink()
    shutil.rmtree(target / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
