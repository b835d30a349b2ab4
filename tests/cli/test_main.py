import subprocess
import sys

import pytest

import epifoundation

pytestmark = pytest.mark.wheel

HEAVY = ("torch", "transformers", "epifoundation", "anndata", "numpy")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["embed", "--help"], ["coverage", "-h"], ["convert", "-h"], ["tokenize", "-h"], ["--version"]],
)
def test_help_imports_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys\n"
        "from epifoundation_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"assert not set({HEAVY}) & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    if arguments == ["--version"]:
        assert ran.stdout == f"epifoundation {epifoundation.__version__}\n"
    elif len(arguments) == 2:
        assert f"epifoundation {arguments[0]} " in ran.stdout, "the help shows an example"


def test_it_runs_as_a_module(tmp_path):
    (tmp_path / "cells.h5ad").touch()
    command = [sys.executable, "-m", "epifoundation_cli", "embed", "cells.h5ad"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "--output" in ran.stderr
