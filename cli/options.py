"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

InputFile = Annotated[
    Path, typer.Argument(metavar="INPUT", help="An .h5ad or .h5mu file: cells by peaks, raw counts in X.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="The folder of a checkpoint, or a name on the Hugging Face Hub.")
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.", show_default="the newest")
]
Modality = Annotated[
    str | None,
    typer.Option(help="The part of an .h5mu that holds the peaks.", show_default="atac, peaks, or the only one"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
