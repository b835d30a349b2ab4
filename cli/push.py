"""``epifoundation push``: a checkpoint or tokenised cells to the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet
from .reporting import INTERRUPTED, one_line_errors, quiet_libraries


@one_line_errors
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A checkpoint, or a folder that 'tokenize' or 'prepare' wrote.")
    ],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Where to; it is made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to, made if it is not there.", show_default="main")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request in place of a commit.")] = False,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.", show_default="Upload ...")] = None,
    quiet: Quiet = False,
) -> None:
    """Bring a checkpoint or a data set to the Hugging Face Hub, private unless --public says otherwise.

    The folder is checked first, and completed by a card (see 'card'), a licence of the code and checksums. It goes up
    in one commit. Only files that belong to it are sent; pickles and intermediate checkpoints stay. An interrupted
    upload goes on when the same command is given again. The token comes from 'hf auth login' or HF_TOKEN and is
    written nowhere; HF_ENDPOINT names another Hub.

    Example: epifoundation push annotator ann/annotator
    """
    from epifoundation.inference import load_model_and_tokenizer
    from epifoundation.sharing import kind_of, push_folder, refuse_incomplete

    quiet_libraries()
    refuse_incomplete(folder)
    if kind_of(folder) == "model":
        load_model_and_tokenizer(folder, device="cpu")  # what does not load here would load nowhere
    try:
        pushed = push_folder(
            folder, repository, private=not public, revision=revision, create_pr=create_pr, commit_message=message
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; given again, the command goes on with what is missing", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        visible = "private" if pushed.is_private else "public"
        typer.echo(f"{pushed.url} ({visible} {pushed.kind}): {len(pushed.files)} files, commit {pushed.commit}")
