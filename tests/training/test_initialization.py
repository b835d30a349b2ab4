import numpy as np
import pytest
import torch
from datasets import Dataset

from epifoundation import EpiFoundationForPeakToGeneAlignment
from epifoundation.dataset_builders.paired_cells import count_matrix, peak_matrix
from epifoundation.training.initialization import init_cell_projection, init_gene_bias, init_peak_embeddings

from .conftest import NUM_CELLS


def test_peak_rows_point_along_their_singular_vectors(
    model: EpiFoundationForPeakToGeneAlignment, cells: Dataset
) -> None:
    init_peak_embeddings(model, cells)
    rows = model.get_input_embeddings().weight[4:].detach().numpy()
    matrix = peak_matrix(cells, model.config.vocab_size).toarray()[:, 4:].astype(np.float64)
    idf = np.log(1 + NUM_CELLS / matrix.sum(axis=0))
    tf_idf = np.log(1 + 1e4 * matrix / matrix.sum(axis=1, keepdims=True) * idf)
    right = np.linalg.svd(tf_idf, full_matrices=False)[2][:16].T
    expected = right * model.config.initializer_range / np.sqrt((right**2).mean())
    signs = np.sign((rows * expected).sum(axis=0))
    np.testing.assert_allclose(rows * signs, expected, atol=1e-6)


def test_special_tokens_and_closed_peaks_keep_their_rows(
    model: EpiFoundationForPeakToGeneAlignment, cells: Dataset
) -> None:
    is_open = np.asarray(peak_matrix(cells, model.config.vocab_size).sum(axis=0)).ravel() > 0
    closed = cells.map(lambda row: {"input_ids": [i for i in row["input_ids"] if i != 10]}, load_from_cache_file=False)
    before = model.get_input_embeddings().weight.detach().clone()
    init_peak_embeddings(model, closed)
    after = model.get_input_embeddings().weight.detach()
    is_same = (before == after).all(dim=1).numpy()
    assert is_open[10]
    assert set(np.flatnonzero(is_same)) == {0, 1, 2, 3, 10} | set(np.flatnonzero(~is_open))


def test_bias_is_the_log_odds_among_drawn_genes(model: EpiFoundationForPeakToGeneAlignment, cells: Dataset) -> None:
    init_gene_bias(model, cells)
    expressed = count_matrix(cells, model.config.gene_vocab_size).toarray()[:, 4:] > 0
    # As many of the others are drawn as there are expressed genes: each is drawn with that share of the others.
    share = expressed.sum(axis=1) / (~expressed).sum(axis=1)
    ones = expressed.sum(axis=0)
    zeros = (~expressed * share[:, None]).sum(axis=0)
    expected = np.log((ones + 0.5) / (zeros + 0.5))
    assert model.gene_bias is not None
    np.testing.assert_allclose(model.gene_bias[4:].detach().numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(model.gene_bias[:4].detach(), torch.zeros(4))


def test_a_model_without_bias_is_refused(model: EpiFoundationForPeakToGeneAlignment, cells: Dataset) -> None:
    model.gene_bias = None
    with pytest.raises(ValueError, match="use_gene_bias=True"):
        init_gene_bias(model, cells)


def test_the_decoder_acts_on_whitened_cells(model: EpiFoundationForPeakToGeneAlignment) -> None:
    rng = np.random.default_rng(0)
    cells = (rng.normal(size=(500, 16)) @ rng.normal(size=(16, 16)) + 7).astype(np.float32)
    decoder = model.alignment_decoder
    weight, bias = decoder.cell_proj.weight.detach().clone().numpy(), decoder.query_proj.bias.detach().clone().numpy()
    init_cell_projection(model, cells)
    with torch.no_grad():
        parts = decoder.read_cells(torch.from_numpy(cells), None).numpy() + decoder.query_proj.bias.numpy() - bias
    whitened = np.linalg.lstsq(weight, parts.T, rcond=None)[0].T
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(whitened.T))[-8:], 1, atol=0.05)
