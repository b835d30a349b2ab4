import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest

from epifoundation.dataset_builders.curation import file_engine

# The work lies in a module that other processes can import by name, and so does a copy of the engine: alone, it starts
# at once, where the package takes seconds to import.
WORK = """
import os, signal, time, warnings
from pathlib import Path

def work(name, folder):
    if name == "warns":
        warnings.warn("look here")
    if name == "bad":
        raise ValueError("it is bad")
    if name == "missing":
        open(Path(folder) / "no" / "file")
    if name == "killed" and not (Path(folder) / "was killed").exists():
        (Path(folder) / "was killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "broken":
        raise ZeroDivisionError
    if name == "slow":
        (Path(folder) / "started").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        finally:
            (Path(folder) / "cleaned up").touch()
    return name.upper()
"""


@pytest.fixture
def work_on_files(work):
    import engine_alone

    yield engine_alone.work_on_files
    del sys.modules["engine_alone"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "made_up_work.py").write_text(WORK)
    shutil.copyfile(file_engine.__file__, tmp_path / "engine_alone.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    import made_up_work

    yield made_up_work.work
    del sys.modules["made_up_work"]


def tasks(folder, *names):
    return {name: {"name": name, "folder": str(folder)} for name in names}


@pytest.mark.parametrize("jobs", [1, 2])
def test_failures_do_not_hold_up_the_others(work_on_files, work, tmp_path, jobs):
    with pytest.warns(UserWarning, match="^warns: look here$"):
        outcomes = work_on_files(work, tasks(tmp_path, "bad", "missing", "warns"), jobs=jobs)
    assert list(outcomes) == ["bad", "missing", "warns"]
    assert [outcome.result for outcome in outcomes.values()] == [None, None, "WARNS"]
    assert outcomes["bad"].error == "it is bad"
    assert outcomes["missing"].error == f"{tmp_path}/no/file: No such file or directory"
    assert outcomes["warns"].error is None


def test_a_killed_process_and_one_with_a_fault_are_reported(work_on_files, work, tmp_path, capfd):
    outcomes = work_on_files(work, tasks(tmp_path, "killed", "broken"), jobs=2)
    assert outcomes["killed"].error == "its process was killed (signal 9); run the command again to go on"
    assert outcomes["broken"].error == "its process ended with code 1, see above; run the command again to go on"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_fault_of_ours_is_not_hidden_in_one_process(work_on_files, work, tmp_path):
    with pytest.raises(ZeroDivisionError):
        work_on_files(work, tasks(tmp_path, "broken"))


PARENT = """
import made_up_work, sys
from engine_alone import work_on_files
if __name__ == "__main__":
    names = ["slow"]
    work_on_files(made_up_work.work, {n: {"name": n, "folder": sys.argv[1]} for n in names}, jobs=2)
"""


@pytest.mark.parametrize(("with_signal", "cleans_up"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_no_process_outlives_the_run(work_on_files, work, tmp_path, with_signal, cleans_up):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path], stderr=subprocess.PIPE)
    wait_for(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text())
    child = int((tmp_path / "started").read_text())
    parent.send_signal(with_signal)
    parent.communicate(timeout=30)
    wait_for(lambda: not is_running(child))
    assert (tmp_path / "cleaned up").exists() is cleans_up


def wait_for(happens, seconds=60):
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_impossible_options_are_refused(work_on_files, work, tmp_path):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        work_on_files(work, {}, jobs=0)
    with pytest.raises(ValueError, match="engine must be one of 'processes', 'ray', got 'dask'"):
        work_on_files(work, {}, engine="dask")


def test_without_ray_the_extra_is_named(work_on_files, work, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "epifoundation\[ray\]"'):
        work_on_files(work, tasks(tmp_path, "a"), engine="ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_of_two_workers_gives_the_same(work_on_files, work, tmp_path):
    pytest.importorskip("ray")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        outcomes = work_on_files(work, tasks(tmp_path, "a", "bad", "killed", "warns", "broken"), jobs=2, engine="ray")
    assert [outcomes[name].result for name in ("a", "killed", "warns")] == ["A", "KILLED", "WARNS"], outcomes
    assert outcomes["bad"].error == "it is bad"
    assert "ZeroDivisionError" in outcomes["broken"].error
    assert "warns: look here" in [str(warning.message) for warning in caught]
