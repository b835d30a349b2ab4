"""The same work on many files: one after the other, in several processes, or on a Ray cluster.

A file that fails, or whose process is killed, does not hold up the others.
"""

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, get_args

from tqdm.auto import tqdm

Engine = Literal["processes", "ray"]
Work = Callable[..., Any]
EXPECTED_ERRORS = (ValueError, OSError, MemoryError)  # what bad input and full disks raise; others are our own
RETRIES_OF_RAY = 2  # of a task whose worker was killed


@dataclass(frozen=True)
class Outcome:
    """How the work on one file ended.

    Attributes:
        result: what the work returned; None if it failed.
        error: what went wrong; None if nothing did.
        warnings: what it warned of.
    """

    result: Any = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)


def work_on_files(
    work: Work,
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    jobs: int = 1,
    engine: Engine = "processes",
    description: str = "",
    show_progress: bool = True,
) -> dict[str, Outcome]:
    """Call ``work(**arguments)`` for each task; all that raise `ValueError`, `OSError` or `MemoryError` are reported.

    Any other error ends the whole, unless it occurs in another process.

    Args:
        work: a function of a module; what it takes and gives must be fit for pickle where there are processes.
        tasks: arguments by the name of the file.
        jobs: files worked on at a time, each in a process of its own; 1 works in this process.
        engine: "processes" of this machine, or "ray": a cluster if the variable RAY_ADDRESS or a running Ray names
            one, else as many local workers as `jobs`. All machines must see the same files under the same names.
        description: of the progress bar.
        show_progress: show a bar on a terminal.

    Returns:
        An `Outcome` by the name of the file, in the order of `tasks`.

    Raises:
        ImportError: if Ray is asked for and not installed.
        ValueError: if `jobs` or `engine` are not possible.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {', '.join(map(repr, get_args(Engine)))}, got {engine!r}")
    outcomes: dict[str, Outcome] = {}
    finished = _on_ray(work, tasks, jobs) if engine == "ray" else _in_processes(work, tasks, jobs)
    bar = {"total": len(tasks), "unit": "file", "desc": description, "delay": 3}
    with tqdm(**bar, disable=None if show_progress else True) as progress:
        for name, outcome in finished:
            for text in outcome.warnings:
                warnings.warn(f"{name}: {text}", stacklevel=2)
            outcomes[name] = outcome
            progress.update()
    return {name: outcomes[name] for name in tasks}


def _outcome(work: Work, arguments: Mapping[str, Any]) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            result, error = work(**arguments), None
        except EXPECTED_ERRORS as raised:
            result, error = None, _message(raised)
    return Outcome(result, error, [str(warning.message) for warning in caught])


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _in_processes(work: Work, tasks: Mapping[str, Mapping[str, Any]], jobs: int) -> Iterator[tuple[str, Outcome]]:
    if jobs == 1:
        for name, arguments in tasks.items():
            yield name, _outcome(work, arguments)
        return
    waiting = list(tasks.items())[::-1]
    running: dict[Connection, tuple[str, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, arguments = waiting.pop()
                connection, process = _started(work, arguments)
                running[connection] = name, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                name, process = running.pop(ready)
                yield name, _received(ready, process)
    finally:
        for _, process in running.values():
            process.terminate()  # which `_child` turns into an interruption, so that it cleans up
        for _, process in running.values():
            process.join()


def _started(work: Work, arguments: Mapping[str, Any]) -> tuple[Connection, Any]:
    # Not fork: threads of this process, and open HDF5 files, do not survive it.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, arguments))
    process.start()
    sender.close()
    return receiver, process


def _child(sender: Connection, work: Work, arguments: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send(_outcome(work, arguments))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _end_with_parent() -> None:
    """End at once when the parent is killed; another run may already be at the same work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _received(receiver: Connection, process: Any) -> Outcome:
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = None
    process.join()
    receiver.close()
    if isinstance(outcome, Outcome):
        return outcome
    code = process.exitcode
    reason = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}, see above"
    return Outcome(error=f"its process {reason}; run the command again to go on")


def _on_ray(work: Work, tasks: Mapping[str, Mapping[str, Any]], jobs: int) -> Iterator[tuple[str, Outcome]]:
    try:
        import ray
    except ImportError as error:
        raise ImportError('engine "ray" needs Ray: pip install "epifoundation[ray]"') from error
    with _ray_running(ray, jobs):
        remote = ray.remote(max_retries=RETRIES_OF_RAY)(_outcome)
        names = {remote.remote(work, arguments): name for name, arguments in tasks.items()}
        while names:
            [done], _ = ray.wait(list(names))
            name = names.pop(done)
            try:
                yield name, ray.get(done)
            except ray.exceptions.RayError as error:
                yield name, Outcome(error=f"its Ray task failed: {str(error).splitlines()[-1]}")


@contextmanager
def _ray_running(ray: Any, jobs: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    is_cluster = "RAY_ADDRESS" in os.environ
    ray.init(
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({} if is_cluster else {"num_cpus": jobs, "include_dashboard": False}),
    )
    try:
        yield
    finally:
        ray.shutdown()
