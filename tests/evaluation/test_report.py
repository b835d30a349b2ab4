import csv
import io
import json
import math

import pytest

from epifoundation.evaluation.report import Report, rows_of
from epifoundation.evaluation.result_store import Result


def result(method, seed, seconds=1.0, gigabytes=0.5, notes=(), **metrics):
    return Result(method, method.upper(), seed, "d", metrics, seconds, gigabytes, notes)


RESULTS = [
    result("lsi", 0, ACC=0.8, MSE=2.0),
    result("pca", 0, ACC=0.5, MSE=1.0, notes=("few cells",)),
    result("lsi", 1, seconds=3.0, gigabytes=0.7, ACC=0.9, MSE=math.nan),
    result("pca", 1, ACC=0.7, MSE=1.0, notes=("few cells",)),
]


@pytest.fixture
def report():
    return Report("A title", rows_of(RESULTS), {"data": "cells"}, ["A remark."])


def test_means_and_sample_deviations_over_seeds(report):
    lsi = report.rows[0]
    assert (lsi.method, lsi.num_seeds, lsi.seconds, lsi.peak_gigabytes) == ("lsi", 2, 2.0, 0.7)
    assert lsi.metrics["ACC"] == pytest.approx((0.85, math.sqrt(2 * 0.05**2), 2))
    mean, deviation, num_values = lsi.metrics["MSE"]
    assert (mean, num_values) == (2.0, 1)
    assert math.isnan(deviation)


def test_the_table_shows_the_best_of_each_metric_and_which_way_is_better(report):
    assert report.markdown() == (
        "# A title\n\n- data: cells\n\n"
        "| method | ACC ↑ | MSE ↓ | seconds | peak GB |\n| --- | --- | --- | --- | --- |\n"
        "| LSI | **0.850** ± 0.071 | 2.000 | 2.0 | 0.70 |\n"
        "| PCA | 0.600 ± 0.141 | **1.000** ± 0.000 | 1.0 | 0.50 |\n\n"
        "- PCA: few cells\n\nA remark.\n"
    )


def test_what_is_not_defined_is_a_dash_and_a_single_method_is_not_the_best():
    text = Report("T", rows_of([result("lsi", 0, ACC=0.5, ARI=math.nan)]), {}).markdown()
    assert "| LSI | 0.500 | – | 1.0 | 0.50 |" in text


def test_the_files_say_the_same(report, tmp_path):
    report.write(tmp_path, "batch")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["batch.csv", "batch.json", "batch.md"]
    assert (tmp_path / "batch.md").read_text(encoding="utf-8") == report.markdown()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "batch.csv").read_text())))
    [row] = [row for row in rows if (row["method"], row["metric"]) == ("lsi", "MSE")]
    assert (row["mean"], row["standard_deviation"], row["num_values"]) == ("2", "", "1")
    content = json.loads((tmp_path / "batch.json").read_text())
    assert content["rows"][0]["metrics"]["ACC"]["mean"] == pytest.approx(0.85)
    assert content["rows"][0]["metrics"]["MSE"]["deviation"] is None
    assert content["facts"] == {"data": "cells"}
