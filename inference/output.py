"""Outputs that appear complete or not at all, and are known to be writable before any work is done."""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Files that `save_pretrained` and this package write into the folder of a checkpoint.
CHECKPOINT_ENDINGS = (
    *(".json", ".safetensors", ".npz", ".tsv", "_epifoundation.py", "README.md", "LICENSE"),
    *("about.yaml", "curves.png", "checksums.sha256", ".gitattributes"),
)


@contextmanager
def new_file(
    output: str | os.PathLike[str], *, overwrite: bool = False, inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> Iterator[Path]:
    """Give the path of an empty file beside `output`, which takes its name when the block ends well.

    After an error or an interruption it is removed, and what was at `output` is still there.

    Args:
        output: the file to write.
        overwrite: replace it if it exists.
        inputs: files that are never replaced, as the output lacks what they hold.

    Raises:
        FileExistsError: if there is a file at `output`, unless `overwrite`; or if it is one of the inputs.
        OSError: if `output` is a folder, or its folder does not exist or cannot be written.
    """
    target = checked_target(output, overwrite=overwrite)
    if target in {Path(os.path.realpath(path)) for path in inputs if path is not None}:
        raise FileExistsError(f"{output} is an input, whose counts the output would not hold: choose another name")
    partial = _beside(target)
    with _writing_explained(target):
        partial.open("xb").close()
    try:
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def checked_target(output: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The file that `new_file` would write, links resolved, if it may.

    Raises:
        FileExistsError: if there is a file at `output`, unless `overwrite`.
        OSError: if `output` is a folder, or its folder does not exist.
    """
    target = _target(output)
    if target.is_dir():
        raise IsADirectoryError(f"{output} is a folder: expected the name of a file to write")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{output} exists: choose another name, or replace it with overwrite (--overwrite)")
    return target


@contextmanager
def new_folder(output: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Like `new_file`, for a folder. Only an empty folder or that of a checkpoint is ever replaced.

    Raises:
        FileExistsError: if `output` is a folder with something in it, unless it is a checkpoint and `overwrite`.
        OSError: if `output` is a file, or the folder above it does not exist or cannot be written.
    """
    target = _target(output)
    if target.exists():
        _refuse_to_replace(target, output, overwrite)
    partial = _beside(target)
    with _writing_explained(target):
        partial.mkdir()
    try:
        yield partial
        _exchange(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_full_disk(path: Path, num_bytes: int) -> None:
    """Check that the disk of a file or folder has room.

    Raises:
        OSError: if it has not.
    """
    free = shutil.disk_usage(path).free
    if free < num_bytes:
        raise OSError(
            f"the disk of {path.parent} has {free / 2**30:.1f} GiB left, the output needs {num_bytes / 2**30:.1f}"
        )


def _target(output: str | os.PathLike[str]) -> Path:
    """Where links lead to: they stay, and what they lead to is replaced."""
    target = Path(os.path.realpath(output))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {output}: {target.parent} is not a folder; make it first")
    return target


def _beside(target: Path) -> Path:
    # Not the process id: a run that was killed may have left a file, and in a container ids repeat.
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def _writing_explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise type(error)(f"cannot write into {target.parent}: {error.strerror or error}") from error


def _refuse_to_replace(target: Path, output: str | os.PathLike[str], overwrite: bool) -> None:
    if not target.is_dir():
        raise NotADirectoryError(f"{output} is a file: expected the name of a folder to write")
    content = [entry.name for entry in target.iterdir()]
    if content and not overwrite:
        raise FileExistsError(f"{output} exists: choose another name, or replace it with overwrite (--overwrite)")
    others = sorted(name for name in content if not name.endswith(CHECKPOINT_ENDINGS))
    if content and ("config.json" not in content or others):
        raise FileExistsError(
            f"{output} holds other things than a checkpoint ({', '.join((others or sorted(content))[:3])}) and is not "
            "replaced: choose another name"
        )


def _exchange(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = partial.with_suffix(".old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
