import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat, read_h5ad
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.matrices.matrix_joining import join_matrices


def part(names, columns, seed, **obs):
    counts = csr_matrix(np.random.default_rng(seed).integers(0, 3, (len(names), len(columns))).astype(np.int32))
    return AnnData(counts, pd.DataFrame(obs, index=names), pd.DataFrame(index=columns))


@pytest.fixture
def parts():
    return [
        part(["a1", "a2"], ["X", "Y", "Z"], 0, sample=pd.Categorical(["a", "a"]), depth=[1.0, 2.0], only_a=[1, 2]),
        part(["b1", "b2", "b3"], ["Z", "W", "X"], 1, sample=pd.Categorical(["b"] * 3), depth=[3.0, 4.0, 5.0]),
    ]


def test_the_rows_are_those_of_anndata(tmp_path, parts):
    paths = []
    for i, data in enumerate(parts):
        data.write_h5ad(tmp_path / f"{i}.h5ad")
        paths.append(tmp_path / f"{i}.h5ad")
    join_matrices(paths, tmp_path / "all.h5ad")
    found = read_h5ad(tmp_path / "all.h5ad")
    expected = concat(parts, join="outer", fill_value=0)
    assert found.obs_names.tolist() == expected.obs_names.tolist()
    assert found.var_names.tolist() == ["X", "Y", "Z", "W"]
    assert (found.X != expected[:, found.var_names].X).nnz == 0
    assert found.X.has_sorted_indices
    assert found.obs["sample"].cat.categories.tolist() == ["a", "b"]
    assert found.obs["depth"].tolist() == [1, 2, 3, 4, 5]
    assert "only_a" not in found.obs
