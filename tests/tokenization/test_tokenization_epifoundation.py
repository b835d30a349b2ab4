import copy
import functools
import json
import operator
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy import sparse
from transformers import DataCollatorWithPadding

from epifoundation.tokenization import Coverage, GeneVocabulary, PeakTokenizer, PeakVocabulary

OFFICIAL = Path(__file__).parents[1] / "reference" / "official_data"
# ids 4, 5, 6, 7
PEAKS = ["chr1:100-200", "chr1:500-600", "chr2:100-200", "chrX:100-200"]


@pytest.fixture(scope="module")
def tokenizer():
    genes = GeneVocabulary(["A", "B", "C"], ["", "", ""], ["chr2", "unknown", "chrX"])
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes)


def ids_of(encoding):
    return [ids.tolist() for ids in encoding["input_ids"]]


def test_a_cell_is_cls_and_its_open_peaks_in_rising_order(tokenizer):
    encoding = tokenizer([["chrX:100-200", "1_500_600"], ["2-100-200"]])
    assert ids_of(encoding) == [[2, 5, 7], [2, 6]]
    assert [ids.tolist() for ids in encoding["chromosome_ids"]] == [[2, 4, 6], [2, 5]]
    assert [mask.tolist() for mask in encoding["attention_mask"]] == [[1, 1, 1], [1, 1]]
    assert all(ids.dtype == np.int32 for column in encoding.values() for ids in column)
    assert list(encoding) == tokenizer.model_input_names


