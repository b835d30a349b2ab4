"""`classification_scores` for those who use `evaluate`: ``evaluate.load(hf_metric_script("annotation_metrics"))``."""

# `evaluate` reads these lines itself: of `import a, b` it would understand one package named "a,".
from typing import Any

import datasets
import evaluate
import numpy as np

from epifoundation.evaluation import classification_scores

DESCRIPTION = """Accuracy, macro and micro F1, ROC-AUC (absent types left out) and expected calibration error (less is
better) of predicted cell types."""
INPUTS = """
predictions: for each cell the probability of each class.
references: the type of each cell.
classes: names of the classes, in the order of the probabilities.
"""


class AnnotationMetrics(evaluate.Metric):
    """Returns ACC, macro F1, micro F1, ROC-AUC and ECE."""

    def _info(self) -> Any:
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any, classes: list[str]) -> dict[str, float]:
        return classification_scores(references, np.asarray(predictions), classes).titled()
