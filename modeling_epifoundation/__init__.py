"""EpiFoundation: foundation models of chromatin accessibility, on the Hugging Face stack.

Importing the package makes its models and its tokenizer known to ``AutoConfig``, ``AutoModel``,
``AutoModelForPreTraining``, ``AutoModelForSequenceClassification`` and ``AutoTokenizer``, and adds the tasks
``"cell-embedding"`` and ``"cell-annotation"`` to ``transformers.pipeline``.
"""

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from epifoundation.tokenization import PeakTokenizer

from .batch_correction_epifoundation import EpiFoundationBatchCorrectionOutput, EpiFoundationForBatchCorrection
from .bulk_classification_epifoundation import EpiFoundationBulkOutput, EpiFoundationForBulkClassification
from .cell_clustering_epifoundation import EpiFoundationForCellClustering
from .combined_objectives_epifoundation import EpiFoundationCombinedOutput, EpiFoundationForCombinedObjectives
from .configuration_epifoundation import EpiFoundationConfig
from .contrastive_alignment_epifoundation import (
    EpiFoundationContrastiveOutput,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
)
from .masked_peaks_epifoundation import EpiFoundationForMaskedPeaks, EpiFoundationMaskedPeaksOutput
from .modeling_epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
)
from .replaced_peaks_epifoundation import EpiFoundationForReplacedPeaks

__version__ = "0.1.0"

AutoConfig.register("epifoundation", EpiFoundationConfig, exist_ok=True)
AutoModel.register(EpiFoundationConfig, EpiFoundationModel, exist_ok=True)
AutoModelForPreTraining.register(EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment, exist_ok=True)
AutoModelForMaskedLM.register(EpiFoundationConfig, EpiFoundationForMaskedPeaks, exist_ok=True)
AutoModelForSequenceClassification.register(EpiFoundationConfig, EpiFoundationForCellClassification, exist_ok=True)
AutoTokenizer.register(EpiFoundationConfig, PeakTokenizer, exist_ok=True)


def push_to_hub(model: EpiFoundationPreTrainedModel, repo_id: str, **options: Any) -> str:
    """Bring a model and all that belongs to it to the Hub; see `epifoundation.sharing.push_to_hub`."""
    from epifoundation.sharing import push_to_hub

    return push_to_hub(model, repo_id, **options)


# The code that travels with a checkpoint cannot do this; where the package is, a push brings the whole folder along.
EpiFoundationPreTrainedModel.push_to_hub = push_to_hub  # type: ignore[method-assign, assignment]

# By name: what the pipelines need, anndata among it, is imported when one is made.
PIPELINE_REGISTRY.supported_tasks |= {
    "cell-embedding": {
        "impl": "epifoundation.inference.pipelines.CellEmbeddingPipeline",
        "pt": (AutoModel,),
        "type": "multimodal",
    },
    "cell-annotation": {
        "impl": "epifoundation.inference.pipelines.CellAnnotationPipeline",
        "pt": (AutoModelForSequenceClassification,),
        "type": "multimodal",
    },
}

__all__ = [
    "EpiFoundationBatchCorrectionOutput",
    "EpiFoundationBulkOutput",
    "EpiFoundationCombinedOutput",
    "EpiFoundationConfig",
    "EpiFoundationContrastiveOutput",
    "EpiFoundationForBatchCorrection",
    "EpiFoundationForBulkClassification",
    "EpiFoundationForCellClassification",
    "EpiFoundationForCellClustering",
    "EpiFoundationForCombinedObjectives",
    "EpiFoundationForContrastiveAlignment",
    "EpiFoundationForExpressionImputation",
    "EpiFoundationForExpressionPrediction",
    "EpiFoundationForMaskedPeaks",
    "EpiFoundationForPeakToGeneAlignment",
    "EpiFoundationForReplacedPeaks",
    "EpiFoundationHeadOutput",
    "EpiFoundationMaskedPeaksOutput",
    "EpiFoundationModel",
    "EpiFoundationPreTrainedModel",
    "PeakTokenizer",
    "__version__",
]
