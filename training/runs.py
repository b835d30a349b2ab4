"""Whole runs: pre-training and both fine-tunings, from a folder of tokenised cells to a checkpoint.

A run that was ended, however, goes on from its last complete checkpoint when it is started again with the same
settings, and ends with the same weights.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, EvalPrediction, set_seed

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationPreTrainedModel,
    PeakTokenizer,
)
from epifoundation.sharing import complete_checkpoint
from epifoundation.training import metrics
from epifoundation.training.adapters import with_lora
from epifoundation.training.cells import (
    cells_of_known_type,
    check_ids,
    checkpoint_folder,
    tokenizer_of_run,
    training_and_held_out,
)
from epifoundation.training.collators import (
    AlignmentCollator,
    CellCollator,
    ClassificationCollator,
    ExpressionCollator,
)
from epifoundation.training.initialization import (
    cell_embeddings,
    init_cell_projection,
    init_gene_bias,
    init_peak_embeddings,
)
from epifoundation.training.lazy_adam import LazyAdamW, make_tables_sparse
from epifoundation.training.options import (
    NEW_MODEL,
    ClassificationOptions,
    ExpressionOptions,
    FinetuneOptions,
    GeneOptions,
    NewModelOptions,
    PretrainOptions,
    RunArguments,
    RunOptions,
)
from epifoundation.training.record import save_curves, versions, write_json
from epifoundation.training.restart import checkpoint_to_resume, run_settings
from epifoundation.training.trainer import EpiFoundationTrainer, balanced_class_weights

logger = logging.getLogger(__name__)

RECORD_FILE, CURVES_FILE = "run.json", "curves.png"
PEAK_COLUMNS = ("input_ids",)
GENE_COLUMNS = ("input_ids", "gene_ids", "gene_counts")
CELLS_TO_WHITEN = 5_000  # enough for the covariance of 512 dimensions
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
    """

    name: str
    model: EpiFoundationPreTrainedModel
    train_collator: CellCollator
    eval_collator: CellCollator
    reduce: Callable[[Any, Any], Any]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    metric: str
    trainer_options: dict[str, Any] = field(default_factory=dict)


Build = Callable[[PeakTokenizer, Cells, bool], Objective]


def pretrain(options: PretrainOptions, args: RunArguments) -> dict[str, Any]:
    """Align peaks to genes; the checkpoint, `run.json` and `curves.png` are left in ``args.output_dir``.

    Returns:
        What `run.json` holds.

    Raises:
        FileNotFoundError: if data, tokenizer or model are not where they should be.
        ValueError: if options contradict each other, the data, or those of the run to be resumed.
    """
    columns = (*GENE_COLUMNS, "batch") if options.use_batch_embeddings else GENE_COLUMNS

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        if options.model is None:
            model = _new_alignment_model(options, tokenizer, cells.train, is_fresh, args.seed)
        else:
            model = EpiFoundationForPeakToGeneAlignment.from_pretrained(checkpoint_folder(options.model))
        genes = _gene_collator_options(options, model)
        return Objective(
            "alignment",
            model,
            AlignmentCollator(tokenizer, **genes, packing=options.packing),
            AlignmentCollator(tokenizer, **genes, gene_ids=_evaluation_genes(tokenizer, options, args.seed)),
            metrics.expression_score,
            metrics.alignment_metrics,
            "roc_auc",
        )

    return _run(options, args, build, columns, options.model, needs_genes=True)


def finetune_classification(options: ClassificationOptions, args: RunArguments) -> dict[str, Any]:
    """Learn the cell types of the data; see `pretrain` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        names = cells.train.features["cell_type"].names
        labels: dict[str, Any] = {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }
        if options.model == NEW_MODEL:
            config = _new_config(options, tokenizer, **labels, **_dropouts(options))
            model = EpiFoundationForCellClassification(config)
            if is_fresh and options.init_peak_embeddings == "lsi":
                init_peak_embeddings(model, cells.train, args.seed)
        else:
            # The classifier of a model trained on other types does not fit, and is drawn afresh.
            model = EpiFoundationForCellClassification.from_pretrained(
                checkpoint_folder(options.model),
                num_labels=len(names),
                ignore_mismatched_sizes=True,
                **labels,
                **_dropouts(options),
            )
        weights = None
        if options.class_weights == "balanced":
            weights = balanced_class_weights(cells.train["cell_type"], len(names))
        return Objective(
            "classification",
            model,
            ClassificationCollator(tokenizer, max_peaks=options.max_peaks, packing=options.packing),
            ClassificationCollator(tokenizer, max_peaks=options.max_peaks, deterministic=True),
            metrics.predicted_class,
            metrics.classification_metrics,
            "macro_f1",
            {"class_weights": weights},
        )

    model = None if options.model == NEW_MODEL else options.model
    return _run(options, args, build, (*PEAK_COLUMNS, "cell_type"), model, needs_genes=False)


def finetune_expression(options: ExpressionOptions, args: RunArguments) -> dict[str, Any]:
    """Learn the levels of expression of genes; see `pretrain` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        model = EpiFoundationForExpressionPrediction.from_pretrained(
            checkpoint_folder(options.model),
            num_expression_bins=options.num_expression_bins,
            # The batch is joined in pre-training only (paper, eq. 13).
            use_batch_embeddings=False,
            **_dropouts(options),
        )
        levels = {"num_bins": options.num_expression_bins, "legacy": options.legacy_levels}
        genes = _gene_collator_options(options, model) | levels
        return Objective(
            "expression",
            model,
            ExpressionCollator(tokenizer, **genes, balanced=options.gene_draw == "balanced", packing=options.packing),
            ExpressionCollator(tokenizer, **genes, gene_ids=_evaluation_genes(tokenizer, options, args.seed)),
            metrics.unchanged,
            metrics.expression_metrics,
            "spearman",
        )

    return _run(options, args, build, GENE_COLUMNS, options.model, needs_genes=True)


