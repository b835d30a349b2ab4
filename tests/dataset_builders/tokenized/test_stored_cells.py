import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_dataset

from epifoundation.dataset_builders import load_cells, save_cells, split_cells
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells


@pytest.fixture
def cells(multiome, tokenizer):
    return paired_cells(*multiome, tokenizer, cell_type_key="annot", batch_key="batch", donor_key="donor")


@pytest.fixture
def splits(cells):
    return split_cells(cells, stratify_by="cell_type")


def test_parquet_keeps_rows_and_types(cells, tmp_path):
    save_cells(cells, tmp_path / "cells")
    read = load_cells(tmp_path / "cells")
    assert read.to_list() == cells.to_list()
    assert read.features == cells.features
    other = load_dataset("parquet", data_dir=str(tmp_path / "cells"), split="train")
    assert other.features == cells.features


def test_splits_come_back_by_name_and_in_order(splits, tmp_path):
    save_cells(splits, tmp_path / "cells")
    read = load_cells(str(tmp_path / "cells"))
    assert list(read) == ["train", "validation", "test"]
    for name, part in splits.items():
        assert read[name].to_list() == part.to_list()
        assert load_cells(tmp_path / "cells", name).to_list() == part.to_list()


def test_large_data_sets_are_written_in_parts(cells, tmp_path):
    save_cells(cells, tmp_path / "cells", bytes_per_shard=2000)
    assert len(list((tmp_path / "cells").iterdir())) > 3
    assert load_cells(tmp_path / "cells").to_list() == cells.to_list()


def test_what_save_to_disk_wrote_is_read(cells, splits, tmp_path):
    cells.save_to_disk(tmp_path / "one")
    splits.save_to_disk(tmp_path / "several")
    assert load_cells(tmp_path / "one").to_list() == cells.to_list()
    assert load_cells(tmp_path / "several", "test").to_list() == splits["test"].to_list()


def test_other_files_in_the_folder_do_no_harm(cells, tokenizer, tmp_path):
    save_cells(cells, tmp_path / "cells")
    tokenizer.save_pretrained(tmp_path / "cells")
    assert load_cells(tmp_path / "cells").num_rows == 60


def test_new_files_in_an_old_place_are_read_anew(cells, tmp_path):
    save_cells(cells, tmp_path / "cells")
    load_cells(tmp_path / "cells")
    (tmp_path / "cells").rename(tmp_path / "old")
    save_cells(cells.select([3, 4]), tmp_path / "cells")
    assert load_cells(tmp_path / "cells")["barcode"][:] == cells["barcode"][3:5]


def test_a_data_set_in_memory_is_passed_on(cells, splits):
    assert load_cells(cells) is cells
    assert load_cells(splits) is splits
    assert load_cells(DatasetDict(train=cells)) is cells


def test_nothing_is_overwritten_and_nothing_left_half(cells, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    save_cells(cells, tmp_path / "empty")
    with pytest.raises(FileExistsError, match="empty exists: choose another name"):
        save_cells(cells, tmp_path / "empty")
    monkeypatch.setattr(Dataset, "to_parquet", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_cells(cells, tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_other_things_are_refused_by_what_they_are(cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="no does not exist: expected the folder of a tokenised data set"):
        load_cells(tmp_path / "no")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"is a file: expected the folder .* with PairedCells first"):
        load_cells(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"expected Parquet files, or what save_to_disk writes; found notes\.txt"):
        load_cells(tmp_path)
    with pytest.raises(TypeError, match="expected a folder, a Dataset or a DatasetDict, got list"):
        load_cells([cells])
    with pytest.raises(ValueError, match="the data set has no split 'test': it has train"):
        load_cells(cells, "test")


def test_other_tables_are_refused(cells, tmp_path):
    other = Dataset.from_dict({"text": ["a"], "barcode": ["b"]})
    with pytest.raises(ValueError, match="no tokenised data set: it has no column input_ids, only text, barcode"):
        save_cells(other, tmp_path / "other")
    other.save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other is no tokenised data set: .* make one with PairedCells"):
        load_cells(tmp_path / "other")
    wrong = cells.cast(Features({**cells.features, "barcode": Value("large_string")}))
    with pytest.raises(ValueError, match="expected the column barcode as Value"):
        load_cells(wrong)
    with pytest.raises(TypeError, match="expected a Dataset, got list"):
        save_cells([cells], tmp_path / "list")
