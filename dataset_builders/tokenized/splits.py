"""Training, validation and test cells: the same at every call, on every machine."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

SPLITS = ("train", "validation", "test")


def split_cells(
    cells: Dataset,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    by: str | None = None,
    stratify_by: str | None = None,
    validation_groups: Sequence[str] = (),
    test_groups: Sequence[str] = (),
    seed: int = 0,
) -> DatasetDict:
    """Divide cells into "train", "validation" and "test", by one of three rules.

    By cell (the default): a hash of its barcode decides on each cell alone. Cells added later move no other; the
    sizes are as asked for up to chance.

    Stratified (`stratify_by`, such as "cell_type"): the shares hold exactly, up to rounding, within each class, and
    each class has a cell in every split. Cells without a class are divided likewise.

    By whole groups (`by`, such as "batch", "donor" or "tissue"): no group is in two splits, which tells how a model
    does on a new experiment. The shares are then shares of the groups, at least one each; or the groups are named.

    Args:
        cells: a tokenised data set; the order of its rows is kept within each split.
        validation: share of the cells, or of the groups, for validation; 0 leaves this split out.
        test: share for the test; 0 leaves this split out.
        by: column of the groups.
        stratify_by: column of the classes.
        validation_groups: names of the groups for validation, in place of a share.
        test_groups: names of the groups for the test, in place of a share.
        seed: another one gives another division.

    Raises:
        TypeError: if `cells` is not a `Dataset`, for example split already.
        ValueError: if shares or columns do not make sense, a group or class is too small or missing, or a split is
            left without cells.
    """
    if not isinstance(cells, Dataset):
        raise TypeError(f"expected a Dataset, got {type(cells).__name__}: pass one split of it, such as data['train']")
    _check_shares(validation, test)
    if by is not None and stratify_by is not None:
        raise ValueError("by and stratify_by cannot be combined: groups are kept whole, classes are divided")
    if by is None and (len(validation_groups) or len(test_groups)):
        raise ValueError("validation_groups and test_groups need by=, the column that holds the groups")
    shares = np.array([1 - validation - test, validation, test])
    if by is not None:
        chosen = _by_group(_names(cells, by), by, shares, {1: validation_groups, 2: test_groups}, seed)
    elif stratify_by is not None:
        chosen = _stratified(_barcodes(cells), _names(cells, stratify_by), stratify_by, shares, seed)
    else:
        chance = _uniform(_barcodes(cells), seed)
        chosen = np.select([chance >= 1 - test, chance >= (1 - test) - validation], [2, 1], 0)
    wanted = [0, *np.flatnonzero(shares[1:]) + 1]
    wanted += [i for i, groups in ((1, validation_groups), (2, test_groups)) if len(groups) and i not in wanted]
    divided = DatasetDict()
    for i in sorted(wanted):
        positions = np.flatnonzero(chosen == i)
        if not len(positions):
            raise ValueError(
                f"no cell falls into {SPLITS[i]}: {len(cells):,} cells are too few for a share of {shares[i]:g} by "
                "chance; choose a larger share, or stratify_by="
            )
        divided[SPLITS[i]] = cells.select(positions)
    return divided


def _check_shares(validation: float, test: float) -> None:
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be a share from 0 to below 1, got {share!r}")
    if validation + test >= 1:
        raise ValueError(f"validation and test leave nothing to train on: {validation:g} + {test:g}")


def _by_group(
    groups: list[str | None], column: str, shares: np.ndarray, named: dict[int, Sequence[str]], seed: int
) -> np.ndarray:
    num_unknown = groups.count(None)
    if num_unknown:
        raise ValueError(f"{num_unknown:,} cells have no {column}: drop them first, as they belong to no group")
    distinct = sorted({group for group in groups if group is not None})
    split_of = _named_groups(distinct, column, named)
    free = [group for group in distinct if group not in split_of]
    wanted = np.where([bool(len(named.get(i, ()))) for i in range(3)], 0, shares)
    if len(free) < np.count_nonzero(wanted):
        raise ValueError(
            f"{len(free)} groups of {column} ({', '.join(free) or 'none'}) are too few for "
            f"{', '.join(SPLITS[i] for i in np.flatnonzero(wanted))}: each needs a whole group; set a share to 0, "
            "name the groups, or split by cell"
        )
    order = np.argsort(_uniform(free, seed))
    sizes = _sizes(len(free), wanted, at_least_one=True)
    split_of |= {free[g]: int(i) for g, i in zip(order, np.repeat(range(3), sizes), strict=True)}
    return np.array([split_of[group] for group in groups if group is not None], dtype=np.int64)


def _named_groups(distinct: list[str], column: str, named: dict[int, Sequence[str]]) -> dict[str, int]:
    split_of: dict[str, int] = {}
    for i, groups in named.items():
        if isinstance(groups, str):
            raise TypeError(f"{SPLITS[i]}_groups must be a list of names, got the text {groups!r}")
        for group in groups:
            if group not in distinct:
                raise ValueError(f"no cell has the {column} {group!r}: there are {', '.join(distinct)}")
            if split_of.setdefault(group, i) != i:
                raise ValueError(f"the {column} {group!r} is named for validation and for test")
    return split_of


def _stratified(
    barcodes: list[str], classes: list[str | None], column: str, shares: np.ndarray, seed: int
) -> np.ndarray:
    chosen = np.zeros(len(barcodes), dtype=np.int64)
    order = np.lexsort((np.array(barcodes), _uniform(barcodes, seed)))
    class_of = np.array(["" if name is None else f"={name}" for name in classes])[order]
    for name in np.unique(class_of):
        members = order[class_of == name]
        is_known = bool(name)
        if is_known and len(members) < np.count_nonzero(shares):
            raise ValueError(
                f"{len(members)} cells of the {column} {name[1:]!r} are too few to be in each of "
                f"{', '.join(SPLITS[i] for i in np.flatnonzero(shares))}: drop or merge this class, or split by cell"
            )
        chosen[members] = np.repeat(range(3), _sizes(len(members), shares, at_least_one=is_known))
    return chosen


def _sizes(total: int, shares: np.ndarray, *, at_least_one: bool) -> np.ndarray:
    """Whole numbers with the sum `total`, in proportion to `shares`; the largest remainders are rounded up.

    With `at_least_one`, every share above 0 gets something; `total` then suffices for that.
    """
    exact = total * shares / shares.sum()
    sizes = np.floor(exact + 1e-9).astype(np.int64)  # 0.3 * 10 is a little less than 3
    for i in np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]:
        sizes[i] += 1
    while at_least_one and (sizes[shares > 0] == 0).any():
        sizes[np.flatnonzero((shares > 0) & (sizes == 0))[0]] += 1
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _uniform(names: Sequence[str], seed: int) -> np.ndarray:
    """A number from 0 to below 1 for each name, the same on every machine."""
    key = str(seed).encode()
    digests = b"".join(hashlib.blake2b(name.encode(), key=key, digest_size=8).digest() for name in names)
    # 53 bits are what a float64 holds exactly; with more, the largest would be rounded to 1.
    return (np.frombuffer(digests, "<u8") >> np.uint64(11)) / 2.0**53


def _barcodes(cells: Dataset) -> list[str]:
    return [str(name) for name in _column(cells, "barcode")]


def _names(cells: Dataset, column: str) -> list[str | None]:
    """The classes or groups of the cells by name; None where they are not known."""
    values = _column(cells, column)
    feature = cells.features[column]
    if isinstance(feature, ClassLabel):
        return [None if value is None or value < 0 else feature.names[value] for value in values]
    return [None if value is None else str(value) for value in values]


def _column(cells: Dataset, column: str) -> list[Any]:
    if column not in cells.features:
        raise ValueError(f"the data set has no column {column!r}: it has {', '.join(cells.features)}")
    return cells.select_columns([column]).with_format("arrow")[:][column].to_pylist()
