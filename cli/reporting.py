"""How commands end: bad input in one line on stderr, warnings likewise, anything unexpected with its traceback."""

import functools
import signal
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec

import typer

INTERRUPTED = 130  # 128 + SIGINT, as shells count

P = ParamSpec("P")


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end with ``error: ...`` and code 1 on bad input, and with 130 when it is interrupted."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except KeyboardInterrupt:
                _say("interrupted; nothing was written")
                raise typer.Exit(INTERRUPTED) from None
            except (ValueError, OSError, MemoryError, ImportError) as error:
                _say(f"error: {_message(error)}")
                raise typer.Exit(1) from None

    return run


def interrupt_on_termination() -> None:
    """Let SIGTERM, which schedulers send at the end of a time limit, clean up as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    typer.echo(" ".join(text.split()), err=True)


def quiet_libraries() -> None:
    """Silence the log and the progress bars of Transformers; what matters of them is raised as an error here."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
