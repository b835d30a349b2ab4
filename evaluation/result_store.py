"""Results of finished methods in a folder: a run that was ended, however, does not compute them again.

Each result is a file of its own, so the end of a process loses the one that was being computed.
"""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """What one method scored with one seed.

    Attributes:
        method: name of the method, of letters, digits, ``-`` and ``_``.
        title: in tables.
        seed: of the split and of the method.
        digest: of all that decides on the result, see `digest_of`.
        metrics: title -> value; NaN where it is not defined.
        seconds: by the clock.
        peak_gigabytes: see `Cost`.
        notes: what a reader should know of it.
    """

    method: str
    title: str
    seed: int
    digest: str
    metrics: Mapping[str, float]
    seconds: float
    peak_gigabytes: float
    notes: tuple[str, ...] = field(default=())


class ResultStore:
    """Results and arrays of methods in a folder, which is made when the first result is saved."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def load(self, method: str, seed: int, digest: str) -> Result | None:
        """The result of a method, if it is there and was computed from the same data with the same options.

        What cannot be read is as if it were not there: it is computed again.
        """
        try:
            content = json.loads(self._path(method, seed, ".json").read_text(encoding="utf-8"))
            metrics = {name: math.nan if value is None else value for name, value in content.pop("metrics").items()}
            result = Result(**content | {"metrics": metrics, "notes": tuple(content["notes"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return result if result.digest == digest else None

    def save(self, result: Result, arrays: Mapping[str, Any]) -> None:
        """Keep a result with what its figures are drawn from; an older one is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self._path(result.method, result.seed, ".npz")
        partial = target.with_name(f".{secrets.token_hex(4)}.partial.npz")
        try:
            np.savez_compressed(partial, **arrays)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        # Last: where there is a result there are its arrays.
        write_text(self._path(result.method, result.seed, ".json"), json_text(asdict(result)))

    def arrays(self, method: str, seed: int) -> dict[str, np.ndarray]:
        """The arrays saved with a result."""
        with np.load(self._path(method, seed, ".npz"), allow_pickle=False) as saved:
            return dict(saved)

    def _path(self, method: str, seed: int, ending: str) -> Path:
        return self.folder / f"{method}-seed{seed}{ending}"


def digest_of(**values: Any) -> str:
    """A digest of names, numbers, texts and lists; hexadecimal text."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def json_text(content: Any) -> str:
    """JSON, with None in place of NaN and infinity, which it does not know."""
    return json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
