import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
from epifoundation.dataset_builders.genome.genome_sets import MergedIntervals, TranscriptionStarts
from epifoundation.dataset_builders.quality.fragment_quality import fragment_quality
from epifoundation.dataset_builders.readers.fragment_files import FragmentFile
from epifoundation.tokenization import PeakVocabulary

REFERENCE = Path(__file__).parents[2] / "reference" / "muon_quality"
TSS = [("chr1", 1_500), ("chr1", 2_100), ("chr2", 300)]
PEAKS = ["chr1:1000-1400", "chr1:1300-1600", "chr2:50-90"]
BLACKLIST = ["chr1:0-700", "chrM:0-20"]

fragment = st.tuples(
    st.sampled_from(["chr1", "chr2", "chrM", "chrUn_1"]),
    st.integers(0, 4_000),
    st.integers(1, 700),
    st.sampled_from(["A", "B", "C"]),
    st.integers(1, 5),
)


def write(path, lines):
    path.write_text("".join(f"{c}\t{s}\t{s + length}\t{b}\t{n}\n" for c, s, length, b, n in lines))
    return path


def brute_force(lines):
    """Base pair by base pair, from the definitions alone."""
    columns = defaultdict(lambda: defaultdict(float))
    for chromosome, start, length, barcode, count in lines:
        cell = columns[barcode]
        end = start + length
        covered = range(start, end)
        cell["num_fragments"] += count
        cell["num_unique_fragments"] += 1
        cell["free"] += length < 147
        cell["mono"] += 147 <= length < 294
        cell["mito"] += chromosome == "chrM"
        for name, regions in (("peak", PEAKS), ("black", BLACKLIST)):
            cell[name] += any(
                region.startswith(f"{chromosome}:")
                and set(covered) & set(range(*map(int, region.split(":")[1].split("-"))))
                for region in regions
            )
        for of_tss, position in TSS:
            if of_tss != chromosome:
                continue
            for part, places in (("centre", range(-500, 501)), ("flank", [*range(-1000, -900), *range(901, 1001)])):
                window = {position + place for place in places}
                cell[f"{part}_cuts"] += (start in window) + (end - 1 in window)
                if start < position + 1000:
                    cell[f"{part}_reads"] += count * len(window & set(covered))
    return columns


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(fragment, min_size=1, max_size=25), block=st.sampled_from([64, 1 << 20]))
def test_all_measures_are_as_defined(tmp_path_factory, lines, block):
    path = write(tmp_path_factory.mktemp("q") / "f.tsv", lines)
    starts = TranscriptionStarts.from_columns([c for c, _ in TSS], [p for _, p in TSS])
    found = fragment_quality(
        FragmentFile(path, block_bytes=block),
        starts=starts,
        peaks=PeakVocabulary.from_names(PEAKS, "made up"),
        blacklist=MergedIntervals.from_vocabulary(PeakVocabulary.from_names(BLACKLIST, "made up")),
    )
    expected = brute_force(lines)
    assert set(found.table.index) == set(expected)
    flank = {
        part: np.array([expected[b][f"flank_{part}"] / 200 for b in found.table.index]) for part in ("cuts", "reads")
    }
    for row, (barcode, values) in enumerate(found.table.iterrows()):
        cell = expected[barcode]
        unique = cell["num_unique_fragments"]
        assert values["num_fragments"] == cell["num_fragments"]
        assert values["num_unique_fragments"] == unique
        assert values["duplicate_fraction"] == pytest.approx(1 - unique / cell["num_fragments"])
        assert values["mitochondrial_fraction"] == cell["mito"] / unique
        assert values["peaks_fraction"] == cell["peak"] / unique
        assert values["blacklist_fraction"] == cell["black"] / unique
        free, mono = cell["free"], cell["mono"]
        assert values["nucleosome_signal"] == (mono / free if free else mono + 1)
        for column, part in (("tss_enrichment", "cuts"), ("tss_score", "reads")):
            background = flank[part][row] or flank[part].mean()
            centre = cell[f"centre_{part}"] / 1001
            assert values[column] == pytest.approx(centre / background, nan_ok=True) if background else True
            assert background or np.isnan(values[column])
    assert found.lengths.sum() == len(lines)
    assert found.num_unique_fragments.sum() == len(lines)


def test_values_are_those_of_muon():
    muon = pd.read_csv(REFERENCE / "muon.tsv", sep="\t", index_col=0)
    genes = gene_coordinates("hg38").dropna(subset="tss").drop_duplicates(["chromosome", "tss"])
    genes = genes[genes["tss"] >= 1000]
    starts = TranscriptionStarts.from_columns(genes["chromosome"].tolist(), genes["tss"].to_numpy(int))
    ours = fragment_quality(REFERENCE / "fragments.tsv.gz", starts=starts).table.loc[muon.index]
    for column in ("nucleosome_signal", "tss_score"):
        np.testing.assert_allclose(ours[column], muon[column], rtol=1e-12)


def test_lengths_and_ranks_are_of_all_barcodes(tmp_path):
    lines = [
        ("chr1", 10, 50, "A", 1),
        ("chr1", 10, 50, "B", 1),
        ("chr1", 30, 1_000, "A", 1),
        ("chr1", 9, 4_000, "A", 2),
    ]
    found = fragment_quality(write(tmp_path / "f.tsv", lines), min_fragments=2)
    assert list(found.table.index) == ["A"]
    assert (found.lengths[50], found.lengths[1000], found.lengths.sum()) == (2, 2, 4)
    assert found.num_unique_fragments.tolist() == [3, 1]
    assert "tss_enrichment" not in found.table
    assert "peaks_fraction" not in found.table


def test_only_wanted_barcodes_count_with_their_prefix(tmp_path):
    lines = [("chr1", 10, 50, "A", 1), ("chr1", 10, 50, "B", 1)]
    file = FragmentFile(write(tmp_path / "f.tsv", lines), barcodes=["s_B"], prefix="s_")
    found = fragment_quality(file)
    assert list(found.table.index) == ["s_B"]
    assert found.lengths.sum() == 1


def test_too_few_fragments_are_an_error(tmp_path):
    path = write(tmp_path / "f.tsv", [("chr1", 10, 50, "A", 1), ("chr1", 10, 50, "B", 1)])
    with pytest.raises(ValueError, match=r"f\.tsv: no barcode has 5 unique fragments or more: the richest of 2 has 1"):
        fragment_quality(path, min_fragments=5)


def test_spelling_of_chromosomes_does_not_matter(tmp_path):
    with gzip.open(REFERENCE / "fragments.tsv.gz", "rt") as file:
        text = file.read()
    (tmp_path / "f.tsv").write_text(text.replace("chr", ""))
    starts = TranscriptionStarts.of_genome("GRCh38")
    tables = [
        fragment_quality(path, starts=starts).table for path in (REFERENCE / "fragments.tsv.gz", tmp_path / "f.tsv")
    ]
    pd.testing.assert_frame_equal(*tables)
