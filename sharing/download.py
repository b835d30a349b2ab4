"""From a repository on the Hub to a folder whose files are known to be sound."""

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_download, snapshot_download

from .checksums import damaged_files
from .folders import Kind
from .hub_errors import explained

# Files that run code when they are read.
PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.msgpack", "*.npy"]


class Pulled(NamedTuple):
    """What was fetched.

    Attributes:
        folder: in the cache of the Hub; it holds the files of exactly this commit.
        commit: what the revision stood for.
        is_verified: whether there were checksums, and all were right.
    """

    folder: Path
    commit: str
    is_verified: bool


def pull(repo_id: str, revision: str | None = None, *, kind: Kind = "model", token: str | None = None) -> Pulled:
    """Fetch a repository at one commit and check its files against their checksums; pickles are not fetched.

    Without a network, or with HF_HUB_OFFLINE set, a repository that was fetched before comes from the cache. Files
    that are damaged there are fetched once more.

    Args:
        repo_id: ``user/name``.
        revision: branch, tag or commit; by default the newest state of "main".
        kind: "model" or "dataset".
        token: by default that of ``hf auth login`` or HF_TOKEN.

    Raises:
        FileNotFoundError: if there is no such repository or revision, nor one in the cache.
        ValueError: if files are damaged on the Hub itself, or by the mirror.
        OSError: if the Hub refuses.
    """
    with explained(repo_id, revision):
        folder = Path(
            snapshot_download(repo_id, revision=revision, repo_type=kind, ignore_patterns=PICKLES, token=token)
        )
        commit = folder.name
        damaged = damaged_files(folder)
        for name in damaged or []:
            hf_hub_download(repo_id, name, repo_type=kind, revision=commit, force_download=True, token=token)
        damaged = damaged_files(folder) if damaged else damaged
    if damaged:
        raise ValueError(
            f"{repo_id} at {commit}: {', '.join(damaged[:5])} differ from their checksums, also when fetched anew: do "
            "not use them, and tell the owner of the repository or of the mirror"
        )
    return Pulled(folder, commit, damaged is not None)
