import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epifoundation.sharing import dataset_card, model_card, write_card
from epifoundation.sharing.records import read_about, read_run

ABOUT = """
name: Cells of a test
description: Two types of cells that do not exist.
licence: mit
data:
  - name: Made up
    url: https://example.org
    licence: CC0
    citation: Nobody (2026)
    digest: abc
intended_use: tests
limits: everything else
citation: Cite nobody.
"""


def test_every_number_of_the_card_is_that_of_the_run(folder):
    text = str(model_card(folder))
    for expected in (
        "Cell-type annotation: 1,500 steps on cpu, 12.5 seconds",
        f"| train | 1,200 | `{'1' * 64}` |",
        f"| held-out | 300 | `{'2' * 64}` |",
        "| macro f1 | 0.8750 |",
        "| learning_rate | 0.001 |",
        "| model | base |",  # not where it lay on one machine
        "seed 7",
        "763 readable peaks in the median cell (10 to 2,000",
        "75.0% of their open peaks",
        "B 900, T 600",
        "It names 2 cell types: B, T.",
        "40 peaks of hg38",
        "2 genes",
    ):
        assert expected in text, expected
    assert "roc" not in text  # not a number
    assert "elsewhere" not in text


def test_the_model_index_reads_back(folder):
    (folder / "about.yaml").write_text(ABOUT)
    write_card(folder, "model")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "transformers"
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"loss": 0.25, "macro_f1": 0.875}
    [result] = [result for result in card.data.eval_results if result.metric_type == "macro_f1"]
    assert result.dataset_name == "Made up"
    assert result.dataset_split == "held-out"
    assert result.dataset_revision == "2" * 64
    assert result.dataset_args == {"seed": 7, "cells": 300}
    source = "- Made up (https://example.org): CC0; digest `abc`. Nobody (2026)"
    for line in ("**Meant for:** tests", "**Limits:** everything else", source):
        assert line in card.text


def test_what_is_not_known_is_said_to_be_unknown(folder):
    (folder / "run.json").unlink()
    (folder / "tokenized.json").unlink()
    text = str(model_card(folder))
    for sentence in (
        "There is no record of a training run",
        "Where the data came from was not stated",
        "None were measured",
        "The licence of the weights was not stated",
        "What it is meant for was not stated",
    ):
        assert sentence in text
    assert "license:" not in text


def test_the_text_has_no_holes(folder, cells_folder):
    (folder / "about.yaml").write_text(ABOUT)
    for text in (str(model_card(folder)), str(dataset_card(cells_folder))):
        assert not re.search(r"None\b|Undefined|nan|\{\{|\}\}|\{%", text.replace("None were", ""))
        assert "\n\n\n\n" not in text


def test_the_card_of_a_data_set_names_its_splits_and_files(cells_folder):
    text = str(dataset_card(cells_folder, None))
    header = yaml.safe_load(text.split("---")[1])
    assert header["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "validation", "path": "data/validation-*.parquet"},
            ],
        }
    ]
    for line in ("| train | 6 |", "| validation | 2 |", "Divided by cell, seed 5", "75.0% of the open peaks"):
        assert line in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is no YAML"),
        ("colour: red", "expected the keys name, description, .* got colour"),
        ("- a", "got list"),
        ("data: text", "expected data as a list of sources"),
    ],
)
def test_about_is_checked(tmp_path, content, message):
    (tmp_path / "about.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_about(tmp_path / "about.yaml")
    (tmp_path / "about.yaml").write_text("")
    assert read_about(tmp_path / "about.yaml") == {}


def test_a_record_that_is_none_is_refused(folder):
    (folder / "run.json").write_text('{"objective": "classification"}')
    with pytest.raises(ValueError, match=r"run\.json is not the record of a training run: steps is missing"):
        model_card(folder)
    (folder / "run.json").unlink()
    (folder / "tokenized.json").write_text('{"num_entries": "many"}')
    with pytest.raises(ValueError, match=r"tokenized\.json is not the report of 'tokenize': num_entries is 'many'"):
        model_card(folder)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(
    st.sampled_from(["objective", "steps", "settings", "data", "held_out", "metrics", "options"]), inner, max_size=4
)))  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_record_or_an_error(tmp_path, content):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(content))
    if content == {}:
        assert read_run(file) == {}
    else:
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_run(file)


def test_the_published_cards_are_what_their_texts_give(tmp_path):
    cards = Path(__file__).parents[2] / "model_cards"
    assert (cards / "mini_atlas.md").read_text() == str(dataset_card(tmp_path, cards / "mini_atlas.yaml"))
