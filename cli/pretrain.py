"""``epifoundation pretrain``: from tokenised cells to a model of them."""

from .reporting import one_line_errors
from .training import ListOptions, Words, start


@one_line_errors
def pretrain(words: Words = None, options: ListOptions = False) -> None:
    """Pre-train a model: which genes does a cell express, given its open peaks?

    With --objective replaced_peaks or masked_peaks the cells need no genes: the model learns which peaks were swapped
    for others, or which were hidden. --objective combined is the sum of all three.

    Takes a folder as 'tokenize' writes it, and leaves a checkpoint, run.json and curves.png in --output_dir. Ended at
    any time, the same command goes on from the last complete checkpoint.

    Example: epifoundation pretrain examples/settings/pretrain_small.yaml --data cells --output_dir pretrained

    On several processes: torchrun --nproc_per_node 2 -m epifoundation_cli pretrain ...
    """
    from epifoundation.training.options import PretrainOptions
    from epifoundation.training.runs import pretrain as run

    start(PretrainOptions, run, words, options)
