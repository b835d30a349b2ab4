"""The surroundings of every test, set before anything is imported: offline, one thread, own caches."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

# The first process makes the folder, the workers of pytest-xdist inherit its name. Each gets a Hugging Face
# home of its own in it: two that write the same remote code at once would read each other's half files.
_caches = os.environ.get("EPIFOUNDATION_TEST_CACHES")
if _caches is None:
    _caches = tempfile.mkdtemp(prefix="epifoundation-tests-")
    atexit.register(shutil.rmtree, _caches, ignore_errors=True)

# A shell starts what it puts into the background with Ctrl-C ignored, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.update(
    EPIFOUNDATION_TEST_CACHES=_caches,
    HF_HOME=str(Path(_caches) / os.environ.get("PYTEST_XDIST_WORKER", "main")),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    # One computing thread per process: two workers on two cores then do not fight, and sums keep their order.
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MPLBACKEND="Agg",
)
# A user's own settings of these would lead around HF_HOME.
for _name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_TOKEN", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)
