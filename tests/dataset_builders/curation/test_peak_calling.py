import sys
import tempfile

import numpy as np
import pandas as pd
import pytest

from epifoundation.dataset_builders.curation import peak_calling
from epifoundation.dataset_builders.curation.peak_calling import call_peaks, without_blacklist
from epifoundation.dataset_builders.genome.genome_sets import MergedIntervals
from epifoundation.tokenization import PeakVocabulary


def intervals(*names):
    return MergedIntervals.from_vocabulary(PeakVocabulary.from_names(names))


def test_peaks_in_the_blacklist_are_left_out():
    peaks = PeakVocabulary.from_names(["chr1:0-100", "chr1:100-200", "chr1:300-400", "chr2:0-100"])
    assert without_blacklist(peaks, intervals("1:199-200", "chr3:0-50", "chr1:400-500")).names() == [
        "chr1:0-100",
        "chr1:300-400",
        "chr2:0-100",
    ]
    with pytest.raises(ValueError, match="all 4 peaks overlap the blacklist"):
        without_blacklist(peaks, intervals("chr1:0-1000", "chr2:0-1000"))


def test_called_peaks_are_joined_and_of_main_chromosomes():
    found = pd.DataFrame(
        {
            "chrom": ["chr2", "chr1", "chr1", "chrM", "chr1", "chr1_KI270706v1_random"],
            "start": [5, 100, 150, 1, 900, 5],
            "end": [9, 200, 300, 50, 950, 90],
        }
    )
    peaks = peak_calling._vocabulary(found, "hg38", intervals("chr1:920-921"))
    assert peaks.names() == ["chr1:100-300", "chr2:5-9"]
    with pytest.raises(ValueError, match="MACS3 found no peaks on the main chromosomes"):
        peak_calling._vocabulary(found.iloc[[3]], "hg38", None)


def test_without_snapatac2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "snapatac2", None)
    with pytest.raises(ImportError, match=r'pip install "epifoundation\[qc\]"'):
        call_peaks({})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # SnapATAC2's own
def test_peaks_are_called_where_the_fragments_are(tmp_path):
    pytest.importorskip("snapatac2")
    rng = np.random.default_rng(0)
    for name in "ab":
        starts = np.concatenate([rng.normal(50_000 * i, 40, 400) for i in range(1, 15)]).astype(int)
        starts = np.sort(np.concatenate([starts, rng.integers(1_000, 5_000_000, 3_000)]))
        lines = (f"chr1\t{s}\t{s + 90}\tC{i % 5}\t1\n" for i, s in enumerate(starts))
        (tmp_path / f"{name}.tsv").write_text("".join(lines))
    before = tempfile.gettempdir()
    peaks = call_peaks({tmp_path / f"{name}.tsv": [f"C{i}" for i in range(5)] for name in "ab"}, scratch=tmp_path)
    assert tempfile.gettempdir() == before
    middles = (peaks.starts + peaks.ends) / 2
    assert all(np.abs(middles - 50_000 * i).min() < 500 for i in range(1, 15))
    assert len(peaks) < 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tsv", "b.tsv"]
    with pytest.raises(ValueError, match="the lengths of chromosomes are known for hg38"):
        call_peaks({}, genome="danRer11")
