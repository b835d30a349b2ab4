import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation.inference import align_cells, align_files

KEY = "X_epifoundation_aligned"
ALL_READ = {"max_entries_per_block": 40, "max_tokens_per_batch": 20, "show_progress": False}

pytestmark = pytest.mark.filterwarnings("ignore:.*cells have no open peak")


def peaks_one_by_one(adata, model, tokenizer):
    rows = []
    for i in range(adata.n_obs):
        inputs = tokenizer(adata[i], return_tensors="pt", check=False)
        with torch.no_grad():
            rows.append(model(**inputs).cell_embeddings[0].numpy())
    return np.array(rows)


def genes_one_by_one(rna, model):
    """Ids written out by hand: of CD3E, CD19, none, GATA1, MATR3, none; ranked by count over typical count."""
    ids, typical = [6, 5, None, 4, 7, None], {4: 1.0, 5: 4.0, 6: 2.0, 7: 1.0}
    rows = []
    for counts in rna.X.toarray():
        found = [(-count / typical[i], i) for count, i in zip(counts, ids, strict=True) if i is not None and count]
        ranked = [i for _, i in sorted(found)][:3] or [2]
        with torch.no_grad():
            rows.append(model(gene_ids=torch.tensor([ranked])).rna_embeddings[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize("options", [{}, ALL_READ])
def test_embeddings_are_those_of_single_cells(options, adata, rna, aligner, gene_tokenizer):
    align_cells(adata, rna, aligner, gene_tokenizer, **options)
    np.testing.assert_allclose(adata.obsm[KEY], peaks_one_by_one(adata, aligner, gene_tokenizer), atol=1e-5)
    np.testing.assert_allclose(rna.obsm[KEY], genes_one_by_one(rna, aligner), atol=1e-5)
    for cells in (adata, rna):
        assert cells.obsm[KEY].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(cells.obsm[KEY], axis=1), 1, atol=1e-5)
    assert set(adata.obs) == {"kind", "epifoundation_num_peaks"}
    assert set(rna.obs) == {"kind", "epifoundation_num_genes"}
    assert set(adata.uns) == {"kept", "epifoundation_aligned"}
    known = (rna.X.toarray()[:, [0, 1, 3, 4]] > 0).sum(axis=1)
    assert rna.obs["epifoundation_num_genes"].tolist() == known.tolist()


def test_what_was_read_is_counted(rna, aligner, gene_tokenizer):
    align_cells(None, rna, aligner, gene_tokenizer)
    counts = rna.X.toarray() > 0
    known = counts[:, [0, 1, 3, 4]].sum(axis=1)
    assert rna.uns["epifoundation_aligned"]["coverage"] == {
        "num_cells": 30,
        "num_genes": 6,
        "num_matched_genes": 4,
        "num_entries": counts.sum(),
        "num_matched_entries": known.sum(),
        "entries_share": known.sum() / counts.sum(),
        "num_empty_cells": (known == 0).sum(),
        "num_truncated_cells": (known > 3).sum(),
    }


@pytest.mark.parametrize("ending", [".h5ad", ".parquet"])
def test_a_table_of_files_holds_both_modalities(
    ending, adata, rna, peaks_file, rna_file, aligner, aligner_checkpoint, gene_tokenizer, tmp_path
):
    output = tmp_path / f"out{ending}"
    aligned = align_files(peaks_file, rna_file, aligner_checkpoint, output, **ALL_READ)
    expected = np.concatenate([peaks_one_by_one(adata, aligner, gene_tokenizer), genes_one_by_one(rna, aligner)])
    if ending == ".h5ad":
        read = anndata.read_h5ad(output)
        assert read.X is None
        obs, found, record = read.obs, read.obsm[KEY], read.uns["epifoundation_aligned"]
    else:
        obs = pd.read_parquet(output).set_index("cell")
        found = obs.filter(like="epifoundation_aligned_").to_numpy()
        record = json.loads(pq.read_schema(output).metadata[b"epifoundation_aligned"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    names = [*(f"{name}-ATAC" for name in adata.obs_names), *(f"{name}-RNA" for name in rna.obs_names)]
    assert obs.index.tolist() == names
    assert obs["barcode"].tolist() == [*adata.obs_names, *rna.obs_names]
    assert obs["kind"].tolist() == [*adata.obs["kind"], *rna.obs["kind"]]
    assert obs["modality"].tolist() == ["ATAC"] * 40 + ["RNA"] * 30
    assert record["coverage"]["RNA"]["num_matched_genes"] == 4
    assert record["coverage"]["ATAC"]["num_cells"] == 40
    assert obs["epifoundation_num_features"].sum() == (
        record["coverage"]["RNA"]["num_matched_entries"] + record["coverage"]["ATAC"]["num_matched_entries"]
    )
    assert "4 of 6 genes (66.7%)" in aligned.rna.summary()
    assert "54 of 60 peaks" in aligned.atac.summary()


def test_one_modality_is_enough(peaks_file, rna_file, rna, aligner_checkpoint, tmp_path):
    rna.obs["kind"] = rna.obs["kind"].map({"a": 1, "b": 2, "c": 3})
    rna.write_h5ad(rna_file)
    alone = align_files(None, rna_file, aligner_checkpoint, tmp_path / "rna_out.h5ad")
    assert alone.table.obs_names.tolist() == rna.obs_names.tolist()
    assert alone.atac is None
    assert alone.table.obs["kind"].tolist() == rna.obs["kind"].tolist()
    assert align_files(peaks_file, None, aligner_checkpoint, tmp_path / "atac_out.h5ad").rna is None
    # A column of numbers in one file and texts in the other becomes one of texts.
    both = align_files(peaks_file, rna_file, aligner_checkpoint, tmp_path / "both.h5ad")
    assert anndata.read_h5ad(tmp_path / "both.h5ad").obs["kind"].tolist() == [
        *["a", "b"] * 20,
        *map(str, rna.obs["kind"]),
    ]
    assert both.table.n_obs == 70


def test_columns_of_the_data_make_room_for_those_of_the_table(rna, rna_file, aligner_checkpoint, tmp_path):
    rna.obs = rna.obs.assign(cell="own", barcode="own", modality="own")
    rna.write_h5ad(rna_file)
    align_files(None, rna_file, aligner_checkpoint, tmp_path / "out.parquet")
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert found["cell"].tolist() == found["barcode"].tolist() == rna.obs_names.tolist()
    assert set(found["modality"]) == {"RNA"}
    assert found["kind"].tolist() == rna.obs["kind"].tolist()


def test_a_mudata_holds_both(adata, rna, aligner, gene_tokenizer):
    mudata = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = mudata.MuData({"atac": adata, "rna": rna})
    align_cells(together, together, aligner, gene_tokenizer)
    assert together["atac"].obsm[KEY].shape == (40, 6)
    assert together["rna"].obsm[KEY].shape == (30, 6)


def test_models_without_a_tower_for_rna_are_refused(adata, rna, trained_model, tokenizer, checkpoint, aligner):
    with pytest.raises(TypeError, match="expected a model of both modalities"):
        align_cells(adata, rna, trained_model, tokenizer)
    message = r"lack \d+ tensors of EpiFoundationForContrastiveAlignment.*'epifoundation finetune contrastive' makes"
    with pytest.raises(ValueError, match=message):
        align_cells(adata, rna, checkpoint)
    with pytest.raises(ValueError, match="gene_vocab_size 9, the tokenizer 0 genes"):
        align_cells(adata, rna, aligner, tokenizer)


def test_data_that_cannot_be_used_are_refused(adata, rna, aligner, gene_tokenizer):
    with pytest.raises(ValueError, match="no cells: name some by ATAC, by RNA, or both"):
        align_cells(None, None, aligner, gene_tokenizer)
    rna.X.data[4] = np.nan
    with pytest.raises(ValueError, match="negative, NaN or infinite, such as nan"):
        align_cells(None, rna, aligner, gene_tokenizer)
    rna.X.data[4] = 0.5
    with pytest.raises(ValueError, match=r"not whole numbers, such as 0\.5"):
        align_cells(None, rna, aligner, gene_tokenizer)
    align_cells(None, rna, aligner, gene_tokenizer, allow_float_counts=True)
    rna.X.data[:] = 0
    with pytest.raises(ValueError, match="no cell expresses any of the 4 genes that the model knows, of 6"):
        align_cells(None, rna, aligner, gene_tokenizer)
    rna.var_names = [f"gene{i}" for i in range(6)]
    with pytest.raises(ValueError, match="none of the 6 genes of the RNA data"):
        align_cells(None, rna, aligner, gene_tokenizer)
    adata.var_names = [f"chr9:{1000 * i + 1}-{1000 * i + 2}" for i in range(60)]
    with pytest.raises(ValueError, match="none of the 60 peaks overlaps"):
        align_cells(adata, None, aligner, gene_tokenizer)


def test_little_that_is_known_is_warned_of(aligner, gene_tokenizer):
    rna = AnnData(csr_matrix(np.ones((10, 5), np.float32)))
    rna.var_names = ["GATA1", "A", "B", "C", "D"]
    with pytest.warns(UserWarning, match=r"less than half of the expressed genes.*1 of 5 genes \(20\.0%\)"):
        align_cells(None, rna, aligner, gene_tokenizer)
    few = AnnData(csr_matrix(np.eye(10, 2, dtype=np.float32)))
    few.var_names = ["GATA1", "CD19"]
    with pytest.warns(UserWarning, match="8 of 10 cells express no gene that the model knows"):
        align_cells(None, few, aligner, gene_tokenizer)
    assert (few.obsm[KEY][2:] == few.obsm[KEY][2]).all()


def test_the_output_is_a_table_or_nothing(peaks_file, rna_file, aligner_checkpoint, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"expected \.h5ad or \.parquet"):
        align_files(peaks_file, rna_file, aligner_checkpoint, tmp_path / "out.csv")
    with pytest.raises(FileExistsError, match="exists"):
        align_files(peaks_file, None, aligner_checkpoint, rna_file)
    content = rna_file.read_bytes()
    with pytest.raises(FileExistsError, match="is an input, whose counts the output would not hold"):
        align_files(peaks_file, rna_file, aligner_checkpoint, rna_file, overwrite=True)
    assert rna_file.read_bytes() == content
    broken = anndata.read_h5ad(rna_file)
    broken.X.data[0] = np.nan
    broken.write_h5ad(rna_file)
    with pytest.raises(ValueError, match="NaN"):
        align_files(peaks_file, rna_file, aligner_checkpoint, tmp_path / "out.h5ad")
    assert sorted(tmp_path.iterdir()) == before