def test_every_kind_of_input_gives_the_same_tokens(tokenizer):
    values = np.array([[0, 2, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    names = [name.replace(":", "-") for name in reversed(PEAKS)]
    values = values[:, ::-1].copy()
    adata = anndata.AnnData(sparse.csr_matrix(values))
    adata.var_names = names
    other = SimpleNamespace(X=values[:, :1], var_names=["A"])
    expected = [[2, 5, 7], [2, 4], [2]]
    mapping = tokenizer.vocabulary.map(names)
    for cells, peaks in [
        (adata, None),
        (adata, mapping),
        (SimpleNamespace(X=sparse.csc_matrix(values), var_names=names), None),
        (SimpleNamespace(mod={"rna": other, "atac": adata}), None),
        (SimpleNamespace(mod={"rna": other, "peaks": adata}), None),
        (SimpleNamespace(mod={"x": adata}), None),
        (sparse.csr_matrix(values), names),
        (sparse.csr_array(values.astype(np.uint8)), mapping),
        (sparse.coo_matrix(values), mapping),
        (values, names),
        (values.astype(bool), mapping),
        (values.tolist(), mapping),
        ([["chr1:500-600", "chrX:100-200"], ["chr1:100-200"], []], None),
    ]:
        assert ids_of(tokenizer(cells, peaks)) == expected


def test_a_file_opened_in_backed_mode_gives_the_same_tokens(tokenizer, tmp_path):
    adata = anndata.AnnData(sparse.csr_matrix(np.eye(4, dtype=np.float32)))
    adata.var_names = PEAKS
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert ids_of(tokenizer(backed)) == ids_of(tokenizer(adata)) == [[2, 4], [2, 5], [2, 6], [2, 7]]
    backed.file.close()


def test_peaks_go_where_they_overlap_most_and_count_once(tokenizer):
    assert ids_of(tokenizer([["chr1:150-260", "chr1:190-210", "chr1:590-900"]])) == [[2, 4, 5]]


def test_peaks_outside_the_vocabulary_are_dropped_and_counted(tokenizer):
    encoding = tokenizer(
        [["chr1:100-200", "chr7:1-2"], ["chr7:1-2"], ["chr2:100-200", "chr1:500-600"], []], check=False
    )
    assert ids_of(encoding) == [[2, 4], [2], [2, 5, 6], [2]]
    coverage = tokenizer.coverage
    assert (coverage.num_peaks, coverage.num_matched_peaks, coverage.peaks_share) == (4, 3, 0.75)
    assert (coverage.num_entries, coverage.num_matched_entries, coverage.entries_share) == (5, 3, 0.6)
    np.testing.assert_array_equal(coverage.cells_share, [0.5, 0, 1, np.nan])
    assert (coverage.num_cells, coverage.num_empty_cells, coverage.num_truncated_cells) == (4, 2, 0)


def test_explicit_zeros_are_closed_and_the_matrix_is_left_as_it_was(tokenizer):
    matrix = sparse.csr_matrix((np.array([0, 3, 0, 1]), np.array([3, 0, 1, 2]), np.array([0, 2, 4])), shape=(2, 4))
    before = copy.deepcopy(matrix)
    assert ids_of(tokenizer(matrix, PEAKS)) == [[2, 4], [2, 6]]
    assert tokenizer.coverage.num_entries == 2
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(matrix, name), getattr(before, name))


matrices = st.lists(st.lists(st.integers(0, 11), max_size=14), max_size=7)


@given(matrices, st.permutations(range(12)), st.integers(1, 13))
def test_any_matrix_gives_what_sets_of_peaks_give(rows, order, max_peaks):
    # user peaks 0-7 fall in pairs on the four peaks of the vocabulary, 8-11 on none; columns may repeat in a
    # row
    names = [f"chr{1 + i // 2}:{10 * (i % 2)}-{10 * (i % 2) + 10}" for i in range(12)]
    token_of = {names[i]: 4 + i // 2 for i in range(8)}
    tokenizer = PeakTokenizer(PeakVocabulary.from_names([f"chr{c}:0-20" for c in range(1, 5)]), max_peaks=max_peaks)
    shuffled = [names[i] for i in order]
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in row], dtype=np.int32)
    # a third of the entries are explicit zeros
    data = np.arange(len(indices)) % 3
    matrix = sparse.csr_matrix((data, indices, indptr), shape=(len(rows), 12))
    encoding = tokenizer(matrix, shuffled, check=False)
    for cell, ids in enumerate(encoding["input_ids"]):
        entries = range(indptr[cell], indptr[cell + 1])
        opened = {shuffled[indices[entry]] for entry in entries if data[entry] > 0}
        expected = sorted({token_of[name] for name in opened if name in token_of})
        assert ids[0] == 2
        assert len(ids) == 1 + min(len(expected), max_peaks)
        assert set(ids[1:].tolist()) <= set(expected)
        assert ids[1:].tolist() == sorted(ids[1:].tolist())
    assert tokenizer.coverage.num_entries == (data > 0).sum()


@pytest.fixture(scope="module")
def long_tokenizer():
    names = [f"chr{1 + i % 5}:{100 * i}-{100 * i + 50}" for i in range(200)]
    return PeakTokenizer(PeakVocabulary.from_names(names), max_peaks=40)


def test_what_is_kept_of_a_long_cell_depends_on_the_cell_alone(long_tokenizer):
    names = long_tokenizer.vocabulary.names()
    alone = ids_of(long_tokenizer([names[:150]]))[0]
    beside = ids_of(long_tokenizer([names[:10], list(reversed(names[:150])), names[20:]]))
    assert beside[1] == alone
    assert len(alone) == 41
    assert alone == sorted(alone)
    assert long_tokenizer.coverage.num_truncated_cells == 2
    assert beside[0] == [2, *range(4, 14)]


def test_what_is_kept_is_spread_over_the_genome_and_differs_between_cells(long_tokenizer):
    names = long_tokenizer.vocabulary.names()
    first, second = (np.array(ids[1:]) for ids in ids_of(long_tokenizer([names, names[1:]])))
    # 40 of 200 at random hold 10 of each half in expectation 20, standard deviation 2.8
    assert 8 < (first < 104).sum() < 32
    assert set(first) != set(second)


def splitmix64(value):
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_the_choice_is_that_of_whole_numbers_on_any_machine(long_tokenizer):
    # what is kept decides the embeddings that users store: it may not drift with numpy or the processor
    ids = range(4, 154)
    seed = functools.reduce(operator.xor, map(splitmix64, ids))
    expected = sorted(sorted(ids, key=lambda i: splitmix64(i ^ seed))[:40])
    assert ids_of(long_tokenizer([long_tokenizer.vocabulary.names(range(150))])) == [[2, *expected]]


def test_the_hash_is_splitmix64():
    # the first outputs of the generator of Steele, Lea and Flood seeded with 0 and 1234567
    assert [splitmix64(0), splitmix64(1234567)] == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_a_generator_draws_anew_and_can_be_repeated(long_tokenizer):
    cells = [long_tokenizer.vocabulary.names()]
    draws = np.random.default_rng(1)
    first, second = (ids_of(long_tokenizer(cells, generator=draws)) for _ in range(2))
    again = ids_of(long_tokenizer(cells, generator=np.random.default_rng(1)))
    assert first != second
    assert first == again
    assert len(set(first[0])) == 41


@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix])
@pytest.mark.parametrize(("value", "message"), [(-1.0, "1 of . values are negative and 0"), (np.nan, "and 1 are NaN")])
def test_values_that_are_no_counts_are_refused(tokenizer, make, value, message):
    matrix = make(np.array([[1.0, value, 0, 2]]))
    with pytest.raises(ValueError, match=message + r".*pass the raw counts"):
        tokenizer(matrix, PEAKS)


