import logging

import numpy as np
import pandas as pd
import pytest

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.readers.matrix_files import GeneTable, MatrixTable
from epifoundation.dataset_builders.tokenized.pairing import is_rising, match_names, pair

NO_KEYS: dict[str, str | None] = {}


def pairing(atac, rna, tokenizer, keys=NO_KEYS):
    return pair(MatrixTable(atac), None if rna is None else GeneTable(rna), tokenizer, keys)


def test_names_are_matched_in_the_order_of_the_first(caplog):
    with caplog.at_level(logging.WARNING):
        names, atac, rna, left_out = match_names(["x", "y", "z"], ["z", "w", "x"])
    assert (list(names), atac.tolist(), rna.tolist()) == (["x", "z"], [0, 2], [2, 0])
    assert left_out == (("y",), ("w",))
    assert "2 of 3 ATAC and 3 RNA cells are in both; only in one: y (ATAC), w (RNA)" in caplog.text


def test_nothing_is_said_when_all_match(caplog):
    match_names(["x", "y"], ["y", "x"])
    assert not caplog.records


@pytest.mark.parametrize(("positions", "expected"), [([], True), ([3], True), ([1, 4], True), ([1, 1], False)])
def test_rising(positions, expected):
    assert is_rising(np.array(positions)) is expected


def test_the_report_counts_what_finds_no_place(multiome, tokenizer):
    atac, rna = multiome
    atac = atac[:50].copy()
    atac.obs["annot"] = atac.obs["annot"].where(np.arange(50) != 3)
    report = pairing(atac, rna[10:], tokenizer, {"cell_type": "annot"}).report
    assert (report.num_cells, report.num_atac_cells, report.num_rna_cells) == (40, 50, 50)
    assert (report.num_genes, report.num_matched_genes) == (12, 10)
    assert (report.num_peaks, report.num_matched_peaks) == (40, 40)
    assert report.num_unlabelled == {"cell_type": 0}  # it is not among the cells that match
    assert report.atac_only[0] == "CELL000-1"
    assert report.is_same_order
    assert "40 of 50 ATAC and 50 RNA cells are in both" in report.summary()
    assert "10 of 12 genes" in report.summary()
    alone = pairing(atac, None, tokenizer, {"cell_type": "annot"}).report
    assert alone.summary().startswith("50 cells, ATAC alone.")
    assert "1 cells have no cell_type." in alone.summary()


def test_labels_are_looked_for_in_both_modalities(multiome, tokenizer):
    atac, rna = multiome[0].copy(), multiome[1].copy()
    rna.obs["annot"] = "from the RNA"
    rna.obs["site"] = [f"site{i % 2}" for i in range(60)]
    found = pairing(atac, rna[::-1], tokenizer, {"cell_type": "annot", "batch": "site"})
    assert found.features["cell_type"].names == ["B", "NK", "T"]
    assert found.labels["batch"].to_pylist() == [i % 2 for i in range(60)]


def test_classes_keep_the_order_of_their_categories(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.obs["annot"] = pd.Categorical(atac.obs["annot"], ["T", "never seen", "B", "NK"])
    assert pairing(atac, None, tokenizer, {"cell_type": "annot"}).features["cell_type"].names == ["T", "B", "NK"]


def test_numbers_become_class_names(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.obs["run"] = [10, 9] * 30
    found = pairing(atac, None, tokenizer, {"batch": "run", "donor": "run"})
    assert found.features["batch"].names == ["9", "10"]
    assert found.labels["donor"].to_pylist()[:2] == ["10", "9"]


def test_texts_that_are_not_known_are_none(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.obs["donor"] = [None, *atac.obs["donor"][1:]]
    assert pairing(atac, None, tokenizer, {"donor": "donor"}).labels["donor"].to_pylist()[:2] == [None, "donor1"]


def test_a_cell_without_a_batch_is_refused(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.obs["batch"] = [None, *atac.obs["batch"][1:]]
    with pytest.raises(ValueError, match=r"1 of 60 cells have no value in obs\['batch'\]: every cell needs a batch"):
        pairing(atac, None, tokenizer, {"batch": "batch"})


def test_a_missing_column_names_those_of_both(multiome, tokenizer):
    rna = multiome[1].copy()
    rna.obs["site"] = "here"
    message = r"obs has no column 'celltype'; it has \['annot', 'batch', 'donor', 'site'\]: .* cell_type_key="
    with pytest.raises(ValueError, match=message):
        pairing(multiome[0], rna, tokenizer, {"cell_type": "celltype"})


def test_repeated_barcodes_are_refused_without_genes_too(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.obs_names = ["same"] * 60
    with pytest.raises(ValueError, match=r"barcodes of the ATAC data repeat, for example \['same'"):
        pairing(atac, None, tokenizer)


def test_other_labels_have_another_digest(multiome, tokenizer):
    atac = multiome[0].copy()
    keys = {"cell_type": "annot"}
    before = pairing(atac, None, tokenizer, keys).digest()
    assert pairing(atac, None, tokenizer, keys).digest() == before
    assert pairing(atac, None, tokenizer, {"batch": "annot"}).digest() != before
    atac.obs["annot"] = atac.obs["annot"].to_numpy()[::-1]
    assert pairing(atac, None, tokenizer, keys).digest() != before


def test_peaks_of_another_genome_are_explained(multiome, tokenizer):
    atac = multiome[0].copy()
    atac.var_names = [name.replace("chr1", "chr7") for name in atac.var_names]
    with pytest.raises(ValueError, match="none of the 40 peaks overlaps a peak of the vocabulary"):
        pairing(atac, None, tokenizer)


def test_peaks_alone_need_no_genes(multiome, tokenizer):
    assert pairing(multiome[0], None, PeakTokenizer(tokenizer.vocabulary)).gene_ids is None
