import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr

from epifoundation.dataset_builders.clustering.reference_labels import label_clusters, read_reference, spearman

from ..raw_samples import GENES, NUM_CELLS, TYPES, write_rna, write_rna_reference


@pytest.fixture
def reference(tmp_path):
    return read_reference(write_rna_reference(tmp_path / "profiles.tsv"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    return read_h5ad(write_rna(tmp_path_factory.mktemp("r") / "r.h5ad")).X[::-1]


def test_rank_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    rows, others = rng.integers(0, 6, (4, 30)), rng.normal(size=(3, 30))
    expected = [[spearmanr(row, other).statistic for other in others] for row in rows]
    np.testing.assert_allclose(spearman(rows, others), expected)
    assert spearman(np.ones((1, 30)), others).tolist() == [[0, 0, 0]]


def test_each_cluster_gets_the_likeliest_type(counts, reference):
    clusters = (np.arange(NUM_CELLS) % 3 + 1) % 3  # cluster 1 holds type 0, and so on
    labels = label_clusters(counts, GENES, clusters, reference)
    assert labels["cell_type"].tolist() == [TYPES[2], TYPES[0], TYPES[1]]
    assert (labels["correlation"] > labels["runner_up_correlation"]).all()
    assert labels["num_cells"].tolist() == [NUM_CELLS // 3] * 3


def test_the_order_of_genes_does_not_matter(counts, reference):
    clusters = np.arange(NUM_CELLS) % 3
    order = np.random.default_rng(0).permutation(len(GENES))
    shuffled = label_clusters(counts[:, order], [GENES[i] for i in order], clusters, reference)
    pd.testing.assert_frame_equal(shuffled, label_clusters(counts, GENES, clusters, reference))


def test_profiles_without_common_genes_are_refused(counts, reference):
    names = [f"ENSG{i:011d}" for i in range(len(GENES))]
    with pytest.raises(ValueError, match=r"share 0 genes.*theirs are like \['GENE00'.*\['ENSG00000000000'"):
        label_clusters(counts, names, np.zeros(NUM_CELLS, dtype=int), reference)


def test_genes_that_do_not_vary_are_refused(reference):
    with pytest.raises(ValueError, match="only 0 genes of the reference profiles vary"):
        label_clusters(csr_matrix(np.zeros((4, 60))), GENES, np.zeros(4, dtype=int), reference)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene\tA\tB\nX\t1\ttext\n", "expected a table of numbers"),
        ("gene,A,B\nX,1,2\n", r"expected two cell types or more, got \[\]; is it tab-separated"),
        ("gene\tA\tB\nX\t1\t2\nX\t1\t2\n", "the gene 'X' occurs twice"),
        ("gene\tA\tB\nX\t1\tnan\n", "expected finite numbers only"),
        ("", "expected a table of numbers"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(ValueError, match=rf"p\.tsv: {message}"):
        read_reference(tmp_path / "p.tsv")


def test_a_gene_called_na_is_a_gene(tmp_path):
    (tmp_path / "p.csv").write_text("gene,A,B\nNA,1,2\nnan,3,4\n")
    assert read_reference(tmp_path / "p.csv").index.tolist() == ["NA", "nan"]


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"p\.tsv does not exist: expected a table of genes by cell types"):
        read_reference(tmp_path / "p.tsv")
