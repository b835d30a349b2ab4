"""Results in the card of a model: the ``model-index`` of its README.md, which the Hub shows beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .report import Row

TASKS = {  # task of a comparison -> (task type, its name) in the card
    "batch": ("feature-extraction", "Batch correction of cell embeddings"),
    "annotation": ("text-classification", "Cell type annotation"),
    "expression": ("tabular-regression", "Prediction of gene expression from peaks"),
    "ablation": ("feature-extraction", "Ablation"),
}


def eval_results(row: Row, task: str, dataset_name: str, split: str) -> list[EvalResult]:
    """The means of one method's metrics as entries of a card; those that are not defined are left out.

    Args:
        row: the method.
        task: one of `TASKS`.
        dataset_name: of the data.
        split: how cells were held out, such as "20 % of the cells, 3 seeds".
    """
    task_type, task_name = TASKS[task]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            dataset_type=_slug(dataset_name),
            dataset_name=dataset_name,
            dataset_split=split,
            metric_type=_slug(metric),
            metric_name=metric,
            metric_value=round(spread.mean, 4),
        )
        for metric, spread in row.metrics.items()
        if spread.num_values
    ]


def add_to_card(path: str | os.PathLike[str], results: Sequence[EvalResult]) -> None:
    """Write results into the metadata of a card; older ones of the same task, data and metric are replaced.

    Its text and other metadata stay as they are. The file appears whole or not at all.

    Args:
        path: a README.md, or the folder of a checkpoint, in which one is made if there is none.
        results: see `eval_results`.

    Raises:
        FileNotFoundError: if neither the file nor its folder is there.
        ValueError: if there is something in its place that is no card.
    """
    file = Path(path) / "README.md" if Path(path).is_dir() else Path(path)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent} is not a folder: expected that of a checkpoint, or a README.md in one")
    try:
        card = (
            ModelCard.load(file)
            if file.is_file()
            else ModelCard(f"---\nlibrary_name: epifoundation\n---\n\n# {file.resolve().parent.name}\n")
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no model card: {' '.join(str(error).split())}") from error
    data = card.data
    assert isinstance(data, ModelCardData)
    data.model_name = data.model_name or file.resolve().parent.name
    new = {_key(result) for result in results}
    data.eval_results = [old for old in data.eval_results or [] if _key(old) not in new] + list(results)
    partial = file.with_name(f".{file.name}.partial")
    try:
        card.save(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _key(result: EvalResult) -> tuple[str | None, ...]:
    return (result.task_type, result.task_name, result.dataset_name, result.dataset_split, result.metric_name)


def _slug(name: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
