from pathlib import Path

import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from transformers import TrainingArguments
from transformers.trainer_utils import PredictionOutput

from epifoundation import EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.training import AlignmentCollator, EpiFoundationTrainer

from .conftest import NUM_CELLS


def arguments(folder: Path, **kwargs: object) -> TrainingArguments:
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 10,
        "learning_rate": 0.01,
        "use_cpu": True,
        "remove_unused_columns": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(settings | kwargs))


def test_alignment_learns_and_evaluation_uses_fixed_genes(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    genes = list(range(4, 14))
    trainer = EpiFoundationTrainer(
        model,
        arguments(tmp_path, num_train_epochs=40, learning_rate=3e-3),
        train_dataset=cells,
        eval_dataset=cells,
        data_collator=AlignmentCollator(tokenizer),
        eval_data_collator=AlignmentCollator(tokenizer, gene_ids=genes),
    )
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]
    before = share_of_pairs_in_order(trainer.predict(cells))
    trainer.train()
    assert share_of_pairs_in_order(trainer.predict(cells)) > max(0.8, before + 0.1)


def share_of_pairs_in_order(prediction: PredictionOutput) -> float:
    """How often an expressed gene scores above one that is not: the area under the ROC curve."""
    scores = prediction.predictions[..., 1] - prediction.predictions[..., 0]
    assert scores.shape == prediction.label_ids.shape == (NUM_CELLS, 10)
    return roc_auc_score(prediction.label_ids.ravel(), scores.ravel())


def test_the_training_collator_is_put_back(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    collator = AlignmentCollator(tokenizer)
    fixed = AlignmentCollator(tokenizer, gene_ids=[4])
    trainer = EpiFoundationTrainer(
        model, arguments(tmp_path), train_dataset=cells, data_collator=collator, eval_data_collator=fixed
    )
    assert next(iter(trainer.get_eval_dataloader(cells)))["gene_ids"].shape == torch.Size([1])
    assert next(iter(trainer.get_train_dataloader()))["gene_ids"].ndim == 2
    assert trainer.data_collator is collator
