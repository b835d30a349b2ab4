"""What the Hub answers, said so that a reader knows what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"
# What the client's own HTTP library raises, by whatever name that library goes in a version of it.
HTTPError: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
OF_STATUS = {
    401: f"the Hub does not accept the token: {LOG_IN}",
    403: "the token may not do this: it needs the right to write to this repository",
    429: "the Hub has had too many requests from here: wait a few minutes",
}


@contextmanager
def explained(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn errors of the Hub and of the network into one line each.

    Raises:
        FileNotFoundError: if the repository, its revision or a file of it is not there.
        ValueError: if `repo_id` is no name.
        OSError: if the Hub refuses, or cannot be reached.
    """
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} cannot be a name on the Hub: expected user/name") from error
    except OfflineModeIsEnabled as error:
        raise OSError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it, and try again") from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{repo_id} is not in the cache, and the Hub ({constants.ENDPOINT}) cannot be reached: connect once, or "
            "copy the folder"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no revision {revision!r} on the Hub") from error
    except GatedRepoError as error:
        raise FileNotFoundError(f"{repo_id} is gated: ask for access on its page, then {LOG_IN}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {repo_id} on the Hub that you may see: check the name; if it is private, {LOG_IN}"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} lacks a file on the Hub: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        raise OSError(f"{repo_id}: {OF_STATUS.get(status, _first_line(error))}") from error
    except RuntimeError as error:  # how the client tells that one of several uploads failed
        raise OSError(
            f"{repo_id}: {_first_line(error)} ({_one_line(error.__cause__)}); when the same is tried again, "
            "what has arrived is not sent again"
        ) from error
    except HTTPError as error:
        raise OSError(
            f"the Hub ({constants.ENDPOINT}) cannot be reached: {_first_line(error)}; nothing is lost, try again later"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error or "no reason given").split())
