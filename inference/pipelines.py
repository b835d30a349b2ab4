"""``transformers.pipeline("cell-embedding")`` and ``("cell-annotation")``: cells in, numbers or names out.

Importing ``epifoundation`` makes both known; this file is imported when one is used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from transformers import Pipeline

from epifoundation.dataset_builders import PeakFile, PeakTable, open_peak_file

from .annotate import annotate_source, annotation
from .cell_run import CellRun, prepare_run
from .embed import embed_source

SOURCE_OPTIONS = {"modality"}
RESULT_OPTIONS = {"min_peaks"}


class CellPipeline(Pipeline):
    """What both pipelines share: an AnnData, a MuData or the path of a file goes in, or a list of them.

    Options may be given when the pipeline is made or when it is called: `modality`, and those of `embed_cells` that
    concern the computation (max_peaks, max_tokens_per_batch, max_entries_per_block, show_progress).
    """

    _load_tokenizer: Any = True
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        of_source = {key: value for key, value in options.items() if key in SOURCE_OPTIONS}
        of_result = {key: value for key, value in options.items() if key in RESULT_OPTIONS}
        others = {key: value for key, value in options.items() if key not in SOURCE_OPTIONS | RESULT_OPTIONS}
        return of_source, others, of_result

    def preprocess(self, input_: Any, **parameters: Any) -> dict[str, Any]:
        """Nothing yet: cells are read in blocks while they are computed."""
        return {"cells": input_, "modality": parameters.get("modality")}

    def _run(self, options: dict[str, Any]) -> CellRun:
        model: Any = self.model
        tokenizer: Any = self.tokenizer
        return prepare_run(model, tokenizer, model_class=type(model), **options)


class CellEmbeddingPipeline(CellPipeline):
    """One embedding per cell, (cells, hidden) float32 in the order of the rows; see `embed_cells`."""

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        run = self._run(forward_parameters)
        with opened(**input_tensors) as source:
            return {"embeddings": embed_source(source, run)[0]}

    def postprocess(self, model_outputs: Any, **parameters: Any) -> np.ndarray:
        """The embeddings."""
        embeddings: np.ndarray = model_outputs["embeddings"]
        return embeddings


class CellAnnotationPipeline(CellPipeline):
    """One row per cell with its type, the probability of that and its readable peaks; see `annotate_cells`.

    A pandas DataFrame whose index are the cells, ready to be joined to ``adata.obs``. The option `min_peaks` is that
    of `annotate_cells`.
    """

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        run = self._run(forward_parameters)
        with opened(**input_tensors) as source:
            probabilities, coverage = annotate_source(source, run)
            return {"names": source.cell_names, "probabilities": probabilities, "coverage": coverage}

    def postprocess(self, model_outputs: Any, **parameters: Any) -> pd.DataFrame:
        """The table."""
        probabilities, coverage = model_outputs["probabilities"], model_outputs["coverage"]
        columns = annotation(self.model.config, probabilities, coverage, parameters.get("min_peaks", 1))
        arrays = {name: values.array for name, values in columns.items()}
        return pd.DataFrame(arrays, index=pd.Index(model_outputs["names"]))


@contextmanager
def opened(cells: Any, modality: str | None) -> Iterator[PeakFile | PeakTable]:
    """The peaks of a path, an AnnData or a MuData."""
    if isinstance(cells, str | os.PathLike):
        with open_peak_file(cells, modality) as file:
            yield file
    else:
        yield PeakTable(cells, modality)
