"""``epifoundation finetune``: from a pre-trained model to cell types or expression."""

import typer

from .reporting import one_line_errors
from .training import PASS_ON, ListOptions, Words, start

finetune = typer.Typer(
    name="finetune",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fine-tune a pre-trained model to annotate cells or to predict expression.",
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
