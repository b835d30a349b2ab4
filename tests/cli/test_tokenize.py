import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import (
    EpiFoundationForCellClassification,
    EpiFoundationForExpressionPrediction,
    EpiFoundationForPeakToGeneAlignment,
)
from epifoundation.dataset_builders import load_cells

from .conftest import NAMES

NUM_CELLS, GENES = 60, ["GAPDH", "ACTB", "CD4", "NOGENE", "MS4A1"]
SMALL = [
    *("--use_cpu", "--curves", "false", "--disable_tqdm", "true", "--max_steps", "4"),
    *("--per_device_train_batch_size", "8", "--learning_rate", "1e-3"),
]


@pytest.fixture
def multiome():
    rng = np.random.default_rng(0)
    kind = np.arange(NUM_CELLS)[:, None] % 2
    peaks = rng.random((NUM_CELLS, 40)) < np.where(np.arange(40) % 2 == kind, 0.5, 0.2)
    counts = rng.poisson(np.where(np.arange(5) % 2 == kind, 2, 0.5))
    obs = pd.DataFrame(
        {
            "annot": [["B", "T"][i % 2] for i in range(NUM_CELLS)],
            "batch": [f"batch{i % 4}" for i in range(NUM_CELLS)],
        },
        index=[f"CELL{i:02d}-1" for i in range(NUM_CELLS)],
    )
    atac = AnnData(csr_matrix(peaks, dtype=np.float32), obs, pd.DataFrame(index=NAMES))
    return atac, AnnData(csr_matrix(counts, dtype=np.float32), obs.copy(), pd.DataFrame(index=GENES))


@pytest.fixture
def write(tmp_path):
    def write(atac, rna):
        for data, name in ((atac, "atac"), (rna, "rna")):
            data.write_h5ad(tmp_path / f"{name}.h5ad")
        return [tmp_path / "atac.h5ad", "--rna", tmp_path / "rna.h5ad", "--output", tmp_path / "cells"]

    return write


@pytest.fixture
def mini_atlas(multiome, tmp_path):
    """A small folder of the official layout."""
    folder = tmp_path / "MiniAtlas"
    folder.mkdir()
    for data, name in zip(multiome, ("atac", "rna"), strict=True):
        data.write_h5ad(folder / f"kidney_atlas_{name}.h5ad", compression="gzip")
    return folder


def test_from_mini_atlas_to_fine_tuned_models_by_commands_alone(run, mini_atlas, tmp_path):
    cells, pretrained = tmp_path / "cells", tmp_path / "pretrained"
    result = run("tokenize", mini_atlas, "--subset", "kidney", "--split", "batch", "--output", cells)
    assert result.exit_code == 0
    assert "splits          train 30, validation 15, test 15 (by batch)" in result.stdout
    sizes = ["--hidden_size", 16, "--num_hidden_layers", 1, "--num_attention_heads", 2, "--intermediate_size", 16]
    starts = ["--init_peak_embeddings", "lsi", "--use_gene_bias", "true", "--whiten_cells", "true", "--pooling", "mean"]
    words = ["--data", cells, "--output_dir", pretrained, *SMALL, *sizes, *starts, "--use_batch_embeddings", "true"]
    assert run("pretrain", *words).exit_code == 0
    model = EpiFoundationForPeakToGeneAlignment.from_pretrained(pretrained)
    assert (model.config.num_batches, model.config.vocab_size) == (4, 44)
    assert json.loads((pretrained / "run.json").read_text())["settings"]["data"]["held_out"]["cells"] == 15
    for task, model_class in (
        ("classification", EpiFoundationForCellClassification),
        ("expression", EpiFoundationForExpressionPrediction),
    ):
        words = ["--model", pretrained, "--data", cells, "--output_dir", tmp_path / task, *SMALL]
        result = run("finetune", task, *words)
        assert f"{task}, 4 steps; on held-out cells: loss" in result.stdout
        assert model_class.from_pretrained(tmp_path / task).config.vocab_size == 44
    assert model_class.from_pretrained(tmp_path / "classification").config.id2label == {0: "B", 1: "T"}


def test_what_was_matched_is_reported(run, multiome, write):
    result = run("tokenize", *write(*multiome), "--cell-type-key", "annot", "--min-cells-per-gene", 20)
    open_peaks = int((multiome[0].X > 0).sum())
    known = int((np.diff(multiome[1].X.tocsc().indptr) >= 20).sum())
    assert "cells           60 of 60 ATAC and 60 RNA cells are in both" in result.stdout
    assert "peaks           40 of 40 usable (100.0 %), of a vocabulary of 40 (hg38)" in result.stdout
    assert f"open peaks      {open_peaks:,} of {open_peaks:,} usable (100.0 %)" in result.stdout
    assert f"genes           {known} of 5 usable ({20 * known:.1f} %), of a vocabulary of {known}" in result.stdout
    assert "cell types      B 30, T 30" in result.stdout


