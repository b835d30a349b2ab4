import math

import pytest
from huggingface_hub import ModelCard

from epifoundation.evaluation.model_index import add_to_card, eval_results
from epifoundation.evaluation.report import rows_of
from epifoundation.evaluation.result_store import Result


def results(accuracy=0.81234, data="SNARE-seq"):
    metrics = {"ACC": accuracy, "ROC-AUC": math.nan}
    [row] = rows_of([Result("ours", "Ours", 0, "d", metrics, 1.0, 1.0)])
    return eval_results(row, "annotation", data, "20 % of the cells")


def test_results_stand_in_the_card_as_the_hub_reads_them(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: apache-2.0\ntags: [atac]\n---\n\n# Title\n\nText stays.\n")
    add_to_card(card, results())
    read = ModelCard.load(card)
    [result] = read.data.eval_results
    assert (result.task_type, result.dataset_type, result.metric_type) == ("text-classification", "snare_seq", "acc")
    assert result.metric_value == 0.8123
    assert (read.data.license, read.data.tags) == ("apache-2.0", ["atac"])
    assert read.text.strip() == "# Title\n\nText stays."
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"]


def test_new_results_replace_old_ones_of_the_same_data_alone(tmp_path):
    for given in (results(0.1), results(0.2, "other"), results(0.3)):
        add_to_card(tmp_path, given)
    found = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert {(result.dataset_name, result.metric_value) for result in found} == {("other", 0.2), ("SNARE-seq", 0.3)}


def test_what_is_no_card_is_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no_folder is not a folder: expected that of a checkpoint"):
        add_to_card(tmp_path / "no_folder" / "README.md", results())
    broken = tmp_path / "README.md"
    broken.write_text("---\n- a list\n---\ntext")
    with pytest.raises(ValueError, match=r"README.md is no model card"):
        add_to_card(broken, results())
    assert broken.read_text() == "---\n- a list\n---\ntext"
