import json

import numpy as np
import pytest

from epifoundation.evaluation import matching_report as module
from epifoundation.evaluation.matching import label_transfer_scores, matching_scores, modality_mixing
from epifoundation.evaluation.matching_report import EmbeddedCells, matching_report, plot_modalities

LABELS = np.array(["a", "b", "c"] * 20, dtype=object)


@pytest.fixture
def sides():
    """Sixty cells by ATAC, and the same in another order by RNA, of three kinds that lie apart."""
    generator = np.random.default_rng(0)
    centres = {"a": (5, 0, 0), "b": (0, 5, 0), "c": (0, 0, 5)}
    atac = np.array([centres[label] for label in LABELS]) + generator.normal(size=(60, 3))
    rna = atac + 0.5 * generator.normal(size=(60, 3))
    names = [f"cell{i}" for i in range(60)]
    order = generator.permutation(60)
    return (
        EmbeddedCells(names, atac, LABELS.copy()),
        EmbeddedCells([names[i] for i in order], rna[order], LABELS[order]),
        order,
    )


def test_pairs_are_matched_by_barcode(sides):
    atac, rna, order = sides
    report = matching_report(atac, rna, num_neighbors=5)
    partners = rna.embeddings[np.argsort(order)]
    assert report.pairs == matching_scores(atac.embeddings, partners)
    assert report.pairs.titled()["FOSCTTM"] < 0.05
    assert report.shuffled.titled()["FOSCTTM"] == pytest.approx(0.5, abs=0.08)
    of_rna, of_atac = report.transfers
    expected = label_transfer_scores(atac.embeddings, atac.labels, rna.embeddings, rna.labels, 5)
    assert (of_rna.source, of_rna.target, of_rna.accuracy) == ("RNA", "ATAC", expected.accuracy)
    assert (of_atac.source, of_atac.target) == ("ATAC", "RNA")
    assert min(of_rna.accuracy, of_atac.accuracy) > 0.9
    assert max(of_rna.shuffled_accuracy, of_atac.shuffled_accuracy) < 0.6
    assert of_rna.most_frequent == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_report(sides):
    atac, rna, _ = sides
    assert matching_report(atac, rna, seed=3).json() == matching_report(atac, rna, seed=3).json()
    assert matching_report(atac, rna, seed=3).json() != matching_report(atac, rna, seed=4).json()


def test_partners_lend_labels_and_cells_without_one_are_left_out(sides):
    atac, rna, _ = sides
    without = EmbeddedCells(atac.barcodes, atac.embeddings)
    assert [one.num_cells for one in matching_report(without, rna).transfers] == [60, 60]
    some = atac.labels.copy()
    some[:10] = None
    strangers = EmbeddedCells([f"other{i}" for i in range(60)], atac.embeddings, some)
    report = matching_report(strangers, rna)
    assert report.pairs is None
    assert [one.num_cells for one in report.transfers] == [50, 60]
    assert (atac.labels == LABELS).all()


def test_what_cannot_be_compared_is_refused(sides):
    atac, rna, _ = sides
    strangers = EmbeddedCells([f"other{i}" for i in range(60)], atac.embeddings)
    with pytest.raises(ValueError, match="no barcode is in both modalities"):
        matching_report(strangers, rna._replace(labels=None))
    with pytest.raises(ValueError, match="no cell by ATAC has a label"):
        matching_report(strangers, rna)
    with pytest.raises(ValueError, match="barcodes of the RNA data repeat"):
        matching_report(atac, rna._replace(barcodes=["cell1"] * 60))


def test_tables_and_json_say_the_same(sides):
    atac, rna, _ = sides
    report = matching_report(atac, rna, facts={"model": "small"}, recall_at=(1, 5))
    text, content = report.markdown(), json.loads(report.json())
    assert content["mixing"] == modality_mixing(atac.embeddings, rna.embeddings)
    assert f"1: as by chance): {content['mixing']:.4f}" in text
    assert "- model: small" in text
    assert "| | FOSCTTM ↓ | recall@1 ↑ | recall@5 ↑ |" in text
    assert f"| mean of both | {np.mean(content['pairs']['foscttm']):.4f} |" in text
    assert "| expected by chance | 0.5000 | 0.0167 | 0.0833 |" in text
    assert f"| RNA → ATAC | 60 | {content['transfers'][0]['accuracy']:.4f} |" in text
    alone = matching_report(atac._replace(labels=None), rna._replace(labels=None))
    assert "Labels carried over" not in alone.markdown()
    assert json.loads(alone.json())["transfers"] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:umap")
def test_the_picture_has_a_panel_for_modality_and_label(sides, monkeypatch):
    atac, rna, _ = sides
    rna.labels[:5] = None
    monkeypatch.setattr(module, "MOST_DRAWN", 50)
    figure = plot_modalities(atac, rna, title="cells")
    by_modality, by_label = figure.axes
    assert [text.get_text() for text in by_modality.get_legend().get_texts()] == ["ATAC (50)", "RNA (50)"]
    labels = [text.get_text().split(" ")[0] for text in by_label.get_legend().get_texts()]
    assert labels == ["a", "b", "c", "none"]
    assert len(plot_modalities(atac._replace(labels=None), rna._replace(labels=None)).axes) == 1