def summary(record: dict[str, Any]) -> str:
    """One line about a run, from what it returned."""
    metrics_of_run = record["metrics"]
    values = ", ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in metrics_of_run.items())
    text = f"{record['objective']}, {record['steps']} steps"
    return f"{text}; on held-out cells: {values}" if values else text


def _run(
    options: RunOptions, args: RunArguments, build: Build, columns: Sequence[str], model: str | None, needs_genes: bool
) -> dict[str, Any]:
    started = time.perf_counter()
    output_dir = Path(str(args.output_dir))
    _check_arguments(options, args)
    tokenizer = tokenizer_of_run(options, model, needs_genes)
    cells = _cells(options, args, columns)
    check_ids(cells.train, tokenizer)
    settings = run_settings(options, args, tokenizer, {"train": cells.train, "held_out": cells.held_out})
    checkpoint = checkpoint_to_resume(output_dir, settings, args, overwrite=options.overwrite)
    set_seed(args.seed)
    objective = build(tokenizer, cells, checkpoint is None)
    _refuse_mismatch(objective.model.config, tokenizer, needs_genes)
    trainer = _trainer(options, args, objective, tokenizer, cells)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    results = trainer.evaluate() if cells.held_out is not None else {}
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
    if "cell_type" in columns:
        train = cells_of_known_type(train, "training")
        held_out = None if held_out is None else cells_of_known_type(held_out, "held-out")
    if held_out is None and args.eval_strategy != "no":
        raise ValueError(
            "there are no held-out cells to evaluate on: give validation_data or a validation_share, or set "
            "eval_strategy: no"
        )
    train = train.select_columns(list(columns))
    return Cells(train, None if held_out is None else held_out.select_columns(list(columns)).with_format("numpy"))


def _new_alignment_model(
    options: PretrainOptions, tokenizer: PeakTokenizer, train: Dataset, is_fresh: bool, seed: int
) -> EpiFoundationForPeakToGeneAlignment:
    """A model for this tokenizer; starting values are learned only where no checkpoint would replace them."""
    num_batches = len(train.features["batch"].names) if options.use_batch_embeddings else 0
    model = EpiFoundationForPeakToGeneAlignment(_new_config(options, tokenizer, num_batches=num_batches))
    if is_fresh and options.init_peak_embeddings == "lsi":
        init_peak_embeddings(model, train, seed)
    if is_fresh and options.use_gene_bias:
        init_gene_bias(model, train)
    if is_fresh and options.whiten_cells:
        sample = np.random.default_rng(seed).permutation(len(train))[:CELLS_TO_WHITEN]
        sample_of_train = train.select(np.sort(sample), keep_in_memory=True)
        init_cell_projection(model, cell_embeddings(model, tokenizer, sample_of_train, options.max_peaks))
    return model


def _new_config(options: NewModelOptions, tokenizer: PeakTokenizer, **given: Any) -> EpiFoundationConfig:
    """Sizes from the options and the tokenizer, and what is given."""
    names = {option.name for option in fields(options)} - {"max_peaks"}
    values = {name: getattr(options, name) for name in names if hasattr(EpiFoundationConfig, name)}
    sizes = {name: value for name, value in values.items() if value is not None}
    chromosome_ids, gene_chromosome_ids = tokenizer.peak_chromosome_ids, tokenizer.gene_chromosome_ids
    if gene_chromosome_ids is not None:
        sizes["gene_vocab_size"] = len(gene_chromosome_ids)
        chromosome_ids = np.r_[chromosome_ids, gene_chromosome_ids]
    return EpiFoundationConfig(
        **(sizes | given),
        max_peaks=getattr(options, "max_peaks", None) or tokenizer.max_peaks,
        vocab_size=len(tokenizer),
        num_chromosomes=int(chromosome_ids.max()) + 1,
    )


def _gene_collator_options(options: Any, model: EpiFoundationPreTrainedModel) -> dict[str, Any]:
    return {
        "max_peaks": options.max_peaks,
        "max_genes": options.max_genes,
        "use_batches": model.config.use_batch_embeddings,
    }


def _evaluation_genes(tokenizer: PeakTokenizer, options: GeneOptions, seed: int) -> np.ndarray:
    """Ids of genes drawn once for the whole run, whatever the cells express."""
    assert tokenizer.gene_chromosome_ids is not None
    assert tokenizer.genes is not None
    ids = np.arange(len(tokenizer.gene_chromosome_ids) - len(tokenizer.genes), len(tokenizer.gene_chromosome_ids))
    if 0 < options.num_eval_genes < len(ids):
        ids = np.sort(np.random.default_rng(seed).choice(ids, options.num_eval_genes, replace=False))
    return ids


def _dropouts(options: FinetuneOptions) -> dict[str, Any]:
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


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