def test_infinite_values_are_refused(tokenizer):
    with pytest.raises(ValueError, match="1 are NaN or infinite"):
        tokenizer(np.array([[1.0, np.inf, 0, 2]]), PEAKS)


def test_inputs_that_cannot_be_meant_are_refused(tokenizer):
    one = np.ones((1, 4))
    for error, message, cells, peaks in [
        (ValueError, "a ndarray without the names of its columns: pass peaks=", one, None),
        (ValueError, "the matrix has 3 columns for 4 peaks", one[:, :3], PEAKS),
        (ValueError, r"expected a matrix \(cells, peaks\), got the shape \(4,\)", one[0], PEAKS),
        (TypeError, "expected numbers, got values of type <U1", np.array([["a"] * 4]), PEAKS),
        (TypeError, "one list of peak names per cell", PEAKS, None),
        (
            ValueError,
            "which modality holds the peaks: .* got 'a', 'b'",
            SimpleNamespace(mod={"a": 1, "b": 2}),
            None,
        ),
        (ValueError, "has no X", SimpleNamespace(X=None, var_names=PEAKS), None),
        (ValueError, "cannot read 'TP53'", SimpleNamespace(X=one, var_names=[*PEAKS[:3], "TP53"]), None),
    ]:
        with pytest.raises(error, match=message):
            tokenizer(cells, peaks)


def test_a_mapping_of_another_vocabulary_is_refused(tokenizer):
    mapping = PeakVocabulary.from_names([*PEAKS[:3], "chr3:1-2"]).map(PEAKS)
    with pytest.raises(ValueError, match="belongs to another vocabulary"):
        tokenizer(np.ones((1, 4)), mapping)


def test_no_known_peak_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="none of the 1 peaks overlaps"):
        tokenizer([["chr7:1-2"]])
    assert ids_of(tokenizer([["chr7:1-2"]], check=False)) == [[2]]


def test_low_coverage_of_the_cells_warns_once(tokenizer):
    cells = [["chr1:100-200", "chr7:1-2"], ["chr7:1-2", "chr7:1-2"]]
    with pytest.warns(UserWarning, match="less than half of the open peaks") as caught:
        tokenizer(cells)
    assert len(caught) == 1
    assert tokenizer.coverage.num_matched_entries == 1


def test_no_cells_and_empty_cells_are_fine(tokenizer):
    assert ids_of(tokenizer([])) == []
    assert ids_of(tokenizer([[], []])) == [[2], [2]]
    assert ids_of(tokenizer(np.zeros((2, 4)), PEAKS)) == [[2], [2]]
    assert ids_of(tokenizer(sparse.csr_matrix((0, 4)), PEAKS)) == []
    assert tokenizer.coverage.num_cells == 0


