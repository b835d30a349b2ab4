"""From a folder, or a model in memory, to a repository on the Hub."""

import filecmp
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from .folders import (
    DATASET_FILES,
    MODEL_FILES,
    SHARED_FILES,
    Kind,
    belongs,
    complete_checkpoint,
    complete_dataset,
    contents,
    kind_of,
    refuse_incomplete,
)
from .hub_errors import explained

TEXTS = (".py", ".json", ".md", ".yaml", ".tsv")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
# What describes a checkpoint besides its weights and goes along as long as the weights are the same.
COMPANIONS = (*SHARED_FILES, "run.json", "curves.png")


class Pushed(NamedTuple):
    """Where a folder went.

    Attributes:
        url: of the repository, or of the pull request.
        commit: its commit, to pull exactly this state.
        kind: "model" or "dataset".
        is_private: whether others can see it.
        files: what was pushed.
    """

    url: str
    commit: str
    kind: Kind
    is_private: bool
    files: list[str]


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Bring a checkpoint or tokenised cells to the Hub in one commit, so that others see all of it or nothing.

    The folder is checked and completed first (see `complete_checkpoint`). Only files of the product are uploaded, and
    of files of an earlier state those are removed that do not belong to this one. An upload that was interrupted goes
    on when it is repeated: what the Hub has already received is not sent again.

    Args:
        folder: of a checkpoint or of tokenised cells.
        repo_id: ``user/name``; it is made if it is not there.
        private: whether a new repository is private. One that is there keeps what it is.
        revision: branch to push to, made if it is not there; by default "main".
        create_pr: open a pull request in place of a commit to the branch.
        commit_message: of the commit.
        token: by default that of ``hf auth login`` or HF_TOKEN. It is sent to the Hub alone, and never stored.

    Raises:
        FileNotFoundError: if the folder is not there or incomplete.
        ValueError: if it holds something else, or a file contains a token.
        OSError: if the Hub cannot be reached or refuses.
    """
    if create_pr and revision is not None:
        raise ValueError("a pull request goes to the main branch: leave revision out, or create_pr")
    kind = kind_of(folder)
    refuse_incomplete(folder)
    files = complete_checkpoint(folder) if kind == "model" else complete_dataset(folder)
    _refuse_tokens(folder, files)
    api = HfApi(token=token)
    with explained(repo_id, revision):
        is_private = _make_repository(api, repo_id, kind, private)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=kind, exist_ok=True)
        patterns = MODEL_FILES if kind == "model" else DATASET_FILES
        stale = _stale(api.list_repo_files(repo_id, revision=revision, repo_type=kind), files, patterns)
        operations = [CommitOperationDelete(path_in_repo=name) for name in stale]
        info = api.create_commit(
            repo_id,
            [*operations, *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files)],
            commit_message=commit_message or f"Upload {kind} with epifoundation",
            repo_type=kind,
            revision=revision,
            create_pr=create_pr,
        )
    url = info.pr_url or f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    return Pushed(url, info.oid, kind, is_private, files)


def push_to_hub(
    self: Any,
    repo_id: str,
    *,
    tokenizer: Any = None,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
    max_shard_size: int | str = "5GB",
) -> str:
    """Bring this model, its tokenizer and all that belongs to it to the Hub, as ``epifoundation push`` does.

    Card, record of the run and figures of the folder it was loaded from go along if the weights are still those.

    Args:
        repo_id: ``user/name``; it is made if it is not there.
        tokenizer: by default that of the folder the model was loaded from.
        private: whether a new repository is private.
        revision: branch to push to.
        create_pr: open a pull request.
        commit_message: of the commit.
        token: by default that of ``hf auth login`` or HF_TOKEN.
        max_shard_size: weights are cut into files of at most this size.

    Returns:
        The address of the repository or of the pull request.

    Raises:
        ValueError: if the tokenizer is not known.
        OSError: if the Hub cannot be reached or refuses.
    """
    source = Path(getattr(self.config, "name_or_path", "") or "no folder")
    if tokenizer is None:
        if not (source / "peaks.npz").is_file():
            raise ValueError(
                "a model without its peaks is of no use to others: pass tokenizer=, or load it from a folder"
            )
        from epifoundation.tokenization import PeakTokenizer

        tokenizer = PeakTokenizer.from_pretrained(source)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        self.save_pretrained(folder, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(folder)
        if _have_same_weights(source, folder):
            for name in COMPANIONS:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
        pushed = push_folder(
            folder,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            token=token,
        )
    return pushed.url


def _have_same_weights(source: Path, folder: Path) -> bool:
    """Whether the weights in two folders are the same files with the same content."""
    names = {name for name in contents(folder) if name.endswith(".safetensors")}
    if names != {file.name for file in source.glob("model*.safetensors")}:
        return False
    return all(filecmp.cmp(source / name, folder / name, shallow=False) for name in names)


def _make_repository(api: HfApi, repo_id: str, kind: Kind, private: bool) -> bool:
    """Make sure that a repository is there; whether it is private comes back."""
    try:
        return bool(api.repo_info(repo_id, repo_type=kind).private)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        return private


def _stale(remote: Iterable[str], files: list[str], patterns: tuple[str, ...]) -> list[str]:
    """Files of an earlier state that this one does not have; files of others stay."""
    return sorted(name for name in remote if name not in files and belongs(name, patterns))


def _refuse_tokens(folder: Path, files: list[str]) -> None:
    for name in files:
        if name.endswith(TEXTS) and TOKEN.search((folder / name).read_text(encoding="utf-8", errors="replace")):
            raise ValueError(f"{folder / name} contains what looks like an access token: take it out, and revoke it")
