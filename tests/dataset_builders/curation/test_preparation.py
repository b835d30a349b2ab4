import hashlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad
from filelock import FileLock

from epifoundation.dataset_builders import load_cells
from epifoundation.dataset_builders.curation.preparation import PreparationSettings, prepare
from epifoundation.dataset_builders.curation.sample_preparation import Sample
from epifoundation.dataset_builders.curation.sealed_folders import file_digest
from epifoundation.dataset_builders.quality.quality_filters import Bounds, QualityFilters
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split
from epifoundation.sharing import damaged_files
from epifoundation.tokenization import GeneVocabulary, PeakTokenizer, PeakVocabulary

from ..limits import files_of_at_most
from ..raw_samples import (
    GENES,
    NUM_CELLS,
    barcodes,
    peak_names,
    write_atac,
    write_fragments,
    write_rna,
    write_rna_reference,
)

PEAKS = PeakVocabulary.from_names(peak_names())
FILTERS = QualityFilters({"num_unique_fragments": Bounds(above=10)})


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for seed, name in enumerate("ab"):
        write_fragments(folder / f"{name}.tsv.gz", seed)
        write_rna(folder / f"{name}.h5ad", seed)
        write_atac(folder / f"{name}.atac.h5ad", seed)
    write_rna_reference(folder / "profiles.tsv")
    return folder


@pytest.fixture
def settings(raw):
    return PreparationSettings(filters=FILTERS, reference=raw / "profiles.tsv", min_fragments=5)


@pytest.fixture
def samples(raw):
    return [Sample(name, raw / f"{name}.tsv.gz", raw / f"{name}.h5ad") for name in "ab"]


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file of finished folders; the names of random parts in between do not matter."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_two_samples_become_tokenised_cells(samples, settings, tmp_path):
    report = prepare(samples, tmp_path / "out", peaks=PEAKS, settings=settings)
    assert report.failed == {}
    assert report.num_cells == 2 * NUM_CELLS
    cells = load_cells(tmp_path / "out" / "cells")
    assert sum(map(len, cells.values())) == 2 * NUM_CELLS
    assert cells["train"].features["batch"].names == ["a", "b"]
    assert set(cells["train"].features["cell_type"].names) == {"B", "NK", "T"}
    names = {name for part in cells.values() for name in part["barcode"]}
    assert names == {f"{sample}_{barcode}" for sample in "ab" for barcode in barcodes()}
    joined = read_h5ad(tmp_path / "out" / "matrices" / "atac.h5ad")
    tokenizer = PeakTokenizer.from_pretrained(tmp_path / "out" / "cells")
    expected = tokenizer(joined, check=False)["input_ids"]
    of_cell = {
        name: ids for part in cells.values() for name, ids in zip(part["barcode"], part["input_ids"], strict=True)
    }
    assert all(of_cell[name] == ids.tolist() for name, ids in zip(joined.obs_names, expected, strict=True))
    assert (tmp_path / "out" / "peaks" / "peaks.bed").read_text().splitlines()[0] == "chr1\t1000000\t1001000"


def test_a_second_call_does_nothing(samples, settings, tmp_path):
    prepare(samples, tmp_path / "out", peaks=PEAKS, settings=settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.name != ".lock"}
    report = prepare(samples, tmp_path / "out", peaks=PEAKS, settings=settings)
    assert report.finished == ["a", "b"]
    assert report.samples == {}
    assert report.num_cells == 2 * NUM_CELLS
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_new_sample_leaves_the_others_as_they_were(samples, settings, tmp_path):
    prepare(samples[:1], tmp_path / "out", peaks=PEAKS, settings=settings)
    first = contents(tmp_path / "out" / "samples" / "a")
    report = prepare(samples, tmp_path / "out", peaks=PEAKS, settings=settings)
    assert (report.finished, list(report.samples), report.num_cells) == (["a"], ["b"], 2 * NUM_CELLS)
    other = replace(settings, split=Split(seed=1))
    with pytest.raises(FileExistsError, match="cells was made with another split"):
        prepare(samples, tmp_path / "out", peaks=PEAKS, settings=other)
    assert contents(tmp_path / "out" / "samples" / "a") == first


def test_other_settings_are_an_error_or_made_anew(samples, settings, tmp_path):
    prepare(samples[:1], tmp_path / "out", peaks=PEAKS, settings=settings)
    other = PreparationSettings(filters=QualityFilters.named("none"), reference=settings.reference, min_fragments=5)
    with pytest.raises(FileExistsError, match=r"samples/a was made with another quality control"):
        prepare(samples[:1], tmp_path / "out", peaks=PEAKS, settings=other)
    with pytest.raises(FileExistsError, match=r"peaks was made with another set of peaks"):
        prepare(samples[:1], tmp_path / "out", peaks=PeakVocabulary.from_names(peak_names()[:-1]), settings=settings)
    anew = prepare(samples[:1], tmp_path / "out", peaks=PEAKS, settings=other, overwrite=True)
    assert list(anew.samples) == ["a"]


