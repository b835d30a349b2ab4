import numpy as np
import pytest
import torch
from datasets import Dataset

from epifoundation import EpiFoundationForPeakToGeneAlignment, PeakTokenizer
from epifoundation.dataset_builders.tokenized.paired_cells import peak_matrix
from epifoundation.training.collators import draw_genes
from epifoundation.training.initialization import (
    cell_embeddings,
    init_cell_projection,
    init_gene_bias,
    init_peak_embeddings,
)

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


@pytest.mark.parametrize("max_genes", [6, 16, 40])
def test_bias_is_the_log_odds_among_drawn_genes(
    max_genes: int, model: EpiFoundationForPeakToGeneAlignment, cells: Dataset
) -> None:
    init_gene_bias(model, cells, max_genes)
    # By drawing, as training does; the half cell on both sides is put in for as many draws.
    rng = np.random.default_rng(0)
    drawn = np.zeros((2, model.config.gene_vocab_size))
    num_rounds = 600
    for _ in range(num_rounds):
        for expressed in map(np.array, cells["gene_ids"]):
            places, others = draw_genes(expressed, np.arange(4, model.config.gene_vocab_size), max_genes, rng)
            drawn[0, others] += 1
            drawn[1, expressed[places]] += 1
    expected = np.log((drawn[1, 4:] + num_rounds / 2) / (drawn[0, 4:] + num_rounds / 2))
    assert model.gene_bias is not None
    np.testing.assert_allclose(model.gene_bias[4:].detach().numpy(), expected, atol=0.1)
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


@pytest.mark.parametrize("max_peaks", [None, 12])
def test_embeddings_are_those_of_each_cell_alone(
    max_peaks: int | None, model: EpiFoundationForPeakToGeneAlignment, cells: Dataset, tokenizer: PeakTokenizer
) -> None:
    model.train()
    found = cell_embeddings(model, tokenizer, cells, max_peaks)
    assert model.training, "the mode is left as it was"
    model.eval()
    reader = PeakTokenizer(tokenizer.vocabulary, max_peaks=max_peaks or 100)
    for i in (0, 7, 29):
        names = tokenizer.convert_ids_to_tokens(cells[i]["input_ids"][1:])
        with torch.no_grad():
            alone = model.base_model(**reader([names], return_tensors="pt")).pooler_output[0]
        np.testing.assert_allclose(found[i], alone.numpy(), atol=1e-5)
