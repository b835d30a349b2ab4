"""Fine-tuning of the cell embedding itself: cell types together, batches mixed."""

from typing import Any

import numpy as np
from datasets import Dataset

from epifoundation import EpiFoundationForBatchCorrection, EpiFoundationForCellClustering, PeakTokenizer
from epifoundation.training import metrics
from epifoundation.training.cells import checkpoint_folder
from epifoundation.training.initialization import cell_embeddings, init_adversary
from epifoundation.training.options import BatchCorrectionOptions, ClusteringOptions, RunArguments
from epifoundation.training.runs.new_models import dropouts, some_cells
from epifoundation.training.runs.running import PEAK_COLUMNS, Cells, Objective, run_objective
from epifoundation.training.self_supervision import ReplacedPeaksCollator
from epifoundation.training.triplets import TripletCollator


def finetune_clustering(options: ClusteringOptions, args: RunArguments) -> dict[str, Any]:
    """Bring cells of one type together, by triplets; see `run_objective` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        judged = cells.train if cells.held_out is None else cells.held_out
        num_types, num_judged = (len(np.unique(part["cell_type"][:])) for part in (cells.train, judged))
        if num_judged < 2 <= num_types:
            raise ValueError(
                "the held-out cells are all of one type, which makes no triplets: hold out more (validation_share), or "
                "others (validation_data)"
            )
        return Objective(
            "clustering",
            EpiFoundationForCellClustering.from_pretrained(checkpoint_folder(options.model), **dropouts(options)),
            TripletCollator(tokenizer, cells.train, max_peaks=options.max_peaks, packing=options.packing),
            TripletCollator(tokenizer, judged, max_peaks=options.max_peaks, deterministic=True),
            metrics.triplets,
            metrics.clustering_metrics,
            "triplet_accuracy",
            keep=("cell_embeddings",),
        )

    return run_objective(options, args, build, (*PEAK_COLUMNS, "cell_type"), options.model, needs_genes=False)


def finetune_batch_correction(options: BatchCorrectionOptions, args: RunArguments) -> dict[str, Any]:
    """Hide the batch, by gradient reversal; see `run_objective` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        _refuse_one_batch(cells.train, options.data)
        model = EpiFoundationForBatchCorrection.from_pretrained(
            checkpoint_folder(options.model),
            num_batches=len(cells.train.features["batch"].names),
            # That of the gene decoders, which this model does not have.
            use_batch_embeddings=False,
            adversarial_weight=options.adversarial_weight,
            gradient_reversal=options.gradient_reversal,
            standardize_adversary=options.standardize_adversary,
            num_trainable_layers=options.num_trainable_layers,
            ignore_mismatched_sizes=True,
            **dropouts(options),
        )
        if is_fresh:
            init_adversary(
                model, cell_embeddings(model, tokenizer, some_cells(cells.train, args.seed), options.max_peaks)
            )
        shared: dict[str, Any] = {
            "probability": options.replaced_share,
            "max_peaks": options.max_peaks,
            "use_batches": True,
        }
        return Objective(
            "batch_correction",
            model,
            ReplacedPeaksCollator(tokenizer, **shared, packing=options.packing),
            ReplacedPeaksCollator(tokenizer, **shared, deterministic=True),
            metrics.unchanged,
            metrics.batch_correction_metrics,
            "roc_auc",
            {"learning_rate_factors": {"batch_classifier": options.adversary_learning_rate}},
            keep=("cell_embeddings",),
        )

    return run_objective(options, args, build, (*PEAK_COLUMNS, "batch"), options.model, needs_genes=False)


def _refuse_one_batch(cells: Dataset, folder: str) -> None:
    batches = np.asarray(cells.with_format("numpy")["batch"][:])
    if len(np.unique(batches[batches >= 0])) < 2:
        raise ValueError(
            f"the training cells in {folder} are of one batch: there is nothing to correct; expected at least two, as "
            "'tokenize --batch-key' writes them"
        )