def test_the_coverage_of_blocks_adds_up_to_that_of_the_whole(tokenizer):
    matrix = sparse.random(30, 8, density=0.4, format="csr", random_state=0)
    names = [*PEAKS, "chr7:1-2", "chr7:3-4", "chr1:120-130", "chr9:1-2"]
    mapping = tokenizer.vocabulary.map(names)
    parts = []
    for begin in range(0, 30, 10):
        tokenizer(matrix[begin : begin + 10], mapping)
        parts.append(tokenizer.coverage)
    tokenizer(matrix, names)
    total = sum(parts)
    assert isinstance(total, Coverage)
    assert total.summary() == tokenizer.coverage.summary()
    assert (total.num_peaks, total.num_matched_peaks) == (8, 5)
    np.testing.assert_array_equal(total.cells_share, tokenizer.coverage.cells_share)


def test_the_summary_of_coverage_is_one_paragraph_of_numbers(tokenizer):
    tokenizer([["chr1:100-200", "chr7:1-2"], []])
    assert tokenizer.coverage.summary() == (
        "1 of 2 peaks (50.0 %) and 1 of 2 open peaks counted over cells (50.0 %) overlap a peak of the "
        "vocabulary. In the median cell the share is 50.0 % (5 % to 95 % of cells: 50.0 % to 50.0 %). Of 2 "
        "cells 1 have no open peak of the vocabulary, and 0 have more peaks than the tokenizer keeps."
    )
    tokenizer([[]])
    assert "no value" in tokenizer.coverage.summary()


def test_there_is_no_coverage_before_the_first_call(tokenizer):
    with pytest.raises(ValueError, match="no coverage yet"):
        _ = PeakTokenizer(tokenizer.vocabulary).coverage


# what the official loader yields


def test_cells_that_are_not_sampled_equal_those_of_the_official_loader():
    tokenizer = PeakTokenizer(PeakVocabulary.from_official(OFFICIAL))
    adata = anndata.read_h5ad(OFFICIAL / "atac.h5ad")
    official = load_file(OFFICIAL / "items_sampled.safetensors")
    encoding = tokenizer(adata)
    length = json.loads((OFFICIAL / "data_config.json").read_text())["atac_max_len"]
    is_complete = official["n_nonzero_peaks"] + 1 <= length
    assert is_complete.sum() >= 3
    num_missing = 0
    for cell in np.flatnonzero(is_complete):
        theirs, chromosomes = official["atac_ids"][cell], official["atac_chrs"][cell]
        real = theirs != 0
        found = dict(zip(encoding["input_ids"][cell].tolist(), encoding["chromosome_ids"][cell].tolist(), strict=True))
        assert found == dict(zip(theirs[real].tolist(), chromosomes[real].tolist(), strict=True))
        missing = official["n_nonzero_peaks"][cell] + 1 - real.sum()
        assert tokenizer.coverage.cells_share[cell] == pytest.approx(1 - missing / official["n_nonzero_peaks"][cell])
        num_missing += missing
    assert num_missing > 0
    assert tokenizer.coverage.num_peaks - tokenizer.coverage.num_matched_peaks == 12


def test_peaks_the_official_loader_samples_are_among_ours():
    tokenizer = PeakTokenizer(PeakVocabulary.from_official(OFFICIAL))
    encoding = tokenizer(anndata.read_h5ad(OFFICIAL / "atac.h5ad"))
    official = load_file(OFFICIAL / "items_sampled.safetensors")["atac_ids"]
    for ours, theirs in zip(encoding["input_ids"], official, strict=True):
        assert set(theirs[theirs != 0]) <= set(ours)


# padding


