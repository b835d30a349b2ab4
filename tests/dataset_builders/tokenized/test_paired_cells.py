import gc
import itertools
import logging
import os
import pickle
import tracemalloc
from pathlib import Path

import mudata
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from datasets import concatenate_datasets

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders import PairedCells, load_cells
from epifoundation.dataset_builders.tokenized.paired_cells import count_matrix, match_cells, paired_cells, peak_matrix
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

PEAKS = ["chr1:100-200", "chr1:300-400", "chr2:100-200"]
GENES = ["A", "B", "C", "D"]
KEYS = {"cell_type_key": "annot", "batch_key": "batch"}  # of the cells of conftest.py
# `datasets` forks its processes, of which newer Pythons warn where threads run.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def peaks_of(barcodes: list[str], values: list[list[int]]) -> AnnData:
    adata = AnnData(sp.csr_matrix(np.array(values, dtype=np.float32)))
    adata.obs_names, adata.var_names = barcodes, PEAKS
    adata.obs["type"] = [f"type_{b}" for b in barcodes]
    return adata


def genes_of(barcodes: list[str], values: list[list[int]]) -> AnnData:
    adata = AnnData(sp.csr_matrix(np.array(values, dtype=np.float32)))
    adata.obs_names, adata.var_names = barcodes, GENES
    return adata


@pytest.fixture
def small_tokenizer() -> PeakTokenizer:
    # D is not in the vocabulary, and C comes before A and B.
    genes = GeneVocabulary(["C", "A", "B"], ["", "", ""], ["chr1", "unknown", "chr2"])
    return PeakTokenizer(PeakVocabulary.from_names(PEAKS), genes)


ATAC = peaks_of(["x", "y", "z"], [[1, 0, 2], [0, 1, 0], [1, 1, 1]])
RNA = genes_of(["z", "w", "x", "y"], [[5, 0, 1, 9], [1, 1, 1, 1], [0, 2, 0, 0], [0, 0, 0, 4]])


def test_cells_are_matched_by_barcode(small_tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, small_tokenizer)
    assert cells["barcode"][:] == ["x", "y", "z"]
    assert cells["input_ids"][:] == [[2, 4, 6], [2, 5], [2, 4, 5, 6]]
    assert [sorted(zip(*pair, strict=True)) for pair in zip(cells["gene_ids"], cells["gene_counts"], strict=True)] == [
        [(6, 2.0)],
        [],
        [(4, 1.0), (5, 5.0)],
    ]


