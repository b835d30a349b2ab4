"""Every self-supervised head trains with its collator, and a run that was broken off ends as one that was not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForBatchCorrection,
    EpiFoundationForCellClustering,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForReplacedPeaks,
    PeakTokenizer,
)
from epifoundation.training import EpiFoundationTrainer
from epifoundation.training.collators import CellCollator
from epifoundation.training.contrastive import ContrastiveCollator
from epifoundation.training.self_supervision import MaskedPeaksCollator, ReplacedPeaksCollator
from epifoundation.training.triplets import TripletCollator

from .conftest import NUM_GENES

ATACFORMER = {
    "use_chromosome_embeddings": False,
    "use_embedding_norms": False,
    "use_input_norm": False,
    "use_final_norm": False,
    "use_cls_token": False,
    "pooling": "mean",
}
GENE_ENCODER = {
    "model_type": "bert",
    "vocab_size": NUM_GENES + 4,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": NUM_GENES,
}
HEADS: dict[type, Callable[..., CellCollator]] = {
    EpiFoundationForMaskedPeaks: lambda tokenizer, cells, **kw: MaskedPeaksCollator(tokenizer, probability=0.3, **kw),
    EpiFoundationForReplacedPeaks: lambda tokenizer, cells, **kw: ReplacedPeaksCollator(tokenizer, **kw),
    EpiFoundationForBatchCorrection: lambda tokenizer, cells, **kw: ReplacedPeaksCollator(
        tokenizer, use_batches=True, **kw
    ),
    EpiFoundationForCellClustering: TripletCollator,
    EpiFoundationForContrastiveAlignment: lambda tokenizer, cells, **kw: ContrastiveCollator(tokenizer, **kw),
}


def new_model(head: type, tokenizer: PeakTokenizer, **fields: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = EpiFoundationConfig(
        vocab_size=len(tokenizer), gene_vocab_size=NUM_GENES + 4, num_chromosomes=7, num_batches=3,
        gene_encoder=GENE_ENCODER, hidden_dropout_prob=0.1, projection_size=8, **sizes, **fields,
    )  # fmt: skip
    return head(config)


def trainer_of(head: type, cells: Dataset, tokenizer: PeakTokenizer, folder: Path, **settings: object) -> object:
    arguments = {
        "output_dir": str(folder), "per_device_train_batch_size": 6, "learning_rate": 3e-3, "use_cpu": True,
        "remove_unused_columns": False, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": False, "num_train_epochs": 2, "logging_strategy": "steps", "logging_steps": 1,
    }  # fmt: skip
    fields = settings.pop("fields", {})
    return EpiFoundationTrainer(
        new_model(head, tokenizer, **fields),
        TrainingArguments(**(arguments | settings)),
        train_dataset=cells,
        eval_dataset=cells,
        data_collator=HEADS[head](tokenizer, cells, max_peaks=20, packing=True),
        eval_data_collator=HEADS[head](tokenizer, cells, max_peaks=20, deterministic=True),
    )


@pytest.mark.parametrize("fields", [{}, ATACFORMER], ids=["epifoundation", "atacformer"])
@pytest.mark.parametrize("head", HEADS)
def test_each_head_learns_with_either_encoder(
    head: type, fields: dict, cells: Dataset, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    if head is EpiFoundationForBatchCorrection:
        fields = fields | {"adversarial_weight": 0.05}  # or unlearning the batch would outweigh what is learned
    trainer = trainer_of(
        head, cells, tokenizer, tmp_path, fields=fields, num_train_epochs=12, prediction_loss_only=True
    )
    before = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == before
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


@pytest.mark.parametrize("head", HEADS)
def test_a_resumed_run_ends_as_one_in_one_go(
    head: type, cells: Dataset, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 4, "gradient_accumulation_steps": 2}
    whole = trainer_of(head, cells, tokenizer, tmp_path / "whole", **settings)
    whole.train()
    resumed = trainer_of(head, cells, tokenizer, tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    expected = whole.model.state_dict()
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name
