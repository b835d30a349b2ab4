"""``epifoundation card``: the card of a checkpoint or data set, from what its run wrote down."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Overwrite
from .reporting import one_line_errors


@one_line_errors
def card(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A checkpoint, or a folder of tokenised cells.")],
    about: Annotated[
        Path | None,
        typer.Option(help="YAML with what no run can know.", show_default="about.yaml in the folder, if it is there"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="README.md in the folder")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the card of a checkpoint or data set. Its numbers come from run.json and tokenized.json alone.

    about.yaml may say: name, description, licence, data (a list of name, url, licence, citation, digest),
    intended_use, limits, citation.

    Example: epifoundation card annotator --about about.yaml --overwrite
    """
    from epifoundation.inference.output import new_file
    from epifoundation.sharing import dataset_card, kind_of, model_card

    if about is not None and not about.is_file():
        raise FileNotFoundError(f"{about} does not exist: expected a YAML file")
    make = model_card if kind_of(folder) == "model" else dataset_card
    text = str(make(folder, about))
    target = output or folder / "README.md"
    with new_file(target, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(f"{target}: written")