def test_a_failed_sample_is_reported_and_tried_again_alone(samples, settings, raw, tmp_path):
    (tmp_path / "b.tsv.gz").write_text("<html>not found</html>")
    bad = [samples[0], Sample("b", tmp_path / "b.tsv.gz", raw / "b.h5ad")]
    report = prepare(bad, tmp_path / "out", peaks=PEAKS, settings=settings)
    assert list(report.failed) == ["b"]
    assert "HTML" in report.failed["b"]
    assert report.num_cells == 0
    assert not (tmp_path / "out" / "cells").exists()
    (tmp_path / "b.tsv.gz").write_bytes((raw / "b.tsv.gz").read_bytes())
    again = prepare(bad, tmp_path / "out", peaks=PEAKS, settings=settings)
    assert (again.finished, list(again.samples), again.num_cells) == (["a"], ["b"], 2 * NUM_CELLS)


def test_the_peaks_and_genes_of_a_tokenizer_are_used(samples, settings, tmp_path):
    genes = GeneVocabulary.from_names(GENES[:10])
    tokenizer = PeakTokenizer(PEAKS, genes)
    prepare(samples[:1], tmp_path / "out", peaks=tokenizer, settings=settings)
    written = PeakTokenizer.from_pretrained(tmp_path / "out" / "cells")
    assert written.vocabulary == PEAKS
    assert written.genes == genes


def test_peaks_in_the_blacklist_are_left_out(samples, raw, tmp_path):
    (tmp_path / "black.bed").write_text("chr1\t1000999\t1001001\n")
    settings = PreparationSettings(filters=FILTERS, blacklist=tmp_path / "black.bed", min_fragments=5)
    prepare(samples[:1], tmp_path / "out", peaks=PEAKS, settings=settings)
    cells = read_h5ad(tmp_path / "out" / "matrices" / "atac.h5ad")
    assert cells.var_names.tolist() == peak_names()[1:]
    assert (cells.obs["blacklist_fraction"] < 0.2).all()


def test_counts_keep_their_own_peaks(raw, tmp_path):
    samples = [Sample(name, raw / f"{name}.atac.h5ad") for name in "ab"]
    settings = PreparationSettings(filters=FILTERS, min_fragments=5, split=Split(rule="batch", validation=0, test=0.5))
    report = prepare(samples, tmp_path / "out", settings=settings)
    assert report.num_cells == 2 * NUM_CELLS
    cells = read_h5ad(tmp_path / "out" / "matrices" / "atac.h5ad")
    source = read_h5ad(raw / "b.atac.h5ad")[:, cells.var_names]
    np.testing.assert_array_equal(cells.X[NUM_CELLS:].toarray(), source.X.toarray())
    assert report.tokenized.split.rule == "batch"


def test_different_peaks_of_samples_need_common_ones(raw, tmp_path):
    other = read_h5ad(raw / "b.atac.h5ad")[:, 3:].copy()
    other.write_h5ad(tmp_path / "b.h5ad")
    samples = [Sample("a", raw / "a.atac.h5ad"), Sample("b", tmp_path / "b.h5ad")]
    with pytest.raises(ValueError, match="a and b have different peaks: name those to map all of them to"):
        prepare(samples, tmp_path / "out", settings=PreparationSettings(filters=FILTERS))


def test_arguments_that_do_not_fit_are_refused(raw, tmp_path):
    fragments, counts = Sample("a", raw / "a.tsv.gz"), Sample("a", raw / "a.atac.h5ad")
    cases = [
        ([], PEAKS, "there are no samples"),
        ([fragments, fragments], PEAKS, "two samples are called 'a'"),
        ([Sample("x/y", raw / "a.tsv.gz")], PEAKS, "'x/y' cannot be the name of a sample"),
        ([fragments], None, "holds fragments: name the peaks to count them in"),
        ([counts], "call", "peaks can only be called on fragments"),
        (
            [fragments, Sample("b", raw / "b.tsv.gz", raw / "b.h5ad")],
            PEAKS,
            "some samples have RNA and others have not",
        ),
        ([fragments], PeakVocabulary.from_names(["chr1:5-9"], "hg19"), "the peaks are of hg19, the samples of hg38"),
    ]
    for samples, peaks, message in cases:
        with pytest.raises(ValueError, match=message):
            prepare(samples, tmp_path / "out", peaks=peaks)
    with pytest.raises(FileNotFoundError, match=r"no\.tsv does not exist"):
        prepare([Sample("a", raw / "no.tsv")], tmp_path / "out", peaks=PEAKS)


def test_peaks_of_another_genome_are_reported(samples, settings, tmp_path):
    elsewhere = PeakVocabulary.from_names([f"chr2:{i * 1000}-{i * 1000 + 500}" for i in range(1, 50)])
    report = prepare(samples[:1], tmp_path / "out", peaks=elsewhere, settings=settings)
    assert "peak" in report.failed["a"]


