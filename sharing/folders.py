"""What belongs into the folder of a checkpoint or of tokenised cells, and what is missing there."""

import shutil
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from .cards import CARD_FILE, write_card
from .checksums import CHECKSUMS_FILE, write_checksums
from .records import ABOUT_FILE, PREPARED_FILE, RUN_FILE, TOKENIZED_FILE, read_json

Kind = Literal["model", "dataset"]

LICENSE_FILE = "LICENSE"
TOKENIZER_FILES = ("peaks.npz", "genes.tsv", "tokenizer_config.json", "*_epifoundation.py")
SHARED_FILES = (CARD_FILE, LICENSE_FILE, ABOUT_FILE, TOKENIZED_FILE, CHECKSUMS_FILE)
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    RUN_FILE,
    "curves.png",
    *TOKENIZER_FILES,
    *SHARED_FILES,
)
DATASET_FILES = ("*.parquet", "data/*.parquet", PREPARED_FILE, *TOKENIZER_FILES, *SHARED_FILES)


def kind_of(folder: Path) -> Kind:
    """Whether a folder holds a checkpoint or tokenised cells.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds neither.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist: expected a checkpoint or tokenised cells")
    if (folder / "config.json").is_file():
        return "model"
    if any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet")):
        return "dataset"
    raise ValueError(
        f"{folder} holds neither a checkpoint (config.json) nor tokenised cells (data/*.parquet): expected a folder "
        "written by training, 'convert', 'tokenize' or save_pretrained"
    )


def contents(folder: Path) -> list[str]:
    """Paths within `folder` of the files that make up the product; nothing else in it is ever shared.

    So the pickles and intermediate checkpoints that training leaves stay where they are.
    """
    patterns = MODEL_FILES if kind_of(folder) == "model" else DATASET_FILES
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return sorted(name for name in files if belongs(name, patterns))


def belongs(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path within a folder is one of the files that `patterns` describe, each for its own depth."""
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)


def complete_checkpoint(folder: Path, cells: Path | None = None, *, renew_card: bool = False) -> list[str]:
    """Add to a saved model and tokenizer what its users need besides: card, licence of the code, checksums.

    The checksums are always made anew.

    Args:
        folder: a checkpoint.
        cells: the folder of tokenised cells it was trained on, whose report the card tells from.
        renew_card: write the card anew, for weights that are new; by default one that is there stays as it is.

    Returns:
        The files of the checkpoint.
    """
    if cells is not None and (cells / TOKENIZED_FILE).is_file():
        shutil.copyfile(cells / TOKENIZED_FILE, folder / TOKENIZED_FILE)
    return _complete(folder, renew_card)


def complete_dataset(folder: Path, *, name: str | None = None, renew_card: bool = False) -> list[str]:
    """Likewise for a folder of tokenised cells; `name` is the title of a new card."""
    return _complete(folder, renew_card, name)


def _complete(folder: Path, renew_card: bool, name: str | None = None) -> list[str]:
    kind = kind_of(folder)
    if any(folder.glob("*_epifoundation.py")) and not (folder / LICENSE_FILE).exists():
        (folder / LICENSE_FILE).write_text(_licence_of_code(), encoding="utf-8")
    if renew_card or not (folder / CARD_FILE).exists():
        write_card(folder, kind, name=name)
    write_checksums(folder, contents(folder))
    return contents(folder)


def refuse_incomplete(folder: Path) -> None:
    """Check that a folder holds all that its users will need.

    Raises:
        FileNotFoundError: if files are missing; all are named.
        ValueError: if it holds something else, or a JSON file is damaged.
    """
    if kind_of(folder) == "dataset":
        return
    config = read_json(folder / "config.json")
    if config.get("model_type") != "epifoundation":
        raise ValueError(f"{folder} holds a model of the type {config.get('model_type')!r}, expected 'epifoundation'")
    modules = {place.split(".")[0] for place in config.get("auto_map", {}).values()}
    needed = {f"{module}.py" for module in modules} | {"peaks.npz", "tokenizer_config.json"} | _weights(folder)
    missing = sorted(name for name in needed if not (folder / name).is_file())
    if not modules:
        missing.append("auto_map in config.json")
    if missing:
        raise FileNotFoundError(
            f"{folder} is not a complete checkpoint: it lacks {', '.join(missing)}; save model and tokenizer into one "
            "folder with save_pretrained"
        )


def _weights(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    return set(read_json(index).get("weight_map", {}).values()) if index.is_file() else {"model.safetensors"}


def _licence_of_code() -> str:
    """The licence of this package, whose code travels with a checkpoint."""
    # In a clone the build leaves a second, incomplete description of the package beside the installed one.
    texts = (installed.read_text("licenses/LICENSE") for installed in distributions(name="epifoundation"))
    text = next((text for text in texts if text), None)
    if text is None:
        raise FileNotFoundError("this installation of epifoundation lacks its licence: install the package anew")
    return text
