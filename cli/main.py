"""The command `epifoundation`. Nothing here imports torch: each command imports what it needs when it runs."""

from importlib.metadata import version
from typing import Annotated

import typer

from .align import align
from .annotate import annotate
from .bulk import bulk
from .card import card
from .cluster import cluster
from .convert import convert
from .coverage import coverage
from .embed import embed
from .evaluate import evaluate
from .expression import expression
from .finetune import finetune
from .prepare import prepare
from .pretrain import pretrain
from .pull import pull
from .push import push
from .qc import qc
from .regions import regions
from .remap import remap
from .reporting import interrupt_on_termination
from .tokenize import tokenize
from .training import PASS_ON

app = typer.Typer(
    name="epifoundation",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: it wraps paragraphs, and reads the same in a file or a small terminal
    add_completion=False,
    pretty_exceptions_enable=False,  # an unexpected error shows a plain traceback, fit for a report
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    embed,
    cluster,
    annotate,
    bulk,
    expression,
    coverage,
    convert,
    tokenize,
    prepare,
    qc,
    remap,
    card,
    push,
    pull,
):
    app.command()(command)
app.command(context_settings=PASS_ON)(pretrain)
app.add_typer(finetune)
app.add_typer(evaluate)
app.add_typer(regions)
app.add_typer(align)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"epifoundation {version('epifoundation')}")
        raise typer.Exit


@app.callback()
def epifoundation(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Foundation models of single-cell chromatin accessibility.

    Start with: epifoundation coverage atac.h5ad --model checkpoint
    """


def main() -> None:
    """Run the command line; ends by SystemExit with the exit code."""
    interrupt_on_termination()
    app()
