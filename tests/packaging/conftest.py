"""What the packaging tests share: where the repository is, and what its files say about the packages."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# For a source tree without git: what `make` and the tools leave beside the files of the project.
_NOT_OURS = {".venv", "build", "dist", "shared", "__pycache__"}
_NOT_OURS_AT_THE_TOP = {"runs", "outputs"}  # a package of ours may be called so, further down


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def package_folders(pyproject: dict[str, Any]) -> dict[str, Path]:
    """Import name -> the folder it is kept in, as pyproject.toml maps them."""
    return {name: ROOT / folder for name, folder in pyproject["tool"]["setuptools"]["package-dir"].items()}


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project: what git tracks or would track, or the whole tree where there is no git."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        listed = subprocess.run(
            [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        files = list(_walk(ROOT))
    return sorted(file for file in files if file.is_file())


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        hidden_folder = entry.is_dir() and entry.name.startswith(".") and entry.name != ".ci"
        if folder == ROOT and entry.name in _NOT_OURS_AT_THE_TOP:
            continue
        if hidden_folder or entry.name in _NOT_OURS or entry.name.endswith(".egg-info"):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make` built and names in EPIFOUNDATION_WHEEL, else one built here from a copy."""
    named = os.environ.get("EPIFOUNDATION_WHEEL")
    if named:
        return Path(named)
    # A copy: building in place would leave `build/` behind, and take along what an earlier build left there.
    source = tmp_path_factory.mktemp("source") / "epifoundation"
    anywhere = shutil.ignore_patterns(".*", "*.egg-info", "shared", "data", *_NOT_OURS)

    def left_out(folder: str, names: list[str]) -> set[str]:
        return anywhere(folder, names) | (_NOT_OURS_AT_THE_TOP if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, source, ignore=left_out)
    target = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(target),
        str(source),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(target.glob("*.whl"))
