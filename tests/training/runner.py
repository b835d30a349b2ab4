"""A run in a process of its own: ``runner.py OBJECTIVE WHEN WORDS...``; it may kill itself on the way.

WHEN is "never", "step:N" (after the N-th step of the optimiser) or "save:N" (while checkpoint N is written: all files
are there but the last). Processes of torchrun leave what they have seen and computed in ``$SEEN``.
"""

import os
import signal
import sys

from transformers import TrainerCallback

from epifoundation.training import options, runs
from epifoundation.training import trainer as trainer_module
from epifoundation.training.options import read_options

OBJECTIVES = {
    "alignment": (options.PretrainOptions, runs.pretrain),
    "replaced_peaks": (options.PretrainOptions, runs.pretrain),
    "masked_peaks": (options.PretrainOptions, runs.pretrain),
    "combined": (options.PretrainOptions, runs.pretrain),
    "classification": (options.ClassificationOptions, runs.finetune_classification),
    "expression": (options.ExpressionOptions, runs.finetune_expression),
    "clustering": (options.ClusteringOptions, runs.finetune_clustering),
    "batch_correction": (options.BatchCorrectionOptions, runs.finetune_batch_correction),
    "contrastive": (options.ContrastiveOptions, runs.finetune_contrastive),
    "imputation": (options.ImputationOptions, runs.finetune_imputation),
    "bulk": (options.BulkOptions, runs.finetune_bulk),
}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAfterStep(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            kill()


def kill_when(when: str) -> None:
    moment, _, step = when.partition(":")
    if moment == "step":
        init = trainer_module.EpiFoundationTrainer.__init__

        def init_and_kill(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.add_callback(KillAfterStep(int(step)))

        trainer_module.EpiFoundationTrainer.__init__ = init_and_kill
    elif moment == "save":
        seal = trainer_module.seal
        trainer_module.seal = lambda folder: kill() if folder.name == f"checkpoint-{step}" else seal(folder)


if __name__ == "__main__":
    objective, when, *words = sys.argv[1:]
    kind, run = OBJECTIVES[objective]
    kill_when(when)
    run(*read_options(kind, words))
