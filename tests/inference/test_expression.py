import tracemalloc

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix, random_array

from epifoundation.inference import predict_expression
from epifoundation.inference.expression import predict_expression_of_file, wanted_genes
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer

KEY = "epifoundation_expression"


def one_by_one(adata, model, tokenizer):
    """Levels of all genes by calling the model on one padded cell at a time."""
    chromosomes = torch.as_tensor(tokenizer.gene_chromosome_ids).long()
    rows = []
    for i in range(adata.n_obs):
        inputs = tokenizer(adata[i], return_tensors="pt", check=False)
        with torch.no_grad():
            rows.append(model(**inputs, gene_chromosome_ids=chromosomes).logits[0].numpy())
    return np.array(rows)


def test_levels_are_those_of_single_cells_in_the_order_asked_for(adata, predictor, gene_tokenizer, monkeypatch):
    monkeypatch.setattr("epifoundation.inference.expression.CELLS_PER_BATCH", 3)
    expected = one_by_one(adata, predictor, gene_tokenizer)
    whole = predict_expression(adata, predictor, gene_tokenizer, max_entries_per_block=100)
    np.testing.assert_allclose(whole.X, expected, atol=1e-5)
    assert whole.X.dtype == np.float32
    assert list(whole.var_names) == ["GATA1", "CD19", "CD3E", "MATR3", "MATR3 ENSG00000000005"]
    assert list(whole.var["chromosome"]) == ["chrX", "chr1", "unknown", "chr2", "chr3"]
    assert list(whole.obs_names) == list(adata.obs_names)
    assert list(whole.obs) == ["epifoundation_num_peaks"]
    assert "0 not expressed, 1 to 9 rising quantiles" in whole.uns[KEY]["units"]
    some = predict_expression(adata, predictor, gene_tokenizer, genes=["CD3E", "ENSG00000000001.7"])
    np.testing.assert_allclose(some.X, expected[:, [2, 0]], atol=1e-5)
    assert list(some.var["ensembl_id"]) == ["ENSG00000000003", "ENSG00000000001"]
    assert set(adata.obs) == {"kind"}
    assert set(adata.uns) == {"kept"}


def test_a_file_gives_what_memory_gives(adata, peaks_file, predictor_checkpoint, tmp_path):
    genes = ["CD19", "GATA1"]
    predict_expression_of_file(
        peaks_file, predictor_checkpoint, tmp_path / "out.h5ad", genes=genes, max_entries_per_block=100
    )
    expected = predict_expression(adata, predictor_checkpoint, genes=genes)
    read = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(read.X, expected.X, atol=1e-6)
    assert read.obs.equals(expected.obs)
    assert read.var.astype(str).equals(expected.var.astype(str))
    assert read.uns[KEY]["units"] == expected.uns[KEY]["units"]
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["X"].dtype == np.float32


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (["CD19", "NO1", "NO2"], "2 of 3 genes are unknown to this model, such as NO1, NO2; it knows 5"),
        (["CD19", "ENSG00000000002"], "named more than once"),
        ([], "no genes were named"),
    ],
)
def test_genes_that_cannot_be_meant_are_refused(adata, predictor, gene_tokenizer, genes, message):
    with pytest.raises(ValueError, match=message):
        predict_expression(adata, predictor, gene_tokenizer, genes=genes)


def test_models_that_predict_no_expression_are_refused(adata, trained_model, predictor, checkpoint, tokenizer):
    with pytest.raises(TypeError, match="expected a model that predicts expression"):
        predict_expression(adata, trained_model, tokenizer)
    with pytest.raises(ValueError, match="holds no genes"):
        predict_expression(adata, predictor, tokenizer)


def test_the_output_is_an_h5ad_or_nothing(peaks_file, predictor_checkpoint, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match="is an input, whose counts the output would not hold"):
        predict_expression_of_file(peaks_file, predictor_checkpoint, peaks_file, overwrite=True)
    with pytest.raises(ValueError, match=r"expected \.h5ad"):
        predict_expression_of_file(peaks_file, predictor_checkpoint, tmp_path / "out.parquet")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("epifoundation.inference.expression._predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_expression_of_file(peaks_file, predictor_checkpoint, tmp_path / "out.h5ad")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]


def test_memory_does_not_grow_with_cells_times_genes(predictor_checkpoint, tokenizer, tmp_path):
    def peak_memory(num_cells):
        matrix = csr_matrix(random_array((num_cells, 60), density=0.2, rng=np.random.default_rng(0)))
        path = tmp_path / f"{num_cells}.h5ad"
        AnnData(matrix, var=pd.DataFrame(index=tokenizer.vocabulary.names())).write_h5ad(path)
        tracemalloc.start()
        try:
            predict_expression_of_file(
                path, predictor_checkpoint, tmp_path / f"{num_cells}_out.h5ad", max_entries_per_block=2_000
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_memory(100)
    assert peak_memory(1_500) < 2 * peak_memory(300)


def test_genes_sharing_a_symbol_keep_names_of_their_own(tokenizer):
    genes = GeneVocabulary(["A", "A", "A", ""], ["E1", "E2", "E3", "E4"], ["chr1"] * 4)
    wanted = wanted_genes(PeakTokenizer(tokenizer.vocabulary, genes), None)
    assert list(wanted.var.index) == ["A", "A E2", "A E3", "E4"]
    assert list(wanted.ids) == [4, 5, 6, 7]
