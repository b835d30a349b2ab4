import anndata
import numpy as np
import pytest
import torch
from scipy.special import softmax

from epifoundation import EpiFoundationForExpressionImputation
from epifoundation.dataset_builders.clustering.nearest_cells import NearestCells
from epifoundation.inference import align_cells, alignment_imputation, impute_expression, impute_expression_of_file
from epifoundation.inference.alignment_imputation import neighbor_shares

from .conftest import RNA_NAMES, sized

KEY = "epifoundation_imputation"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*cells have no open peak"),
    pytest.mark.filterwarnings("ignore:1 of 13 cells express no gene"),
]


@pytest.fixture(scope="module")
def imputer(gene_tokenizer):
    torch.manual_seed(4)
    config = sized(gene_tokenizer, num_chromosomes=28, projection_size=6, initializer_range=0.5)
    return EpiFoundationForExpressionImputation(config).eval()


@pytest.fixture(scope="module")
def imputer_checkpoint(imputer, gene_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imputer")
    imputer.save_pretrained(folder)
    gene_tokenizer.save_pretrained(folder)
    return folder


def by_head(adata, imputer, tokenizer):
    rows = []
    for i in range(adata.n_obs):
        with torch.no_grad():
            rows.append(imputer(**tokenizer(adata[i], return_tensors="pt", check=False)).logits[0].numpy())
    return np.array(rows)


def by_neighbors(adata, rna, aligner, tokenizer, num_neighbors, is_weighted):
    """Means of log-normalised levels by a loop over cells; a reference without a known gene is left out."""
    known = rna.X.toarray()[:, [0, 1, 3, 4]].sum(axis=1) > 0
    assert not known.all()
    rna = rna[known].copy()
    cells = adata.copy()
    align_cells(cells, rna, aligner, tokenizer)
    levels = rna.X.toarray().astype(float)
    levels = np.log1p(levels / levels.sum(axis=1, keepdims=True) * 10_000)
    rows = []
    for embedding in cells.obsm["X_epifoundation_aligned"]:
        cosines = rna.obsm["X_epifoundation_aligned"] @ embedding
        nearest = np.argsort(-cosines)[:num_neighbors]
        scale = aligner.logit_scale.exp().item() if is_weighted else 0
        rows.append(softmax(scale * cosines[nearest]) @ levels[nearest])
    return np.array(rows)


def test_the_head_says_what_the_model_says(adata, imputer, gene_tokenizer):
    expected = by_head(adata, imputer, gene_tokenizer)
    whole = impute_expression(adata, imputer, gene_tokenizer, max_entries_per_block=100)
    np.testing.assert_allclose(whole.X, expected, atol=1e-5)
    assert list(whole.var_names) == ["GATA1", "CD19", "CD3E", "MATR3", "MATR3 ENSG00000000005"]
    assert list(whole.obs_names) == list(adata.obs_names)
    assert whole.uns[KEY]["units"] == "log(1 + counts per 10,000)"
    some = impute_expression(adata, imputer, gene_tokenizer, genes=["CD3E", "ENSG00000000001"])
    np.testing.assert_allclose(some.X, expected[:, [2, 0]], atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 0.01
    assert set(adata.obs) == {"kind"}


@pytest.fixture
def rna(rna, aligner, gene_tokenizer):
    """Of cells with the same embedding the first alone, so that it is known which are the nearest; cell 3 stays."""
    align_cells(None, rna, aligner, gene_tokenizer)
    _, first = np.unique(rna.obsm.pop("X_epifoundation_aligned").round(4), axis=0, return_index=True)
    return rna[np.sort(first)].copy()


@pytest.mark.parametrize("weights", ["similarity", "uniform"])
def test_neighbours_give_the_mean_of_the_nearest(weights, adata, rna, aligner, gene_tokenizer, monkeypatch):
    monkeypatch.setattr(alignment_imputation, "LEVELS_AT_A_TIME", 20)
    options = {"reference": rna, "num_neighbors": 4, "weights": weights}
    found = impute_expression(adata, aligner, gene_tokenizer, **options)
    expected = by_neighbors(adata, rna, aligner, gene_tokenizer, 4, is_weighted=weights == "similarity")
    np.testing.assert_allclose(found.X, expected, atol=2e-4)
    assert list(found.var_names) == RNA_NAMES
    assert np.ptp(expected, axis=0).max() > 0.1
    some = impute_expression(adata, aligner, gene_tokenizer, genes=["OTHER", "CD19"], **options)
    np.testing.assert_allclose(some.X, expected[:, [5, 1]], atol=2e-4)
    assert found.uns[KEY]["num_reference_cells"] == rna.n_obs


def test_more_neighbours_than_references_are_all_of_them(adata, rna, aligner, gene_tokenizer):
    found = impute_expression(adata, aligner, gene_tokenizer, reference=rna, num_neighbors=99, weights="uniform")
    np.testing.assert_allclose(found.X, np.tile(found.X[:1], (40, 1)), atol=1e-5)


def test_shares_are_a_softmax_of_cosines():
    cosines = np.array([[0.9, 0.5, -0.2], [0.3, 0.3, 0.3]])
    nearest = NearestCells(np.zeros((2, 3), dtype=int), np.sqrt(2 - 2 * cosines))
    np.testing.assert_allclose(neighbor_shares(nearest, 7.0), softmax(7 * cosines, axis=1), rtol=1e-6)
    np.testing.assert_allclose(neighbor_shares(nearest, 0.0), 1 / 3)


@pytest.mark.parametrize("has_reference", [False, True])
def test_a_file_gives_what_memory_gives(
    has_reference, adata, rna, peaks_file, rna_file, aligner_checkpoint, imputer_checkpoint, tmp_path
):
    model = aligner_checkpoint if has_reference else imputer_checkpoint
    output = tmp_path / "out.h5ad"
    file = {"reference": rna_file} if has_reference else {}
    impute_expression_of_file(peaks_file, model, output, genes=["CD19", "GATA1"], max_entries_per_block=100, **file)
    memory = {"reference": rna} if has_reference else {}
    expected = impute_expression(adata, model, genes=["CD19", "GATA1"], **memory)
    read = anndata.read_h5ad(output)
    np.testing.assert_allclose(read.X, expected.X, atol=1e-5)
    assert read.obs.equals(expected.obs)
    assert list(read.var_names) == ["CD19", "GATA1"]
    assert read.uns[KEY]["method"] == expected.uns[KEY]["method"]


def test_what_cannot_be_imputed_is_refused(
    adata, rna, aligner, imputer, gene_tokenizer, checkpoint, imputer_checkpoint
):
    with pytest.raises(TypeError, match=r"expected a model that imputes expression.* and no reference"):
        impute_expression(adata, aligner, gene_tokenizer)
    with pytest.raises(TypeError, match="expected a model of both modalities"):
        impute_expression(adata, imputer, gene_tokenizer, reference=rna)
    with pytest.raises(ValueError, match="'epifoundation finetune imputation' makes"):
        impute_expression(adata, checkpoint)
    with pytest.raises(ValueError, match="'epifoundation finetune contrastive' makes"):
        impute_expression(adata, imputer_checkpoint, reference=rna)
    with pytest.raises(ValueError, match="1 of 1 genes are unknown to this model, such as NO"):
        impute_expression(adata, imputer, gene_tokenizer, genes=["NO"])
    with pytest.raises(ValueError, match="1 of 2 genes are not in the reference, such as CD3E; it has 6"):
        impute_expression(adata, aligner, gene_tokenizer, reference=rna, genes=["CD19", "CD3E"])
    with pytest.raises(ValueError, match="each at most once, got CD19, CD19"):
        impute_expression(adata, aligner, gene_tokenizer, reference=rna, genes=["CD19", "CD19"])
    with pytest.raises(ValueError, match="'similarity' or 'uniform', got 'none'"):
        impute_expression(adata, aligner, gene_tokenizer, reference=rna, weights="none")
    with pytest.raises(ValueError, match="at least one neighbour, got 0"):
        impute_expression(adata, aligner, gene_tokenizer, reference=rna, num_neighbors=0)
    rna.X.data[0] = -1
    with pytest.raises(ValueError, match="negative"):
        impute_expression(adata, aligner, gene_tokenizer, reference=rna)


def test_the_output_is_an_h5ad_or_nothing(peaks_file, rna_file, aligner_checkpoint, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"expected \.h5ad"):
        impute_expression_of_file(peaks_file, aligner_checkpoint, tmp_path / "out.parquet", reference=rna_file)
    with pytest.raises(FileExistsError, match="exists"):
        impute_expression_of_file(peaks_file, aligner_checkpoint, rna_file, reference=rna_file)
    for taken in (peaks_file, rna_file):
        with pytest.raises(FileExistsError, match="is an input"):
            impute_expression_of_file(peaks_file, aligner_checkpoint, taken, reference=rna_file, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"none\.h5ad"):
        impute_expression_of_file(
            peaks_file, aligner_checkpoint, tmp_path / "out.h5ad", reference=tmp_path / "none.h5ad"
        )
    assert sorted(tmp_path.iterdir()) == before
