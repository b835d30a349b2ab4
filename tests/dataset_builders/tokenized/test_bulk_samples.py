"""BED files with a table of labels become tokenised samples."""

from pathlib import Path

import numpy as np
import pytest

from epifoundation.dataset_builders import load_cells
from epifoundation.dataset_builders.tokenized.bulk_samples import read_sample_table, tokenize_bed_files
from epifoundation.dataset_builders.tokenized.tokenized_folder import Split
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary

NUM_PEAKS = 200
WHOLE = Split(validation=0, test=0)


@pytest.fixture
def tokenizer() -> PeakTokenizer:
    starts = np.arange(NUM_PEAKS) * 50_000 + 10_000
    names = [f"chr{1 + i % 3}:{start}-{start + 500}" for i, start in enumerate(starts)]
    return PeakTokenizer(PeakVocabulary.from_names(names))


@pytest.fixture
def samples(tokenizer: PeakTokenizer, tmp_path: Path) -> Path:
    """Six files with the peaks i, i + 3, i + 6, ... for i of 0, 1, 2, each shifted by a little."""
    folder = tmp_path / "beds"
    folder.mkdir()
    lines = ["file\tcell_type\tassay\tdonor"]
    peaks = [tokenizer.vocabulary.names()[i] for i in range(NUM_PEAKS)]
    for i in range(6):
        intervals = []
        for name in peaks[i % 3 :: 3]:
            chromosome, _, bounds = name.partition(":")
            start, end = map(int, bounds.split("-"))
            intervals.append(f"{chromosome}\t{start + 20}\t{end + 20}\tpeak")
        (folder / f"s{i}.bed").write_text("\n".join(intervals) + "\n")
        lines.append(f"s{i}.bed\t{['T', 'B', ''][i % 3]}\t{['ATAC', 'DNase'][i // 3]}\td{i % 2}")
    (tmp_path / "labels.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_each_file_is_a_sample_with_its_peaks_and_labels(
    samples: Path, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    report = tokenize_bed_files(tmp_path / "labels.tsv", samples, tmp_path / "out", tokenizer=tokenizer, split=WHOLE)
    cells = load_cells(tmp_path / "out", "train")
    assert cells["barcode"][:] == [f"s{i}" for i in range(6)]
    names = tokenizer.vocabulary.names()
    for i, ids in enumerate(cells["input_ids"]):
        assert sorted(names[j - 4] for j in ids[1:]) == sorted(names[i % 3 :: 3])
    assert cells.features["cell_type"].names == ["B", "T"]
    assert cells["cell_type"][:] == [1, 0, -1] * 2
    assert cells.features["assay"].names == ["ATAC", "DNase"]
    assert cells["assay"][:] == [0, 0, 0, 1, 1, 1]
    assert cells["donor"][:] == ["d0", "d1"] * 3
    assert report.pairing.num_unlabelled["cell_type"] == 2


def test_a_donor_can_be_held_out(samples: Path, tokenizer: PeakTokenizer, tmp_path: Path) -> None:
    split = Split(rule="donor", validation_groups=("d1",), test=0)
    tokenize_bed_files(tmp_path / "labels.tsv", samples, tmp_path / "out", tokenizer=tokenizer, split=split)
    assert load_cells(tmp_path / "out", "validation")["barcode"][:] == ["s1", "s3", "s5"]


def test_commas_are_read_from_a_csv(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("assay,file,cell_type\nATAC,s1.bed,B cell\n")
    table = read_sample_table(tmp_path / "labels.csv", samples)
    assert table.to_dict("records") == [{"file": str(samples / "s1.bed"), "cell_type": "B cell", "assay": "ATAC"}]


def test_only_whole_lines_are_comments(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("# of 2026\nfile\tcell_type\tassay\tdonor\ns1.bed\tB cell\t\tdonor #3\n")
    (row,) = read_sample_table(tmp_path / "labels.tsv", samples).to_dict("records")
    assert (row["cell_type"], row["assay"], row["donor"]) == ("B cell", None, "donor #3")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file\tcell_type\ns0.bed\tT\n", ValueError, "has no column assay: expected file, cell_type and assay"),
        ("file\tcell_type\tassay\n", ValueError, "names no files"),
        ("file\tcell_type\tassay\ns0.bed\tT\tA\ns0.bed\tT\tA\n", ValueError, "names s0.bed twice"),
        ("file\tcell_type\tassay\nx.bed\tT\tA\ny.bed\tT\tA\n", FileNotFoundError, "x.bed and 1 more, which is"),
        (None, FileNotFoundError, "labels.tsv does not exist"),
    ],
)
def test_a_table_that_cannot_be_used(
    text: str | None, error: type[Exception], message: str, samples: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.tsv").unlink()
    if text is not None:
        (tmp_path / "labels.tsv").write_text(text)
    with pytest.raises(error, match=message):
        read_sample_table(tmp_path / "labels.tsv", samples)


def test_files_of_another_genome_are_refused(samples: Path, tokenizer: PeakTokenizer, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for file in samples.iterdir():
        starts = np.sort(rng.integers(0, 10_000_000, 4_000))
        file.write_text("".join(f"chr{1 + i % 3}\t{start}\t{start + 500}\n" for i, start in enumerate(starts)))
    with pytest.raises(ValueError, match="intervals"):
        tokenize_bed_files(tmp_path / "labels.tsv", samples, tmp_path / "out", tokenizer=tokenizer, split=WHOLE)
    assert not (tmp_path / "out").exists()


def test_samples_that_hardly_fit_the_vocabulary_are_told(
    samples: Path, tokenizer: PeakTokenizer, tmp_path: Path
) -> None:
    for file in samples.iterdir():
        more = "".join(f"chr{1 + i % 3}\t{i * 50_000 + 30_000}\t{i * 50_000 + 30_100}\n" for i in range(100))
        file.write_text(file.read_text() + more)
    with pytest.warns(UserWarning, match="of the intervals overlap a peak of the vocabulary"):
        tokenize_bed_files(tmp_path / "labels.tsv", samples, tmp_path / "out", tokenizer=tokenizer, split=WHOLE)
