"""Whether a run goes on from an earlier start: only with the settings and the data it was begun with."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from datasets import Dataset

from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.checkpoints import checkpoints, last_complete_checkpoint
from epifoundation.training.options import RunArguments, RunOptions
from epifoundation.training.record import data_digest, write_json

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
# Options that say where things are and what is reported, not what is computed.
WITHOUT_EFFECT = {"data", "validation_data", "tokenizer", "num_processes", "overwrite", "curves"}
# Arguments of the Trainer that decide what is computed.
WITH_EFFECT = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs", "max_steps"),
    *("optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "seed", "data_seed"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16", "world_size"),
)


def run_settings(
    options: RunOptions, args: RunArguments, tokenizer: PeakTokenizer, cells: Mapping[str, Dataset | None]
) -> dict[str, Any]:
    """All that decides the outcome of a run, as JSON holds it; `cells` by their use."""
    digests = {
        use: {"cells": len(part), "sha256": data_digest(part)} for use, part in cells.items() if part is not None
    }
    settings = {
        "options": {name: value for name, value in asdict(options).items() if name not in WITHOUT_EFFECT},
        "arguments": {name: getattr(args, name) for name in WITH_EFFECT},
        "data": digests,
        "peaks": tokenizer.vocabulary.digest(),
    }
    return json.loads(json.dumps(settings, default=str))


def checkpoint_to_resume(
    output_dir: Path, settings: dict[str, Any], args: RunArguments, options: RunOptions
) -> Path | None:
    """The checkpoint to go on from, if there is one; else the settings are written down for the next start.

    Args:
        output_dir: the folder of the run.
        settings: those of this start.
        args: know which process this is.
        options: of the run; with `overwrite` the checkpoints that are there are removed.

    Raises:
        ValueError: if there is a checkpoint of a run with other settings.
    """
    with args.main_process_first(local=False, desc="looking for checkpoints"):
        if options.overwrite and args.should_save:
            for folder in checkpoints(output_dir):
                shutil.rmtree(folder)
        checkpoint = last_complete_checkpoint(output_dir)
        if checkpoint is not None:
            _refuse_other_settings(output_dir / SETTINGS_FILE, settings, options)
            logger.warning("resuming from %s", checkpoint)
        elif args.should_save:
            output_dir.mkdir(parents=True, exist_ok=True)
            write_json(output_dir / SETTINGS_FILE, settings)
    return checkpoint


def _refuse_other_settings(file: Path, settings: dict[str, Any], options: RunOptions) -> None:
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    # An option that a run was begun without, by an older version, had what is now its default.
    defaults = {f.name: f.default for f in fields(options) if f.default is not MISSING}
    earlier["options"] = defaults | earlier.get("options", {})
    changed = [
        f"{name} ({earlier.get(part, {}).get(name)!r} before, now {value!r})"
        for part in ("options", "arguments", "data")
        for name, value in settings[part].items()
        if earlier.get(part, {}).get(name) != value
    ]
    if earlier.get("peaks") != settings["peaks"]:
        changed.append("the peak vocabulary")
    if changed:
        raise ValueError(
            f"{file.parent} holds a run with other settings, which cannot be resumed with these: {'; '.join(changed)}. "
            "Choose another output_dir, or start anew with overwrite"
        )
