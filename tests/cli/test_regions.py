import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation import EpiFoundationConfig, EpiFoundationModel
from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
from epifoundation.evaluation.promoters import distance_to_tss
from epifoundation.inference import default_checkpoint, load_tokenizer
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary, parse_peaks
from epifoundation_cli.promoters import _file_names

from .conftest import NAMES


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def typed_file(adata, tmp_path):
    adata.obs["cell_type"] = ["B", "T"] * 6
    values = adata.X.toarray()
    values[:, 3] = 0
    adata.X = csr_matrix(values)
    path = tmp_path / "typed.h5ad"
    adata.write_h5ad(path)
    return path


def test_embedding_named_regions(run, typed_file, checkpoint, tmp_path):
    output = tmp_path / "out.h5ad"
    words = ("--groupby", "cell_type", "--group", "T", "--regions", f"{NAMES[0]},{NAMES[3]}")
    result = run("regions", "embed", typed_file, "-m", checkpoint, *words, "-o", output)
    assert result.exit_code == 0
    assert "1 of 2 regions are open in 6 cells of 1 groups; 1 rows" in result.stdout
    found = anndata.read_h5ad(output)
    assert found.obs["group"].tolist() == ["T"]
    cells = anndata.read_h5ad(typed_file)
    assert found.obs["num_cells"].tolist() == [int((cells[cells.obs["cell_type"] == "T"].X[:, 0] > 0).sum())]


def test_bad_requests_are_one_line_and_leave_nothing(run_badly, typed_file, checkpoint, tmp_path):
    other = tmp_path / "hg19.bed"
    other.write_text("".join(f"chr1\t{start}\t{start + 500}\n" for start in range(50_000_000, 50_100_000, 1_000)))
    before = names(tmp_path)

    def message(regions, *words, out="out.h5ad"):
        return run_badly(
            *("regions", "embed", typed_file, "-m", checkpoint, "--regions", regions, "-o", tmp_path / out), *words
        )

    assert "overlap no peak of the model" in message(f"{NAMES[0]},chr2:9000000-9000100")
    assert "is open in any of the cells" in message(NAMES[3])
    assert "no column 'kind' in obs" in message(NAMES[0], "--groupby", "kind")
    assert "has cell_type 'NK': expected one of B, T" in message(NAMES[0], "--groupby", "cell_type", "--group", "NK")
    assert "none of the 100 peaks overlaps" in message(str(other))
    assert "none.bed" in message(str(tmp_path / "none.bed"))
    assert "expected .h5ad or .parquet" in message(NAMES[0], out="out.csv")
    assert "is an input" in message(NAMES[0], "--overwrite", out=typed_file.name)
    assert names(tmp_path) == before


