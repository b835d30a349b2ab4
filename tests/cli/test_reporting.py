import errno
import warnings

import pytest
import typer

from epifoundation_cli.reporting import one_line_errors


def ends(error):
    @one_line_errors
    def command():
        raise error

    with pytest.raises(typer.Exit) as end:
        command()
    return end.value.exit_code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad\n   input"), "error: bad input"),
        (FileExistsError("x exists"), "error: x exists"),
        (PermissionError(errno.EACCES, "Permission denied", "x.h5ad"), "error: x.h5ad: Permission denied"),
        (MemoryError(), "error: MemoryError"),
        (ImportError("Ray is missing: pip install ray"), "error: Ray is missing: pip install ray"),
    ],
)
def test_bad_input_is_one_line(error, line, capsys):
    assert ends(error) == 1
    assert capsys.readouterr().err == line + "\n"


def test_an_interruption_is_told(capsys):
    assert ends(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_unexpected_errors_keep_their_traceback():
    @one_line_errors
    def command():
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        command()


def test_warnings_are_one_line_and_only_within(capsys):
    @one_line_errors
    def command():
        warnings.warn("look\nhere", UserWarning, stacklevel=1)

    command()
    assert capsys.readouterr().err == "warning: look here\n"
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)
