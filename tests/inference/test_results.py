import anndata
import numpy as np
import pandas as pd
import pytest

from epifoundation.dataset_builders import open_peak_file
from epifoundation.inference.results import CellResults, add_to_anndata, output_for, write_results


@pytest.fixture
def results():
    types = pd.Series(pd.Categorical(["b", None] * 20, categories=["a", "b"]))
    numbers = np.arange(80, dtype=np.float32).reshape(40, 2)
    return CellResults("mine", {"share": 0.5}, {"type": types, "count": pd.Series(range(40))}, {"X_mine": numbers}, {})


def test_a_copy_of_the_file_holds_what_memory_holds(adata, peaks_file, results, tmp_path):
    output = tmp_path / "out.h5ad"
    with open_peak_file(peaks_file) as source, output_for(source, output, False) as partial:
        write_results(source, output, partial, results)
    add_to_anndata(adata, results)
    read = anndata.read_h5ad(output)
    assert list(read.obs) == ["kind", "type", "count"]
    assert list(read.obs["type"].cat.categories) == ["a", "b"]
    np.testing.assert_array_equal(read.obs["type"].cat.codes, adata.obs["type"].cat.codes)
    np.testing.assert_array_equal(read.obsm["X_mine"], adata.obsm["X_mine"])
    assert read.uns["mine"] == {"share": 0.5}
    assert list(read.obs_names) == list(adata.obs_names)


def test_arrays_without_names_for_their_columns_stay_out_of_tables(peaks_file, results, tmp_path):
    output = tmp_path / "out.parquet"
    with open_peak_file(peaks_file) as source, output_for(source, output, False) as partial:
        write_results(source, output, partial, results)
    table = pd.read_parquet(output)
    assert list(table) == ["cell", "type", "count"]
    assert table["type"].tolist()[:2] == ["b", None]