def test_overlapping_peaks_are_told(samples, settings, tmp_path):
    overlapping = PeakVocabulary.from_names([*peak_names(), "chr1:1000500-1000600"])
    with pytest.warns(UserWarning, match="1 of 91 peaks overlap another one, so a fragment may count in several"):
        report = prepare(samples[:1], tmp_path / "out", peaks=overlapping, settings=settings)
    assert report.failed == {}


def test_two_runs_do_not_work_in_one_folder(samples, settings, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(OSError, match="another process is preparing"):
        prepare(samples, tmp_path / "out", peaks=PEAKS, settings=settings)


@pytest.mark.parametrize(("limit", "unfinished"), [(1_000, "peaks"), (60_000, "samples/a")])
def test_a_full_disk_is_told_and_the_next_call_goes_on(samples, settings, tmp_path, limit, unfinished):
    out = tmp_path / "out"
    with files_of_at_most(limit):
        try:
            failed = prepare(samples[:1], out, peaks=PEAKS, settings=settings).failed
        except OSError as error:
            failed = {"all": str(error)}
    target = out / unfinished
    assert list(failed.values()) == [f"the disk is full: cannot write {target.name} into {target.parent}"]
    assert not target.exists()
    assert not list(out.rglob("*.partial"))
    report = prepare(samples[:1], out, peaks=PEAKS, settings=settings)
    assert (report.failed, report.num_cells) == ({}, NUM_CELLS)


def test_normalised_values_are_refused_before_the_work(samples, settings, raw, tmp_path):
    rna = read_h5ad(raw / "a.h5ad")
    rna.X = rna.X / 2
    rna.write_h5ad(tmp_path / "rna.h5ad")
    normalised = Sample("a", samples[0].path, tmp_path / "rna.h5ad")
    report = prepare([normalised], tmp_path / "out", peaks=PEAKS, settings=settings)
    assert "rna.h5ad holds values that are no counts, such as " in report.failed["a"]


def test_the_card_tells_how_the_cells_were_chosen(samples, raw, tmp_path):
    bounds = {"num_unique_fragments": Bounds(above=10), "blacklist_fraction": Bounds(below=0.2)}
    settings = PreparationSettings(filters=QualityFilters(bounds), reference=raw / "profiles.tsv", min_fragments=5)
    prepare(samples, tmp_path / "blood", peaks=PEAKS, settings=settings)
    card = (tmp_path / "blood" / "cells" / "README.md").read_text()
    for text in (
        "# blood\n",
        "from 2 samples of hg38. Barcodes with 5 unique fragments or more were looked at.\n",
        "Cells are those with num_unique_fragments above 10.\n",
        "Asked for but not measured, so not applied: blacklist_fraction.\n",
        "correlates most with it, by Spearman.\n",
        f"| b | `{file_digest(samples[1].path)}` | `{file_digest(samples[1].rna)}` | {NUM_CELLS} | {NUM_CELLS} | 3 |",
    ):
        assert text in card
    assert damaged_files(tmp_path / "blood" / "cells") == []


RUN = """
import sys
from pathlib import Path
from epifoundation.dataset_builders.curation.preparation import PreparationSettings, prepare
from epifoundation.dataset_builders.quality.quality_filters import Bounds, QualityFilters
from epifoundation.dataset_builders.curation.sample_preparation import Sample
from epifoundation.tokenization import PeakVocabulary
if __name__ == "__main__":
    raw, out = Path(sys.argv[1]), sys.argv[2]
    filters = QualityFilters({"num_unique_fragments": Bounds(above=10)})
    prepare(
        [Sample(name, raw / f"{name}.tsv.gz", raw / f"{name}.h5ad") for name in "ab"],
        out,
        peaks=PeakVocabulary.load(raw / "peaks.npz"),
        settings=PreparationSettings(filters=filters, reference=raw / "profiles.tsv", min_fragments=5),
    )
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(samples, settings, raw, tmp_path):
    PEAKS.save(raw / "peaks.npz")
    prepare(samples, tmp_path / "whole" / "out", peaks=PEAKS, settings=settings)
    out = tmp_path / "killed" / "out"  # of the same name, which is the title of the card
    for finished in ("samples/a", "matrices"):  # killed as soon as each of these is there
        killed = subprocess.Popen([sys.executable, "-c", RUN, raw, out])
        deadline = time.monotonic() + 600
        while not (out / finished).exists() and killed.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    report = prepare(samples, out, peaks=PEAKS, settings=settings)
    assert "a" in report.finished
    assert not list(out.rglob("*.partial"))
    assert comparable(out) == comparable(tmp_path / "whole" / "out")


def comparable(folder: Path) -> dict[str, str]:
    """Digests of all files, but for HDF5 files, which hold times, those of what is in them."""
    digests = contents(folder)
    for name in digests:
        if name.endswith(".h5ad"):
            adata = read_h5ad(folder / name)
            parts = [adata.X.data, adata.X.indices, adata.X.indptr, *adata.obsm.values()]
            text = adata.obs.to_csv() + adata.var.to_csv()
            digests[name] = hashlib.sha256(b"".join(part.tobytes() for part in parts) + text.encode()).hexdigest()
    return digests
