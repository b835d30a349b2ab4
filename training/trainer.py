"""The Hugging Face Trainer, for cells: batches by tokens, draws that follow the seed, restarts without a difference."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from epifoundation.training.batches import CellBatchSampler, CellsToDraw, token_lengths
from epifoundation.training.checkpoints import break_seal, seal
from epifoundation.training.collators import IGNORED_LABEL, CellCollator
from epifoundation.training.lazy_adam import clip_sparse_gradients

Collator = Callable[[Sequence[Any]], dict[str, Any]]


class EpiFoundationTrainer(Trainer):
    """A Trainer for tokenised cells.

    What differs from the base class:

    - Training batches are those of `CellBatchSampler`. What is drawn for a cell follows from the seed, the epoch and
      the cell, so it is the same in every grouping, on every process and after a restart.
    - Evaluation may make its batches differently, leaves the state of random numbers alone, and takes padded batches
      only: the base class counts cells by the first dimension, which is 1 when packed.
    - A checkpoint counts as complete only when its last file is written, and older ones are removed only then; see
      `epifoundation.training.checkpoints`. With each checkpoint the loss is logged too, so that after a restart
      the log goes on as it would have.

    Batches are sharded here, not by Accelerate, which would repeat cells to fill up the last round. The gradients of
    several processes, or of accumulated batches, are those of one large batch, but for two things: dropout draws
    differently, and BatchNorm takes its statistics from each batch alone (unless frozen), those of the first process
    being kept.

    Args:
        *args: as for ``transformers.Trainer``; `data_collator` should be a `CellCollator`.
        eval_data_collator: makes the batches of `evaluate` and `predict`; by default `data_collator`.
        max_tokens_per_batch: tokens of a training batch of one process at most; its number of cells then varies, with
            ``per_device_train_batch_size`` as the limit. By default only that limit counts.
        class_weights: (labels,) weights in the cross entropy of a classification, see `balanced_class_weights`.
        freeze_batch_norm: leave BatchNorm at its running statistics, for batches too small to estimate them.
        learning_rate_factors: factors on the learning rate of the weights of some modules, by their names.
        **kwargs: as for ``transformers.Trainer``.

    Raises:
        ValueError: if evaluation is to be packed.
    """

    def __init__(
        self,
        *args: Any,
        eval_data_collator: Collator | None = None,
        max_tokens_per_batch: int | None = None,
        class_weights: Tensor | None = None,
        freeze_batch_norm: bool = False,
        learning_rate_factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if class_weights is not None:
            kwargs["compute_loss_func"] = WeightedCrossEntropy(class_weights)
        super().__init__(*args, **kwargs)
        self.eval_data_collator = eval_data_collator or self.data_collator
        if eval_data_collator is not None and getattr(eval_data_collator, "packing", False):
            raise ValueError("evaluation needs padded batches: make eval_data_collator with packing=False")
        self.max_tokens_per_batch = max_tokens_per_batch
        self.freeze_batch_norm = freeze_batch_norm
        self.learning_rate_factors = learning_rate_factors or {}
        self.throughput = Throughput()
        self.add_callback(LogWithCheckpoints())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in the base class, with groups of their own for weights that learn faster or slower."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        model = cast(nn.Module, self.model if model is None else model)
        names = {weight: f".{name}." for name, weight in model.named_parameters()}
        for module, factor in self.learning_rate_factors.items():
            for group in list(optimizer.param_groups):
                chosen = [weight for weight in group["params"] if f".{module}." in names[weight]]
                if chosen:
                    group["params"] = [weight for weight in group["params"] if f".{module}." not in names[weight]]
                    optimizer.add_param_group({**group, "params": chosen, "lr": group["lr"] * factor})
        return optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process, as `CellBatchSampler` plans them.

        Data sets other than ``datasets.Dataset`` are left to the base class.
        """
        cells = self.train_dataset
        if not isinstance(cells, Dataset):
            return super().get_train_dataloader()
        return CellLoader(
            CellsToDraw(cells),
            batch_sampler=self._batch_sampler(cells),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            # Of its own, or each epoch would take a number from the generator that dropout draws from.
            generator=torch.Generator(),
        )

    def _batch_sampler(self, cells: Dataset) -> CellBatchSampler:
        args, collator = self.args, self.data_collator
        max_peaks = collator.max_peaks if isinstance(collator, CellCollator) else torch.iinfo(torch.int64).max - 1
        sampler = CellBatchSampler(
            token_lengths(cells, max_peaks),
            max_tokens=self.max_tokens_per_batch,
            max_cells=self._train_batch_size,
            is_packed=getattr(collator, "packing", False),
            seed=args.seed if args.data_seed is None else args.data_seed,
            process_index=args.process_index,
            num_processes=args.world_size,
        )
        if self.max_tokens_per_batch is not None:
            sampler.fit_epochs(self._num_epochs(len(sampler)))
        return sampler

    def _num_epochs(self, batches_per_epoch: int) -> int:
        args = self.args
        if args.max_steps > 0:
            return -(-args.max_steps * args.gradient_accumulation_steps // batches_per_epoch) + 1
        return max(1, -int(-args.num_train_epochs // 1))

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As in the base class, with `eval_data_collator`."""
        return self._with_eval_collator(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As in the base class, with `eval_data_collator`."""
        return self._with_eval_collator(super().get_test_dataloader, *args, **kwargs)

    def _with_eval_collator(self, make: Callable[..., DataLoader[Any]], *args: Any, **kwargs: Any) -> DataLoader[Any]:
        if getattr(self.eval_data_collator, "packing", False):
            raise ValueError("evaluation needs padded batches: pass an eval_data_collator made with packing=False")
        train_collator = self.data_collator
        self.data_collator = self.eval_data_collator
        try:
            return make(*args, **kwargs)
        finally:
            self.data_collator = train_collator

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As in the base class; random numbers and the mode of the model are afterwards what they were before."""
        model = self.model
        assert model is not None
        was_training = model.training
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.throughput.paused():
            output = super().evaluation_loop(*args, **kwargs)
        model.train(was_training)
        return output

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As in the base class; tokens are counted."""
        # Before they are moved, so that counting does not wait for the device.
        is_token = inputs.get("attention_mask", inputs["input_ids"])
        num_tokens = int(is_token.sum()) if "attention_mask" in inputs else is_token.numel()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.throughput.add(num_tokens)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in the base class; BatchNorm may be frozen."""
        if self.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        names = getattr(self.model, "loss_labels", ("labels",))
        if len(names) == 1 or not batch_samples or not all(name in batch_samples[0] for name in names):
            num_items = super()._get_num_items_in_batch(batch_samples, device)
        else:  # a sum of losses, each a mean over labels of its own
            batches_of_each = ([{"labels": batch[name]} for batch in batch_samples] for name in names)
            counts = [super(EpiFoundationTrainer, self)._get_num_items_in_batch(b, device) for b in batches_of_each]
            num_items = torch.stack([torch.as_tensor(count) for count in counts])
        # Cells without an expressed gene, or without a known type, must give a loss of 0, not 0 / 0.
        return num_items.clamp(min=1) if isinstance(num_items, Tensor) else num_items

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | None:
        if any(p.grad is not None and p.grad.is_sparse for p in model.parameters()):
            return clip_sparse_gradients(model.parameters(), self.args.max_grad_norm)
        norm: Tensor | None = super()._clip_grad_norm(model)
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = self._get_output_dir(trial=trial)
        folder = Path(run_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        if self.args.should_save:
            break_seal(folder)
        _wait_for_all()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with self.throughput.paused():
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        _wait_for_all()  # each process writes its own state of random numbers
        if self.args.should_save:
            seal(folder)
            # By time: one that was left incomplete may have a higher step.
            rotate_checkpoints(run_dir, limit, self.state.best_model_checkpoint, use_mtime=True)


class CellLoader(DataLoader[Any]):
    """A DataLoader that hands on the epoch, which the Trainer tells loaders but not their batch samplers."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the plan of the next iteration."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class LogWithCheckpoints(TrainerCallback):
    """Log the loss whenever a checkpoint is written: the mean that is logged next then begins there in any case."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """After each step."""
        control.should_log |= control.should_save
        return control

    on_epoch_end = on_step_end


class WeightedCrossEntropy:
    """Cross entropy in which each class has its weight.

    The sum is divided by the number of labels, not by the sum of their weights, so that accumulating gradients over
    small batches gives those of the large one.

    Args:
        weights: (labels,) best of mean 1 over the training cells, as from `balanced_class_weights`.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of a batch, or its part of an accumulated one of `num_items_in_batch` labels."""
        logits = outputs["logits"].float()
        self.weights = self.weights.to(logits)
        total = F.cross_entropy(logits, labels, self.weights, ignore_index=IGNORED_LABEL, reduction="sum")
        if num_items_in_batch is None:
            num_items_in_batch = (labels != IGNORED_LABEL).sum().clamp(min=1)
        return total / num_items_in_batch


def balanced_class_weights(labels: Sequence[int], num_labels: int) -> Tensor:
    """Weights that give each class that occurs the same say: (labels,), of mean 1 over the cells.

    Args:
        labels: class of each training cell; below 0 where it is unknown.
        num_labels: number of classes; those without a cell get the weight 0.
    """
    known = torch.tensor([label for label in labels if label >= 0], dtype=torch.int64)
    counts = torch.bincount(known, minlength=num_labels).double()
    shares = (counts > 0) / counts.clamp(min=1)
    return (shares * len(known) / (counts > 0).sum().clamp(min=1)).float()


class Throughput:
    """Tokens read and seconds spent in training steps of this process, evaluation and saving left out."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.seconds = 0.0
        self._since: float | None = None

    def add(self, num_tokens: int) -> None:
        """Count the tokens of a step; the clock runs from the first step on."""
        now = time.perf_counter()
        # The first step includes what happens once only, such as compilation.
        if self._since is not None:
            self.num_tokens += num_tokens
            self.seconds += now - self._since
        self._since = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of a block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self._since is not None:
                self._since += time.perf_counter() - begin

    @property
    def tokens_per_second(self) -> float | None:
        """None before the second step."""
        return self.num_tokens / self.seconds if self.seconds else None


def _wait_for_all() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
