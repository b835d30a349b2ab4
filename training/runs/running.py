"""What all runs have in common: from checked cells and options to a trained checkpoint and its record."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, EvalPrediction, set_seed

from epifoundation import EpiFoundationConfig, EpiFoundationPreTrainedModel, PeakTokenizer
from epifoundation.sharing import complete_checkpoint
from epifoundation.training.adapters import with_lora
from epifoundation.training.cells import cells_with_a_label, check_ids, tokenizer_of_run, training_and_held_out
from epifoundation.training.collators import CellCollator
from epifoundation.training.lazy_adam import LazyAdamW, make_tables_sparse
from epifoundation.training.options import FinetuneOptions, RunArguments, RunOptions
from epifoundation.training.record import save_curves, versions, write_json
from epifoundation.training.restart import checkpoint_to_resume, run_settings
from epifoundation.training.trainer import EpiFoundationTrainer

logger = logging.getLogger(__name__)

RECORD_FILE, CURVES_FILE = "run.json", "curves.png"
PEAK_COLUMNS = ("input_ids",)
GENE_COLUMNS = ("input_ids", "gene_ids", "gene_counts")
NOT_METRICS = ("_runtime", "_per_second", "epoch")


@dataclass(frozen=True)
class Cells:
    """The cells of a run."""

    train: Dataset
    held_out: Dataset | None


@dataclass(frozen=True)
class Objective:
    """What is trained, on which batches, and how it is judged.

    Attributes:
        name: of the objective.
        model: the model with its head.
        train_collator: makes the batches it learns from.
        eval_collator: makes those it is judged by.
        reduce: (logits, labels) -> what `compute_metrics` needs of the logits.
        compute_metrics: names and values for held-out cells.
        metric: the one drawn and, unless another is named, that selects the best checkpoint.
        trainer_options: further arguments of the Trainer.
        keep: outputs of the model that `reduce` gets although they are left out elsewhere, such as `cell_embeddings`.
        drop: outputs that it does not get.
    """

    name: str
    model: EpiFoundationPreTrainedModel
    train_collator: CellCollator
    eval_collator: CellCollator
    reduce: Callable[[Any, Any], Any]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    metric: str
    trainer_options: dict[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    @property
    def ignored_outputs(self) -> list[str]:
        """Outputs that evaluation does not gather."""
        return [
            *(name for name in EpiFoundationConfig.keys_to_ignore_at_inference if name not in self.keep),
            *self.drop,
        ]


Build = Callable[[PeakTokenizer, Cells, bool], Objective]


def summary(record: dict[str, Any]) -> str:
    """One line about a run, from what it returned."""
    metrics_of_run = record["metrics"]
    values = ", ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in metrics_of_run.items())
    text = f"{record['objective']}, {record['steps']} steps"
    return f"{text}; on held-out cells: {values}" if values else text


def run_objective(
    options: RunOptions, args: RunArguments, build: Build, columns: Sequence[str], model: str | None, needs_genes: bool
) -> dict[str, Any]:
    """Train what `build` makes; the checkpoint, `run.json` and `curves.png` are left in ``args.output_dir``.

    Args:
        options: of the run.
        args: of the Trainer.
        build: makes the objective from the tokenizer and the cells; its last argument tells whether starting values
            are needed, which the checkpoint of a run that goes on replaces.
        columns: of the data that the objective reads.
        model: the checkpoint to start from, or None.
        needs_genes: whether the tokenizer must hold genes.

    Returns:
        What `run.json` holds.

    Raises:
        FileNotFoundError: if data, tokenizer or model are not where they should be.
        ValueError: if options contradict each other, the data, or those of the run to be resumed.
    """
    started = time.perf_counter()
    output_dir = Path(str(args.output_dir))
    _check_arguments(options, args)
    tokenizer = tokenizer_of_run(options, model, needs_genes)
    cells = _cells(options, args, columns)
    check_ids(cells.train, tokenizer)
    settings = run_settings(options, args, tokenizer, {"train": cells.train, "held_out": cells.held_out})
    checkpoint = checkpoint_to_resume(output_dir, settings, args, options)
    set_seed(args.seed)
    objective = build(tokenizer, cells, checkpoint is None)
    _refuse_mismatch(objective.model.config, tokenizer, needs_genes)
    trainer = _trainer(options, args, objective, tokenizer, cells)
    ignored = objective.ignored_outputs
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint), ignore_keys_for_eval=ignored)
    results = trainer.evaluate(ignore_keys=ignored) if cells.held_out is not None else {}
    _save(trainer, options, tokenizer, output_dir)
    speed = _tokens_per_second(trainer)
    record = {
        "objective": objective.name,
        "settings": settings,
        "versions": versions(),
        "device": _device_name(args.device),
        "steps": trainer.state.global_step,
        "resumed_from_step": None if checkpoint is None else int(checkpoint.name.split("-")[-1]),
        "wall_seconds_since_start": round(time.perf_counter() - started, 1),
        "tokens_per_second": speed,
        "best_checkpoint": trainer.state.best_global_step,
        "metrics": {name: value for name, value in results.items() if not name.endswith(NOT_METRICS)},
        "log": trainer.state.log_history,
    }
    if trainer.is_world_process_zero():
        _leave_record(output_dir, record, f"eval_{objective.metric}", options.curves)
        complete_checkpoint(output_dir, Path(options.data), renew_card=True)
    return record


def _check_arguments(options: RunOptions, args: RunArguments) -> None:
    if options.num_processes is not None and args.world_size != options.num_processes:
        raise ValueError(
            f"this run is meant for {options.num_processes} processes but has {args.world_size}: start it with "
            f"'torchrun --nproc_per_node {options.num_processes}'; 'accelerate launch --cpu' starts a single one"
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs are visible to one process, which would split batches within cells: start one process "
            "per GPU with torchrun or 'accelerate launch', or set CUDA_VISIBLE_DEVICES to one"
        )
    if options.early_stopping_patience is not None and not args.load_best_model_at_end:
        raise ValueError("early_stopping_patience needs load_best_model_at_end: true, so that a metric is followed")


def _refuse_mismatch(config: EpiFoundationConfig, tokenizer: PeakTokenizer, needs_genes: bool) -> None:
    sizes = [("peak ids", config.vocab_size, len(tokenizer))]
    if needs_genes and tokenizer.gene_chromosome_ids is not None:
        sizes.append(("gene ids", config.gene_vocab_size, len(tokenizer.gene_chromosome_ids)))
    for name, of_model, of_tokenizer in sizes:
        if of_model != of_tokenizer:
            raise ValueError(
                f"model and tokenizer do not belong together: the model has {of_model:,} {name}, the tokenizer "
                f"{of_tokenizer:,}; take both from one checkpoint"
            )


def _cells(options: RunOptions, args: RunArguments, columns: Sequence[str]) -> Cells:
    # One process first: what it writes into the cache of data sets, the others read.
    with args.main_process_first(local=False, desc="reading cells"):
        train, held_out = training_and_held_out(options, args.seed, columns)
    labels = [name for name in ("cell_type", "assay") if name in columns]
    if labels:
        train = cells_with_a_label(train, "training", labels)
        held_out = None if held_out is None else cells_with_a_label(held_out, "held-out", labels)
    if held_out is None and args.eval_strategy != "no":
        raise ValueError(
            "there are no held-out cells to evaluate on: give validation_data or a validation_share, or set "
            "eval_strategy: no"
        )
    train = train.select_columns(list(columns))
    return Cells(train, None if held_out is None else held_out.select_columns(list(columns)).with_format("numpy"))


def _trainer(
    options: RunOptions, args: RunArguments, objective: Objective, tokenizer: PeakTokenizer, cells: Cells
) -> EpiFoundationTrainer:
    model: Any = objective.model
    has_lora = isinstance(options, FinetuneOptions) and options.lora
    if options.lazy_adam:
        make_tables_sparse(model)
    if isinstance(options, FinetuneOptions) and has_lora:
        model = with_lora(model, options.lora_rank, options.lora_alpha, train_peaks=not options.freeze_peak_table)
    elif options.freeze_peak_table:
        model.get_input_embeddings().requires_grad_(False)
    # "loss" is what the Trainer chooses where no metric was named.
    if args.load_best_model_at_end and args.metric_for_best_model == "loss":
        args.metric_for_best_model, args.greater_is_better = objective.metric, True
    trainer = EpiFoundationTrainer(
        model,
        args,
        train_dataset=cells.train,
        eval_dataset=cells.held_out,
        data_collator=objective.train_collator,
        eval_data_collator=objective.eval_collator,
        max_tokens_per_batch=options.max_tokens_per_batch,
        freeze_batch_norm=options.freeze_batch_norm or has_lora,
        preprocess_logits_for_metrics=objective.reduce,
        compute_metrics=objective.compute_metrics,
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=_lazy_adam(args) if options.lazy_adam else None,
        **objective.trainer_options,
    )
    trainer.label_names = list(objective.model.loss_labels)
    if options.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(options.early_stopping_patience))
    return trainer


def _lazy_adam(args: RunArguments) -> tuple[type[LazyAdamW], dict[str, Any]]:
    if args.world_size > 1 and args.device.type == "cuda":
        raise ValueError("lazy_adam needs sparse gradients, which NCCL does not sum: use one GPU, or leave it out")
    betas = (args.adam_beta1, args.adam_beta2)
    return LazyAdamW, {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon}


def _save(trainer: EpiFoundationTrainer, options: RunOptions, tokenizer: PeakTokenizer, output_dir: Path) -> None:
    """Write the model and its tokenizer into the output folder; updates of low rank become part of the weights."""
    if not (isinstance(options, FinetuneOptions) and options.lora):
        trainer.save_model()
        return
    if trainer.args.should_save:
        trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)


def _tokens_per_second(trainer: EpiFoundationTrainer) -> float | None:
    """Of all processes together."""
    of_this = torch.tensor(trainer.throughput.tokens_per_second or 0.0, device=trainer.args.device)
    total = float(trainer.accelerator.gather(of_this).sum())
    return round(total, 1) if total else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _leave_record(folder: Path, record: dict[str, Any], metric: str, curves: bool) -> None:
    if curves and find_spec("matplotlib") is not None:
        save_curves(record["log"], metric, folder / CURVES_FILE)
    elif curves:
        logger.warning("no %s: install 'epifoundation[plot]', or switch 'curves' off", CURVES_FILE)
    write_json(folder / RECORD_FILE, record)
