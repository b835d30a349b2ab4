"""Tokenised data sets in folders: written as Parquet, read from Parquet or from what `save_to_disk` wrote."""

import os
import re
import shutil
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from .features import cell_features
from .splits import SPLITS

BYTES_PER_SHARD = 500_000_000  # uncompressed, as `push_to_hub` does
_NEEDED = ("barcode", "input_ids")
_SHARD = re.compile(r"(?:.*[-_.])?(train|validation|test)(?:-\d+-of-\d+)?")


def save_cells(
    cells: Dataset | DatasetDict, folder: str | os.PathLike[str], *, bytes_per_shard: int = BYTES_PER_SHARD
) -> None:
    """Write a tokenised data set, or its splits, as a folder of Parquet files; it appears complete or not at all.

    `load_cells` reads it, and so does ``datasets.load_dataset("parquet", data_dir=folder)``.

    Args:
        cells: a data set, which is written as the split "train", or several splits.
        folder: a new or empty folder; the one above must exist.
        bytes_per_shard: about how many bytes, before compression, go into one file.

    Raises:
        FileExistsError: if the folder has something in it.
        TypeError, ValueError: if `cells` is no tokenised data set.
    """
    target = Path(os.path.realpath(folder))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{folder} exists: choose another name, or remove it first")
    splits = cells if isinstance(cells, DatasetDict) else {"train": cells}
    for part in splits.values():
        _check(part, "the data set")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        for name, part in splits.items():
            _write(part, partial, name, bytes_per_shard)
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_cells(
    cells: str | os.PathLike[str] | Dataset | DatasetDict, split: str | None = None
) -> Dataset | DatasetDict:
    """A tokenised data set from a folder, checked for its columns; one in memory is checked and passed on.

    Args:
        cells: a folder of Parquet files or one written by ``save_to_disk``; or a data set.
        split: the one split to give, such as "train".

    Returns:
        With `split`, that split. Without it a `DatasetDict` where there are several splits, else the one data set.

    Raises:
        FileNotFoundError: if the folder is not there.
        TypeError: if `cells` is neither a path nor a data set.
        ValueError: if the folder holds no data set, columns are missing, or there is no such split.
    """
    place = "the data set" if isinstance(cells, Dataset | DatasetDict) else str(cells)
    if isinstance(cells, str | os.PathLike):
        cells = _read(Path(cells))
    elif not isinstance(cells, Dataset | DatasetDict):
        raise TypeError(f"expected a folder, a Dataset or a DatasetDict, got {type(cells).__name__}")
    splits = cells if isinstance(cells, DatasetDict) else {"train": cells}
    for part in splits.values():
        _check(part, place)
    if split is not None:
        if split not in splits:
            raise ValueError(f"{place} has no split {split!r}: it has {', '.join(splits)}")
        return splits[split]
    return cells if len(splits) > 1 else next(iter(splits.values()))


def _read(folder: Path) -> Dataset | DatasetDict:
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist: expected the folder of a tokenised data set")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file: expected the folder of a tokenised data set; .h5ad and .h5mu files are tokenised "
            "with PairedCells first"
        )
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return load_from_disk(str(folder))
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"{folder} holds no tokenised data set: expected Parquet files, or what save_to_disk writes; found {found}"
        )
    by_split: dict[str, list[str]] = {}
    for file in files:
        match = _SHARD.fullmatch(file.stem)
        by_split.setdefault("train" if match is None else match[1], []).append(str(file))
    in_order = {name: by_split[name] for name in SPLITS if name in by_split}
    return load_dataset("parquet", data_files=in_order)


def _write(cells: Dataset, folder: Path, name: str, bytes_per_shard: int) -> None:
    share = len(cells) / max(1, cells.data.num_rows)  # a selection of rows still holds the whole table
    num_shards = min(max(1, round(cells.data.nbytes * share / bytes_per_shard)), max(1, len(cells)))
    for i in range(num_shards):
        shard = cells.shard(num_shards, i, contiguous=True)
        shard.to_parquet(str(folder / f"{name}-{i:05d}-of-{num_shards:05d}.parquet"))


def _check(cells: object, place: str) -> None:
    """Refuse what is no tokenised data set, and columns of another type."""
    if not isinstance(cells, Dataset):
        raise TypeError(f"expected a Dataset, got {type(cells).__name__}")
    missing = [name for name in _NEEDED if name not in cells.features]
    if missing:
        raise ValueError(
            f"{place} is no tokenised data set: it has no column {' and no '.join(missing)}, only "
            f"{', '.join(cells.features) or 'none'}; make one with PairedCells"
        )
    for name, expected in cell_features().items():
        if name in cells.features and cells.features[name] != expected:
            raise ValueError(f"{place}: expected the column {name} as {expected}, got {cells.features[name]}")
