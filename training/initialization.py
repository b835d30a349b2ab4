"""Starting values learned from the training cells themselves, for data too small to learn a peak table from nothing."""

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from epifoundation import (
    EpiFoundationForBatchCorrection,
    EpiFoundationForExpressionImputation,
    EpiFoundationForPeakToGeneAlignment,
    EpiFoundationPreTrainedModel,
)
from epifoundation.configuration_epifoundation import FIRST_GENE_ID
from epifoundation.dataset_builders.clustering.expression import log_normalized
from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex
from epifoundation.dataset_builders.tokenized.paired_cells import count_matrix, peak_matrix
from epifoundation.tokenization import PeakTokenizer
from epifoundation.training.collators import draw_peaks

CELLS_PER_BATCH = 32


@torch.no_grad()
def init_peak_embeddings(model: EpiFoundationPreTrainedModel, cells: Dataset, seed: int = 0) -> None:
    """Set the peak table to the peaks' LSI loadings, so that peaks open in the same cells start out alike.

    The loadings are scaled to the spread of freshly drawn weights. Rows of peaks that no cell has open, and those of
    special tokens, stay as they are.

    Args:
        model: its table is changed in place.
        cells: tokenised training cells. Never give those the model will be tested on.
        seed: of the decomposition.

    Raises:
        ValueError: if there are not more cells than `hidden_size`, the number of LSI dimensions.
    """
    table = model.get_input_embeddings().weight
    matrix = peak_matrix(cells, table.shape[0])
    special_ids = [model.config.pad_token_id, model.config.mask_token_id, model.config.cls_token_id]
    is_open = np.asarray(matrix.sum(axis=0)).ravel() > 0
    is_open[[i for i in special_ids if i is not None]] = False
    peak_ids = np.flatnonzero(is_open)
    loadings = LatentSemanticIndex.fit(matrix[:, peak_ids], table.shape[1], seed).components.T
    loadings *= model.config.initializer_range / np.sqrt((loadings**2).mean())
    table[torch.from_numpy(peak_ids).to(table.device)] = torch.from_numpy(loadings).to(table)


