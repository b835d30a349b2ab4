"""Lay out the folders under the names they are imported by, as links, for tools that do not run imports.

An editable install answers `import epifoundation.tokenization` through a hook that only a running Python
asks. Type checkers and editors read folders instead: give them the tree this script writes.

    python .ci/link_packages.py .venv/types
"""

import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def link_packages(target: Path) -> None:
    """Replace `target` by one folder per package of pyproject.toml, holding links to that package's files."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        folders: dict[str, str] = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    if target.exists():
        shutil.rmtree(target)
    for package, folder in folders.items():
        place = target.joinpath(*package.split("."))
        place.mkdir(parents=True, exist_ok=True)
        for entry in (ROOT / folder).iterdir():
            is_package = (entry / "__init__.py").exists()  # has a line of its own
            if entry.name != "__pycache__" and not is_package:
                (place / entry.name).symlink_to(entry)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"expected one argument, the folder to write, got {sys.argv[1:]}")
    link_packages(Path(sys.argv[1]))
