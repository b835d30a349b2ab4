"""Cell type and assay of bulk samples, by a model fine-tuned on BED files."""

import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from epifoundation import EpiFoundationForBulkClassification
from epifoundation.dataset_builders.readers.bed_files import count_bed_files
from epifoundation.tokenization import PeakTokenizer

from .annotate import cell_type_names
from .cell_run import CellOptions, CellTask, prepare_run, run_over_cells


def annotate_bed_files(
    files: Sequence[str | os.PathLike[str]],
    model: Any,
    tokenizer: PeakTokenizer | None = None,
    *,
    check_genome: bool = True,
    **options: Unpack[CellOptions],
) -> pd.DataFrame:
    """Name the cell type and the assay of bulk samples.

    Args:
        files: BED, narrowPeak or broadPeak files, one for each sample.
        model: an `EpiFoundationForBulkClassification`, the folder of one, or a name on the Hub.
        tokenizer: by default that of the checkpoint.
        check_genome: refuse intervals that lie in the peaks no more than by chance.
        **options: as for `embed_cells`: max_peaks, max_tokens_per_batch, device, dtype, revision, show_progress.

    Returns:
        One row per sample, named as its file without the ending: `cell_type` and `assay`, the likeliest; their
        probabilities `cell_type_probability` and `assay_probability`, float32 in (0, 1]; and `share_in_peaks`, the
        share of its intervals that overlap a peak of the model.

    Raises:
        FileNotFoundError: if a file or the model is not there.
        TypeError: if the model is no classifier of bulk samples.
        ValueError: if a file holds no intervals or those of another genome, or the checkpoint lacks the weights.
    """
    if not isinstance(model, str | os.PathLike | EpiFoundationForBulkClassification):
        raise TypeError(f"expected an EpiFoundationForBulkClassification or its folder, got {type(model).__name__}")
    run = prepare_run(model, tokenizer, model_class=EpiFoundationForBulkClassification, **options)
    counts = count_bed_files(files, run.tokenizer.vocabulary, check_genome=check_genome, show_progress=False)
    names = {"cell_type": cell_type_names(run.model.config), "assay": list(run.model.config.assay_names)}
    num_types = len(names["cell_type"])
    probabilities = np.empty((counts.num_cells, num_types + len(names["assay"])), dtype=np.float32)

    def forward(**inputs: Tensor) -> Tensor:
        out = run.model(**inputs)
        return torch.cat([out.logits.float().softmax(dim=-1), out.assay_logits.float().softmax(dim=-1)], dim=1)

    run_over_cells(
        counts, run, CellTask("annotating", "labels", "their labels mean nothing", forward, probabilities.__setitem__)
    )
    table = pd.DataFrame(index=pd.Index(counts.cell_names, name="sample"))
    for kind, part in zip(names, np.split(probabilities, [num_types], axis=1), strict=True):
        table[kind] = np.array(names[kind], dtype=object)[part.argmax(axis=1)]
        table[f"{kind}_probability"] = part.max(axis=1)
    return table.assign(share_in_peaks=counts.num_in_peaks / counts.num_fragments)
