import anndata
import numpy as np
import pytest

from epifoundation import EpiFoundationConfig, EpiFoundationForCellClassification
from epifoundation.inference import annotate_cells
from epifoundation.tokenization import PeakTokenizer


@pytest.fixture(scope="module")
def annotator(checkpoint, tmp_path_factory):
    tokenizer = PeakTokenizer.from_pretrained(checkpoint)
    config = EpiFoundationConfig.from_pretrained(checkpoint, id2label={0: "T", 1: "B"}, label2id={"T": 0, "B": 1})
    folder = tmp_path_factory.mktemp("annotator")
    EpiFoundationForCellClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_command_gives_what_the_library_gives(run, adata, peaks_file, annotator, tmp_path):
    output = tmp_path / "out.h5ad"
    median = int(np.median((adata.X.toarray() > 0).sum(axis=1))) + 1
    result = run("annotate", peaks_file, "-m", annotator, "-o", output, "--probabilities", "--min-peaks", median)
    assert (result.exit_code, result.stderr) == (0, "")
    annotate_cells(adata, annotator, min_peaks=median, add_probabilities=True)
    read = anndata.read_h5ad(output)
    assert (
        read.obs["epifoundation_cell_type"].astype(object).equals(adata.obs["epifoundation_cell_type"].astype(object))
    )
    assert "epifoundation_cell_type_probabilities" in read.obsm
    missing = int(adata.obs["epifoundation_cell_type"].isna().sum())
    assert missing
    assert result.stdout.splitlines()[0] == f"{output}: 12 cells annotated, {missing} of them without a type"
    counts = adata.obs["epifoundation_cell_type"].value_counts()
    shown = dict(line.split() for line in result.stdout.splitlines()[1:])
    assert {name: int(count) for name, count in shown.items()} == counts[counts > 0].to_dict()


def test_quiet_is_quiet_and_the_input_may_be_replaced(run, run_badly, peaks_file, annotator):
    command = ("annotate", peaks_file, "-m", annotator, "-o", peaks_file, "--quiet")
    assert "--overwrite" in run_badly(*command)
    result = run(*command, "--overwrite")
    assert (result.exit_code, result.output) == (0, "")
    assert "epifoundation_cell_type" in anndata.read_h5ad(peaks_file).obs


def test_bad_input_is_one_line_and_leaves_nothing(run_badly, peaks_file, checkpoint, annotator, tmp_path):
    out = tmp_path / "out.h5ad"
    assert "such as classifier" in run_badly("annotate", peaks_file, "-m", checkpoint, "-o", out)
    assert "does not exist" in run_badly("annotate", tmp_path / "no.h5ad", "-m", annotator, "-o", out)
    assert ".parquet" in run_badly("annotate", peaks_file, "-m", annotator, "-o", tmp_path / "out.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cells.h5ad"]


def test_fragments_are_counted_in_the_peaks_of_the_model_and_annotated(run, annotator, tmp_path):
    # 3 fragments in peaks of the model for one barcode, none for another.
    fragments = ["chr1 1100 1200 AA 1", "chr2 2100 2200 AA 1", "chr3 3100 3200 AA 1", "chr1 90000 90100 CC 1"]
    (tmp_path / "fragments.tsv").write_text("".join(line.replace(" ", "\t") + "\n" for line in fragments))
    output = tmp_path / "out.h5ad"
    options = ("--min-fragments", 1, "--no-genome-check", "-o", output)
    result = run("annotate", tmp_path / "fragments.tsv", "-m", annotator, *options)
    assert result.exit_code == 0, result.stderr
    obs = anndata.read_h5ad(output).obs
    assert obs["epifoundation_num_peaks"].to_dict() == {"AA": 3, "CC": 0}
    assert obs["epifoundation_cell_type"].isna().to_dict() == {"AA": False, "CC": True}
