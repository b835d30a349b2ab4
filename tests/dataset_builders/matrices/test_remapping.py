import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.matrices.remapping import UNS_KEY, remap_file, remap_matrix, remap_peaks
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary, parse_peak

OWN = ["chr1:100-200", "chr1:150-320", "chr1:900-950", "chr2:10-60", "chr3:5-9"]
TARGET = PeakVocabulary.from_names(["chr1:110-210", "chr1:300-400", "chr1:210-280", "chr2:0-20", "chr2:40-100"])


@pytest.fixture
def adata():
    counts = csr_matrix(np.array([[1, 2, 3, 4, 5], [0, 0, 250, 250, 0], [0, 0, 7, 0, 9], [200, 0, 0, 0, 0]], np.uint8))
    obs = pd.DataFrame({"type": ["a", "b", "c", "d"]}, index=list("wxyz"))
    return AnnData(counts, obs, pd.DataFrame(index=OWN), obsm={"X_lsi": np.ones((4, 2))})


def brute_force(counts, own, target):
    """Every pair of peaks looked at; the largest overlap wins, then the more alike, then the first."""
    remapped = np.zeros((counts.shape[0], len(target)), dtype=int)
    for column, name in enumerate(own):
        peak, scores = parse_peak(name), []
        for i in range(len(target)):
            other = target.peak(i)
            overlap = min(peak.end, other.end) - max(peak.start, other.start)
            if peak.chromosome == other.chromosome and overlap > 0:
                longer = max(peak.end - peak.start, other.end - other.start)
                scores.append((overlap, -longer, -i))
        if scores:
            remapped[:, -max(scores)[2]] += counts[:, column]
    return remapped


peak = st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 60), st.integers(1, 30)).map(
    lambda p: f"{p[0]}:{p[1]}-{p[1] + p[2]}"
)
peaks = st.lists(peak, min_size=1, max_size=8, unique=True)


@given(own=peaks, target=peaks, seed=st.integers(0, 99))
def test_counts_go_to_the_peak_with_the_largest_overlap(own, target, seed):
    counts = np.random.default_rng(seed).integers(0, 3, (3, len(own)))
    vocabulary = PeakVocabulary.from_names(target, "made up")
    mapping = vocabulary.map(own, check=False)
    expected = brute_force(counts, own, vocabulary)
    summed = remap_matrix(csr_matrix(counts), mapping, len(vocabulary))
    assert summed.toarray().tolist() == expected.tolist()
    assert summed.has_sorted_indices
    binary = remap_matrix(csr_matrix(counts), mapping, len(vocabulary), "binary")
    assert binary.toarray().tolist() == (expected > 0).tolist()


def test_an_anndata_keeps_its_cells(adata):
    before = adata.copy()
    remapped = remap_peaks(adata, TARGET)
    assert remapped.var_names.tolist() == TARGET.names()
    assert remapped.obs.equals(adata.obs)
    assert remapped.obsm["X_lsi"].shape == (4, 2)
    assert remapped.X.toarray().tolist() == brute_force(adata.X.toarray().astype(int), OWN, TARGET).tolist()
    record = remapped.uns[UNS_KEY]
    assert (record["num_peaks"], record["num_matched_peaks"]) == (5, 3)
    assert (record["num_entries"], record["num_matched_entries"], record["num_empty_cells"]) == (10, 5, 1)
    assert (adata.X != before.X).nnz == 0


def test_sums_do_not_wrap_round_in_a_small_type(adata):
    counts = csr_matrix(np.array([[250, 250], [3, 0]], np.uint8))
    own = AnnData(counts, var=pd.DataFrame(index=["chr1:0-10", "chr1:20-30"]))
    remapped = remap_peaks(own, PeakVocabulary.from_names(["chr1:0-1000"]))
    assert remapped.X.toarray().ravel().tolist() == [500, 3]
    assert remapped.X.dtype == np.int32


def test_few_matching_peaks_are_a_warning(adata):
    with pytest.warns(UserWarning, match="only 2 of 5 peaks"):
        remap_peaks(adata, PeakVocabulary.from_names(["chr1:0-160"]))


@pytest.mark.parametrize("counting", ["sum", "binary"])
def test_a_file_gives_what_memory_gives(tmp_path, adata, counting):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with mudata.set_options(pull_on_update=False):
        multiome = mudata.MuData({"atac": adata, "rna": AnnData(np.ones((4, 1)), adata.obs)})
        multiome.write_h5mu(tmp_path / "m.h5mu")
    expected = remap_peaks(adata, TARGET, counting)
    for name in ("a.h5ad", "m.h5mu"):
        coverage = remap_file(tmp_path / name, TARGET, tmp_path / "out.h5ad", counting=counting)
        found = read_h5ad(tmp_path / "out.h5ad")
        assert (found.X != expected.X).nnz == 0
        assert found.obs["type"].tolist() == adata.obs["type"].tolist()
        assert found.uns[UNS_KEY] == expected.uns[UNS_KEY]
        assert coverage.num_matched_entries == 5


def test_the_tokenizer_sees_the_same_open_peaks(adata):
    own = PeakTokenizer(TARGET)(adata, check=False)["input_ids"]
    remapped = PeakTokenizer(TARGET)(remap_peaks(adata, TARGET))["input_ids"]
    assert [ids.tolist() for ids in own] == [ids.tolist() for ids in remapped]


def test_peaks_of_another_genome_are_refused(adata):
    with pytest.raises(ValueError, match="none of the 5 peaks overlaps a peak of the vocabulary"):
        remap_peaks(adata, PeakVocabulary.from_names(["chr9:1-5"]))


def test_an_unknown_rule_is_refused(adata):
    with pytest.raises(ValueError, match="counting must be one of 'sum', 'binary', got 'mean'"):
        remap_matrix(csr_matrix(adata.X), TARGET.map(OWN), len(TARGET), "mean")
