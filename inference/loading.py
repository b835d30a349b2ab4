"""Load a model and its tokenizer from a folder or the Hub, with errors that say what is missing."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError

from epifoundation import EpiFoundationModel, EpiFoundationPreTrainedModel
from epifoundation.configuration_epifoundation import FORMAT_VERSION
from epifoundation.tokenization import PeakTokenizer

MODEL_TYPE = "epifoundation"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZER_FILES = ("peaks.npz", "genes.tsv", "tokenizer_config.json")
# Class -> how a checkpoint with all its weights is made.
_MADE_BY = {
    "EpiFoundationForCellClassification": "finetune classification",
    "EpiFoundationForExpressionPrediction": "finetune expression",
    "EpiFoundationForContrastiveAlignment": "finetune contrastive",
    "EpiFoundationForExpressionImputation": "finetune imputation",
    "EpiFoundationForBulkClassification": "finetune bulk",
}
# Neither code nor pickles are ever fetched: the code is in this package, the weights are safetensors.
_MODEL_FILES = ("config.json", "*.safetensors", "model.safetensors.index.json")


def load_model_and_tokenizer(
    model: str | os.PathLike[str],
    revision: str | None = None,
    device: str | torch.device | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    model_class: type[EpiFoundationPreTrainedModel] = EpiFoundationModel,
    tokenizer: PeakTokenizer | None = None,
) -> tuple[EpiFoundationPreTrainedModel, PeakTokenizer]:
    """Load a model, in evaluation mode, and the tokenizer saved beside it.

    Args:
        model: a folder, or a name on the Hub such as "organisation/model".
        revision: branch, tag or commit on the Hub.
        device: where to put the model; by default "cuda" if there is one, else "cpu".
        dtype: precision to compute in, such as "bfloat16", which lets a GPU use flash-attention. By default that of
            the checkpoint; on a CPU always "float32", where half precision is far slower.
        model_class: the class to load; every one can be loaded from any checkpoint that holds its weights.
        tokenizer: used in place of that of the checkpoint.

    Raises:
        FileNotFoundError: if the folder does not exist, lacks files (all are named), or the model is neither
            on the Hub nor in the cache.
        ValueError: if the checkpoint is of another kind, lacks weights, is damaged, or model and tokenizer do
            not belong together; if there is no such device.
    """
    target = _device(device)
    wanted = _MODEL_FILES if tokenizer is not None else (*_MODEL_FILES, *_TOKENIZER_FILES)
    folder, commit = _folder(model, revision, wanted)
    _refuse_incomplete(folder, model, needs_tokenizer=tokenizer is None)
    _refuse_other_models(folder / "config.json")
    if tokenizer is None:
        tokenizer = _tokenizer(folder)
    loaded = _weights(model_class, folder)
    refuse_mismatch(loaded.config, tokenizer)
    if commit is not None:
        loaded.config._name_or_path = os.fspath(model)  # not the folder of the cache
        loaded.config._commit_hash = commit
    if dtype is None and target.type == "cpu":
        dtype = torch.float32
    return loaded.to(target, _dtype(dtype)).eval(), tokenizer


def load_tokenizer(model: str | os.PathLike[str], revision: str | None = None) -> PeakTokenizer:
    """Load the tokenizer of a checkpoint alone; for arguments and errors see `load_model_and_tokenizer`."""
    folder, _ = _folder(model, revision, _TOKENIZER_FILES)
    if not (folder / "peaks.npz").is_file():
        raise FileNotFoundError(f"{os.fspath(model)} is incomplete: it lacks peaks.npz, the peak vocabulary")
    return _tokenizer(folder)


def tokenizer_of(model: Any) -> PeakTokenizer:
    """Load the tokenizer from where a model object was loaded from.

    Raises:
        ValueError: if the model was not loaded from anywhere.
    """
    name = getattr(model.config, "name_or_path", "")
    if not name:
        raise ValueError("the model was not loaded from a folder, so its tokenizer is not known: pass tokenizer=")
    commit = getattr(model.config, "_commit_hash", None)
    if commit is None and not Path(name).is_dir():
        # A relative folder, seen from elsewhere by now. Never take it for a name on the Hub.
        raise ValueError(f"the folder {name} that the model was loaded from is not there any more: pass tokenizer=")
    return load_tokenizer(name, commit)


def encoder_of(model: Any) -> EpiFoundationModel:
    """The encoder inside a model object of any class, also one with PEFT adapters.

    Raises:
        TypeError: if it is not an EpiFoundation model.
    """
    if hasattr(model, "get_base_model"):  # of PEFT; the adapters stay inside
        model = model.get_base_model()
    # Not isinstance: the classes of a checkpoint loaded with its own code are others than ours.
    if getattr(getattr(model, "config", None), "model_type", None) != MODEL_TYPE:
        raise TypeError(
            "expected an EpiFoundation model, a folder or a name on the Hub, got an object of type "
            f"{type(model).__name__}"
        )
    encoder: EpiFoundationModel = model.base_model
    return encoder


def refuse_mismatch(config: Any, tokenizer: PeakTokenizer) -> None:
    """Check that a tokenizer makes ids which the model has rows for.

    Raises:
        ValueError: if it does not.
    """
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"model and tokenizer do not belong together: the model has vocab_size {config.vocab_size:,}, the "
            f"tokenizer {len(tokenizer):,} ids; take both from one checkpoint"
        )
    num_chromosomes = int(tokenizer.peak_chromosome_ids.max()) + 1
    if config.use_chromosome_embeddings and num_chromosomes > config.num_chromosomes:
        raise ValueError(
            f"model and tokenizer do not belong together: the model has num_chromosomes {config.num_chromosomes}, "
            f"the tokenizer {num_chromosomes}; take both from one checkpoint"
        )


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(named, torch.dtype) and named.is_floating_point):
        raise ValueError(f"there is no precision {dtype!r}: expected 'float32', 'bfloat16' or 'float16'")
    return named


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return checked_device(device)


def checked_device(device: str | torch.device) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: if this machine has none.
    """
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    # torch raises RuntimeError for most, AssertionError where it was built without CUDA
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"there is no device {str(device)!r} here, try 'cpu': {reason}") from error
    return chosen