def test_padding_fills_with_zeros_on_the_right(tokenizer):
    batch = tokenizer([["chr1:100-200", "chrX:100-200"], []], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[2, 4, 7], [2, 0, 0]]
    assert batch["chromosome_ids"].tolist() == [[2, 4, 6], [2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_asking_for_tensors_pads(tokenizer):
    assert tokenizer([["chr1:100-200"], []], return_tensors="np")["input_ids"].shape == (2, 2)


def test_padding_keeps_other_keys_and_derives_what_is_missing(tokenizer):
    rows = [
        {"input_ids": [2, 5, 7], "labels": 1, "x": [0.5, 1]},
        {"input_ids": np.array([2]), "labels": 0, "x": [2, 3]},
    ]
    batch = tokenizer.pad(rows, return_tensors="pt", pad_to_multiple_of=8)
    assert batch["input_ids"].shape == (2, 8)
    assert batch["chromosome_ids"][:, :4].tolist() == [[2, 4, 6, 0], [2, 0, 0, 0]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 1]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["x"].tolist() == [[0.5, 1], [2, 3]]


def test_padding_without_tensors_gives_one_array_per_cell(tokenizer):
    batch = tokenizer.pad({"input_ids": [[2, 4], [2]], "labels": ["a", "b"]})
    assert [row.tolist() for row in batch["input_ids"]] == [[2, 4], [2, 0]]
    assert batch["labels"] == ["a", "b"]


def test_padding_to_a_fixed_length(tokenizer):
    rows = {"input_ids": [[2, 4], [2]]}
    assert tokenizer.pad(rows, padding="max_length", max_length=5, return_tensors="np")["input_ids"].shape == (2, 5)
    small = PeakTokenizer(tokenizer.vocabulary, max_peaks=3)
    batch = small.pad(rows, padding="max_length", return_tensors="np", return_attention_mask=False)
    assert batch["input_ids"].shape == (2, 4)
    assert "attention_mask" not in batch


def test_the_collator_of_transformers_pads_with_it(tokenizer):
    encoding = tokenizer([["chr1:100-200", "chrX:100-200"], []])
    rows = [{key: encoding[key][i] for key in encoding} | {"label": i} for i in range(2)]
    batch = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=4)(rows)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "input_ids": (2, 4),
        "chromosome_ids": (2, 4),
        "attention_mask": (2, 4),
        "labels": (2,),
    }


def test_padding_refuses_what_it_cannot_stack(tokenizer):
    short = {"input_ids": [[2, 4], [2]]}
    for message, features, options in [
        ("without padding: pass padding=True", short, {"padding": False}),
        ("2 tokens does not fit max_length=1", short, {"padding": "max_length", "max_length": 1}),
        ("padding must be True", short, {"padding": "left"}),
        ("padding_side must be 'right'", short, {"padding_side": "left"}),
        ("1 input_ids but 2 chromosome_ids", {"input_ids": [[2]], "chromosome_ids": [[2, 2]]}, {}),
        ("'y' has a different number of values", short | {"y": [[1], [1, 2]]}, {"return_tensors": "np"}),
        ("some cells lack labels", [{"input_ids": [2], "labels": 1}, {"input_ids": [2]}], {}),
        ("expected tokenised cells with 'input_ids', got the keys ids", {"ids": [[2]]}, {}),
        ("put a single one in a list", {"input_ids": [2, 4]}, {}),
        ("no cells to pad", [], {}),
    ]:
        with pytest.raises(ValueError, match=message):
            tokenizer.pad(features, **options)


# names, ids and files


def test_tokens_and_ids_convert_both_ways(tokenizer):
    assert tokenizer.convert_tokens_to_ids("X-100-200") == 7
    assert tokenizer.convert_tokens_to_ids(["[CLS]", "chr1_100_200", "[PAD]"]) == [2, 4, 0]
    assert tokenizer.convert_ids_to_tokens(5) == "chr1:500-600"
    assert tokenizer.convert_ids_to_tokens([2, 7, 0]) == ["[CLS]", "chrX:100-200", "[PAD]"]
    assert tokenizer.convert_ids_to_tokens(torch.tensor([2, 7, 0]), skip_special_tokens=True) == ["chrX:100-200"]
    assert tokenizer.decode([2, 4]) == "[CLS] chr1:100-200"


def test_unknown_tokens_and_ids_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"coordinates of 'chr1:100-201', and there is no unknown token"):
        tokenizer.convert_tokens_to_ids(["chr1:100-200", "chr1:100-201"])
    with pytest.raises(ValueError, match="ids must lie between 0 and 7"):
        tokenizer.convert_ids_to_tokens([8])


def test_special_tokens_have_the_official_ids(tokenizer):
    assert (
        tokenizer.pad_token_id,
        tokenizer.mask_token_id,
        tokenizer.cls_token_id,
        tokenizer.eos_token_id,
    ) == (0, 1, 2, 3)
    assert tokenizer.unk_token_id is None
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3]
    assert len(tokenizer) == tokenizer.vocab_size == 8
    vocabulary = tokenizer.get_vocab()
    assert vocabulary["chr2:100-200"] == 6
    assert sorted(vocabulary.values()) == list(range(8))


