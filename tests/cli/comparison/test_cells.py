import anndata
import numpy as np
import pytest
from mudata import MuData, set_options

from epifoundation.dataset_builders import save_cells, split_cells
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary
from epifoundation.training import expression_levels
from epifoundation_cli.comparison.cells import drawn, expressed_genes, held_out, levels_of, read_data

from ..evaluation_cells import GENES, peak_names, write_cells


@pytest.fixture
def files(tmp_path):
    return write_cells(tmp_path)


@pytest.fixture
def data(files):
    return read_data(*files, batch_key="batch")


def test_cells_are_matched_by_barcode(files, data):
    atac, rna = (anndata.read_h5ad(file) for file in files)
    np.testing.assert_array_equal(data.peaks.toarray(), atac.X.toarray())
    np.testing.assert_array_equal(data.genes.toarray(), rna[atac.obs_names].X.toarray())
    assert data.cell_types.tolist() == atac.obs["cell_type"].tolist()
    assert data.batches.tolist() == atac.obs["batch"].tolist()


def test_a_mudata_gives_the_same(files, data, tmp_path):
    atac, rna = (anndata.read_h5ad(file) for file in files)
    with set_options(pull_on_update=False):
        mudata = MuData({"rna": rna, "atac": atac})
        mudata.write(tmp_path / "both.h5mu")
    both = read_data(tmp_path / "both.h5mu", batch_key="batch")
    assert sorted(both.barcodes) == sorted(data.barcodes)
    order = [both.barcodes.tolist().index(name) for name in data.barcodes]
    assert both.rows(np.array(order)).digest == data.digest


def test_tokenised_cells_give_the_same_and_their_own_division(files, data, tmp_path):
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(peak_names()), GeneVocabulary.from_names(GENES))
    atac, rna = (anndata.read_h5ad(file) for file in files)
    cells = paired_cells(atac, rna, tokenizer, cell_type_key="cell_type", batch_key="batch")
    save_cells(split_cells(cells, validation=0, test=0.25), tmp_path / "cells")
    tokenizer.save_pretrained(tmp_path / "cells")
    found = read_data(tmp_path / "cells")
    order = np.array([data.barcodes.tolist().index(name) for name in found.barcodes])
    columns = [data.peak_names.index(name) for name in found.peak_names]
    np.testing.assert_array_equal(found.peaks.toarray(), (data.rows(order).peaks[:, columns] > 0).toarray())
    np.testing.assert_array_equal(found.genes.toarray(), data.rows(order).genes.toarray())
    assert found.batches.tolist() == data.batches[order].tolist()
    train, test = held_out(found, "split", 0.5, 0)
    assert set(found.stored_split[train]) == {"train"}
    assert set(found.stored_split[test]) == {"test"}


def test_cells_without_a_type_are_left_out(files, tmp_path):
    atac = anndata.read_h5ad(files[0])
    atac.obs["cell_type"] = atac.obs["cell_type"].astype(object)
    atac.obs.loc[["c1", "c3"], "cell_type"] = np.nan
    atac.write_h5ad(tmp_path / "gaps.h5ad")
    found = read_data(tmp_path / "gaps.h5ad")
    assert found.num_cells == 118
    assert "c1" not in found.barcodes
    assert set(found.batches) == {"all"}


def test_labels_that_name_no_type_are_left_out(files):
    assert set(read_data(files[0], no_types=["B"]).cell_types) == {"T"}
    with pytest.raises(ValueError, match=r"no cell of .* is labelled X: there are B, T"):
        read_data(files[0], no_types=["X"])


def test_the_same_share_of_each_type_is_drawn(data):
    some = drawn(data, 30)
    assert [(some.cell_types == name).sum() for name in ("T", "B")] == [15, 15]
    assert some.barcodes.tolist() == drawn(data, 30).barcodes.tolist()
    assert drawn(data, 120) is data


def test_wrong_keys_are_explained(files):
    with pytest.raises(ValueError, match=r"no column 'celltype' in obs, only \['cell_type', 'batch'\].*--label-key"):
        read_data(files[0], label_key="celltype")
    with pytest.raises(ValueError, match=r"no column 'donor' in obs.*--batch-key"):
        read_data(files[0], batch_key="donor")


def test_the_same_share_of_each_type_is_held_out(data):
    train, test = held_out(data, "cell", 0.25, 0)
    assert sorted([*train, *test]) == list(range(120))
    assert [(data.cell_types[test] == name).sum() for name in ("T", "B")] == [15, 15]
    np.testing.assert_array_equal(test, held_out(data, "cell", 0.25, 0)[1])
    assert test.tolist() != held_out(data, "cell", 0.25, 1)[1].tolist()


def test_whole_batches_are_held_out(data):
    train, test = held_out(data, "batch", 0.34, 0)
    assert set(data.batches[train]).isdisjoint(data.batches[test])
    assert set(data.batches[held_out(data, "batch", 0.5, 0, ["b"])[1]]) == {"b"}
    with pytest.raises(ValueError, match="no cell has the batch 'x'"):
        held_out(data, "batch", 0.5, 0, ["x"])
    with pytest.raises(ValueError, match="expected one of cell, batch, split"):
        held_out(data, "donor", 0.5, 0)
    with pytest.raises(ValueError, match="these data come undivided"):
        held_out(data, "split", 0.5, 0)


def test_levels_are_those_of_training(data):
    levels = levels_of(data.genes).toarray()
    for cell in (0, 7):
        np.testing.assert_array_equal(levels[cell], expression_levels(data.genes[cell].toarray().ravel(), 10))


def test_genes_that_few_training_cells_express_are_left_out(data):
    is_train = np.arange(120) % 2 == 0  # T cells, which express genes 0, 2 and 4
    kept = expressed_genes(data, is_train, 50)
    expected = (data.genes.toarray()[is_train] > 0).sum(axis=0) >= 50
    np.testing.assert_array_equal(kept, expected)
    assert kept.tolist() == [True, False] * 3
    with pytest.raises(ValueError, match="no gene is expressed in 61 training cells, the most frequent in"):
        expressed_genes(data, is_train, 61)


def test_data_change_their_digest(files, data):
    assert read_data(*files, batch_key="batch").digest == data.digest
    assert read_data(*files).digest != data.digest
    assert data.rows(np.arange(119)).digest != data.digest
