"""Where the modules for Hugging Face `evaluate` lie; they work offline."""

from pathlib import Path

HF_METRICS = ("embedding_metrics", "annotation_metrics", "expression_metrics")


def hf_metric_script(name: str) -> str:
    """What ``evaluate.load`` takes: the path of the script of a metric.

    ```python
    metric = evaluate.load(hf_metric_script("annotation_metrics"))
    metric.compute(predictions=probabilities, references=cell_types, classes=classes)
    ```

    Args:
        name: one of `HF_METRICS`.

    Raises:
        ValueError: if there is no such metric.
    """
    if name not in HF_METRICS:
        raise ValueError(f"expected one of {', '.join(HF_METRICS)}, got {name!r}")
    return str(Path(__file__).with_name(f"hf_{name}.py"))
