import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForContrastiveAlignment,
    EpiFoundationForExpressionImputation,
)
from epifoundation.contrastive_alignment_epifoundation import default_gene_encoder
from epifoundation.evaluation import plots
from epifoundation.evaluation.matching import matching_scores
from epifoundation.inference import align_cells, impute_expression
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer

GENES = ["CD19", "CD3E", "GATA1"]
KEY = "X_epifoundation_aligned"


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module")
def gene_tokenizer(checkpoint):
    ids = [f"ENSG0000000000{i}" for i in range(3)]
    vocabulary = PeakTokenizer.from_pretrained(checkpoint).vocabulary
    return PeakTokenizer(vocabulary, GeneVocabulary(GENES, ids, ["chr1", "chr2", "chr3"]))


@pytest.fixture(scope="module")
def config(checkpoint):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return EpiFoundationConfig.from_pretrained(
        checkpoint,
        gene_vocab_size=7,
        projection_size=4,
        gene_encoder=default_gene_encoder(7, max_genes=8) | sizes,
        use_typical_gene_counts=True,
        initializer_range=0.5,
    )


@pytest.fixture(scope="module")
def aligner(config, gene_tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("aligner")
    EpiFoundationForContrastiveAlignment(config).save_pretrained(folder)
    gene_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def imputer(config, gene_tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("imputer")
    EpiFoundationForExpressionImputation(config).save_pretrained(folder)
    gene_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def rna(adata):
    """The cells c2 to c14, of which c2 to c11 are in the peaks too, in another order."""
    counts = np.random.default_rng(1).integers(1, 90, (13, 4)).astype(np.float32)
    cells = [f"c{i}" for i in range(14, 1, -1)]
    obs = pd.DataFrame({"cell_type": ["B", *["T", "B"] * 6]}, index=cells)
    return AnnData(csr_matrix(counts), obs, pd.DataFrame(index=["GATA1", "ENSG00000000001", "other", "CD19"]))


@pytest.fixture
def rna_file(rna, tmp_path):
    path = tmp_path / "rna.h5ad"
    rna.write_h5ad(path)
    return path


def test_embedding_both_modalities(run, adata, rna, peaks_file, rna_file, aligner, tmp_path):
    output = tmp_path / "out.h5ad"
    result = run("align", "embed", peaks_file, "--rna", rna_file, "-m", aligner, "-o", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "25 rows\nATAC: 40 of 40 peaks" in result.stdout
    assert "RNA: 3 of 4 genes (75.0%)" in result.stdout
    align_cells(adata, rna, aligner)
    found = anndata.read_h5ad(output)
    np.testing.assert_allclose(found.obsm[KEY], np.concatenate([adata.obsm[KEY], rna.obsm[KEY]]), atol=1e-6)
    assert found.obs["barcode"].tolist() == [*adata.obs_names, *rna.obs_names]


def test_embedding_rna_alone(run, rna, rna_file, aligner, tmp_path):
    output = tmp_path / "out.parquet"
    result = run("align", "embed", "--rna", rna_file, "-m", aligner, "-o", output, "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    found = pd.read_parquet(output)
    assert found["cell"].tolist() == rna.obs_names.tolist()
    assert found["cell_type"].tolist() == rna.obs["cell_type"].tolist()


def test_an_h5mu_gives_both_of_its_modalities(run, adata, rna, aligner, tmp_path):
    mudata = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData({"atac": adata, "rna": rna}).write(tmp_path / "both.h5mu")
    result = run("align", "embed", tmp_path / "both.h5mu", "-m", aligner, "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 0
    assert "25 rows" in result.stdout


@pytest.mark.parametrize("has_reference", [False, True])
def test_imputing_gives_what_the_library_gives(
    has_reference, run, adata, rna, peaks_file, rna_file, aligner, imputer, tmp_path
):
    output = tmp_path / "out.h5ad"
    words = ("-m", aligner, "--reference", rna_file, "--neighbors", 3) if has_reference else ("-m", imputer)
    result = run("align", "impute", peaks_file, *words, "-o", output, "--genes", "GATA1,CD19")
    assert (result.exit_code, result.stderr) == (0, "")
    assert ("the nearest cells of" if has_reference else "by the head of the model") in result.stdout
    options = {"reference": rna, "num_neighbors": 3} if has_reference else {}
    expected = impute_expression(adata, aligner if has_reference else imputer, genes=["GATA1", "CD19"], **options)
    found = anndata.read_h5ad(output)
    np.testing.assert_allclose(found.X, expected.X, atol=1e-5)
    assert found.var_names.tolist() == ["GATA1", "CD19"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:umap")
def test_matching_scores_the_cells_of_both(run, adata, rna, peaks_file, rna_file, aligner, tmp_path, caplog):
    folder = tmp_path / "matched"
    words = ("--rna", rna_file, "-m", aligner, "-o", folder, "--label-key", "cell_type", "--neighbors", 3)
    result = run("align", "match", peaks_file, *words)
    assert result.exit_code == 0
    assert names(folder) == ["match.json", "match.md", "match.png"]
    assert (folder / "match.md").read_text() in result.stdout
    assert "10 of 12 ATAC and 13 RNA cells are in both" in caplog.text
    align_cells(adata, rna, aligner)
    shared = [name for name in adata.obs_names if name in rna.obs_names]
    expected = matching_scores(adata[shared].obsm[KEY], rna[shared].obsm[KEY])
    found = json.loads((folder / "match.json").read_text())
    assert found["pairs"]["num_cells"] == 10
    np.testing.assert_allclose(found["pairs"]["foscttm"], expected.foscttm)
    assert [(one["source"], one["target"]) for one in found["transfers"]] == [("RNA", "ATAC"), ("ATAC", "RNA")]
    # The cells by ATAC have no labels of their own, but those of their partners.
    assert [one["num_cells"] for one in found["transfers"]] == [10, 13]


def test_bad_requests_are_one_line_and_leave_nothing(
    run_badly, adata, rna, peaks_file, rna_file, checkpoint, aligner, imputer, tmp_path, monkeypatch
):
    for name, change in (
        ("nan", lambda cells: cells.X.data.__setitem__(0, np.nan)),
        ("other_genes", lambda cells: setattr(cells, "var_names", ["a", "b", "c", "d"])),
        ("other_cells", lambda cells: setattr(cells, "obs_names", [f"d{i}" for i in range(13)])),
    ):
        copy = rna.copy()
        change(copy)
        copy.write_h5ad(tmp_path / f"{name}.h5ad")
    adata.var_names = [f"chr9:{i + 1}-{i + 2}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "other_peaks.h5ad")
    before = names(tmp_path)

    def message(command, *words, rna="rna", peaks=peaks_file, model=aligner, out="out"):
        out = out if command == "match" else f"{out}.h5ad"
        of_rna = ("--rna", tmp_path / f"{rna}.h5ad") if command != "impute" and rna else ()
        return run_badly("align", command, peaks, *of_rna, "-m", model, "-o", tmp_path / out, *words)

    assert "no cells by RNA to compare with: name their file with --rna" in message("match", rna=None)
    assert "'epifoundation finetune contrastive' makes" in message("embed", model=checkpoint)
    assert "'epifoundation finetune contrastive' makes" in message("match", model=imputer)
    assert "'epifoundation finetune imputation' makes" in message("impute", model=checkpoint)
    assert "none of the 4 genes of the RNA data" in message("embed", rna="other_genes")
    assert "negative, NaN or infinite" in message("match", rna="nan")
    assert "no barcode is in both modalities" in message("match", rna="other_cells")
    assert "none of the 40 peaks overlaps" in message("embed", peaks=tmp_path / "other_peaks.h5ad")
    assert "none of the 40 peaks overlaps" in message("impute", peaks=tmp_path / "other_peaks.h5ad", model=imputer)
    assert "no obs has a column 'kind' with labels: there are cell_type" in message("match", "--label-key", "kind")
    assert "none.h5ad does not exist" in message("embed", rna="none")
    assert "exists: choose another name" in message("embed", out="rna")
    assert "1 of 1 genes are not in the reference" in message("impute", "--reference", rna_file, "--genes", "NO")
    assert "no cells: name some by ATAC, by RNA, or both" in run_badly(
        "align", "embed", "-m", aligner, "-o", tmp_path / "out.h5ad"
    )
    assert names(tmp_path) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    assert "full exists" in message("match", out="full")
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert "the picture needs matplotlib and umap" in message("match")
