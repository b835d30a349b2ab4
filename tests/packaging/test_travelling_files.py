"""The files that `save_pretrained` copies beside a checkpoint run there without the package.

transformers finds the files to copy by reading `from .name import x` lines; what it does not see there is
missing on the other side. So the files keep to the one form that survives the journey.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDERS = ("modeling_epifoundation", "tokenization")
ALLOWED = {"numpy", "torch", "transformers", "safetensors", "huggingface_hub.dataclasses"}
# Faster kernels that some machines have: fine inside `try: ... except ImportError:`, and only there.
ALLOWED_IN_TRY = {"flash_attn"}


def travelling_files(root: Path) -> list[Path]:
    return sorted(file for folder in FOLDERS for file in (root / folder).glob("*.py") if file.name != "__init__.py")


def is_within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def imports_in_try(tree: ast.Module) -> set[ast.AST]:
    """Imports at the top of the file whose failure is caught."""
    caught = [node for node in tree.body if isinstance(node, ast.Try) and "ImportError" in handled_names(node)]
    return {statement for node in caught for statement in node.body}


def handled_names(node: ast.Try) -> set[str]:
    return {handler.type.id for handler in node.handlers if isinstance(handler.type, ast.Name)}


def offences(source: str, siblings: set[str]) -> list[str]:
    """What would break when the file lies beside a checkpoint; `siblings` are the modules of its folder."""
    tree = ast.parse(source)
    at_top, in_try = set(tree.body), imports_in_try(tree)
    found = []
    for node in ast.walk(tree):
        allowed = ALLOWED | sys.stdlib_module_names | (ALLOWED_IN_TRY if node in in_try else set())
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if not is_within(alias.name, allowed)]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [] if is_within(node.module or "", allowed) else [f"from {node.module} import ..."]
        elif isinstance(node, ast.ImportFrom):
            line = f"from {'.' * node.level}{node.module or ''} import ..."
            if node.level > 1 or node.module not in siblings:
                found.append(f"{line}: only `from .name_epifoundation import x`, of the same folder, is copied")
            elif node not in at_top:
                found.append(f"{line}: not at the top of the file")
    return found


def test_travelling_files_import_only_what_is_there_on_the_other_side(root: Path) -> None:
    bad = []
    for file in travelling_files(root):
        siblings = {other.stem for other in file.parent.glob("*_epifoundation.py")}
        bad += [f"{file.relative_to(root)}: {what}" for what in offences(file.read_text(encoding="utf-8"), siblings)]
    assert not bad, "\n".join(bad)


def test_travelling_files_are_named_for_the_journey(root: Path) -> None:
    odd = [str(file.relative_to(root)) for file in travelling_files(root) if not file.stem.endswith("_epifoundation")]
    assert not odd, f"expected names like `name_epifoundation.py`, which no other model's file has, got {odd}"


def test_travelling_files_have_unique_names(root: Path) -> None:
    counts = Counter(file.name for file in travelling_files(root))
    assert not [name for name, count in counts.items() if count > 1]


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        ("from .here_epifoundation import x", True),
        ("from huggingface_hub.dataclasses import strict", True),
        ("import torch.nn.functional as F", True),
        ("import json", True),
        ("from .absent_epifoundation import x", False),
        ("from . import here_epifoundation", False),
        ("from ..tokenization.here_epifoundation import x", False),
        ("from epifoundation.here_epifoundation import x", False),
        ("from huggingface_hub import hf_hub_download", False),
        ("def f():\n    from .here_epifoundation import x", False),
        ("def f():\n    import anndata", False),
        ("import torchvision", False),
        ("try:\n    import flash_attn\nexcept ImportError:\n    flash_attn = None", True),
        ("try:\n    import flash_attn\nexcept ValueError:\n    flash_attn = None", False),
        ("import flash_attn", False),
    ],
)
def test_the_check_knows_what_survives_the_journey(line: str, is_fine: bool) -> None:
    assert (not offences(line, {"here_epifoundation"})) is is_fine
