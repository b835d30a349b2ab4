import numpy as np
import pytest
import torch

from epifoundation import EpiFoundationForPeakToGeneAlignment
from epifoundation.inference import embed_cells, load_for_peaks

KEY = "X_epifoundation"


def test_embeddings_are_those_of_the_whole_model_bit_for_bit(adata, checkpoint):
    some = adata[:, 13:40]
    some = some[np.asarray(some.X.sum(axis=1)).ravel() > 4].copy()
    whole = some.copy()
    embed_cells(whole, checkpoint, max_peaks=8, device="cpu")
    model, tokenizer = load_for_peaks(checkpoint, some.var_names, device="cpu")
    embed_cells(some, model, tokenizer, max_peaks=8)
    assert np.array_equal(some.obsm[KEY], whole.obsm[KEY])


def test_only_the_rows_of_these_peaks_are_held(adata, checkpoint, tokenizer):
    model, _ = load_for_peaks(checkpoint, adata.var_names[20:30], device="cpu")
    # one of the ten peaks is not in the vocabulary; four rows are those of special tokens
    assert model.get_input_embeddings().weight.shape == (13, 16)
    assert model.config.vocab_size == len(tokenizer)


def test_heads_can_be_loaded_so_too(adata, checkpoint, tokenizer, trained_model):
    genes = {"gene_ids": torch.tensor([4, 5]), "gene_chromosome_ids": torch.tensor([4, 5])}
    batch = dict(tokenizer(adata[:3, 13:40], return_tensors="pt")) | genes
    model, _ = load_for_peaks(
        checkpoint, adata.var_names[13:40], device="cpu", model_class=EpiFoundationForPeakToGeneAlignment
    )
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, trained_model(**batch).logits)


def test_other_peaks_are_refused(adata, checkpoint, tokenizer):
    model, _ = load_for_peaks(checkpoint, adata.var_names[20:30], device="cpu")
    batch = dict(tokenizer(adata[:3, 40:], return_tensors="pt"))
    with pytest.raises(IndexError):
        model(**batch)


def test_data_of_another_genome_are_refused(checkpoint):
    with pytest.raises(ValueError, match="overlap"):
        load_for_peaks(checkpoint, ["chr1:200000000-200000500"], device="cpu")
