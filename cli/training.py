"""What `pretrain` and `finetune` have in common: all words after the command are options of the run."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .reporting import INTERRUPTED

if TYPE_CHECKING:
    from epifoundation.training.options import RunOptions

# The options are those of the library and of the Trainer, too many to be declared twice: they are passed on.
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SETTINGS.yaml] [--NAME VALUE]...", help="Settings, and options that replace some of them."
    ),
]
ListOptions = Annotated[bool, typer.Option("--options", help="List the options with their defaults, and exit.")]


def start(kind: "type[RunOptions]", run: Callable[..., dict[str, Any]], words: list[str] | None, listing: bool) -> None:
    """Read the options and run, or list them."""
    from epifoundation.training.options import read_options
    from epifoundation.training.runs import summary

    if listing:
        typer.echo(_listed(kind))
        return
    options, arguments = read_options(kind, words or [])
    try:
        record = run(options, arguments)
    except KeyboardInterrupt:
        typer.echo("interrupted; started again, the run goes on from its last checkpoint", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"{arguments.output_dir}: {summary(record)}")


def _listed(kind: "type[RunOptions]") -> str:
    from dataclasses import MISSING

    from epifoundation.training.options import own_options

    lines = [
        f"--{name} ({'required' if default is MISSING else default}): {text}"
        for name, default, text in own_options(kind)
    ]
    return "\n".join([*lines, "", "and all of transformers.TrainingArguments, such as --learning_rate, --bf16"])
