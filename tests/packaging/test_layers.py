"""Imports point one way, so that a layer can be understood, tested and shipped without those above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

# Folder -> its height. A file imports from its own folder and from lower ones. Equals do not know each
# other, except at the bottom: the two that travel with a checkpoint, and what shares it.
HEIGHTS = {
    "tokenization": 0,
    "sharing": 0,
    "modeling_epifoundation": 0,
    "dataset_builders": 1,
    "training": 2,
    "inference": 2,
    "evaluation": 2,
    "cli": 3,
    "examples": 4,
    "benchmarks": 4,
}


def imported_modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Absolute names of all modules that a file of `package` imports, at the top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, node.module] if node.module else above)
            yield base
            # `from epifoundation import training` names a package, not only something inside one.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def top_folder(folder: Path) -> str:
    return folder.relative_to(ROOT).parts[0]


def folder_of(module: str, package_folders: dict[str, Path]) -> str | None:
    """The top folder a module of ours is kept in; None for a module of others."""
    owners = [name for name in package_folders if module == name or module.startswith(f"{name}.")]
    return top_folder(package_folders[max(owners, key=len)]) if owners else None


def may_import(importer: str, imported: str) -> bool:
    below = HEIGHTS[imported] < HEIGHTS[importer]
    return importer == imported or below or HEIGHTS[importer] == HEIGHTS[imported] == 0


def test_imports_point_one_way(root: Path, package_folders: dict[str, Path]) -> None:
    import_names = {folder.relative_to(root).as_posix(): name for name, folder in package_folders.items()}
    upward = set()
    for folder in HEIGHTS:
        for file in sorted((root / folder).rglob("*.py")):
            inside = file.parent.relative_to(root / folder).parts
            package = ".".join([import_names.get(folder, folder), *inside])
            for module in imported_modules(ast.parse(file.read_text(encoding="utf-8")), package):
                target = folder_of(module, package_folders)
                if target is not None and not may_import(folder, target):
                    upward.add(f"{file.relative_to(root)} imports {module} ({target})")
    assert not upward, "imports may only point to lower layers:\n" + "\n".join(sorted(upward))


def test_every_package_has_a_layer(package_folders: dict[str, Path]) -> None:
    assert {top_folder(folder) for folder in package_folders.values()} <= set(HEIGHTS)


@pytest.mark.parametrize(
    ("line", "package", "expected"),
    [
        ("import epifoundation.training", "epifoundation_cli", "epifoundation.training"),
        ("from epifoundation import training", "epifoundation_cli", "epifoundation.training"),
        ("from . import main", "epifoundation_cli", "epifoundation_cli.main"),
        ("from .main import run", "epifoundation_cli", "epifoundation_cli.main"),
        ("from ..training import x", "epifoundation.inference", "epifoundation.training"),
        ("def f():\n    import epifoundation.training", "epifoundation", "epifoundation.training"),
    ],
)
def test_the_check_sees_every_form_of_import(line: str, package: str, expected: str) -> None:
    assert expected in set(imported_modules(ast.parse(line), package))


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("tokenization", "modeling_epifoundation", True),
        ("tokenization", "dataset_builders", False),
        ("training", "dataset_builders", True),
        ("training", "inference", False),
        ("cli", "evaluation", True),
        ("evaluation", "cli", False),
        ("examples", "cli", True),
    ],
)
def test_which_layer_may_import_which(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed
