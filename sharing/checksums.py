"""SHA-256 of the files of a folder, in the form that ``sha256sum --check`` reads."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

CHECKSUMS_FILE = "checksums.sha256"

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of files, by their paths within `folder`; the list appears whole or not at all."""
    lines = [f"{_digest(folder / name)}  {name}" for name in sorted(names) if name != CHECKSUMS_FILE]
    partial = folder / f".{CHECKSUMS_FILE}.partial"
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(folder / CHECKSUMS_FILE)


def damaged_files(folder: Path) -> list[str] | None:
    """Files that are missing or not what `checksums.sha256` says, none if all is well; None without such a list.

    Raises:
        ValueError: if the list itself is damaged.
    """
    file = folder / CHECKSUMS_FILE
    if not file.is_file():
        return None
    expected = read_checksums(file)
    return [
        name for name, digest in expected.items() if not (folder / name).is_file() or _digest(folder / name) != digest
    ]


def read_checksums(file: Path) -> dict[str, str]:
    """The digest of each file in a list of checksums.

    Raises:
        ValueError: if a line is no checksum, or names a file outside the folder.
    """
    found: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is damaged: it is no text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None or not _is_inside(match[2]):
            raise ValueError(
                f"{file}, line {number}: expected a SHA-256 and the name of a file of this folder, got {line[:100]!r}"
            )
        found[match[2]] = match[1]
    return found


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
