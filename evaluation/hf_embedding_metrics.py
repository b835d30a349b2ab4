"""`embedding_metrics` for those who use `evaluate`: ``evaluate.load(hf_metric_script("embedding_metrics"))``."""

# `evaluate` reads these lines itself: of `import a, b` it would understand one package named "a,".
from typing import Any

import datasets
import evaluate
import numpy as np

from epifoundation.evaluation import EMBEDDING_METRICS, embedding_metrics

DESCRIPTION = "How well an embedding keeps cell types apart and batches together. Titles of the results:\n" + "\n".join(
    f"{title}: {meaning}" for title, meaning in EMBEDDING_METRICS.items()
)
INPUTS = """
embeddings: a vector for each cell.
cell_types: the type of each cell.
batches: the batch of each cell; for data of one batch call `embedding_metrics` itself.
resolutions: of the Leiden clusters, an empty list to leave NMI and ARI out.
"""


class EmbeddingMetrics(evaluate.Metric):
    """Returns a dictionary of `EMBEDDING_METRICS`."""

    def _info(self) -> Any:
        features = datasets.Features(
            {
                "embeddings": datasets.Sequence(datasets.Value("float64")),
                "cell_types": datasets.Value("string"),
                "batches": datasets.Value("string"),
            }
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, embeddings: Any, cell_types: Any, batches: Any, **options: Any) -> dict[str, float]:
        return embedding_metrics(np.asarray(embeddings), cell_types, batches, **options)
