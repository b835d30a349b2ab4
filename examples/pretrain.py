"""Pre-train by peak-to-gene alignment: which genes does a cell express, given its open peaks?

    python examples/pretrain.py                                   # a small model, on the cells of examples/data
    python examples/pretrain.py SETTINGS.yaml --data CELLS --output_dir OUTPUT [--learning_rate 3e-4 ...]
    torchrun --nproc_per_node 2 examples/pretrain.py ...          # or accelerate launch, see examples/accelerate

As it stands it prints

    alignment, 295 steps; on held-out cells: loss 0.5727, accuracy 0.7457, roc_auc 0.7859

after a minute on a CPU, and leaves the checkpoint, run.json and curves.png in runs/snare/pretrained.

Ended at any time, it goes on from its last checkpoint when started again. `epifoundation pretrain` is the same.
"""

import sys
from pathlib import Path

from snare import tokenise_snare

from epifoundation.training.options import PretrainOptions, read_options
from epifoundation.training.runs import pretrain, summary

SETTINGS = Path(__file__).resolve().parent / "settings" / "pretrain_small.yaml"


def main() -> None:
    words = sys.argv[1:]
    if not words:
        words = [str(SETTINGS), "--data", str(tokenise_snare()), "--output_dir", "runs/snare/pretrained"]
    options, arguments = read_options(PretrainOptions, words)
    record = pretrain(options, arguments)
    if arguments.process_index == 0:
        print(summary(record))


if __name__ == "__main__":
    main()
