"""``epifoundation pull``: a checkpoint or a data set from the Hugging Face Hub, at one commit, with its checksums."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from .options import Overwrite, Quiet, Revision
from .reporting import one_line_errors, quiet_libraries


@one_line_errors
def pull(
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="What to fetch.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to copy it to.", show_default="only the cache of the Hub"),
    ] = None,
    revision: Revision = None,
    dataset: Annotated[bool, typer.Option("--dataset", help="It is a data set, not a model.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a checkpoint or a data set from the Hugging Face Hub, and check that its files are whole.

    The commit is printed: given as --revision it fetches exactly the same files ever after, here and in 'embed' and
    'annotate'. Files go into the cache of the Hub, from where all commands take them, also without a network. Pickles
    are not fetched. HF_ENDPOINT names a mirror.

    Example: epifoundation pull ann/annotator --revision v1
    """
    from epifoundation.inference.output import new_folder
    from epifoundation.sharing import pull as fetch

    quiet_libraries()
    pulled = fetch(repository, revision, kind="dataset" if dataset else "model")
    if output is not None:
        with new_folder(output, overwrite=overwrite) as partial:
            shutil.copytree(pulled.folder, partial, dirs_exist_ok=True)  # the cache holds links; these are files
    if not quiet:
        checked = "files agree with their checksums" if pulled.is_verified else "it has no checksums to verify"
        typer.echo(f"{output or pulled.folder}: {repository} at {pulled.commit}; {checked}")
