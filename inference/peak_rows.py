"""A model that holds the embeddings of some peaks only: those of one data set."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epifoundation import EpiFoundationPreTrainedModel
from epifoundation.tokenization import PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import NUM_SPECIAL_TOKENS

from .loading import checked_device, load_model_and_tokenizer


class PeakRows(nn.Module):
    """Some rows of a table of embeddings, asked for by the ids they have in the whole table.

    Args:
        table: the whole one; it is not changed.
        ids: (rows,) the ids to keep, each once.
    """

    row_of_id: Tensor

    def __init__(self, table: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach()[ids], requires_grad=False)
        row_of_id = torch.full((table.num_embeddings,), len(ids), device=ids.device)  # a row that is not there
        row_of_id[ids] = torch.arange(len(ids), device=ids.device)
        self.register_buffer("row_of_id", row_of_id, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids in the whole table -> (..., hidden).

        Raises:
            IndexError: for an id that was not kept.
        """
        return F.embedding(F.embedding(ids, self.row_of_id[:, None]).squeeze(-1), self.weight)


def load_for_peaks(
    model: str | os.PathLike[str],
    peak_names: Iterable[str],
    revision: str | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> tuple[EpiFoundationPreTrainedModel, PeakTokenizer]:
    """Load a model with the embeddings of those peaks alone that a data set can have open.

    Of a million peaks the table takes 2 GB; with the 137,000 of a data set it takes a seventh of that, on a GPU too.
    Results on these peaks do not change. On a CPU the gain is smaller: there weights are mapped from their file anyway,
    and the system takes back what is not in use. The model is for inference; do not save it.

    Args:
        model: a folder, or a name on the Hub.
        peak_names: the peaks of the data, such as ``adata.var_names``; matched to the vocabulary by overlap.
        revision: branch, tag or commit on the Hub.
        device: where to put the model; by default "cuda" if there is one, else "cpu".
        **options: as for `load_model_and_tokenizer`, as are the errors; without `dtype` the precision is float32.

    Raises:
        ValueError: if no peak overlaps one of the vocabulary.
    """
    loaded, tokenizer = load_model_and_tokenizer(model, revision, "cpu", **options)
    found = tokenizer.vocabulary.map_or_explain(peak_names).ids
    ids = np.union1d(np.arange(NUM_SPECIAL_TOKENS), found[found >= 0])
    rows = PeakRows(loaded.get_input_embeddings(), torch.from_numpy(ids).long())
    loaded.set_input_embeddings(rows)
    target = checked_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.nn.Module.to(loaded, target)  # the model's own is typed as if it took no device
    return loaded.eval(), tokenizer
