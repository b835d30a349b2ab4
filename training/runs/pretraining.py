"""Pre-training: which genes does a cell express, which of its peaks were replaced or hidden, or all of it at once."""

from typing import Any

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForCombinedObjectives,
    EpiFoundationForMaskedPeaks,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationForReplacedPeaks,
    EpiFoundationPreTrainedModel,
    PeakTokenizer,
)
from epifoundation.training import metrics
from epifoundation.training.cells import checkpoint_folder
from epifoundation.training.collators import AlignmentCollator
from epifoundation.training.options import PretrainOptions, RunArguments
from epifoundation.training.runs.genes import evaluation_genes, gene_collator_options
from epifoundation.training.runs.new_models import new_config, new_gene_table, set_starting_values
from epifoundation.training.runs.running import (
    GENE_COLUMNS,
    PEAK_COLUMNS,
    Build,
    Cells,
    Objective,
    run_objective,
)
from epifoundation.training.self_supervision import CombinedCollator, MaskedPeaksCollator, ReplacedPeaksCollator

WITH_GENES = ("peak_to_gene", "combined")
# Their loss has a gradient for every row of the peak table, which LazyAdamW takes for rows that were read.
OVER_ALL_PEAKS = ("masked_peaks", "combined")
WEIGHTS = ("peak_to_gene_weight", "replaced_peaks_weight", "masked_peaks_weight")


def pretrain(options: PretrainOptions, args: RunArguments) -> dict[str, Any]:
    """Pre-train on the objective that was chosen; see `run_objective` for what is left, returned and raised."""
    if options.lazy_adam and options.objective in OVER_ALL_PEAKS:
        raise ValueError(
            f"lazy_adam does not go with {options.objective}, in which every peak of the vocabulary learns in each "
            "step: leave it out"
        )
    has_genes = options.objective in WITH_GENES
    columns = GENE_COLUMNS if has_genes else PEAK_COLUMNS
    if has_genes and options.use_batch_embeddings:
        columns = (*columns, "batch")
    return run_objective(options, args, _BUILD[options.objective](options, args), columns, options.model, has_genes)


def _alignment(options: PretrainOptions, args: RunArguments) -> Build:
    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        model = _model(EpiFoundationForPeakToGeneAlignment, options, tokenizer, cells, is_fresh, args.seed)
        genes = gene_collator_options(options, model)
        return Objective(
            "alignment",
            model,
            AlignmentCollator(tokenizer, **genes, packing=options.packing),
            AlignmentCollator(tokenizer, **genes, gene_ids=evaluation_genes(tokenizer, options, args.seed)),
            metrics.expression_score,
            metrics.alignment_metrics,
            "roc_auc",
        )

    return build


def _replaced_peaks(options: PretrainOptions, args: RunArguments) -> Build:
    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        shared: dict[str, Any] = {"probability": options.replaced_share, "max_peaks": options.max_peaks}
        return Objective(
            "replaced_peaks",
            _model(EpiFoundationForReplacedPeaks, options, tokenizer, cells, is_fresh, args.seed),
            ReplacedPeaksCollator(tokenizer, **shared, packing=options.packing),
            ReplacedPeaksCollator(tokenizer, **shared, deterministic=True),
            metrics.unchanged,
            metrics.alignment_metrics,
            "roc_auc",
        )

    return build


def _masked_peaks(options: PretrainOptions, args: RunArguments) -> Build:
    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        shared: dict[str, Any] = {"probability": options.masked_share, "max_peaks": options.max_peaks}
        return Objective(
            "masked_peaks",
            _model(EpiFoundationForMaskedPeaks, options, tokenizer, cells, is_fresh, args.seed),
            MaskedPeaksCollator(tokenizer, **shared, packing=options.packing),
            MaskedPeaksCollator(tokenizer, **shared, deterministic=True),
            metrics.unchanged,
            metrics.masked_peaks_metrics,
            "roc_auc",
        )

    return build


def _combined(options: PretrainOptions, args: RunArguments) -> Build:
    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        model = _model(EpiFoundationForCombinedObjectives, options, tokenizer, cells, is_fresh, args.seed)
        shared = gene_collator_options(options, model) | {
            "replaced_share": options.replaced_share,
            "masked_share": options.masked_share,
        }
        return Objective(
            "combined",
            model,
            CombinedCollator(tokenizer, **shared, packing=options.packing),
            CombinedCollator(tokenizer, **shared, gene_ids=evaluation_genes(tokenizer, options, args.seed)),
            metrics.combined_scores,
            metrics.combined_metrics,
            "roc_auc",
        )

    return build


_BUILD = {
    "peak_to_gene": _alignment,
    "replaced_peaks": _replaced_peaks,
    "masked_peaks": _masked_peaks,
    "combined": _combined,
}


def _model(
    kind: type[EpiFoundationPreTrainedModel],
    options: PretrainOptions,
    tokenizer: PeakTokenizer,
    cells: Cells,
    is_fresh: bool,
    seed: int,
) -> Any:
    """A new model, or that of a checkpoint, of whatever head."""
    has_batches = options.objective in WITH_GENES and options.use_batch_embeddings
    num_batches = len(cells.train.features["batch"].names) if has_batches else 0
    if options.model is not None:
        folder = checkpoint_folder(options.model)
        weights = {name: getattr(options, name) for name in WEIGHTS}
        model: Any = kind.from_pretrained(folder, **weights, **new_gene_table(folder, tokenizer))
        if options.objective in WITH_GENES:
            _refuse_other_batches(model.config, num_batches)
        return model
    model = kind(new_config(options, tokenizer, num_batches=num_batches, use_batch_embeddings=has_batches))
    if is_fresh:
        set_starting_values(model, options, tokenizer, cells.train, seed)
    return model


def _refuse_other_batches(config: EpiFoundationConfig, num_batches: int) -> None:
    of_model = config.num_batches if config.use_batch_embeddings else 0
    if of_model != num_batches:
        raise ValueError(
            f"the checkpoint has embeddings of {of_model} batches, this run needs {num_batches}: set "
            f"use_batch_embeddings to {str(of_model > 0).lower()}, with data of the checkpoint's batches"
        )