def test_a_model_without_these_peaks_is_one_line(run_badly, adata, checkpoint, tmp_path):
    adata.var_names = [f"chr9:{i + 1}-{i + 2}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "other.h5ad")
    words = ("regions", "embed", tmp_path / "other.h5ad", "-m", checkpoint, "-o", tmp_path / "out.h5ad")
    assert "none of the 40 peaks overlaps" in run_badly(*words, "--regions", NAMES[0])


@pytest.fixture(scope="module")
def with_genes():
    """A hundred peaks on starts of transcription, a hundred that are far from any, on chromosome 1."""
    genes = gene_coordinates("hg38")
    tss = genes.loc[(genes["chromosome"].isin(["chr1", "1"])) & genes["tss"].notna(), "tss"].to_numpy(np.int64)
    promoters = {f"chr1:{start}-{start + 500}" for start in np.unique(tss[::8] // 10_000)[:100] * 10_000}
    spread = [f"chr1:{start}-{start + 500}" for start in range(5_000_000, 105_000_000, 500_000)]
    near = {f"chr1:{start - 200}-{start + 300}" for start in np.unique(tss[::10])[:100]}
    return sorted(near | set(spread) | promoters)


@pytest.fixture(scope="module")
def gene_checkpoint(with_genes, tmp_path_factory):
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(with_genes))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    EpiFoundationModel(EpiFoundationConfig(vocab_size=len(tokenizer), gene_vocab_size=6, **sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gene_cells(with_genes, tmp_path_factory):
    values = np.random.default_rng(0).random((30, len(with_genes))) < 0.4
    obs = pd.DataFrame({"cell_type": ["B/plasma", "T"] * 15}, index=[f"c{i}" for i in range(30)])
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    AnnData(csr_matrix(values.astype(np.float32)), obs, pd.DataFrame(index=with_genes)).write_h5ad(path)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning:umap")
def test_finding_promoters_writes_a_folder(run, gene_cells, gene_checkpoint, with_genes, tmp_path):
    output = tmp_path / "found"
    words = ("--groupby", "cell_type", "--group", "B/plasma")
    result = run("regions", "find", gene_cells, "-m", gene_checkpoint, *words, "-o", output)
    assert result.exit_code == 0
    assert "average precision on held-out promoters" in result.stdout
    assert names(output) == ["B_plasma.bed", "B_plasma.png", "recovery.csv"]
    found = pd.read_csv(output / "B_plasma.bed", sep="\t")
    cells = anndata.read_h5ad(gene_cells)
    distance = distance_to_tss(parse_peaks(with_genes), gene_coordinates("hg38"))
    num_cells = np.asarray((cells[cells.obs["cell_type"] == "B/plasma"].X > 0).sum(axis=0)).ravel()
    expected = {
        n for n, far, open_in in zip(with_genes, distance > 1_000, num_cells >= 3, strict=True) if far and open_in
    }
    assert set(found["name"]) == expected
    assert found["similarity"].is_monotonic_decreasing
    assert found["score"].between(0, 1000).all()
    assert found["fdr"].between(0, 1).all()
    recovery = pd.read_csv(output / "recovery.csv")
    assert recovery["matched_on"].tolist() == ["distance", "accessibility"]
    assert recovery[["contextual", "table", "accessibility"]].stack().between(0, 1).all()


def test_a_search_that_cannot_be_made_is_one_line(
    run_badly, typed_file, gene_cells, gene_checkpoint, checkpoint, tmp_path
):
    before = names(tmp_path)
    out = ("-o", tmp_path / "found")
    find = ("regions", "find", gene_cells, "-m", gene_checkpoint, *out)
    assert "no column 'kind' in obs" in run_badly(*find, "--groupby", "kind")
    assert "are of hg38, not of hg19" in run_badly(*find, "--groupby", "cell_type", "--genome", "hg19")
    assert "at least 10 known promoters" in run_badly(*find, "--groupby", "cell_type", "--min-cells", 15)
    few = ("regions", "find", typed_file, "-m", checkpoint, "--groupby", "cell_type", *out)
    assert "cell type 'B': expected at least 10 known promoters" in run_badly(*few)
    assert names(tmp_path) == before


def test_a_genome_without_genes_is_one_line(run_badly, gene_cells, with_genes, tmp_path):
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(with_genes, genome="mm10"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    EpiFoundationModel(EpiFoundationConfig(vocab_size=len(tokenizer), gene_vocab_size=6, **sizes)).save_pretrained(
        tmp_path / "mouse"
    )
    tokenizer.save_pretrained(tmp_path / "mouse")
    words = ("-m", tmp_path / "mouse", "--groupby", "cell_type", "-o", tmp_path / "found")
    assert "no table of genes for 'mm10', only for hg38" in run_badly("regions", "find", gene_cells, *words)
    assert not (tmp_path / "found").exists()


def test_cells_without_an_open_peak_are_one_line(run_badly, typed_file, checkpoint, tmp_path):
    cells = anndata.read_h5ad(typed_file)
    cells.X = csr_matrix(cells.X.toarray() * (cells.obs["cell_type"] == "B").to_numpy()[:, None])
    cells.write_h5ad(tmp_path / "empty.h5ad")
    words = ("-m", checkpoint, "--groupby", "cell_type", "--group", "T", "-o", tmp_path / "out.h5ad")
    message = run_badly("regions", "embed", tmp_path / "empty.h5ad", "--regions", NAMES[0], *words)
    assert "no cell has an open peak" in message
    assert not (tmp_path / "out.h5ad").exists()


def test_without_a_model_the_carried_one_is_used(run, tmp_path):
    names = load_tokenizer(default_checkpoint()).vocabulary.names()[:50]
    cells = AnnData(csr_matrix(np.ones((3, 50), np.float32)), var=pd.DataFrame(index=names))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    output = tmp_path / "out.parquet"
    words = ("regions", "embed", tmp_path / "cells.h5ad", "--regions", names[7], "-o", output)
    assert run(*words).exit_code == 0
    found = pd.read_parquet(output)
    assert found["region"].tolist() == [names[7]]
    assert found.filter(like="contextual_").shape == (1, 64)


def test_each_type_has_a_file_of_its_own():
    assert _file_names(["B/plasma", "B plasma", "T", "CD4+ T", "/"]) == [
        "B_plasma.1",
        "B_plasma.2",
        "T",
        "CD4+_T",
        "type",
    ]
