import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from epifoundation.evaluation import result_store
from epifoundation.evaluation.result_store import Result, ResultStore, digest_of, json_text, write_text

RESULT = Result("lsi", "TF-IDF + LSI", 1, "d1", {"NMI": 0.5, "ROC-AUC": math.nan}, 1.5, 0.2, ("a note",))


def test_a_result_comes_back_as_it_was(tmp_path):
    store = ResultStore(tmp_path / "results")
    store.save(RESULT, {"embedding": np.arange(6.0).reshape(3, 2), "types": np.array(["T", "B cell"])})
    found = store.load("lsi", 1, "d1")
    assert math.isnan(found.metrics["ROC-AUC"])
    assert json_text(vars(found)) == json_text(vars(RESULT))
    arrays = store.arrays("lsi", 1)
    np.testing.assert_array_equal(arrays["embedding"], [[0, 1], [2, 3], [4, 5]])
    assert arrays["types"].tolist() == ["T", "B cell"]


def test_other_data_options_methods_or_seeds_are_not_taken(tmp_path):
    store = ResultStore(tmp_path)
    store.save(RESULT, {})
    assert store.load("lsi", 1, "d2") is None
    assert store.load("lsi", 2, "d1") is None
    assert store.load("pca", 1, "d1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"metrics": 1}', '{"metrics": {}, "notes": [], "else": 1}'])
def test_what_cannot_be_read_is_computed_again(tmp_path, text):
    (tmp_path / "lsi-seed1.json").write_text(text)
    assert ResultStore(tmp_path).load("lsi", 1, "d1") is None


def test_a_killed_process_leaves_finished_results_and_no_half_ones(tmp_path):
    code = """
import importlib.util, os, signal, sys
import numpy as np
spec = importlib.util.spec_from_file_location("result_store", sys.argv[1])  # without the package, which imports torch
module = importlib.util.module_from_spec(spec)
sys.modules["result_store"] = module
spec.loader.exec_module(module)
store = module.ResultStore(sys.argv[2])
store.save(module.Result("pca", "PCA", 0, "d", {"NMI": 1.0}, 1.0, 1.0), {"x": np.ones(3)})
np.savez_compressed = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
store.save(module.Result("lsi", "LSI", 0, "d", {"NMI": 1.0}, 1.0, 1.0), {"x": np.ones(3)})
"""
    command = [sys.executable, "-c", code, result_store.__file__, str(tmp_path)]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    store = ResultStore(tmp_path)
    assert store.load("pca", 0, "d").metrics == {"NMI": 1.0}
    assert store.load("lsi", 0, "d") is None


def test_digests_differ_where_anything_does():
    assert digest_of(a=1, b=[1, 2]) == digest_of(b=[1, 2], a=1)
    assert len({digest_of(a=1), digest_of(a=2), digest_of(b=1), digest_of(a="1")}) == 4


def test_json_holds_null_for_what_is_not_defined():
    assert json.loads(json_text({"a": [math.nan, 1.0, np.float32(0.5)], "b": math.inf})) == {
        "a": [None, 1, 0.5],
        "b": None,
    }


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.md"]
    assert path.read_text() == "old"
