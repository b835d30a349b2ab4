"""From rows of a tokenised data set to batches that the models take."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epifoundation.tokenization import PeakTokenizer
from epifoundation.tokenization.tokenization_epifoundation import content_order
from epifoundation.training.expression import expression_levels

Row = Mapping[str, Any]
IGNORED_LABEL = -100
# Key of a row under which `EpiFoundationTrainer` passes the seed of its draws.
DRAW_SEED = "draw_seed"


class CellCollator(ABC):
    """What all collators do: bring the cells of a batch into one tensor, then add what the objective needs.

    Whatever is drawn for a row that carries a ``draw_seed`` (several whole numbers, put there by the Trainer: seed,
    epoch, place of the cell) follows from it alone, so that a cell is seen the same way whichever batch, process or
    restart it comes in. For rows without one, the seed is taken from `generator`.

    Args:
        tokenizer: pads the cells and knows the chromosomes.
        max_peaks: peaks of a cell to read, drawn anew each time a longer cell is seen; by default the tokenizer's.
        packing: lay the cells end to end, (1, tokens) with ``cu_seq_lens_q``, in place of padding them. For training;
            the Trainer cannot tell how many cells a packed batch holds when it evaluates.
        deterministic: draw nothing: a cell above `max_peaks` keeps the peaks that it keeps at inference.
        generator: source of the seed for rows without one; by default torch's own.
    """

    def __init__(
        self,
        tokenizer: PeakTokenizer,
        *,
        max_peaks: int | None = None,
        packing: bool = False,
        deterministic: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_peaks = tokenizer.max_peaks if max_peaks is None else max_peaks
        self.packing = packing
        self.deterministic = deterministic
        self.generator = generator

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch of `rows`."""
        rngs = self._rngs(rows)
        return self._joined(self._drawn(rows, rngs)) | self._targets(rows, rngs)

    @abstractmethod
    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """What the batch holds besides its cells; `rngs` gives each row its source of draws."""

    def _rngs(self, rows: Sequence[Row]) -> list[np.random.Generator]:
        if all(DRAW_SEED in row for row in rows):
            return [np.random.default_rng(row[DRAW_SEED]) for row in rows]
        # Numpy draws without replacement many times faster than torch.
        seed = torch.randint(2**63 - 1, (1,), generator=self.generator).item()
        return [np.random.default_rng(int(seed))] * len(rows)

    def _drawn(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> list[np.ndarray]:
        """The ids of each cell that are read."""
        sources = [None] * len(rows) if self.deterministic else rngs
        return [draw_peaks(row["input_ids"], self.max_peaks, rng) for row, rng in zip(rows, sources, strict=True)]

    def _joined(self, cells: list[np.ndarray]) -> dict[str, Tensor]:
        if not self.packing:
            return dict(self.tokenizer.pad([{"input_ids": cell} for cell in cells], return_tensors="pt"))
        input_ids = np.concatenate(cells, dtype=np.int64)
        chromosome_ids = self.tokenizer.peak_chromosome_ids.take(input_ids).astype(np.int64)
        boundaries = np.cumsum([0, *map(len, cells)], dtype=np.int32)
        return {
            "input_ids": torch.from_numpy(input_ids)[None],
            "chromosome_ids": torch.from_numpy(chromosome_ids)[None],
            "cu_seq_lens_q": torch.from_numpy(boundaries),
        }


class ClassificationCollator(CellCollator):
    """Batches for cell-type annotation: `labels` is the `cell_type` of each row, -100 where it is unknown (-1)."""

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        labels = torch.tensor([int(row["cell_type"]) for row in rows])
        return {"labels": labels.masked_fill(labels < 0, IGNORED_LABEL)}


class BulkCollator(ClassificationCollator):
    """Batches of bulk samples: `labels` as above, and likewise `assay_labels`, the `assay` of each row."""

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        assays = torch.tensor([int(row["assay"]) for row in rows])
        return super()._targets(rows, rngs) | {"assay_labels": assays.masked_fill(assays < 0, IGNORED_LABEL)}


class GeneCollator(CellCollator):
    """What alignment and expression have in common: which genes of a cell are asked for.

    Args:
        tokenizer: as above; it must hold genes.
        max_genes: genes drawn per cell (paper: 8,000).
        gene_ids: fixed genes for evaluation, the same for all cells, so that nothing depends on the labels. Then
            nothing is drawn at all, as with `deterministic`.
        use_batches: pass on the `batch` of each row as `batch_ids`.
        **kwargs: as for `CellCollator`.

    Raises:
        ValueError: if the tokenizer holds no genes.
    """

    def __init__(
        self,
        tokenizer: PeakTokenizer,
        *,
        max_genes: int = 8_000,
        gene_ids: Sequence[int] | np.ndarray | None = None,
        use_batches: bool = False,
        **kwargs: Any,
    ) -> None:
        if tokenizer.gene_chromosome_ids is None or tokenizer.genes is None:
            raise ValueError(
                "the tokenizer holds no genes, which this objective needs: make one with "
                "PeakTokenizer(vocabulary, genes)"
            )
        super().__init__(tokenizer, **({"deterministic": gene_ids is not None} | kwargs))
        self.gene_chromosome_ids = tokenizer.gene_chromosome_ids
        self._chromosome_of_gene = self.gene_chromosome_ids.astype(np.int64)  # of all genes once, not per batch
        self.first_gene_id = len(self.gene_chromosome_ids) - len(tokenizer.genes)
        self.all_gene_ids = np.arange(self.first_gene_id, len(self.gene_chromosome_ids))
        self.max_genes = max_genes
        self.fixed_gene_ids = None if gene_ids is None else np.asarray(gene_ids, dtype=np.int64)
        self.use_batches = use_batches

    def _targets(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        if self.fixed_gene_ids is None:
            drawn = [self._draw(row, rng) for row, rng in zip(rows, rngs, strict=True)]
            gene_ids = _padded([ids for ids, _ in drawn], 0)
            labels = _padded([asked for _, asked in drawn], IGNORED_LABEL)
        else:
            gene_ids = torch.from_numpy(self.fixed_gene_ids)
            labels = torch.from_numpy(np.stack([self._labels(row, self.fixed_gene_ids) for row in rows]))
        chromosome_ids = torch.from_numpy(self._chromosome_of_gene.take(gene_ids.numpy()))
        targets = {"gene_ids": gene_ids, "gene_chromosome_ids": chromosome_ids, "labels": labels}
        if self.use_batches:
            targets["batch_ids"] = torch.tensor([int(row["batch"]) for row in rows])
        return targets

    def _draw(self, row: Row, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Gene ids drawn for a cell, and what the row says about each."""
        expressed = np.asarray(row["gene_ids"], dtype=np.int64)
        places, others = draw_genes(expressed, self.all_gene_ids, self.max_genes, rng)
        said = self._labels_of_expressed(row)[places]
        labels = np.concatenate([said, np.zeros(len(others), dtype=said.dtype)])
        return np.concatenate([expressed[places], others]), labels

    def _labels(self, row: Row, gene_ids: np.ndarray) -> np.ndarray:
        """What the row says about each of `gene_ids`: 0 for a gene that is not expressed."""
        said = self._labels_of_expressed(row)
        table = np.zeros(len(self.gene_chromosome_ids), dtype=said.dtype)
        table[np.asarray(row["gene_ids"], dtype=np.int64)] = said
        return table[gene_ids]

    @abstractmethod
    def _labels_of_expressed(self, row: Row) -> np.ndarray:
        """What the row says about each of its expressed genes."""


class AlignmentCollator(GeneCollator):
    """Batches for peak-to-gene alignment: cells, and genes with whether each is expressed.

    In training, genes are drawn for each cell, half expressed and half not (paper, section on pre-training); in
    evaluation all cells get the same `gene_ids`. For the arguments see `GeneCollator`.
    """

    def _labels_of_expressed(self, row: Row) -> np.ndarray:
        return np.ones(len(row["gene_ids"]), dtype=np.int64)


class ExpressionCollator(GeneCollator):
    """Batches for expression prediction: cells, and genes with their level of expression.

    In training, genes are drawn as for alignment, or with equal chances; in evaluation all cells get `gene_ids`.

    Args:
        tokenizer: as for `GeneCollator`.
        num_bins: levels, 0 (not expressed) among them; ``num_expression_bins`` of the model (paper: 10).
        balanced: draw half expressed genes and half others; False draws all with equal chances, which keeps the mean
            level of the genes drawn at that of all genes.
        legacy: the official levels; see `expression_levels`.
        **kwargs: as for `GeneCollator`.
    """

    def __init__(
        self,
        tokenizer: PeakTokenizer,
        *,
        num_bins: int = 10,
        balanced: bool = True,
        legacy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.num_bins = num_bins
        self.balanced = balanced
        self.legacy = legacy

    def _draw(self, row: Row, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.balanced:
            return super()._draw(row, rng)
        gene_ids = self.all_gene_ids
        if self.max_genes < len(gene_ids):
            gene_ids = rng.choice(gene_ids, self.max_genes, replace=False, shuffle=False)
        return gene_ids, self._labels(row, gene_ids)

    def _labels_of_expressed(self, row: Row) -> np.ndarray:
        counts = np.asarray(row["gene_counts"])
        return expression_levels(counts, self.num_bins, legacy=self.legacy).astype(np.float32)


def draw_peaks(input_ids: Any, max_peaks: int, rng: np.random.Generator | None) -> np.ndarray:
    """``[CLS]`` and at most `max_peaks` of the peaks behind it, drawn without replacement, in their order.

    Without `rng` the peaks are those that the tokenizer keeps at inference.
    """
    ids = np.asarray(input_ids)
    if len(ids) - 1 <= max_peaks:
        return ids
    if rng is None:  # evaluation must read the very peaks that inference reads
        kept = np.sort(content_order(ids[1:], max_peaks)[:max_peaks])
    else:
        kept = np.sort(rng.choice(len(ids) - 1, max_peaks, replace=False, shuffle=False))
    return ids[np.concatenate(([0], kept + 1))]


def draw_genes(
    expressed: np.ndarray, all_gene_ids: np.ndarray, max_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray | slice, np.ndarray]:
    """Draw genes of one cell, half expressed and half not.

    Of both kinds as many are drawn as there are expressed genes, at most ``max_genes // 2``. A cell in which (nearly)
    all genes are expressed gets fewer of the others.

    Args:
        expressed: ids of the genes expressed, each once and among `all_gene_ids`.
        all_gene_ids: successive ids.
        max_genes: genes drawn at most.
        rng: the source of the draw.

    Returns:
        The places among `expressed` of the expressed genes drawn (all of them as one slice), and the ids of the others.
    """
    num_each = min(max_genes // 2, len(expressed))
    places: np.ndarray | slice = slice(None)
    if num_each < len(expressed):
        places = rng.choice(len(expressed), num_each, replace=False, shuffle=False)
    is_other = np.ones(len(all_gene_ids), dtype=bool)
    is_other[expressed - all_gene_ids[0]] = False
    # Not all_gene_ids[is_other]: a mask without a pattern makes numpy guess each gene, ten times slower.
    others = np.flatnonzero(is_other)
    drawn = rng.choice(others, min(num_each, len(others)), replace=False, shuffle=False)
    return places, drawn + all_gene_ids[0]


def _padded(arrays: list[np.ndarray], value: int) -> Tensor:
    dtype = np.result_type(*arrays) if arrays else np.int64
    out = np.empty((len(arrays), max(map(len, arrays), default=0)), dtype=dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)], row[len(array) :] = array, value
    return torch.from_numpy(out)
