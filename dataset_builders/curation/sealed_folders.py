"""Folders of finished work: each appears complete or not at all, and tells what it was made of.

So a run that was ended at any moment, and however rudely, goes on where it was: what is sealed is done, what is not
is done again.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..matrices.full_disk import full_disk_explained

SEAL = "sealed.json"
BYTES_PER_SAMPLE = 1 << 20
MAX_SAMPLES = 64

Recipe = Mapping[str, Any]  # all that decides on the content of a folder, fit for JSON


def is_sealed(folder: Path, recipe: Recipe, *, overwrite: bool = False, may_grow: str | None = None) -> bool:
    """Whether `folder` holds the finished work of this very recipe.

    Args:
        folder: what `sealed_folder` wrote, or nothing yet.
        recipe: what the work is to be made of.
        overwrite: take finished work of another recipe as not done.
        may_grow: the part of the recipe that may differ; the work is then not done.

    Raises:
        FileExistsError: if it holds something else, or, unless `overwrite`, the work of another recipe; the message
            names what differs.
    """
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder} exists and was not written by this command: choose another output, or remove it first"
        ) from None
    wanted = json.loads(json.dumps(recipe))
    if found == wanted:
        return True
    differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    if overwrite or differing == [may_grow]:
        return False
    raise FileExistsError(
        f"{folder} was made with another {' and '.join(differing)}: choose another output, or make it anew with "
        "overwrite (--overwrite)"
    )


@contextmanager
def sealed_folder(folder: Path, recipe: Recipe) -> Iterator[Path]:
    """Give an empty folder beside `folder`, which takes its name, sealed, when the block ends well.

    What was at `folder` is then replaced. After an error or an interruption nothing has changed; what a killed
    process left behind is removed first. The folder above is made if needed.

    Raises:
        OSError: if it cannot be written.
    """
    with full_disk_explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    with full_disk_explained(folder):
        partial.mkdir()
    try:
        with full_disk_explained(folder):
            yield partial
            (partial / SEAL).write_text(json.dumps(recipe, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_digest(path: str | os.PathLike[str]) -> str:
    """A digest of a file's size and content, as hexadecimal text.

    All of a file up to 64 MiB enters, of a larger one 64 evenly spaced MiB, its beginning and its end among them.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        last = max(BYTES_PER_SAMPLE * (MAX_SAMPLES - 1), size - BYTES_PER_SAMPLE)
        for i in range(MAX_SAMPLES):
            file.seek(i * last // (MAX_SAMPLES - 1))
            digest.update(file.read(BYTES_PER_SAMPLE))
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """A digest of a text, as hexadecimal text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
