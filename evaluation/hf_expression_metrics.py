"""`expression_scores` for those who use `evaluate`: ``evaluate.load(hf_metric_script("expression_metrics"))``."""

# `evaluate` reads these lines itself: of `import a, b` it would understand one package named "a,".
from typing import Any

import datasets
import evaluate
import numpy as np

from epifoundation.evaluation import expression_scores

DESCRIPTION = """Squared error and correlations of predicted levels of genes: Spearman and Pearson per gene across cells
and per cell across genes, averaged over those whose measured level varies."""
INPUTS = """
predictions: for each cell the predicted level of each gene.
references: for each cell the measured level of each gene, in the same order.
"""


class ExpressionMetrics(evaluate.Metric):
    """Returns MSE, Spearman, Pearson, and both correlations per cell."""

    def _info(self) -> Any:
        levels = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": levels, "references": levels})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return expression_scores(np.asarray(references), np.asarray(predictions)).titled()
