"""What several files state must be the same in all of them, and true on any machine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import epifoundation

# The lists are put together here so that this file does not contain what it looks for.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~}$)])/(?:" + "|".join((r"home/\w+", r"Users/\w+", "root", "tmp", "work")) + r")\b/?"
)
TEXT_SUFFIXES = {
    ".py",
    ".pyi",
    ".toml",
    ".cff",
    ".yaml",
    ".yml",
    ".json",
    ".md",
    ".txt",
    ".tsv",
    ".sh",
    ".in",
    "",
}
PAPERS = {"10.1101/2025.02.05.636688": "Wu", "10.1101/2025.11.03.685753": "LeRoy"}


@pytest.fixture(scope="module")
def citation(root: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_no_file_names_a_path_of_one_machine(root: Path, project_files: list[Path]) -> None:
    found = []
    for file in project_files:
        if file.suffix not in TEXT_SUFFIXES:
            continue
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [
            f"{file.relative_to(root)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(lines, start=1)
            if MACHINE_PATHS.search(line)
        ]
    assert not found, "paths that exist on one machine only:\n" + "\n".join(found)


@pytest.mark.parametrize("text", ["/" + "home/ann/x", "see /" + "tmp/x", "'/" + "work/main'", "/" + "root/.cache"])
def test_a_path_of_one_machine_is_recognised(text: str) -> None:
    assert MACHINE_PATHS.search(text)


@pytest.mark.parametrize(
    "text", ["a/" + "tmp/b", "../work/x", "https://example.org/work", "$(DIR)/tmp", "/rooted", "and/or"]
)
def test_other_paths_are_left_alone(text: str) -> None:
    assert not MACHINE_PATHS.search(text)


def test_the_citation_names_both_papers(citation: dict[str, Any]) -> None:
    named = {entry["doi"]: entry["authors"][0]["family-names"] for entry in citation["references"]}
    assert named == PAPERS
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"


def test_the_version_is_the_same_everywhere(root: Path, pyproject: dict[str, Any], citation: dict[str, Any]) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    stated = {
        "pyproject.toml": pyproject["project"]["version"],
        "epifoundation.__version__": epifoundation.__version__,
        "CHANGELOG.md": newest[1],
        "CITATION.cff": str(citation["version"]),
    }
    assert len(set(stated.values())) == 1, stated


def test_the_licence_is_the_full_apache_text(root: Path) -> None:
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_copyleft_libraries_are_never_part_of_a_common_extra(pyproject: dict[str, Any]) -> None:
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    for name in ("all", "demo", "test", "dev"):
        assert "gpl" not in " ".join(extras[name]), f"extra [{name}] must not pull in the GPL ones"
    copyleft = {re.split(r"[\[<>=]", requirement)[0] for requirement in extras["baselines-gpl"]}
    others = [requirement for name, listed in extras.items() if name != "baselines-gpl" for requirement in listed]
    assert not [requirement for requirement in others if re.split(r"[\[<>=]", requirement)[0] in copyleft]