def test_chromosome_ids_are_indexed_by_peak_and_gene_id(tokenizer):
    assert tokenizer.peak_chromosome_ids.tolist() == [0, 0, 2, 0, 4, 4, 5, 6]
    assert tokenizer.gene_chromosome_ids.tolist() == [0, 0, 0, 0, 5, 0, 6]
    assert tokenizer.peak_chromosome_ids.dtype == tokenizer.gene_chromosome_ids.dtype == np.int32
    assert PeakTokenizer(tokenizer.vocabulary).gene_chromosome_ids is None


def test_tokens_cannot_be_added_and_texts_cannot_be_read(tokenizer):
    with pytest.raises(ValueError, match="the peaks of a vocabulary are fixed"):
        tokenizer.add_tokens(["chr9:1-2"])
    with pytest.raises(TypeError, match="a cell is a set of peaks, not a text"):
        tokenizer.encode("chr1:100-200")


def test_constructing_without_peaks_or_with_a_bad_limit_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="needs a vocabulary"):
        PeakTokenizer()
    for max_peaks in (0, -1, 2.5, True, "10"):
        with pytest.raises(ValueError, match="max_peaks must be a whole number of at least 1"):
            PeakTokenizer(tokenizer.vocabulary, max_peaks=max_peaks)
    with pytest.raises(ValueError, match="padding_side must be 'right'"):
        PeakTokenizer(tokenizer.vocabulary, padding_side="left")


def test_pickle_and_deepcopy_tokenise_alike(tokenizer):
    cells = [["chr1:100-200", "chrX:100-200"]]
    for twin in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert ids_of(twin(cells)) == ids_of(tokenizer(cells))
        assert twin.genes == tokenizer.genes
        assert twin.cls_token_id == 2


def test_saving_and_loading_keeps_everything(tokenizer, tmp_path):
    PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=3).save_pretrained(tmp_path)
    loaded = PeakTokenizer.from_pretrained(tmp_path)
    assert (loaded.vocabulary, loaded.genes) == (tokenizer.vocabulary, tokenizer.genes)
    assert (loaded.max_peaks, loaded.model_max_length) == (3, 4)
    assert PeakTokenizer.from_pretrained(tmp_path, max_peaks=2).max_peaks == 2
    config = (tmp_path / "tokenizer_config.json").read_text()
    loaded.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer_config.json").read_text() == config
    assert str(tmp_path) not in config


def test_a_tokenizer_without_genes_leaves_none_behind(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    PeakTokenizer(tokenizer.vocabulary).save_pretrained(tmp_path)
    assert PeakTokenizer.from_pretrained(tmp_path).genes is None


def test_loading_a_folder_without_peaks_says_so(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "peaks.npz").unlink()
    with pytest.raises(ValueError, match=r"load a folder that holds peaks\.npz"):
        PeakTokenizer.from_pretrained(tmp_path)


ELSEWHERE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "epifoundation":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
assert not any(name.partition(".")[0] == "epifoundation" for name in sys.modules)
tokenizer.save_pretrained(sys.argv[2])
cells = [["1-100-200", "chrX:150-260"], []]
print(json.dumps([ids.tolist() for ids in tokenizer(cells)["input_ids"]]))
print(tokenizer.genes.symbols, tokenizer.max_peaks)
"""


def test_a_saved_folder_opens_where_the_package_is_not_installed(tokenizer, tmp_path):
    saved, again, elsewhere = tmp_path / "saved", tmp_path / "again", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tokenizer.save_pretrained(saved)
    config = json.loads((saved / "tokenizer_config.json").read_text())
    assert config["auto_map"]["AutoTokenizer"][0] == "tokenization_epifoundation.PeakTokenizer"
    for folder in (saved, again):  # what was loaded that way can be saved and loaded again
        run = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(folder), str(again)],
            cwd=elsewhere,
            env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines() == ["[[2, 4, 7], [2]]", "('A', 'B', 'C') 12000"]
    assert {path.name for path in again.iterdir()} == {path.name for path in saved.iterdir()}
