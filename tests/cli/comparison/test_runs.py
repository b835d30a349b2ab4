import dataclasses

import numpy as np
import pytest

from epifoundation.evaluation.baselines import EMBEDDINGS, Baseline
from epifoundation_cli.comparison.cells import read_data
from epifoundation_cli.comparison.runs import Job, Options, baseline_jobs, run_jobs, split_of, usable

from ..evaluation_cells import write_cells


@pytest.fixture
def data(tmp_path):
    return read_data(*write_cells(tmp_path), batch_key="batch")


@pytest.fixture
def options(tmp_path):
    return Options(output=tmp_path / "out", seeds=(0, 1))


def mean_of(split, embedding):
    return {"mean": float(embedding.mean())}, {"embedding": embedding}


def run(data, options, jobs_of, score=mean_of):
    splits = [split_of(data, options, seed) for seed in options.seeds]
    return run_jobs("batch", data.digest, options, splits, jobs_of, score)


def test_all_methods_see_the_same_division(data, options):
    split = split_of(data, options, 0)
    np.testing.assert_array_equal(np.flatnonzero(~split.cells.is_train), split.test_rows)
    assert split.test.barcodes.tolist() == data.barcodes[split.test_rows].tolist()
    assert len(split.test_rows) == 24


def test_settings_are_chosen_without_a_look_at_the_cells_held_out(data, options):
    split, chosen = (split_of(data, dataclasses.replace(options, on_validation=on), 0) for on in (False, True))
    assert set(chosen.train_rows) | set(chosen.test_rows) == set(split.train_rows)
    assert (len(chosen.train_rows), len(chosen.test_rows)) == (76, 20)  # of 96, a fifth of each type


def test_finished_results_are_not_computed_again(data, options):
    calls = []

    def jobs(split):
        def compute():
            if split.seed == 1 and len(calls) == 1:
                calls.append("interrupted")
                raise KeyboardInterrupt
            calls.append(split.seed)
            return np.full((24, 2), split.seed)

        return [Job("pca", "PCA", compute, "peaks")]

    with pytest.raises(KeyboardInterrupt):
        run(data, options, jobs)
    results, left_out = run(data, options, jobs)
    assert calls == [0, "interrupted", 1]
    assert left_out == {}
    assert [(result.seed, result.metrics) for result in results] == [(0, {"mean": 0.0}), (1, {"mean": 1.0})]
    run(data, dataclasses.replace(options, method_options={"pca": {"num_dimensions": 2}}), jobs)
    assert calls == [0, "interrupted", 1, 0, 1]  # other options, other results


@pytest.mark.parametrize("kind", [ValueError, ImportError])
def test_a_method_that_cannot_be_used_is_left_out_with_a_warning(kind, data, options):
    def refuse():
        raise kind("needs two batches")

    def jobs(split):
        return [Job("harmony", "Harmony", refuse, ""), Job("pca", "PCA", lambda: np.ones((24, 2)), "")]

    with pytest.warns(UserWarning, match="Harmony is left out: needs two batches"):
        results, left_out = run(data, options, jobs)
    assert [result.method for result in results] == ["pca", "pca"]
    assert left_out == {"Harmony": "needs two batches"}
    with (
        pytest.warns(UserWarning, match="Harmony is left out"),
        pytest.raises(ValueError, match="no method could be used"),
    ):
        run(data, options, lambda split: jobs(split)[:1])


def test_options_reach_their_method(data, options):
    options = dataclasses.replace(options, method_options={"pca": {"num_dimensions": 3}})
    split = split_of(data, options, 0)
    [job] = baseline_jobs([EMBEDDINGS["pca"]], split, options, lambda embedding: embedding[~split.cells.is_train])
    assert job.run().shape == (24, 3)


def test_what_is_not_installed_is_left_out_or_refused():
    method = Baseline("x", "Method X", "a:b", "peaks", "baselines", ("not_there_at_all",))
    command = r'Method X needs not_there_at_all: pip install "epifoundation\[baselines\]"'
    with pytest.warns(UserWarning, match=f"{command}; it is left out"):
        assert usable([method, EMBEDDINGS["pca"]], are_named=False) == [EMBEDDINGS["pca"]]
    with pytest.raises(ImportError, match=command):
        usable([method], are_named=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "held out: 20% of the cells of each type, 2 seeds"),
        ({"seeds": (3,), "holdout": "batch"}, "held out: 20% of the batches, 1 seed"),
        ({"test_batches": ["a", "b"]}, "held out: the batches a, b, 2 seeds"),
        ({"on_validation": True}, "validation: 20% of the training cells of each type, 2 seeds"),
        ({"holdout": "split"}, "the divisions of the data, 2 seeds"),
    ],
)
def test_how_cells_are_held_out_is_said_in_words(options, changes, words):
    assert dataclasses.replace(options, **changes).split_words() == words
