"""``epifoundation finetune``: from a pre-trained model to one for a task."""

import typer

from .reporting import one_line_errors
from .training import PASS_ON, ListOptions, Words, start

finetune = typer.Typer(
    name="finetune",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fine-tune a pre-trained model: cell types, expression, batches, alignment with RNA, bulk samples.",
)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def classification(words: Words = None, options: ListOptions = False) -> None:
    """Fine-tune a model to name the type of a cell, learned from the column cell_type of the data.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    Example: epifoundation finetune classification --model pretrained --data cells --output_dir annotator

    Cells without measured genes have no model to start from: --model new --init_peak_embeddings lsi does without.
    """
    from epifoundation.training.options import ClassificationOptions
    from epifoundation.training.runs import finetune_classification

    start(ClassificationOptions, finetune_classification, words, options)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def expression(words: Words = None, options: ListOptions = False) -> None:
    """Fine-tune a model to predict levels of expression, learned from the gene counts of the data.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    Example: epifoundation finetune expression --model pretrained --data cells --output_dir predictor
    """
    from epifoundation.training.options import ExpressionOptions
    from epifoundation.training.runs import finetune_expression

    start(ExpressionOptions, finetune_expression, words, options)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def clustering(words: Words = None, options: ListOptions = False) -> None:
    """Fine-tune the cell embedding itself: cells of one type together, others apart, by triplets.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    Example: epifoundation finetune clustering --model pretrained --data cells --output_dir clustered
    """
    from epifoundation.training.options import ClusteringOptions
    from epifoundation.training.runs import finetune_clustering

    start(ClusteringOptions, finetune_clustering, words, options)


@finetune.command("batch-correction", context_settings=PASS_ON)
@one_line_errors
def batch_correction(words: Words = None, options: ListOptions = False) -> None:
    """Fine-tune a model to hide the batch of a cell, learned against the column batch of the data.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    An adversary tells batches apart, and the encoder learns from the reversed gradient, while it goes on telling
    replaced peaks from the cell's own. Strength: --adversarial_weight, --gradient_reversal. The adversary reads
    standardised embeddings and learns faster than the encoder (--standardize_adversary, --adversary_learning_rate);
    without either, as in the paper, it left a strong batch as it was, and cost what the embedding tells of types.

    Look first whether the batch keeps cells apart (iLISI of 'evaluate batch'); where it does not, there is nothing to
    gain.

    Example: epifoundation finetune batch-correction --model pretrained --data cells --output_dir corrected
    """
    from epifoundation.training.options import BatchCorrectionOptions
    from epifoundation.training.runs import finetune_batch_correction

    start(BatchCorrectionOptions, finetune_batch_correction, words, options)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def contrastive(words: Words = None, options: ListOptions = False) -> None:
    """Bring RNA and ATAC of the same cells to one space (CRAFT), from a checkpoint of the ATAC side.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    The encoder of genes is a new one, or that of --gene_encoder.

    Example: epifoundation finetune contrastive --model pretrained --data cells --output_dir aligned
    """
    from epifoundation.training.options import ContrastiveOptions
    from epifoundation.training.runs import finetune_contrastive

    start(ContrastiveOptions, finetune_contrastive, words, options)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def imputation(words: Words = None, options: ListOptions = False) -> None:
    """Predict the expression of every gene from the ATAC side of a checkpoint of 'finetune contrastive'.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    Example: epifoundation finetune imputation --model aligned --data cells --output_dir imputation
    """
    from epifoundation.training.options import ImputationOptions
    from epifoundation.training.runs import finetune_imputation

    start(ImputationOptions, finetune_imputation, words, options)


@finetune.command(context_settings=PASS_ON)
@one_line_errors
def bulk(words: Words = None, options: ListOptions = False) -> None:
    """Learn the cell type and the assay of bulk samples, which 'tokenize --labels' makes of BED files.

    Takes a checkpoint and a folder of cells tokenised for it, and leaves a checkpoint, run.json and curves.png in
    --output_dir. Ended at any time, the same command goes on from the last complete checkpoint.

    --model new does without a checkpoint.

    Example: epifoundation finetune bulk --model pretrained --data samples --output_dir bulk
    """
    from epifoundation.training.options import BulkOptions
    from epifoundation.training.runs import finetune_bulk

    start(BulkOptions, finetune_bulk, words, options)
