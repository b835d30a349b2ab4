import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from epifoundation.inference import annotate_cells, annotate_file

TYPE, PROBABILITY, PEAKS = (
    "epifoundation_cell_type",
    "epifoundation_cell_type_probability",
    "epifoundation_num_peaks",
)
PROBABILITIES = "epifoundation_cell_type_probabilities"


def one_by_one(adata, model, tokenizer):
    """Probabilities by calling the model on one padded cell at a time, with the arithmetic of numpy."""
    rows = []
    for i in range(adata.n_obs):
        inputs = tokenizer(adata[i], return_tensors="pt", check=False)
        with torch.no_grad():
            logits = model(**inputs).logits[0].double().numpy()
        odds = np.exp(logits - logits.max())
        rows.append(odds / odds.sum())
    return np.array(rows)


def test_types_are_the_likeliest_of_each_single_cell_in_the_order_of_the_rows(adata, classifier, tokenizer):
    expected = one_by_one(adata, classifier, tokenizer)
    annotate_cells(adata, classifier, tokenizer, add_probabilities=True, max_entries_per_block=100)
    is_known = adata.obs[PEAKS].to_numpy() > 0
    assert not is_known[7]
    assert list(adata.obs[TYPE].cat.categories) == ["B/plasma", "T", "NK"]
    np.testing.assert_array_equal(adata.obs[TYPE].cat.codes[is_known], expected.argmax(axis=1)[is_known])
    np.testing.assert_allclose(adata.obs[PROBABILITY][is_known], expected.max(axis=1)[is_known], atol=1e-5)
    np.testing.assert_allclose(adata.obsm[PROBABILITIES], expected, atol=1e-5)
    assert len(set(adata.obs[TYPE].dropna())) > 1


def test_readable_peaks_are_counted_and_too_few_give_no_type(adata, classifier, tokenizer):
    # Names ending a multiple of 10 lie where the vocabulary has no peak.
    readable = (adata.X.toarray()[:, np.arange(60) % 10 > 0] > 0).sum(axis=1)
    annotate_cells(adata, classifier, tokenizer, min_peaks=20)
    np.testing.assert_array_equal(adata.obs[PEAKS], readable)
    np.testing.assert_array_equal(adata.obs[TYPE].isna(), readable < 20)
    np.testing.assert_array_equal(adata.obs[PROBABILITY].isna(), readable < 20)
    assert 0 < adata.obs[TYPE].isna().sum() < 40
    assert adata.uns[TYPE]["min_peaks"] == 20


def test_nothing_else_changes(adata, classifier, tokenizer):
    before = adata.copy()
    annotate_cells(adata, classifier, tokenizer)
    assert set(adata.obs) == {"kind", TYPE, PROBABILITY, PEAKS}
    assert set(adata.obsm) == {"X_other"}
    assert set(adata.uns) == {"kept", TYPE}
    assert (adata.X != before.X).nnz == 0
    assert adata.uns[TYPE]["cell_types"] == ["B/plasma", "T", "NK"]


def test_a_file_gives_what_memory_gives(adata, peaks_file, classifier_checkpoint, tmp_path):
    types = annotate_file(peaks_file, classifier_checkpoint, tmp_path / "out.h5ad", add_probabilities=True)
    annotate_cells(adata, classifier_checkpoint, add_probabilities=True)
    read = anndata.read_h5ad(tmp_path / "out.h5ad")
    pd.testing.assert_frame_equal(read.obs, adata.obs, check_categorical=False, check_dtype=False)
    assert list(read.obs) == ["kind", TYPE, PROBABILITY, PEAKS]
    np.testing.assert_array_equal(read.obsm[PROBABILITIES], adata.obsm[PROBABILITIES])
    np.testing.assert_array_equal(types.cat.codes, adata.obs[TYPE].cat.codes)
    assert list(read.uns[TYPE]["cell_types"]) == adata.uns[TYPE]["cell_types"]
    # A second time, over the first.
    annotate_file(tmp_path / "out.h5ad", classifier_checkpoint, tmp_path / "out.h5ad", overwrite=True)
    assert list(anndata.read_h5ad(tmp_path / "out.h5ad").obs) == ["kind", TYPE, PROBABILITY, PEAKS]


def test_parquet_holds_the_same(adata, peaks_file, classifier_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("epifoundation.inference.results.ROWS_PER_GROUP", 8)  # one group holds a cell without a type
    annotate_file(peaks_file, classifier_checkpoint, tmp_path / "out.parquet", add_probabilities=True)
    annotate_cells(adata, classifier_checkpoint, add_probabilities=True)
    table = pq.read_table(tmp_path / "out.parquet")
    names = [f"probability of {name}" for name in ("B/plasma", "T", "NK")]
    assert table.column_names == ["cell", TYPE, PROBABILITY, PEAKS, *names]
    assert table[TYPE].to_pylist() == [None if pd.isna(name) else name for name in adata.obs[TYPE]]
    np.testing.assert_array_equal(table[PROBABILITY].to_numpy(), adata.obs[PROBABILITY])
    np.testing.assert_array_equal(table.select(names).to_pandas(), adata.obsm[PROBABILITIES])
    annotate_file(peaks_file, classifier_checkpoint, tmp_path / "few.parquet")
    assert pq.read_table(tmp_path / "few.parquet").column_names == ["cell", TYPE, PROBABILITY, PEAKS]


def test_a_model_without_a_classifier_is_refused(adata, checkpoint, trained_model, tokenizer):
    with pytest.raises(ValueError, match=r"lack \d+ tensors of EpiFoundationForCellClassification, such as classifier"):
        annotate_cells(adata, checkpoint)
    with pytest.raises(TypeError, match=r"expected a model with a classifier, .* got EpiFoundationForPeakToGene"):
        annotate_cells(adata, trained_model, tokenizer)
    with pytest.raises(ValueError, match="min_peaks must be at least 1, got 0"):
        annotate_cells(adata, checkpoint, min_peaks=0)


def test_many_cells_without_peaks_are_a_warning(adata, classifier, tokenizer):
    adata.X = adata.X.multiply(np.arange(40)[:, None] >= 10).tocsr()
    with pytest.warns(UserWarning, match="10 of 40 cells .* they get no cell type") as caught:
        annotate_cells(adata, classifier, tokenizer)
    assert caught[0].filename == __file__
