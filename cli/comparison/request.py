"""What a comparison is asked to compare: from the words of ``epifoundation evaluate`` to data, models and methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epifoundation.evaluation.baselines import Baseline, chosen
from epifoundation.evaluation.result_store import digest_of

from .cells import EvaluationData, drawn, read_data
from .models import SCRATCH, SplitModels
from .runs import Options, Split, usable

WITH_EPOCHS = ("peakvi", "scanvi", "multivi")


@dataclass(frozen=True)
class Request:
    """What is to be compared.

    Attributes:
        data: the cells.
        models: checkpoints, or "scratch".
        methods: names of other methods; None for all that are installed.
        finetune: whether the models are fine-tuned on the training cells.
        options: see `Options`.
    """

    data: EvaluationData
    models: Sequence[str]
    methods: Sequence[str] | None
    finetune: bool
    options: Options

    def baselines(self, known: dict[str, Baseline]) -> list[Baseline]:
        """The other methods that can run."""
        return usable(
            chosen(list(known if self.methods is None else self.methods), known), are_named=bool(self.methods)
        )

    def split_models(self, split: Split, model: str, name: str, **extra: Mapping[str, object]) -> SplitModels:
        """A model for one split; its folder is that of these cells and this model alone."""
        options = self.options
        key = digest_of(data=self.data.digest, train=split.train_rows.tolist(), model=model, name=name)[:8]
        return SplitModels(
            model,
            split.train,
            options.output / "models" / f"{name}-seed{split.seed}-{key}",
            split.seed,
            settings=options.settings,
            extra=extra,
            min_cells_per_gene=options.min_cells_per_gene,
        )


def request_of(given: Mapping[str, Any]) -> Request:
    """What the words of a command ask for.

    Raises:
        ValueError: if they cannot be read, or the data cannot be used.
    """
    seeds = _listed(given["seeds"])
    if not seeds or not all(seed.isdecimal() for seed in seeds):
        raise ValueError(f"expected seeds such as 0,1,2, got {given['seeds']!r}")
    settings = {"pretrain": given["pretrain_settings"]}
    settings |= dict.fromkeys(("classification", "expression"), given["finetune_settings"])
    for path in settings.values():
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"there is no settings file {path}")
    epochs = given.get("epochs")
    named = given.get("methods")
    data = read_data(
        given["data"],
        given["rna"],
        label_key=given["label_key"],
        batch_key=given["batch_key"],
        genome=given["genome"],
        no_types=_listed(given["no_types"]),
    )
    if given["max_cells"] is not None:
        data = drawn(data, given["max_cells"])
    options = Options(
        output=given["output"],
        seeds=[int(seed) for seed in seeds],
        holdout=given["holdout"],
        share=given["test_share"],
        test_batches=_listed(given["test_batches"]),
        on_validation=given["on_validation"],
        min_cells_per_gene=given["min_cells_per_gene"],
        settings={name: path for name, path in settings.items() if path is not None},
        method_options={} if epochs is None else {name: {"epochs": epochs} for name in WITH_EPOCHS},
    )
    models = given.get("model") or [SCRATCH]
    return Request(data, models, None if named is None else _listed(named), given.get("finetune", True), options)


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
