"""What a user gets by installing: import, tokenise, save, load and the command, away from the repository.

`make test` runs them on the sources and on the built wheel. They need nothing but the installed package.
"""

import importlib
import importlib.metadata
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.sparse import csr_matrix
from transformers import AutoModel, AutoTokenizer

import epifoundation
from epifoundation.tokenization import PeakTokenizer, PeakVocabulary

pytestmark = pytest.mark.wheel

NAMES = ["chr1:100-200", "chr1:300-400", "chr2:50-150", "chrX:10-90"]


def run_python(code: str, cwd: Path, arguments: Sequence[str] = ()) -> str:
    """Output of a fresh interpreter, in which nothing is imported yet and `cwd` holds no package of ours."""
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def tokenizer() -> PeakTokenizer:
    return PeakTokenizer(PeakVocabulary.from_names(NAMES))


@pytest.fixture
def model(tokenizer: PeakTokenizer) -> epifoundation.EpiFoundationModel:
    config = epifoundation.EpiFoundationConfig(
        vocab_size=len(tokenizer),
        gene_vocab_size=6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    return epifoundation.EpiFoundationModel(config).eval()


def test_on_the_wheel_nothing_comes_from_the_sources(root: Path) -> None:
    # The Makefile's second environment is known by the path file that lends it the libraries.
    is_wheel_environment = (Path(sysconfig.get_path("purelib")) / "borrowed.pth").exists()
    is_from_sources = Path(epifoundation.__file__).is_relative_to(root / "modeling_epifoundation")
    assert not (is_wheel_environment and is_from_sources)


def test_every_package_can_be_imported(package_folders: dict[str, Path]) -> None:
    for name in package_folders:
        importlib.import_module(name)


def test_the_installed_version_is_the_stated_one() -> None:
    assert importlib.metadata.version("epifoundation") == epifoundation.__version__


def test_a_file_of_the_user_does_not_stand_in_the_way(tmp_path: Path) -> None:
    for name in ("tokenization", "training", "inference", "evaluation", "cli"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the user's own file was imported')")
    assert run_python("import epifoundation.tokenization, epifoundation_cli; print('fine')", tmp_path) == "fine"


def test_import_leaves_optional_libraries_alone(tmp_path: Path) -> None:
    heavy = ("anndata", "datasets", "matplotlib", "mudata", "pandas", "scanpy", "sklearn")
    code = (
        "import sys, torch, transformers; before = set(sys.modules); import epifoundation; "
        f"print(sorted(set({heavy}) & (set(sys.modules) - before)))"
    )
    assert run_python(code, tmp_path) == "[]"


def test_the_command_line_package_imports_no_torch(tmp_path: Path) -> None:
    assert run_python("import sys, epifoundation_cli; print('torch' in sys.modules)", tmp_path) == "False"


def test_the_command_answers_help_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from epifoundation_cli.main import main\n"
        "sys.argv = ['epifoundation', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules)"
    )
    shown = run_python(code, tmp_path).splitlines()
    assert shown[-1] == "False"
    assert any("epifoundation" in line for line in shown)


def test_the_command_is_installed(tmp_path: Path) -> None:
    command = Path(sysconfig.get_path("scripts")) / "epifoundation"
    ran = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_saved_tokenizer_and_model_load_again(
    tmp_path: Path, tokenizer: PeakTokenizer, model: epifoundation.EpiFoundationModel
) -> None:
    tokenizer.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    cells = csr_matrix([[1, 0, 1, 0], [0, 1, 1, 1]])
    batch = tokenizer.pad(tokenizer(cells, peaks=NAMES), return_tensors="pt")
    loaded = AutoModel.from_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    batch_again: Any = again.pad(again(cells, peaks=NAMES), return_tensors="pt")
    assert torch.equal(batch["input_ids"], batch_again["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch_again).pooler_output, model(**batch).pooler_output)


def test_a_checkpoint_opens_where_the_package_is_absent(
    tmp_path: Path, model: epifoundation.EpiFoundationModel
) -> None:
    model.save_pretrained(tmp_path / "checkpoint")
    # None in sys.modules makes every import of the name fail, as on a machine without the package.
    code = (
        "import sys\n"
        "sys.modules['epifoundation'] = None\n"
        "from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(type(model).__name__)"
    )
    assert run_python(code, tmp_path, [str(tmp_path / "checkpoint")]).endswith("EpiFoundationModel")
