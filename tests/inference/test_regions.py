import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders import PeakTable, open_peak_file
from epifoundation.inference.cell_run import prepare_run
from epifoundation.inference.regions import (
    CellGroups,
    cell_groups,
    embed_regions,
    region_ids,
    region_table,
    write_region_table,
)
from epifoundation.tokenization import PeakVocabulary

from .conftest import NAMES

GROUPS = CellGroups(["a", "b"], np.array([0, 1, -1, 0] * 10))


def cell_by_cell(adata, model, tokenizer, ids):
    """Sums by a loop over cells, without packing."""
    sums, counts = np.zeros((2, len(ids), 16)), np.zeros((2, len(ids)), dtype=int)
    place = {token: row for row, token in enumerate(ids.tolist())}
    for cell, group in enumerate(GROUPS.codes):
        if group < 0:
            continue
        inputs = tokenizer(adata[cell], return_tensors="pt")
        with torch.no_grad():
            hidden = model.epifoundation(**inputs).last_hidden_state[0].numpy()
        for token, row in zip(inputs["input_ids"][0].tolist(), hidden, strict=True):
            if token in place:
                sums[group, place[token]] += row
                counts[group, place[token]] += 1
    return sums / np.maximum(counts, 1)[..., None], counts


@pytest.mark.filterwarnings("ignore:.*cells have no open peak")
@pytest.mark.parametrize("options", [{}, {"max_tokens_per_batch": 50, "max_entries_per_block": 100}])
def test_means_are_those_of_a_loop_over_cells(options, adata, trained_model, tokenizer):
    run = prepare_run(trained_model, tokenizer, show_progress=False, **options)
    ids = np.array([5, 6, 20, 33, 63])
    found, _ = embed_regions(PeakTable(adata), run, GROUPS, ids)
    means, counts = cell_by_cell(adata, trained_model, tokenizer, ids)
    np.testing.assert_array_equal(found.num_cells, counts)
    np.testing.assert_allclose(found.contextual, means, atol=1e-5)
    table = trained_model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(found.table, table[ids])
    assert found.num_cells.sum() > 20


def test_by_default_all_regions_of_the_file(adata, trained_model, tokenizer):
    run = prepare_run(trained_model, tokenizer, show_progress=False)
    found, _ = embed_regions(PeakTable(adata), run, CellGroups(["all"], np.zeros(40, dtype=int)))
    assert len(found.ids) == 54  # six of the sixty peaks are not in the vocabulary


@pytest.mark.parametrize("ending", [".h5ad", ".parquet"])
def test_the_table_has_a_row_for_each_region_and_group_with_a_cell(ending, adata, trained_model, tokenizer, tmp_path):
    run = prepare_run(trained_model, tokenizer, show_progress=False)
    is_closed = adata.X.toarray() * (GROUPS.codes == 1)[:, None]
    is_closed[:, tokenizer.vocabulary.map(adata.var_names).ids != 5] = 0  # region 5 is closed in the second group
    adata.X = csr_matrix(adata.X - csr_matrix(is_closed))
    adata.X.eliminate_zeros()
    found, coverage = embed_regions(PeakTable(adata), run, GROUPS, np.array([5, 9]))
    assert (found.num_cells > 0).tolist() == [[True, True], [False, True]]
    table = region_table(found, run, coverage, "kind")
    path = tmp_path / f"regions{ending}"
    write_region_table(table, path, ending)
    name = tokenizer.convert_ids_to_tokens(5)
    if ending == ".h5ad":
        read = anndata.read_h5ad(path)
        obs, contextual, rows = read.obs, read.X, read.layers["table"]
        assert read.uns["epifoundation_regions"]["groupby"] == "kind"
    else:
        obs = pd.read_parquet(path)
        contextual = obs.filter(like="contextual_").to_numpy()
        rows = obs.filter(like="table_").to_numpy()
    is_first = (obs["region"] == name).to_numpy()
    assert len(obs) == (found.num_cells > 0).sum()
    np.testing.assert_array_equal(
        np.asarray(obs["num_cells"])[is_first], found.num_cells[:, 0][found.num_cells[:, 0] > 0]
    )
    np.testing.assert_array_equal(contextual[is_first], found.contextual[found.num_cells[:, 0] > 0, 0])
    np.testing.assert_array_equal(rows[is_first], np.repeat(found.table[:1], is_first.sum(), axis=0))


