"""Fragments counted in peaks, against counts published by others and against comparing all with all."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders import FragmentFile, VocabularyCounts, count_fragments
from epifoundation.tokenization import PeakVocabulary

REFERENCE = Path(__file__).parents[2] / "reference" / "pbmc_fragments"
PEAKS = ["chr1:100-200", "chr1:150-300", "chr2:10-20"]


@pytest.fixture(scope="module")
def cells() -> list[str]:
    return gzip.decompress((REFERENCE / "cells.txt.gz").read_bytes()).decode().split()


@pytest.fixture(scope="module")
def ccres() -> PeakVocabulary:
    return PeakVocabulary.from_names((REFERENCE / "peaks.txt").read_text().split())


@pytest.fixture(scope="module")
def published(cells: list[str], ccres: PeakVocabulary) -> csr_matrix:
    with gzip.open(REFERENCE / "counts.tsv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    row_of = {name: row for row, name in enumerate(cells)}
    columns = ccres.exact_ids([row["peak"] for row in rows]) - 4
    counts = [int(row["count"]) for row in rows]
    return csr_matrix((counts, ([row_of[row["barcode"]] for row in rows], columns)), (len(cells), len(ccres)))


def write(folder: Path, lines: list[tuple[str, int, int, str]], name: str = "fragments.tsv") -> Path:
    (folder / name).write_text("".join(f"{c}\t{start}\t{end}\t{b}\t1\n" for c, start, end, b in lines))
    return folder / name


def as_dict(counts: VocabularyCounts) -> dict[tuple[str, str], int]:
    matrix = counts.matrix.tocoo()
    names = counts.vocabulary.names()
    entries = zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    return {(counts.barcodes[i], names[j]): n for i, j, n in entries}


def test_the_published_counts_are_met(cells: list[str], ccres: PeakVocabulary, published: csr_matrix) -> None:
    counts = count_fragments(REFERENCE / "fragments.tsv.gz", ccres, barcodes=cells)
    assert counts.barcodes == cells
    assert published.nnz > 5_000
    assert (counts.matrix != published).nnz == 0
    assert counts.report.num_fragments == 13_864


def test_insertions_open_fewer_peaks_than_fragments_and_no_other(
    cells: list[str], ccres: PeakVocabulary, published: csr_matrix
) -> None:
    counts = count_fragments(REFERENCE / "fragments.tsv.gz", ccres, barcodes=cells, counting="insertion")
    lost = (published > 0).astype(int) - (counts.matrix > 0).astype(int)
    assert lost.min() == 0
    assert 0 < lost.sum() < 0.02 * published.nnz


@pytest.mark.parametrize("counting", ["fragment", "insertion"])
def test_random_fragments_count_as_one_by_one(tmp_path: Path, counting: str) -> None:
    rng = np.random.default_rng(1)
    lines = [
        (f"chr{1 + int(chromosome)}", int(start), int(start + length), f"C{cell}")
        for chromosome, start, length, cell in zip(
            rng.integers(0, 3, 400), rng.integers(0, 320, 400), rng.integers(1, 120, 400), rng.integers(0, 5, 400),
            strict=True,
        )
    ]  # fmt: skip
    expected: Counter[tuple[str, str]] = Counter()
    in_peaks: Counter[str] = Counter()
    for chromosome, start, end, barcode in lines:
        pieces = [(start, end)] if counting == "fragment" else [(start, start + 1), (end - 1, end)]
        hits = [
            (barcode, peak)
            for peak, (peak_chromosome, peak_start, peak_end) in zip(
                PEAKS, [("chr1", 100, 200), ("chr1", 150, 300), ("chr2", 10, 20)], strict=True
            )
            for first, last in pieces
            if chromosome == peak_chromosome and first < peak_end and peak_start < last
        ]
        expected.update(hits)
        in_peaks[barcode] += bool(hits)
    vocabulary = PeakVocabulary.from_names(PEAKS)
    counts = count_fragments(write(tmp_path, lines), vocabulary, counting=counting)  # type: ignore[arg-type]
    assert as_dict(counts) == expected
    assert dict(zip(counts.barcodes, counts.num_in_peaks.tolist(), strict=True)) == in_peaks
    assert counts.num_fragments.sum() == 400
    assert counts.report.num_elsewhere == {"chr3": sum(line[0] == "chr3" for line in lines)}


def test_an_end_is_not_part_of_a_fragment_nor_of_a_peak(tmp_path: Path) -> None:
    lines = [("chr2", 5, 10, "before"), ("chr2", 5, 11, "in"), ("chr2", 19, 25, "in"), ("chr2", 20, 25, "after")]
    counts = count_fragments(write(tmp_path, lines), PeakVocabulary.from_names(PEAKS))
    assert as_dict(counts) == {("in", "chr2:10-20"): 2}
    assert counts.barcodes == ["before", "in", "after"]


def test_the_barcodes_wanted_are_the_rows_in_their_order(tmp_path: Path) -> None:
    lines = [("chr2", 5, 15, name) for name in ("A", "B", "B", "C")]
    counts = count_fragments(write(tmp_path, lines), PeakVocabulary.from_names(PEAKS), barcodes=["C", "none", "B"])
    assert counts.matrix.sum(axis=1).ravel().tolist() == [[1, 0, 2]]
    assert counts.barcodes == ["C", "none", "B"]
    assert counts.report.num_barcodes == 2
    assert counts.report.num_wanted == 3


def test_barcodes_with_few_fragments_are_left_out(tmp_path: Path) -> None:
    lines = [("chr2", 5, 15, name) for name in ("A", "B", "C", "B", "C")] + [("chr9", 1, 2, "A"), ("chr9", 1, 2, "C")]
    path, vocabulary = write(tmp_path, lines), PeakVocabulary.from_names(PEAKS)
    counts = count_fragments(path, vocabulary, min_fragments=3)
    assert as_dict(counts) == {("C", "chr2:10-20"): 2}, "fragments outside of the peaks count too"
    assert counts.num_fragments.tolist() == [3]
    with pytest.raises(ValueError, match="no barcode has 4 fragments or more: the largest of 3 has 3"):
        count_fragments(path, vocabulary, min_fragments=4)


def test_samples_with_prefixes_become_one_matrix(tmp_path: Path) -> None:
    first = write(tmp_path, [("chr2", 5, 15, "A"), ("chr1", 120, 130, "B")], "first.tsv")
    second = write(tmp_path, [("2", 5, 15, "A"), ("2", 5, 15, "A")], "second.tsv")
    files = [FragmentFile(path, prefix=f"{path.stem}_") for path in (first, second)]
    counts = count_fragments(files, PeakVocabulary.from_names(PEAKS))
    assert counts.barcodes == ["first_A", "first_B", "second_A"]
    assert as_dict(counts) == {
        ("first_A", "chr2:10-20"): 1,
        ("first_B", "chr1:100-200"): 1,
        ("second_A", "chr2:10-20"): 2,
    }
    with pytest.raises(ValueError, match=r"1 barcodes of .*second.tsv also occur in a file before it, such as A"):
        count_fragments([first, second], PeakVocabulary.from_names(PEAKS))


def test_blocks_of_rows_are_the_matrix(cells: list[str], ccres: PeakVocabulary) -> None:
    counts = count_fragments(REFERENCE / "fragments.tsv.gz", ccres, barcodes=cells[:500])
    blocks = list(counts.blocks(max_entries=50))
    assert len(blocks) > 5
    np.testing.assert_array_equal(np.vstack([block.toarray() for block in blocks]), counts.matrix.toarray())
    assert counts.peak_names == ccres.names()
    assert counts.num_cells == len(counts.cell_names) == 500


def test_a_fragment_beyond_its_chromosome_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [("chr1", 5, 15, "A"), ("chr1", 248_956_400, 248_956_500, "A")])
    with pytest.raises(ValueError, match=r"line 2: the fragment ends at 248,956,500, beyond .* of chr1 in hg38"):
        count_fragments(path, PeakVocabulary.from_names(PEAKS))


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    vocabulary = PeakVocabulary.from_names(PEAKS)
    with pytest.raises(ValueError, match="counting must be one of 'fragment', 'insertion', got 'reads'"):
        count_fragments(tmp_path, vocabulary, counting="reads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no fragment files"):
        count_fragments([], vocabulary)


def test_the_summary_names_chromosomes_without_peaks(tmp_path: Path) -> None:
    lines = [("chr2", 5, 15, "A"), ("chr1", 5, 15, "A"), ("chrUn", 5, 15, "A"), ("chrUn", 5, 15, "A")]
    report = count_fragments(write(tmp_path, lines), PeakVocabulary.from_names(PEAKS)).report
    assert report.summary() == (
        "4 fragments; 4 of the cells that were kept, of which 1 (25.0%) lie in a peak of the vocabulary. "
        "1 chromosomes have no peak in it, such as chrUn (2)."
    )