def _folder(model: str | os.PathLike[str], revision: str | None, wanted: tuple[str, ...]) -> tuple[Path, str | None]:
    """The folder with the files, and the commit if they come from the Hub."""
    name = os.fspath(model)
    if Path(name).is_dir():
        return Path(name), None
    if Path(name).exists():
        raise ValueError(
            f"{name} is a file: expected the folder of a checkpoint or a name on the Hub; an official .pth "
            "becomes one with 'epifoundation convert'"
        )
    if isinstance(model, os.PathLike) or Path(name).is_absolute() or name.startswith((".", "~")):
        raise FileNotFoundError(f"the folder {name} does not exist: expected that of a checkpoint")
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted)))
    except HFValidationError as error:
        raise FileNotFoundError(
            f"the folder {name} does not exist, nor can this be a name on the Hub (organisation/model)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {name}, and no model of this name in the cache while the Hub cannot be reached: "
            "check the name, or connect and load it once"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no revision {revision!r} on the Hub") from error
    except GatedRepoError as error:
        raise FileNotFoundError(f"{name} is gated: ask for access on its page, then log in (hf auth login)") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is neither a folder nor a public model {name} on the Hub: check the name, or log in if it is "
            "private (hf auth login)"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"{name} could not be fetched from the Hub: {error}") from error
    return folder, folder.name


def _refuse_incomplete(folder: Path, model: str | os.PathLike[str], needs_tokenizer: bool) -> None:
    missing = [name for name in ("config.json",) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(WEIGHTS[0])
    elif (folder / WEIGHTS[1]).is_file():
        shards = set(_json(folder / WEIGHTS[1]).get("weight_map", {}).values())
        missing += sorted(name for name in shards if not (folder / name).is_file())
    if needs_tokenizer and not (folder / "peaks.npz").is_file():
        missing.append("peaks.npz")
    if missing:
        raise FileNotFoundError(
            f"{os.fspath(model)} is not a complete checkpoint: it lacks {', '.join(missing)}; save model and "
            "tokenizer into one folder with save_pretrained"
        )


def _refuse_other_models(file: Path) -> None:
    config = _json(file)
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{file.parent} holds a model of the type {config.get('model_type')!r}, expected {MODEL_TYPE!r}"
        )
    # Before anything else of it is read: a newer format may have fields of other types.
    version = config.get("format_version", 1)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(
            f"{file.parent} was written by a newer epifoundation (format_version {version}; this one reads up to "
            f"{FORMAT_VERSION}): upgrade with 'pip install -U epifoundation'"
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object")
    return content


def _tokenizer(folder: Path) -> PeakTokenizer:
    return PeakTokenizer.from_pretrained(folder, local_files_only=True)


def _weights(model_class: type[EpiFoundationPreTrainedModel], folder: Path) -> Any:
    try:
        loaded: Any = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except StrictDataclassError as error:
        raise ValueError(f"{folder / 'config.json'} cannot be used: {' '.join(str(error).split())}") from error
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} are damaged, copy or download them again: {error}") from error
    except RuntimeError as error:  # shapes that differ
        raise ValueError(f"the weights in {folder} do not fit its config.json: {error}") from error
    model, found = loaded
    if found["missing_keys"]:
        # Transformers draws them at random and goes on, which no user of a trained model wants.
        missing, maker = sorted(found["missing_keys"]), _MADE_BY.get(model_class.__name__)
        raise ValueError(
            f"the weights in {folder} lack {len(missing)} tensors of {model_class.__name__}, such as "
            f"{', '.join(missing[:3])}" + (f"; 'epifoundation {maker}' makes a checkpoint with them" if maker else "")
        )
    return model