def test_regions_that_are_closed_everywhere_are_refused(adata, trained_model, tokenizer):
    run = prepare_run(trained_model, tokenizer, show_progress=False)
    found, coverage = embed_regions(
        PeakTable(adata), run, CellGroups(["b"], np.where(np.arange(40) == 7, -1, 0)), np.array([4])
    )
    found.num_cells[:] = 0
    with pytest.raises(ValueError, match=r"none of the 1 regions, such as chr1:.* is open in any of the cells"):
        region_table(found, run, coverage)


def test_groups_of_a_column(adata, tmp_path):
    adata.obs["kind"] = pd.Categorical([None, *adata.obs["kind"][1:]])
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with open_peak_file(tmp_path / "cells.h5ad") as file:
        assert cell_groups(file, None).names == ["all"]
        every = cell_groups(file, "kind")
        assert (every.names, every.codes[:4].tolist()) == (["a", "b"], [-1, 1, 0, 1])
        one = cell_groups(file, "kind", ["b"])
        assert (one.names, one.codes[:4].tolist()) == (["b"], [-1, 0, -1, 0])
        with pytest.raises(ValueError, match=r"no column 'type' in obs, .* it has kind"):
            cell_groups(file, "type")
        with pytest.raises(ValueError, match=r"no cell .* has kind 'c': expected one of a, b"):
            cell_groups(file, "kind", ["c"])


def test_a_column_without_values_is_refused(adata, tmp_path):
    adata.obs["kind"] = np.nan
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with open_peak_file(tmp_path / "cells.h5ad") as file, pytest.raises(ValueError, match=r"no cell .* has a value"):
        cell_groups(file, "kind")


def test_named_regions_have_to_be_known(tokenizer):
    vocabulary = tokenizer.vocabulary
    chromosome, span = NAMES[0].split(":")
    start = int(span.split("-")[0])
    shifted = f"{chromosome}:{start + 100}-{start + 700}"
    expected = vocabulary.map([NAMES[0], NAMES[3]]).ids
    assert region_ids(f"{shifted}, {NAMES[3]},{NAMES[0]}", vocabulary).tolist() == sorted(expected.tolist())
    with pytest.raises(
        ValueError, match=r"1 of 2 regions overlap no peak of the model .*, such as chr1:9000000-9000100"
    ):
        region_ids(f"{shifted},chr1:9000000-9000100", vocabulary)
    with pytest.raises(ValueError, match="none of the 1 peaks overlaps"):
        region_ids("chr1:9000000-9000100", vocabulary)
    with pytest.raises(ValueError, match="cannot read 'chr1:x'"):
        region_ids("chr1:x", vocabulary)


def test_unknown_regions_of_a_file_are_left_out_with_a_warning(tokenizer, tmp_path):
    bed = tmp_path / "regions.bed"
    bed.write_text("chr1\t1000\t1500\tname\nchr1\t9000000\t9000100\n")
    with pytest.warns(UserWarning, match="1 of 2 regions overlap no peak"):
        assert len(region_ids(str(bed), tokenizer.vocabulary)) == 1
    with pytest.raises(FileNotFoundError, match=r"none\.bed"):
        region_ids(str(tmp_path / "none.bed"), tokenizer.vocabulary)


def test_a_file_of_another_genome_is_refused(tokenizer, tmp_path):
    bed = tmp_path / "mouse.bed"
    bed.write_text("chr1\t195000000\t195000100\nchrY\t91000000\t91744600\n")
    with pytest.raises(ValueError, match="mm10"):
        region_ids(str(bed), tokenizer.vocabulary)


def test_a_file_that_overlaps_by_chance_alone_is_refused(tmp_path):
    generator = np.random.default_rng(0)
    places = generator.permutation(20_000)[:4_000] * 1_000 + 100_000
    vocabulary = PeakVocabulary.from_names([f"chr1:{start}-{start + 400}" for start in places])
    bed = tmp_path / "other.bed"
    starts = generator.integers(100_000, 20_000_000, 2_000)
    bed.write_text("".join(f"chr1\t{start}\t{start + 300}\n" for start in starts))
    with pytest.raises(ValueError, match=r"seem to be of another genome than hg38 .*; lift them over to hg38"):
        region_ids(str(bed), vocabulary)
    bed.write_text("".join(f"chr1\t{start + 50}\t{start + 350}\n" for start in places))
    assert len(region_ids(str(bed), vocabulary)) == 4_000
