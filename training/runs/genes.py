"""What alignment and expression prediction have in common, and the run of the latter."""

from typing import Any

import numpy as np

from epifoundation import EpiFoundationForExpressionPrediction, EpiFoundationPreTrainedModel, PeakTokenizer
from epifoundation.training import metrics
from epifoundation.training.cells import checkpoint_folder
from epifoundation.training.collators import ExpressionCollator
from epifoundation.training.options import ExpressionOptions, GeneOptions, RunArguments
from epifoundation.training.runs.new_models import dropouts, new_gene_table
from epifoundation.training.runs.running import GENE_COLUMNS, Cells, Objective, run_objective


def finetune_expression(options: ExpressionOptions, args: RunArguments) -> dict[str, Any]:
    """Learn the levels of expression of genes; see `run_objective` for what is left, returned and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        folder = checkpoint_folder(options.model)
        model = EpiFoundationForExpressionPrediction.from_pretrained(
            folder,
            num_expression_bins=options.num_expression_bins,
            # The batch is joined in pre-training only (paper, eq. 13).
            use_batch_embeddings=False,
            **new_gene_table(folder, tokenizer),
            **dropouts(options),
        )
        levels = {"num_bins": options.num_expression_bins, "legacy": options.legacy_levels}
        genes = gene_collator_options(options, model) | levels
        return Objective(
            "expression",
            model,
            ExpressionCollator(tokenizer, **genes, balanced=options.gene_draw == "balanced", packing=options.packing),
            ExpressionCollator(tokenizer, **genes, gene_ids=evaluation_genes(tokenizer, options, args.seed)),
            metrics.unchanged,
            metrics.expression_metrics,
            "spearman",
        )

    return run_objective(options, args, build, GENE_COLUMNS, options.model, needs_genes=True)


def gene_collator_options(options: Any, model: EpiFoundationPreTrainedModel) -> dict[str, Any]:
    """Arguments of a `GeneCollator`."""
    return {
        "max_peaks": options.max_peaks,
        "max_genes": options.max_genes,
        "use_batches": model.config.use_batch_embeddings,
    }


def evaluation_genes(tokenizer: PeakTokenizer, options: GeneOptions, seed: int) -> np.ndarray:
    """Ids of genes drawn once for the whole run, whatever the cells express."""
    assert tokenizer.gene_chromosome_ids is not None
    assert tokenizer.genes is not None
    ids = np.arange(len(tokenizer.gene_chromosome_ids) - len(tokenizer.genes), len(tokenizer.gene_chromosome_ids))
    if 0 < options.num_eval_genes < len(ids):
        ids = np.sort(np.random.default_rng(seed).choice(ids, options.num_eval_genes, replace=False))
    return ids
