"""RNA and ATAC in one space (CRAFT), and expression imputed from the ATAC side of it."""

from typing import Any

import torch

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
    PeakTokenizer,
)
from epifoundation.contrastive_alignment_epifoundation import default_gene_encoder
from epifoundation.dataset_builders.tokenized.gene_ranks import typical_gene_counts
from epifoundation.training import metrics
from epifoundation.training.cells import checkpoint_folder
from epifoundation.training.contrastive import ContrastiveCollator, ImputationCollator
from epifoundation.training.initialization import cell_embeddings, init_imputation
from epifoundation.training.options import ContrastiveOptions, ImputationOptions, RunArguments
from epifoundation.training.runs.new_models import dropouts, some_cells
from epifoundation.training.runs.running import GENE_COLUMNS, Cells, Objective, run_objective

# Classes whose checkpoints hold the ATAC side of an aligned model.
ALIGNED = {"EpiFoundationForContrastiveAlignment", "EpiFoundationForExpressionImputation"}


def finetune_contrastive(options: ContrastiveOptions, args: RunArguments) -> dict[str, Any]:
    """Bring RNA and ATAC of the same cell together; see `run_objective` for what is left, returned and raised."""
    # Among few cells a match is found more easily: both losses are to be of equally many.
    args.per_device_eval_batch_size = args.per_device_train_batch_size

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        model = _two_towers(options, tokenizer)
        typical = None
        if model.typical_gene_counts is not None:
            # In single precision, as the checkpoint keeps them: inference must rank the genes alike.
            counts = torch.from_numpy(typical_gene_counts(cells.train, model.config.gene_vocab_size)).float()
            model.typical_gene_counts.copy_(counts)
            typical = counts.numpy()
        shared: dict[str, Any] = {
            "max_peaks": options.max_peaks,
            "max_genes": model.max_ranked_genes,
            "typical_counts": typical,
        }
        return Objective(
            "contrastive",
            model,
            ContrastiveCollator(tokenizer, **shared, packing=options.packing),
            ContrastiveCollator(tokenizer, **shared, deterministic=True),
            metrics.unchanged,
            metrics.contrastive_metrics,
            "recall_at_10",
            keep=("cell_embeddings",),
            drop=("logits",),
        )

    return run_objective(options, args, build, GENE_COLUMNS, options.model, needs_genes=True)


def finetune_imputation(options: ImputationOptions, args: RunArguments) -> dict[str, Any]:
    """Learn expression from the ATAC side of an aligned model; see `run_objective` for what is left and raised."""

    def build(tokenizer: PeakTokenizer, cells: Cells, is_fresh: bool) -> Objective:
        folder = checkpoint_folder(options.model)
        known = EpiFoundationConfig.from_pretrained(folder)
        if not ALIGNED.intersection(known.architectures or ()):
            raise ValueError(
                f"{options.model} has no ATAC side that was aligned to RNA: expected a checkpoint of "
                "'finetune contrastive'"
            )
        model = EpiFoundationForExpressionImputation.from_pretrained(
            folder,
            gene_vocab_size=_num_gene_ids(tokenizer),
            num_imputed_genes=None,
            use_gene_bias=True,
            ignore_mismatched_sizes=True,
            **dropouts(options),
        )
        if is_fresh and not _imputes_these_genes(known, model.config):
            sample = cell_embeddings(model, tokenizer, some_cells(cells.train, args.seed), options.max_peaks)
            init_imputation(model, cells.train, sample)
        return Objective(
            "imputation",
            model,
            ImputationCollator(tokenizer, max_peaks=options.max_peaks, packing=options.packing),
            ImputationCollator(tokenizer, max_peaks=options.max_peaks, deterministic=True),
            metrics.unchanged,
            metrics.expression_metrics,
            "spearman",
        )

    return run_objective(options, args, build, GENE_COLUMNS, options.model, needs_genes=True)


def _imputes_these_genes(known: EpiFoundationConfig, config: EpiFoundationConfig) -> bool:
    """Whether a checkpoint has a head that is gone on with."""
    is_head = EpiFoundationForExpressionImputation.__name__ in (known.architectures or ())
    return is_head and known.use_gene_bias and known.gene_vocab_size == config.gene_vocab_size


def _two_towers(options: ContrastiveOptions, tokenizer: PeakTokenizer) -> EpiFoundationForContrastiveAlignment:
    """The tower of peaks from a checkpoint; that of genes from another one, or from the same if it has one, or new."""
    folder = checkpoint_folder(options.model)
    num_gene_ids = _num_gene_ids(tokenizer)
    settings: dict[str, Any] = {
        "gene_vocab_size": num_gene_ids,
        "max_genes": options.max_genes,
        "use_typical_gene_counts": options.use_typical_gene_counts,
        "use_batch_embeddings": False,
        **dropouts(options),
    }
    if options.projection_size is not None:
        settings["projection_size"] = options.projection_size
    kind = EpiFoundationForContrastiveAlignment
    if options.gene_encoder is not None:
        model = kind.from_towers(folder, checkpoint_folder(options.gene_encoder), **settings)
    elif EpiFoundationConfig.from_pretrained(folder).gene_encoder is not None:
        model = kind.from_pretrained(folder, **settings)
    else:
        tower = default_gene_encoder(num_gene_ids, options.max_genes) | {
            "hidden_size": options.gene_hidden_size,
            "num_hidden_layers": options.gene_layers,
            "num_attention_heads": options.gene_attention_heads,
            "intermediate_size": options.gene_intermediate_size,
            **dropouts(options),
        }
        model = kind.from_pretrained(folder, gene_encoder=tower, **settings)
    of_tower = model.gene_encoder.config.vocab_size
    if of_tower != num_gene_ids:
        raise ValueError(
            f"the encoder of genes knows {of_tower:,} ids of genes, the tokenizer has {num_gene_ids:,}: expected an "
            "encoder whose ids are those of the tokenizer's genes; leave gene_encoder out to train a new one"
        )
    return model


def _num_gene_ids(tokenizer: PeakTokenizer) -> int:
    assert tokenizer.gene_chromosome_ids is not None
    return len(tokenizer.gene_chromosome_ids)