def test_what_does_not_match_is_counted(small_tokenizer: PeakTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        paired_cells(ATAC, RNA, small_tokenizer)
    assert "3 of 3 ATAC and 4 RNA cells are in both" in caplog.text


def test_matrices_come_back_from_the_rows(small_tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, small_tokenizer)
    np.testing.assert_array_equal(peak_matrix(cells, 7).toarray()[:, 4:], ATAC.X.toarray() > 0)
    expected = RNA[["x", "y", "z"], ["C", "A", "B"]].X.toarray()
    np.testing.assert_array_equal(count_matrix(cells, 7).toarray()[:, 4:], expected)


def test_matrices_of_selected_rows_follow_the_selection(small_tokenizer: PeakTokenizer) -> None:
    cells = paired_cells(ATAC, RNA, small_tokenizer).select([2, 0])
    np.testing.assert_array_equal(peak_matrix(cells, 7).toarray()[:, 4:], (ATAC.X.toarray() > 0)[[2, 0]])


def test_labels_become_classes_and_missing_ones_minus_one(small_tokenizer: PeakTokenizer) -> None:
    atac = ATAC.copy()
    atac.obs["type"] = ["b", None, "a"]
    cells = paired_cells(atac, RNA, small_tokenizer, cell_type_key="type")
    assert cells.features["cell_type"].names == ["a", "b"]
    assert cells["cell_type"][:] == [1, -1, 0]


def test_no_cell_is_cut_to_the_maximum_of_peaks(small_tokenizer: PeakTokenizer) -> None:
    small = PeakTokenizer(small_tokenizer.vocabulary, small_tokenizer.genes, max_peaks=1)
    assert paired_cells(ATAC, RNA, small)["input_ids"][2] == [2, 4, 5, 6]
    assert small.max_peaks == 1


def test_no_shared_barcode_shows_both_kinds() -> None:
    with pytest.raises(ValueError, match=r"no barcode is in both.*'x'.*'cell-1'"):
        match_cells(ATAC, genes_of(["cell-1"], [[1, 0, 0, 0]]))


def test_repeated_barcodes_are_refused() -> None:
    twice = genes_of(["x", "x"], [[1, 0, 0, 0], [1, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"barcodes of the RNA data repeat, for example \['x'\]"):
        match_cells(ATAC, twice)


def test_genes_are_needed(small_tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match="tokenizer holds no genes"):
        paired_cells(ATAC, RNA, PeakTokenizer(small_tokenizer.vocabulary))


def test_unknown_genes_are_refused(small_tokenizer: PeakTokenizer) -> None:
    rna = RNA.copy()
    rna.var_names = ["P", "Q", "R", "S"]
    with pytest.raises(ValueError, match=r"none of the 4 genes of the RNA data, such as \['P', 'Q', 'R'\]"):
        paired_cells(ATAC, rna, small_tokenizer)


def test_a_wrong_key_names_the_columns(small_tokenizer: PeakTokenizer) -> None:
    with pytest.raises(ValueError, match=r"obs has no column 'annot'; it has \['type'\]"):
        paired_cells(ATAC, RNA, small_tokenizer, cell_type_key="annot")


# ---- the builder, on files


def in_memory(multiome, tokenizer, **options):
    return paired_cells(*multiome, tokenizer, **(KEYS | options)).to_list()


def prepared(paths, tokenizer, cache_dir, num_proc=None, **options):
    builder = PairedCells(*paths, tokenizer=tokenizer, cache_dir=cache_dir, **(KEYS | options))
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset("train")


def changed(rna: AnnData) -> AnnData:
    counts = rna.X.copy()
    counts.data[0] += 1
    return AnnData(counts, rna.obs, rna.var)


STORED_AS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


@pytest.mark.parametrize("kind", STORED_AS)
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_files_give_the_rows_of_memory(multiome, tokenizer, write, tmp_path, kind, is_shuffled):
    atac, rna = multiome
    order = np.random.default_rng(1).permutation(60) if is_shuffled else np.arange(60)
    stored = [AnnData(STORED_AS[kind](data.X.toarray()), data.obs, data.var) for data in (atac, rna[order])]
    paths = write(*stored)
    cells = prepared(paths, tokenizer, tmp_path / "cache", max_entries_per_block=150)
    assert cells.to_list() == in_memory(multiome, tokenizer)
    assert cells.features == paired_cells(atac, rna, tokenizer, **KEYS).features
    assert not list((tmp_path / "cache").rglob("copies"))
    builder = PairedCells(*paths, tokenizer=tokenizer, cache_dir=tmp_path / "other", **KEYS)
    assert list(builder.as_streaming_dataset("train")) == cells.to_list()


@FORKS
def test_two_processes_give_the_same_rows(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome
    cells = prepared(write(atac, rna[::-1]), tokenizer, tmp_path / "cache", num_proc=2)
    assert cells.to_list() == in_memory(multiome, tokenizer)


@FORKS
def test_an_error_in_another_process_says_what_to_do(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome
    paths = write(atac, AnnData(rna.X.log1p(), rna.obs, rna.var))
    with pytest.raises(ValueError, match="the RNA data holds values that are not whole numbers"):
        prepared(paths, tokenizer, tmp_path / "cache", num_proc=2)


def test_cells_without_a_partner_are_left_out_and_reported(multiome, tokenizer, write, tmp_path, caplog):
    atac, rna = multiome
    shuffled = rna[np.random.default_rng(1).permutation(60)[:40]]
    with caplog.at_level(logging.WARNING, logger="epifoundation"):
        builder = PairedCells(*write(atac[10:], shuffled), tokenizer=tokenizer, cache_dir=tmp_path, **KEYS)
    expected = [name for name in atac.obs_names[10:] if name in set(shuffled.obs_names)]
    builder.download_and_prepare()
    cells = builder.as_dataset("train")
    assert cells["barcode"][:] == expected
    assert builder.report.num_cells == len(expected)
    assert (builder.report.num_atac_cells, builder.report.num_rna_cells) == (50, 40)
    assert not builder.report.is_same_order
    assert f"{len(expected)} of 50 ATAC and 40 RNA cells are in both" in caplog.text
    assert cells.info.description == builder.report.summary()
    rows = {row["barcode"]: row for row in in_memory(multiome, tokenizer)}
    assert cells.to_list() == [rows[name] for name in expected]


def test_peaks_alone_make_a_data_set(multiome, tokenizer, write, tmp_path):
    atac_path, _ = write(*multiome)
    bare = PeakTokenizer(tokenizer.vocabulary)
    cells = prepared([atac_path], bare, tmp_path / "cache")
    assert cells.column_names == ["barcode", "input_ids", "cell_type", "batch"]
    expected = [{k: v for k, v in row.items() if "gene" not in k} for row in in_memory(multiome, tokenizer)]
    assert cells.to_list() == expected
    assert paired_cells(multiome[0], None, bare, **KEYS).to_list() == expected


def test_a_mudata_holds_both(multiome, tokenizer, tmp_path):
    atac, rna = multiome
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": rna[::-1].copy(), "atac": atac.copy()})
        data.obs["cohort"] = [f"of {name}" for name in data.obs_names]
        data.write(tmp_path / "m.h5mu")
    path = tmp_path / "m.h5mu"
    cells = prepared([path], tokenizer, tmp_path / "cache", tissue_key="cohort")
    assert cells["tissue"][:] == [f"of {name}" for name in atac.obs_names]
    assert cells.remove_columns("tissue").to_list() == in_memory(multiome, tokenizer)
    alone = prepared([path], PeakTokenizer(tokenizer.vocabulary), tmp_path / "cache")
    assert "gene_ids" not in alone.column_names


def test_a_mudata_without_a_known_place_of_genes_asks_for_it(multiome, tokenizer, tmp_path):
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"atac": multiome[0].copy(), "expression": multiome[1].copy()}).write(tmp_path / "m.h5mu")
    path = tmp_path / "m.h5mu"
    with pytest.raises(ValueError, match=r"none is known to hold genes .*: name it with rna_modality="):
        PairedCells(path, tokenizer=tokenizer, cache_dir=tmp_path)
    cells = prepared([path], tokenizer, tmp_path / "cache", rna_modality="expression")
    assert cells.to_list() == in_memory(multiome, tokenizer)


def test_a_tokenizer_in_a_folder_will_do(multiome, tokenizer, write, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    cells = prepared(write(*multiome), tmp_path / "tokenizer", tmp_path / "cache")
    assert cells.to_list() == in_memory(multiome, tokenizer)


def test_the_same_data_is_found_in_the_cache_wherever_it_lies(multiome, tokenizer, write, tmp_path, monkeypatch):
    paths = write(*multiome)
    cells = prepared(paths, tokenizer, tmp_path / "cache")
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / path.name) for path in paths]
    os.utime(moved[0], (0, 0))
    monkeypatch.setattr(PairedCells, "_generate_tables", None)  # it would fail if it were called
    again = prepared(moved, tokenizer, tmp_path / "cache")
    assert again.to_list() == cells.to_list()
    assert again._fingerprint == cells._fingerprint  # so that what `map` derived is found again too


def test_other_data_labels_vocabularies_and_options_have_other_places(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome

    def place(paths, tokenizer=tokenizer, **options):
        return PairedCells(*paths, tokenizer=tokenizer, cache_dir=tmp_path / "cache", **options).cache_dir

    paths = write(atac, rna)
    genes = GeneVocabulary(["GENE03"], [""], ["chr1"])
    half = PeakVocabulary.from_names(atac.var_names[:20])
    places = [
        place(paths),
        place(paths, cell_type_key="annot"),
        place(paths, cell_type_key="batch"),
        place(paths, allow_float_counts=True),
        place(paths, PeakTokenizer(tokenizer.vocabulary, genes)),
        place(paths, PeakTokenizer(half, tokenizer.genes)),
        place(paths[:1]),
        place(write(atac, changed(rna))),
        place(write(atac, rna[::-1])),
    ]
    assert len(set(places)) == len(places)
    assert place(write(atac, rna), PeakTokenizer(tokenizer.vocabulary, tokenizer.genes, max_peaks=2)) == places[0]


def test_changed_data_gives_new_rows(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome
    before = prepared(write(atac, rna), tokenizer, tmp_path / "cache").to_list()
    after = prepared(write(atac, changed(rna)), tokenizer, tmp_path / "cache").to_list()
    assert before == in_memory(multiome, tokenizer)
    assert after == in_memory((atac, changed(rna)), tokenizer)
    assert after != before


def test_what_an_interruption_leaves_is_not_taken_for_a_data_set(multiome, tokenizer, write, tmp_path, monkeypatch):
    paths, cache = write(*multiome), tmp_path / "cache"

    def interrupted(self, bounds, copies):
        yield from itertools.islice(generate(self, bounds, copies), 3)
        raise KeyboardInterrupt

    generate = PairedCells._generate_tables
    with monkeypatch.context() as patch:
        patch.setattr(PairedCells, "_generate_tables", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(paths, tokenizer, cache)
    builder = PairedCells(*paths, tokenizer=tokenizer, cache_dir=cache, **KEYS)
    folder = Path(builder.cache_dir)
    assert not folder.exists()
    # A killed process cannot clean up.
    left = folder.with_name(f"{folder.name}.incomplete")
    (left / "copies" / "rna").mkdir(parents=True)
    (left / "copies" / "rna" / "columns").touch()
    (left / "paired_cells-train-00000-00007-of-NNNNN.arrow").touch()
    builder.download_and_prepare()
    assert {file.name for file in folder.iterdir()} == {"dataset_info.json", "paired_cells-train.arrow"}
    assert builder.as_dataset("train").to_list() == in_memory(multiome, tokenizer)


def test_a_stream_outlives_its_builder_and_leaves_nothing(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome
    builder = PairedCells(*write(atac, rna[::-1]), tokenizer=tokenizer, cache_dir=tmp_path / "cache", **KEYS)
    stream = builder.as_streaming_dataset("train")
    again = builder.as_streaming_dataset("train")
    assert stream.num_shards >= 16
    del builder
    both = concatenate_datasets([stream, again])
    del stream, again
    gc.collect()
    rows = list(both)
    assert rows[:60] == rows[60:] == in_memory(multiome, tokenizer)
    assert list(pickle.loads(pickle.dumps(both))) == rows
    del both
    gc.collect()
    assert not list((tmp_path / "cache").glob("epifoundation-*"))


def test_workers_share_a_stream_without_repeats(multiome, tokenizer, write, tmp_path):
    builder = PairedCells(*write(*multiome), tokenizer=tokenizer, cache_dir=tmp_path / "cache")
    stream = builder.as_streaming_dataset("train")
    parts = [stream.shard(num_shards=2, index=i) for i in range(2)]
    names = [row["barcode"] for part in parts for row in part]
    assert sorted(names) == sorted(multiome[0].obs_names)


def test_a_builder_can_write_parquet(multiome, tokenizer, write, tmp_path):
    builder = PairedCells(*write(*multiome), tokenizer=tokenizer, cache_dir=tmp_path / "cache", **KEYS)
    builder.download_and_prepare(str(tmp_path / "out"), file_format="parquet", max_shard_size=4000)
    cells = load_cells(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 1
    assert cells.to_list() == in_memory(multiome, tokenizer)
    assert cells.features["cell_type"].names == ["B", "NK", "T"]


def test_errors_come_before_anything_is_prepared(multiome, tokenizer, write, tmp_path):
    atac, rna = multiome
    paths = write(atac, rna)
    with pytest.raises(ValueError, match=r"obs has no column 'celltype'; it has \['annot', 'batch', 'donor'\]"):
        PairedCells(*paths, tokenizer=tokenizer, cell_type_key="celltype", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="tokenizer holds no genes"):
        PairedCells(*paths, tokenizer=PeakTokenizer(tokenizer.vocabulary), cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no\.h5ad does not exist"):
        PairedCells(paths[0], tmp_path / "no.h5ad", tokenizer=tokenizer, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="max_entries_per_block must be at least 1"):
        PairedCells(*paths, tokenizer=tokenizer, max_entries_per_block=0, cache_dir=tmp_path)
    renamed = rna.copy()
    renamed.obs_names = [f"{name}-rna" for name in rna.obs_names]
    with pytest.raises(ValueError, match="no barcode is in both modalities"):
        PairedCells(*write(atac, renamed), tokenizer=tokenizer, cache_dir=tmp_path)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_memory_does_not_grow_with_the_files(tmp_path, is_shuffled):
    peaks, genes = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(400)], [f"GENE{i}" for i in range(200)]
    tokenizer = PeakTokenizer(PeakVocabulary.from_names(peaks), GeneVocabulary.from_names(genes))

    def peak_memory(num_cells):
        rng = np.random.default_rng(0)
        names = np.array([f"c{i}" for i in range(num_cells)])
        atac = AnnData(sp.csr_matrix(rng.random((num_cells, 400)) < 0.5, dtype=np.float32))
        rna = AnnData(sp.csr_matrix(rng.poisson(1, (num_cells, 200)), dtype=np.float32))
        atac.var_names, rna.var_names = peaks, genes
        atac.obs_names, rna.obs_names = names, names[:: -1 if is_shuffled else 1]
        paths = tmp_path / f"{num_cells}.h5ad", tmp_path / f"{num_cells}_rna.h5ad"
        atac.write_h5ad(paths[0])
        rna.write_h5ad(paths[1])
        tracemalloc.start()
        try:
            prepared(
                paths, tokenizer, tmp_path / "cache", cell_type_key=None, batch_key=None, max_entries_per_block=20_000
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_memory(200)  # what is imported or cached on first use is not counted
    small, large = peak_memory(500), peak_memory(5000)
    # Ten times the cells: names and positions grow, some 300 bytes a cell; of the 3,000 bytes of entries none.
    assert large < small + 4500 * 600
