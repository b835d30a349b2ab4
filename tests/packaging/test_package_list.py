"""The list of packages is complete, and the wheel holds them all.

A package missing from pyproject.toml still works in an editable install; from the wheel it is absent.
"""

import zipfile
from pathlib import Path
from typing import Any

import pytest

NOT_PACKAGES = {".ci", "tests", "examples", "benchmarks", "model_cards"}


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_package_list_names_every_folder_of_python_files(
    root: Path, project_files: list[Path], package_folders: dict[str, Path]
) -> None:
    folders = {file.parent.relative_to(root) for file in project_files if file.suffix == ".py"}
    folders = {folder for folder in folders if folder.parts[0] not in NOT_PACKAGES}
    assert folders == {folder.relative_to(root) for folder in package_folders.values()}


def test_a_folder_is_named_as_its_package(root: Path, package_folders: dict[str, Path]) -> None:
    for name, folder in package_folders.items():
        above, _, last = name.rpartition(".")
        if folder.parent != root:
            assert folder == package_folders[above] / last


def test_the_package_list_and_the_folder_map_agree(pyproject: dict[str, Any]) -> None:
    setuptools = pyproject["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(setuptools["package-dir"])


def test_the_wheel_holds_the_packages_and_nothing_else(wheel_names: set[str], package_folders: dict[str, Path]) -> None:
    expected = {"epifoundation/py.typed"}
    for package, folder in package_folders.items():
        place = package.replace(".", "/")
        expected |= {f"{place}/{file.name}" for file in folder.glob("*.py")}
        expected |= {f"{place}/annotations/{file.name}" for file in folder.glob("annotations/*.tsv.gz")}
        expected |= {f"{place}/templates/{file.name}" for file in folder.glob("templates/*.md")}
        expected |= {f"{place}/{file.relative_to(folder).as_posix()}" for file in folder.glob("checkpoints/*/*")}
    assert wheel_names == expected


@pytest.mark.wheel
def test_the_wheel_carries_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry_points] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        assert "epifoundation = epifoundation_cli.main:main" in archive.read(entry_points).decode()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
