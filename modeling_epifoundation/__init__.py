"""EpiFoundation: foundation models of chromatin accessibility, on the Hugging Face stack.

Importing the package makes its models and its tokenizer known to ``AutoConfig``, ``AutoModel``,
``AutoModelForPreTraining``, ``AutoModelForSequenceClassification`` and ``AutoTokenizer``.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from epifoundation.tokenization import PeakTokenizer

from .configuration_epifoundation import EpiFoundationConfig
from .modeling_epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationHeadOutput,
    EpiFoundationModel,
    EpiFoundationPreTrainedModel,
)

__version__ = "0.1.0"

AutoConfig.register("epifoundation", EpiFoundationConfig, exist_ok=True)
AutoModel.register(EpiFoundationConfig, EpiFoundationModel, exist_ok=True)
AutoModelForPreTraining.register(EpiFoundationConfig, EpiFoundationForPeakToGeneAlignment, exist_ok=True)
AutoModelForSequenceClassification.register(EpiFoundationConfig, EpiFoundationForCellClassification, exist_ok=True)
AutoTokenizer.register(EpiFoundationConfig, PeakTokenizer, exist_ok=True)

__all__ = [
    "EpiFoundationConfig",
    "EpiFoundationForCellClassification",
    "EpiFoundationForExpressionPrediction",
    "EpiFoundationForPeakToGeneAlignment",
    "EpiFoundationHeadOutput",
    "EpiFoundationModel",
    "EpiFoundationPreTrainedModel",
    "PeakTokenizer",
    "__version__",
]
