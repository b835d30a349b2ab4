"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


def existing(path: Path) -> Path:
    """Refuse a mistyped name at once: importing what would read the file takes seconds."""
    if not path.exists():
        typer.echo(f"error: {path} does not exist: expected an .h5ad or .h5mu file", err=True)
        raise typer.Exit(1)
    return path


InputFile = Annotated[
    Path,
    typer.Argument(metavar="INPUT", callback=existing, help="An .h5ad or .h5mu file: cells by peaks, raw counts in X."),
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="The folder of a checkpoint, or a name on the Hugging Face Hub.")
]
ModelOrSmall = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="The folder of a checkpoint, or a name on the Hugging Face Hub.",
        show_default="the small human one that comes with the package, for trying it",
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.", show_default="the newest")
]
Modality = Annotated[
    str | None,
    typer.Option(help="The part of an .h5mu that holds the peaks.", show_default="atac, peaks, or the only one"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
MaxPeaks = Annotated[
    int | None, typer.Option(min=1, help="Peaks read of a cell at most.", show_default="as the checkpoint says")
]
MaxTokens = Annotated[
    int, typer.Option(min=1, help="Tokens computed at a time; lower it if the memory does not suffice.")
]
Device = Annotated[
    str | None, typer.Option(help="Where to compute, such as cpu or cuda:1.", show_default="cuda, else cpu")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Precision; bfloat16 is faster on a GPU.", show_default="as the checkpoint, float32 on a CPU"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no report.")]


def gene_names(genes: str) -> list[str]:
    """The names in a text file, one a line, or those given, with commas between them."""
    file = Path(genes)
    words = file.read_text(encoding="utf-8").split("\n") if file.is_file() else genes.split(",")
    return [word.strip() for word in words if word.strip()]
