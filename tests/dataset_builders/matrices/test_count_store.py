"""Counts gathered in files, against adding them up in memory."""

from pathlib import Path

import numpy as np
import pytest

from epifoundation.dataset_builders.matrices import count_store
from epifoundation.dataset_builders.matrices.count_store import CountStore


@pytest.mark.parametrize("entries", [7, 100, 1_000_000])
def test_pairs_in_any_order_are_added_up(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(count_store, "ENTRIES_PER_BUCKET", entries)  # many buckets, or one
    rng = np.random.default_rng(0)
    expected = np.zeros((9, 13), dtype=np.int64)
    store = CountStore(13)
    for num_cells in (4, 4, 8, 9, 9):  # cells turn up while reading
        cells, peaks = rng.integers(0, num_cells, 60), rng.integers(0, 13, 60)
        np.add.at(expected, (cells, peaks), 1)
        store.add(cells, peaks, num_cells)
    assert store.num_pairs.tolist() == expected.sum(axis=1).tolist()
    kept = np.array([8, 0, 3, 11])  # in any order; 11 has no counts
    rows = store.finish(kept)
    matrix = rows.rows(np.arange(4))
    assert matrix.dtype == np.int32
    assert matrix.has_canonical_format
    np.testing.assert_array_equal(matrix.toarray(), np.vstack([expected[[8, 0, 3]], np.zeros(13)]))


def test_without_any_pair_all_rows_are_empty() -> None:
    store = CountStore(5)
    rows = store.finish(np.array([0, 1]))
    assert rows.rows(np.arange(2)).toarray().tolist() == [[0] * 5] * 2


def test_the_files_are_removed_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = CountStore(5)
    store.add(np.array([0]), np.array([1]), 1)
    rows = store.finish(np.array([0]))
    assert sorted(file.name for file in rows.folder.iterdir()) == ["columns", "values"]
    del store
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_finishing", [False, True])
def test_a_full_disk_is_explained(monkeypatch: pytest.MonkeyPatch, is_finishing: bool) -> None:
    store = CountStore(5)
    store.add(np.array([0]), np.array([1]), 1)
    (Path(store.scratch.path) / ("bucket0" if is_finishing else "pairs")).unlink(missing_ok=True)
    (Path(store.scratch.path) / ("bucket0" if is_finishing else "pairs")).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"the counts cannot be kept in .*No space left on device.*: set TMPDIR"):
        _ = store.finish(np.array([0])) if is_finishing else store.add(np.array([0]), np.array([1]), 1)
