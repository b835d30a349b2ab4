"""Fine-tuning for labels: cell types of cells, cell types and assays of bulk samples."""

from typing import Any

from epifoundation import (
    EpiFoundationForBulkClassification,
    EpiFoundationForCellClassification,
    EpiFoundationPreTrainedModel,
    PeakTokenizer,
)
from epifoundation.training import metrics
from epifoundation.training.cells import checkpoint_folder
from epifoundation.training.collators import BulkCollator, ClassificationCollator
from epifoundation.training.initialization import init_peak_embeddings
from epifoundation.training.options import NEW_MODEL, BulkOptions, ClassificationOptions, LabelOptions, RunArguments
from epifoundation.training.runs.new_models import dropouts, new_config
from epifoundation.training.runs.running import PEAK_COLUMNS, Cells, Objective, run_objective
from epifoundation.training.trainer import balanced_class_weights


def finetune_classification(options: ClassificationOptions, args: RunArguments) -> dict[str, Any]:
    """Learn the cell types of the data; see `run_objective` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        names = cells.train.features["cell_type"].names
        weights = None
        if options.class_weights == "balanced":
            weights = balanced_class_weights(cells.train["cell_type"], len(names))
        return Objective(
            "classification",
            _classifier(EpiFoundationForCellClassification, options, tokenizer, cells, is_fresh, args.seed),
            ClassificationCollator(tokenizer, max_peaks=options.max_peaks, packing=options.packing),
            ClassificationCollator(tokenizer, max_peaks=options.max_peaks, deterministic=True),
            metrics.predicted_class,
            metrics.classification_metrics,
            "macro_f1",
            {"class_weights": weights},
        )

    return run_objective(options, args, build, (*PEAK_COLUMNS, "cell_type"), _checkpoint(options), needs_genes=False)


def finetune_bulk(options: BulkOptions, args: RunArguments) -> dict[str, Any]:
    """Learn the cell type and the assay of bulk samples; see `run_objective` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        assays = cells.train.features["assay"].names
        kind, seed = EpiFoundationForBulkClassification, args.seed
        return Objective(
            "bulk",
            _classifier(kind, options, tokenizer, cells, is_fresh, seed, assay_names=assays),
            BulkCollator(tokenizer, max_peaks=options.max_peaks, packing=options.packing),
            BulkCollator(tokenizer, max_peaks=options.max_peaks, deterministic=True),
            metrics.predicted_classes,
            metrics.bulk_metrics,
            "cell_type_accuracy",
        )

    columns = (*PEAK_COLUMNS, "cell_type", "assay")
    return run_objective(options, args, build, columns, _checkpoint(options), needs_genes=False)


def _checkpoint(options: LabelOptions) -> str | None:
    return None if options.model == NEW_MODEL else options.model


def _classifier(
    kind: type[EpiFoundationPreTrainedModel],
    options: LabelOptions,
    tokenizer: PeakTokenizer,
    cells: Cells,
    is_fresh: bool,
    seed: int,
    **given: Any,
) -> Any:
    """A model for the cell types of the data: new, or that of a checkpoint."""
    names = cells.train.features["cell_type"].names
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    settings = labels | given | dropouts(options)
    if options.model != NEW_MODEL:
        # The classifier of a model trained on other types does not fit, and is drawn afresh.
        return kind.from_pretrained(
            checkpoint_folder(options.model), num_labels=len(names), ignore_mismatched_sizes=True, **settings
        )
    model = kind(new_config(options, tokenizer, **settings))
    if is_fresh and options.init_peak_embeddings == "lsi":
        init_peak_embeddings(model, cells.train, seed)
    return model
