import anndata
import numpy as np
import pytest

from epifoundation import EpiFoundationConfig, EpiFoundationForExpressionPrediction
from epifoundation.inference import predict_expression
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer


@pytest.fixture(scope="module")
def predictor(checkpoint, tmp_path_factory):
    genes = GeneVocabulary(["CD19", "CD3E"], ["ENSG00000000001", "ENSG00000000002"], ["chr1", "chr2"])
    tokenizer = PeakTokenizer(PeakTokenizer.from_pretrained(checkpoint).vocabulary, genes)
    folder = tmp_path_factory.mktemp("predictor")
    config = EpiFoundationConfig.from_pretrained(checkpoint, gene_vocab_size=6)
    EpiFoundationForExpressionPrediction(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_command_gives_what_the_library_gives(run, adata, peaks_file, predictor, tmp_path):
    (tmp_path / "genes.txt").write_text("CD3E\n\nENSG00000000001 \n")
    expected = predict_expression(adata, predictor, genes=["CD3E", "CD19"])
    for genes in ("CD3E, CD19", tmp_path / "genes.txt"):
        output = tmp_path / "out.h5ad"
        result = run("expression", peaks_file, "-m", predictor, "-o", output, "--genes", genes, "--overwrite")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "expression predicted in 12 cells" in result.stdout
        read = anndata.read_h5ad(output)
        assert list(read.var_names) == ["CD3E", "CD19"]
        np.testing.assert_allclose(read.X, expected.X, atol=1e-6)


def test_bad_input_is_one_line_and_leaves_nothing(run_badly, peaks_file, predictor, tmp_path):
    out = tmp_path / "out.h5ad"
    command = ("expression", peaks_file, "-m", predictor, "-o")
    assert "1 of 1 genes are unknown to this model, such as NO" in run_badly(*command, out, "--genes", "NO")
    assert "expected .h5ad" in run_badly(*command, tmp_path / "out.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]
