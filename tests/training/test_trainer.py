from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import roc_auc_score
from transformers import TrainingArguments
from transformers.trainer_utils import PredictionOutput

from epifoundation import EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.training import AlignmentCollator, EpiFoundationTrainer
from epifoundation.training.trainer import Throughput, WeightedCrossEntropy, balanced_class_weights

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


def test_evaluation_cannot_be_packed(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    packing = AlignmentCollator(tokenizer, packing=True)
    with pytest.raises(ValueError, match="evaluation needs padded batches"):
        EpiFoundationTrainer(model, arguments(tmp_path), data_collator=packing, eval_data_collator=packing)
    trainer = EpiFoundationTrainer(model, arguments(tmp_path), data_collator=packing, eval_dataset=cells)
    with pytest.raises(ValueError, match="evaluation needs padded batches"):
        trainer.evaluate()


def test_evaluation_leaves_random_numbers_and_mode_alone(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    collator = AlignmentCollator(tokenizer, gene_ids=[5, 6])
    trainer = EpiFoundationTrainer(model, arguments(tmp_path), data_collator=collator, eval_dataset=cells)
    model.train()
    state = torch.random.get_rng_state()
    trainer.evaluate()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


def test_the_loss_of_evaluation_is_the_mean_over_all_pairs(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    collator = AlignmentCollator(tokenizer, gene_ids=range(4, 12))
    # 30 cells by 8: the last batch is smaller.
    trainer = EpiFoundationTrainer(
        model, arguments(tmp_path, per_device_eval_batch_size=8), data_collator=collator, eval_dataset=cells
    )
    with torch.no_grad():
        whole = model.eval()(**collator([cells[i] for i in range(NUM_CELLS)])).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(whole, rel=1e-5)


def test_a_step_without_a_label_changes_nothing_to_nan(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    silent = cells.map(lambda row: {"gene_ids": [], "gene_counts": []}, load_from_cache_file=False)
    trainer = EpiFoundationTrainer(
        model,
        arguments(tmp_path, max_steps=2),
        train_dataset=silent,
        data_collator=AlignmentCollator(tokenizer, packing=True),
    )
    trainer.train()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_module_can_learn_faster(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    factors = {"learning_rate_factors": {"alignment_decoder": 7.0}, "data_collator": AlignmentCollator(tokenizer)}
    trainer = EpiFoundationTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=cells, **factors)
    groups = trainer.create_optimizer().param_groups
    assert trainer.create_optimizer().param_groups is groups
    rates = {weight: group["lr"] for group in groups for weight in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, weight in model.named_parameters():
        assert rates[weight] == pytest.approx(0.07 if "alignment_decoder" in name else 0.01), name
    trainer.train()


def test_batch_norm_can_be_frozen(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for freeze in (True, False):
        EpiFoundationTrainer(
            model,
            arguments(tmp_path, max_steps=1),
            train_dataset=cells,
            data_collator=AlignmentCollator(tokenizer),
            freeze_batch_norm=freeze,
        ).train()
        is_same = all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        assert is_same == freeze


def test_batches_hold_at_most_the_tokens_asked_for(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    trainer = EpiFoundationTrainer(
        model,
        arguments(tmp_path, num_train_epochs=2),
        train_dataset=cells,
        data_collator=AlignmentCollator(tokenizer, packing=True),
        max_tokens_per_batch=90,
    )
    sizes = [batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader()]
    assert max(sizes) <= 90
    assert sum(sizes) == sum(map(len, cells["input_ids"]))
    trainer.train()
    assert trainer.state.epoch == 2


def test_workers_change_nothing(
    model: EpiFoundationForPeakToGeneAlignment, tokenizer: PeakTokenizer, cells: Dataset, tmp_path: Path
) -> None:
    batches = []
    for num_workers in (0, 1):
        trainer = EpiFoundationTrainer(
            model,
            arguments(tmp_path, dataloader_num_workers=num_workers),
            train_dataset=cells,
            data_collator=AlignmentCollator(tokenizer, max_peaks=5, max_genes=6),
        )
        torch.manual_seed(num_workers)
        batches.append(list(trainer.get_train_dataloader()))
    for here, there in zip(*batches, strict=True):
        assert all(torch.equal(here[name], there[name]) for name in here)


def test_balanced_weights_give_classes_the_same_say() -> None:
    labels = [0] * 6 + [1] * 3 + [3] + [-1] * 5
    weights = balanced_class_weights(labels, 4)
    known = torch.tensor(labels[:10])
    assert weights[known].mean().item() == pytest.approx(1)
    assert (torch.bincount(known) * weights).tolist() == pytest.approx([10 / 3, 10 / 3, 0, 10 / 3])


def test_weighted_loss_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]]), torch.tensor([0, 1, -100])
    loss = WeightedCrossEntropy(torch.tensor([2.0, 0.5]))({"logits": logits}, labels)
    expected = (2 * np.log(2) + 0.5 * np.log(1 + np.e)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_time_outside_of_steps_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    throughput = Throughput()
    throughput.add(1_000)  # the first step may compile: not counted
    throughput.add(50)
    with throughput.paused():
        pass
    throughput.add(20)
    assert (throughput.num_tokens, throughput.seconds) == (70, 17.0)