@torch.no_grad()
def init_gene_bias(model: EpiFoundationForPeakToGeneAlignment, cells: Dataset, max_genes: int | None = None) -> None:
    """Set each gene's bias to its log-odds of being expressed, so that training need not learn how frequent it is.

    The odds are those among the genes that training draws: as many unexpressed as expressed ones in each cell, as far
    as there are so many. Half a cell is added to both sides, which keeps genes of no or of all cells finite.

    Args:
        model: its `gene_bias` is changed in place; that of special tokens becomes 0.
        cells: tokenised training cells.
        max_genes: genes that training draws per cell; by default those of the model's configuration.

    Raises:
        ValueError: if the model was made without ``use_gene_bias``.
    """
    if model.gene_bias is None:
        raise ValueError("the model has no gene bias; set use_gene_bias=True in its configuration")
    is_expressed = (count_matrix(cells, len(model.gene_bias)) > 0)[:, FIRST_GENE_ID:].astype(np.float64)
    num_expressed = np.asarray(is_expressed.sum(axis=1)).ravel()
    num_others = is_expressed.shape[1] - num_expressed
    num_each = np.minimum((max_genes or model.config.max_genes) // 2, num_expressed)
    # How likely a cell draws one of its expressed, and one of its other genes.
    ones = is_expressed.T @ (num_each / np.maximum(num_expressed, 1))
    share_of_others = np.minimum(num_each, num_others) / np.maximum(num_others, 1)
    zeros = share_of_others.sum() - is_expressed.T @ share_of_others
    model.gene_bias.zero_()
    model.gene_bias[FIRST_GENE_ID:] = torch.from_numpy(np.log((ones + 0.5) / (zeros + 0.5))).to(model.gene_bias)


@torch.no_grad()
def cell_embeddings(
    model: EpiFoundationPreTrainedModel, tokenizer: PeakTokenizer, cells: Dataset, max_peaks: int | None = None
) -> np.ndarray:
    """(cells, hidden) embeddings of tokenised cells, read as in evaluation; the mode of the model is left as it was."""
    encoder, was_training = model.base_model, model.training
    max_peaks = max_peaks or tokenizer.max_peaks
    embeddings = []
    model.eval()
    for block in cells.select_columns("input_ids").with_format("numpy").iter(CELLS_PER_BATCH):
        peaks = [{"input_ids": draw_peaks(ids, max_peaks, None)} for ids in block["input_ids"]]
        batch = tokenizer.pad(peaks, return_tensors="pt").to(model.device)
        embeddings.append(encoder(**batch, cell_embeddings_only=True).pooler_output.float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(embeddings)


@torch.no_grad()
def init_cell_projection(model: EpiFoundationForPeakToGeneAlignment, cell_embeddings: np.ndarray) -> None:
    """Let the gene decoder start on whitened cells, so that it hears all directions in which cells differ.

    The embeddings of a fresh model share a long common part and differ mostly along few directions. The decoder's
    first linear map, and the bias behind it, are changed so that it acts on ``C^(-1/2) (z - mean)`` in place of an
    embedding z, with C the covariance of `cell_embeddings`; a hundredth of its mean variance is added to each
    dimension, so that directions in which cells do not differ are not blown up.

    Args:
        model: its `alignment_decoder` is changed in place.
        cell_embeddings: (cells, hidden) embeddings of training cells by this very model.
    """
    decoder = model.alignment_decoder
    _let_read_whitened(decoder.cell_proj, decoder.query_proj.bias, cell_embeddings)


@torch.no_grad()
def init_adversary(model: EpiFoundationForBatchCorrection, cell_embeddings: np.ndarray) -> None:
    """Let the adversary of batch correction start with the mean and spread of the embeddings.

    Args:
        model: its `adversary_norm` is changed in place, if it has one.
        cell_embeddings: (cells, hidden) embeddings of training cells by the encoder of this very model.
    """
    if model.adversary_norm is not None:
        start = {"mean": cell_embeddings.mean(axis=0), "var": cell_embeddings.var(axis=0, ddof=1)}
        for name, values in start.items():
            model.adversary_norm.get_buffer(f"running_{name}").copy_(torch.from_numpy(values))


@torch.no_grad()
def init_imputation(model: EpiFoundationForExpressionImputation, cells: Dataset, cell_embeddings: np.ndarray) -> None:
    """Let imputation start at the mean level of each gene, and on whitened cells; see `init_cell_projection`.

    Without this the head learns the means and little else: of embeddings that share a long common part, each of its
    hidden units hears that part alone and is on in all cells or in none.

    Args:
        model: its `imputation` is changed in place.
        cells: tokenised training cells.
        cell_embeddings: (cells, hidden) embeddings of these cells by the encoder of this very model.

    Raises:
        ValueError: if the model was made without ``use_gene_bias``.
    """
    first, _, last = cast("list[nn.Linear]", list(model.imputation))
    if last.bias is None:
        raise ValueError("the head has no bias; set use_gene_bias=True in its configuration")
    embeddings = torch.from_numpy(cell_embeddings).to(first.weight)
    aligned = F.normalize(model.peak_projection(embeddings), dim=-1)
    first.bias.zero_()
    _let_read_whitened(first, first.bias, aligned.double().cpu().numpy())
    levels = log_normalized(count_matrix(cells, FIRST_GENE_ID + len(last.bias))[:, FIRST_GENE_ID:])
    last.weight.zero_()
    last.bias.copy_(torch.from_numpy(np.asarray(levels.mean(axis=0)).ravel()))


def _let_read_whitened(linear: nn.Linear, bias: torch.Tensor, embeddings: np.ndarray) -> None:
    """Change a map, and the bias behind it, so that it acts on the whitened (cells, hidden) embeddings."""
    mean = embeddings.mean(axis=0)
    covariance = np.cov(embeddings, rowvar=False)
    covariance += 0.01 * covariance.trace() / len(covariance) * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(covariance)
    whitening = torch.from_numpy((axes / np.sqrt(variances)) @ axes.T).to(linear.weight)
    linear.weight.copy_(linear.weight @ whitening)
    bias.sub_(linear.weight @ torch.from_numpy(mean).to(whitening))
