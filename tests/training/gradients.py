"""The first gradients of a run, and the cells it reads; as a script, those of each process of torchrun.

``gradients.py OUT OBJECTIVE WORDS... -- OBJECTIVE WORDS... -- ...`` runs one after the other and leaves what process r
observed as ``OUT/r.pt``.
"""

import os
import sys
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import TrainerCallback

from epifoundation.training import collators
from epifoundation.training.options import read_options
from epifoundation.training.runs import running

if __name__ == "__main__":
    from runner import OBJECTIVES
else:
    from .runner import OBJECTIVES


class KeepFirstGradients(TrainerCallback):
    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if not self.gradients:
            named = model.named_parameters()
            self.gradients = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def observe(objective: str, words: list[str]) -> dict:
    """Run; the gradients before the first step of the optimiser, and seed, epoch and cell of every row collated."""
    kind, run = OBJECTIVES[objective]
    sources, make = collators.CellCollator._rngs, running._trainer
    seen, keep = [], KeepFirstGradients()

    def watched(self, rows):
        seen.extend(list(row[collators.DRAW_SEED]) for row in rows if collators.DRAW_SEED in row)
        return sources(self, rows)

    def make_watched(*args):
        trainer = make(*args)
        trainer.add_callback(keep)
        return trainer

    with patch.object(collators.CellCollator, "_rngs", watched), patch.object(running, "_trainer", make_watched):
        run(*read_options(kind, words))
    return {"gradients": keep.gradients, "seen": seen}


if __name__ == "__main__":
    assert os.environ["WORLD_SIZE"] == "2"  # some launchers start one process, without a word
    out, *words = sys.argv[1:]
    parts = [list(part) for is_end, part in groupby(words, lambda word: word == "--") if not is_end]
    torch.save({part[0]: observe(part[0], part[1:]) for part in parts}, Path(out, f"{os.environ['RANK']}.pt"))
