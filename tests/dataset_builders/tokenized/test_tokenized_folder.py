import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders import load_cells
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.dataset_builders.tokenized.tokenized_folder import REPORT_FILE, Split, new_folder, tokenize_files

LABELS = {"cell_type_key": "annot", "batch_key": "batch", "donor_key": "donor"}
EVERYTHING = Split(validation=0, test=0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_holds_what_the_files_say(multiome, write, tmp_path):
    atac, rna = write(*multiome)
    report = tokenize_files(atac, rna, tmp_path / "cells", min_cells_per_gene=1, split=EVERYTHING, **LABELS)
    tokenizer = PeakTokenizer.from_pretrained(tmp_path / "cells")
    expected = paired_cells(*multiome, tokenizer, **LABELS)
    cells = load_cells(tmp_path / "cells")
    assert cells.to_list() == expected.to_list()
    assert cells.features == expected.features
    assert tokenizer.vocabulary.names() == multiome[0].var_names.tolist()
    peaks_per_cell = (multiome[0].X.toarray() > 0).sum(axis=1)
    assert report.peaks_per_cell == tuple(np.quantile(peaks_per_cell, (0.05, 0.5, 0.95)))
    assert (report.num_entries, report.num_matched_entries, report.num_empty_cells) == (*[peaks_per_cell.sum()] * 2, 1)
    assert report.cell_types == {"B": 20, "NK": 20, "T": 20}
    assert json.loads((tmp_path / "cells" / REPORT_FILE).read_text())["split"]["rule"] == "cell"
    assert names(tmp_path) == {"atac.h5ad", "rna.h5ad", "cells"}, "nothing else is left behind"


def test_splits_are_found_by_datasets_too(multiome, write, tmp_path):
    split = Split(rule="stratified", validation=0.2, test=0.3, seed=4)
    report = tokenize_files(*write(*multiome), tmp_path / "cells", split=split, **LABELS)
    assert report.num_cells_of_split == {"train": 30, "validation": 12, "test": 18}
    cells = load_dataset(str(tmp_path / "cells"))
    assert {name: len(part) for name, part in cells.items()} == report.num_cells_of_split
    for part in cells.values():
        assert len(set(np.bincount(part["cell_type"]).tolist())) == 1


@pytest.mark.parametrize(
    ("split", "batches"),
    [
        (Split(rule="batch", validation=0.25, test=0.25), None),
        (Split(rule="batch", validation_groups=("batch1",), test_groups=("batch0", "batch3")), {"batch0", "batch3"}),
    ],
)
def test_whole_batches_are_held_out(split, batches, multiome, write, tmp_path):
    tokenize_files(*write(*multiome), tmp_path / "cells", split=split, **LABELS)
    cells = load_cells(tmp_path / "cells")
    of_split = {name: set(part["batch"]) for name, part in cells.items()}
    assert sum(map(len, of_split.values())) == 4
    if batches is not None:
        assert {cells["test"].features["batch"].names[i] for i in of_split["test"]} == batches


def test_peaks_of_a_checkpoint_are_taken(multiome, tokenizer, write, tmp_path):
    atac, rna = write(*multiome)
    report = tokenize_files(atac, rna, tmp_path / "cells", tokenizer=tokenizer, split=EVERYTHING)
    assert (report.gene_vocabulary_size, report.pairing.num_genes) == (10, 12)
    assert load_cells(tmp_path / "cells").to_list() == paired_cells(*multiome, tokenizer).to_list()


def test_unmatched_peaks_count_against_coverage(multiome, write, tmp_path):
    atac, rna = write(*multiome)
    report = tokenize_files(atac, rna, tmp_path / "cells", min_cells_per_peak=17, split=EVERYTHING)
    cells_per_peak = (multiome[0].X.toarray() > 0).sum(axis=0)
    kept = cells_per_peak >= 17
    assert 0 < report.vocabulary_size == kept.sum() < 40
    assert (report.num_entries, report.num_matched_entries) == (cells_per_peak.sum(), cells_per_peak[kept].sum())


def test_multiome_in_one_file(multiome, write, tmp_path):
    mudata = pytest.importorskip("mudata")
    atac, rna = write(*multiome)
    tokenize_files(atac, rna, tmp_path / "apart", min_cells_per_gene=1, split=EVERYTHING)
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"atac": multiome[0].copy(), "rna": multiome[1].copy()}).write_h5mu(tmp_path / "both.h5mu")
    tokenize_files(tmp_path / "both.h5mu", None, tmp_path / "together", min_cells_per_gene=1, split=EVERYTHING)
    assert load_cells(tmp_path / "together").to_list() == load_cells(tmp_path / "apart").to_list()


def test_peaks_alone(multiome, write, tmp_path):
    report = tokenize_files(write(*multiome)[0], None, tmp_path / "cells", cell_type_key="annot")
    assert report.gene_vocabulary_size is None
    assert load_cells(tmp_path / "cells", "train").column_names == ["barcode", "input_ids", "cell_type"]
    assert PeakTokenizer.from_pretrained(tmp_path / "cells").genes is None


def test_a_finished_folder_is_replaced_only_when_asked(multiome, write, tmp_path):
    atac, rna = write(*multiome)
    tokenize_files(atac, None, tmp_path / "cells")
    before = (tmp_path / "cells" / REPORT_FILE).read_bytes()
    with pytest.raises(FileExistsError, match=r"cells exists: .*--overwrite"):
        tokenize_files(atac, rna, tmp_path / "cells")
    with pytest.raises(ValueError, match="no column 'nothing'"):
        tokenize_files(atac, rna, tmp_path / "cells", overwrite=True, cell_type_key="nothing")
    assert (tmp_path / "cells" / REPORT_FILE).read_bytes() == before, "an error leaves it as it was"
    tokenize_files(atac, rna, tmp_path / "cells", overwrite=True)
    assert "gene_ids" in load_cells(tmp_path / "cells", "train").column_names
    assert names(tmp_path) == {"atac.h5ad", "rna.h5ad", "cells"}


def test_other_folders_are_never_replaced(multiome, write, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="is no folder of tokenised cells"):
        tokenize_files(*write(*multiome), tmp_path / "work", overwrite=True)
    assert names(tmp_path / "work") == {"thesis.txt"}
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder; make it first"):
        tokenize_files(*write(*multiome), tmp_path / "nowhere" / "cells")


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted():
        with new_folder(tmp_path / "cells") as partial:
            (partial / "data").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_what_stood_there_comes_back_if_the_exchange_fails(tmp_path, monkeypatch):
    target = tmp_path / "cells"
    target.mkdir()
    (target / REPORT_FILE).write_text("{}")
    rename = Path.rename

    def fail_once(self, other):
        if self.suffix == ".partial":
            raise PermissionError("no")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(PermissionError), new_folder(target, overwrite=True):
        pass
    assert names(tmp_path) == {"cells"}
    assert (target / REPORT_FILE).read_text() == "{}"
