"""From rows of a tokenised data set to batches that the models take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.tokenization import PeakTokenizer

Row = Mapping[str, Any]
IGNORED_LABEL = -100


class AlignmentCollator:
    """Batches for peak-to-gene alignment: padded cells, and genes with whether each is expressed.

    In training, genes are drawn for each cell, half expressed and half not (paper, section on pre-training); in
    evaluation all cells get the same `gene_ids`, so that nothing depends on the labels.

    Args:
        tokenizer: pads the cells and knows the chromosomes; it must hold genes.
        max_peaks: peaks of a cell to read, drawn anew each time a longer cell is seen; by default the tokenizer's.
        max_genes: genes drawn per cell, (paper: 8,000).
        gene_ids: fixed genes for evaluation. Then cells above `max_peaks` keep the tokenizer's fixed choice.
        use_batches: pass on the `batch` of each row as `batch_ids`.
        generator: source of all draws; by default torch's own, which the Trainer saves with its checkpoints.

    Raises:
        ValueError: if the tokenizer holds no genes.
    """

    def __init__(
        self,
        tokenizer: PeakTokenizer,
        *,
        max_peaks: int | None = None,
        max_genes: int = 8_000,
        gene_ids: Sequence[int] | np.ndarray | None = None,
        use_batches: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if tokenizer.gene_chromosome_ids is None or tokenizer.genes is None:
            raise ValueError("alignment needs genes: make the tokenizer with PeakTokenizer(vocabulary, genes)")
        self.tokenizer = tokenizer
        self.gene_chromosome_ids = tokenizer.gene_chromosome_ids
        self.all_gene_ids = np.arange(
            len(self.gene_chromosome_ids) - len(tokenizer.genes), len(self.gene_chromosome_ids)
        )
        self.max_peaks = tokenizer.max_peaks if max_peaks is None else max_peaks
        self.max_genes = max_genes
        self.fixed_gene_ids = None if gene_ids is None else np.asarray(gene_ids, dtype=np.int64)
        self.use_batches = use_batches
        self.generator = generator

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch of `rows`."""
        # Numpy draws without replacement many times faster than torch; its seed comes from torch, so that seeding,
        # workers and checkpoints need nothing of their own.
        seed = torch.randint(2**63 - 1, (1,), generator=self.generator).item()
        rng = np.random.default_rng(int(seed))
        peaks = [{"input_ids": draw_peaks(row["input_ids"], self.max_peaks, rng)} for row in rows]
        batch: dict[str, Tensor] = dict(self.tokenizer.pad(peaks, return_tensors="pt"))
        if self.fixed_gene_ids is None:
            drawn = [draw_genes(row["gene_ids"], self.all_gene_ids, self.max_genes, rng) for row in rows]
            gene_ids = _padded([ids for ids, _ in drawn], 0)
            labels = _padded([is_expressed for _, is_expressed in drawn], IGNORED_LABEL)
        else:
            gene_ids = torch.from_numpy(self.fixed_gene_ids)
            expressed = [np.isin(self.fixed_gene_ids, row["gene_ids"]) for row in rows]
            labels = torch.from_numpy(np.stack(expressed).astype(np.int64))
        chromosome_ids = torch.from_numpy(self.gene_chromosome_ids[gene_ids.numpy()]).long()
        batch |= {"gene_ids": gene_ids, "gene_chromosome_ids": chromosome_ids, "labels": labels}
        if self.use_batches:
            batch["batch_ids"] = torch.tensor([row["batch"] for row in rows])
        return batch


def draw_peaks(input_ids: Any, max_peaks: int, rng: np.random.Generator) -> np.ndarray:
    """``[CLS]`` and at most `max_peaks` of the peaks behind it, drawn without replacement, in their order."""
    ids = np.asarray(input_ids)
    if len(ids) - 1 <= max_peaks:
        return ids
    kept = np.sort(rng.choice(len(ids) - 1, max_peaks, replace=False, shuffle=False))
    return ids[np.r_[0, kept + 1]]


def draw_genes(
    expressed: Any, all_gene_ids: np.ndarray, max_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw genes of one cell, half expressed and half not.

    Of both kinds as many are drawn as there are expressed genes, at most ``max_genes // 2``. A cell in which (nearly)
    all genes are expressed gets fewer of the others.

    Returns:
        The gene ids and, for each, 1 if it is expressed and 0 if not.
    """
    expressed = np.asarray(expressed, dtype=np.int64)
    others = np.setdiff1d(all_gene_ids, expressed, assume_unique=True)
    num_each = min(max_genes // 2, len(expressed))
    ones = rng.choice(expressed, num_each, replace=False, shuffle=False)
    zeros = rng.choice(others, min(num_each, len(others)), replace=False, shuffle=False)
    return np.r_[ones, zeros], np.repeat([1, 0], [len(ones), len(zeros)])


def _padded(arrays: list[np.ndarray], value: int) -> Tensor:
    out = np.full((len(arrays), max(map(len, arrays), default=0)), value, dtype=np.int64)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)