def test_another_order_gives_the_same_cells(run, multiome, write, tmp_path):
    words = write(*multiome)
    run("tokenize", *words, "--batch-key", "batch")
    before = load_cells(tmp_path / "cells", "train").to_list()
    atac, rna = multiome
    run("tokenize", *write(atac, rna[::-1].copy()), "--batch-key", "batch", "--overwrite")
    assert load_cells(tmp_path / "cells", "train").to_list() == before


def test_cells_without_a_partner_are_counted_and_named(run, multiome, write):
    atac, rna = multiome
    result = run("tokenize", *write(atac[:50].copy(), rna[5:].copy()))
    assert "45 of 50 ATAC and 55 RNA cells are in both; only in one: CELL00-1 (ATAC)" in result.stdout


def test_dense_matrices_give_the_same_cells(run, multiome, write, tmp_path):
    run("tokenize", *write(*multiome))
    before = load_cells(tmp_path / "cells", "train").to_list()
    dense = [AnnData(data.X.toarray(), data.obs, data.var) for data in multiome]
    assert run("tokenize", *write(*dense), "--overwrite").exit_code == 0
    assert load_cells(tmp_path / "cells", "train").to_list() == before


def test_counts_that_are_not_whole_need_a_word(run, run_badly, multiome, write, tmp_path):
    atac, rna = multiome
    rna.X = rna.X * np.float32(0.3)
    words = write(atac, rna)
    assert "not whole numbers, such as 0.3" in run_badly("tokenize", *words)
    assert not (tmp_path / "cells").exists()
    assert run("tokenize", *words, "--allow-float-counts").exit_code == 0
    rna.X.data[0] = np.nan
    assert "negative, NaN or infinite, such as nan" in run_badly("tokenize", *write(atac, rna), "--overwrite")


def test_a_missing_annot_is_one_line(run, run_badly, multiome, mini_atlas, tmp_path):
    for data, name in zip(multiome, ("atac", "rna"), strict=True):
        del data.obs["annot"]
        data.write_h5ad(mini_atlas / f"kidney_atlas_{name}.h5ad")
    words = [mini_atlas, "--subset", "kidney", "--output", tmp_path / "cells"]
    assert "obs has no column 'annot'; it has ['batch']" in run_badly("tokenize", *words)
    assert run("tokenize", *words, "--cell-type-key", "none").exit_code == 0
    assert "cell_type" not in load_cells(tmp_path / "cells", "train").column_names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/no.h5ad"], "no.h5ad does not exist"),
        (["{tmp}"], "is a folder: expected an .h5ad or .h5mu file, or --subset for MiniAtlas"),
        (["{tmp}", "--subset", "lung"], "no subset 'lung': expected one of full, bmmc, kidney, pbmc"),
        (["{tmp}", "--subset", "bmmc"], "has no bmmc_atlas_atac.h5ad and no bmmc_atlas_rna.h5ad; found nothing"),
        (["{tmp}", "--subset", "bmmc", "--rna", "x.h5ad"], "--rna and --subset cannot be combined"),
        (["{file}", "--split", "stratified"], "has no column 'cell_type'"),
        (["{file}", "--validation", "1.5"], "validation must be a share from 0 to below 1"),
        (["{file}", "--test-group", "batch0"], "validation_groups and test_groups need by="),
        (["{file}", "--tokenizer", "nowhere"], "nowhere"),
        (["{file}", "--min-cells-per-peak", "13"], "none of the 40 peaks is found in 13 cells"),
    ],
)
def test_bad_input_is_one_line(words, message, run_badly, peaks_file, tmp_path):
    (tmp_path / "empty").mkdir()
    words = [word.format(tmp=tmp_path / "empty", file=peaks_file) for word in words]
    assert message in run_badly("tokenize", *words, "--output", tmp_path / "cells")
    assert not (tmp_path / "cells").exists()


def test_barcodes_that_do_not_meet_are_one_line(run_badly, multiome, write):
    atac, rna = multiome
    rna.obs_names = [f"other{i}" for i in range(NUM_CELLS)]
    assert "no barcode is in both modalities" in run_badly("tokenize", *write(atac, rna))


def test_a_finished_folder_is_kept(run, run_badly, multiome, write):
    words = write(*multiome)
    run("tokenize", *words)
    assert "exists: choose another name, or replace it" in run_badly("tokenize", *words)
