"""What a model of bulk samples says of BED files, against its own outputs for their peaks."""

import numpy as np
import pytest
import torch

from epifoundation import EpiFoundationForBulkClassification
from epifoundation.inference.bulk import annotate_bed_files

from .conftest import NAMES


@pytest.fixture
def model(tokenizer):
    config = EpiFoundationForBulkClassification.config_class(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "T", 1: "B", 2: "NK"}, assay_names=["ATAC", "DNase"],
    )  # fmt: skip
    torch.manual_seed(0)
    return EpiFoundationForBulkClassification(config).eval()


@pytest.fixture
def files(tmp_path):
    """Three samples; a fourth of the intervals of the last lie in no peak."""
    samples = {"a.bed": NAMES[:30], "b.narrowPeak": NAMES[20:50], "c.bed": [*NAMES[::2], *NAMES[1:20:2]]}
    for name, peaks in samples.items():
        bounds = [(n.split(":")[0], *map(int, n.split(":")[1].split("-"))) for n in peaks]
        shift = 500 if name == "c.bed" else 0
        rows = [(c, s + shift * (i >= 30), e + shift * (i >= 30)) for i, (c, s, e) in enumerate(bounds)]
        (tmp_path / name).write_text("".join(f"{c}\t{s}\t{e}\n" for c, s, e in rows))
    return [tmp_path / name for name in samples]


def test_both_labels_are_those_of_the_model(model, tokenizer, files, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    table = annotate_bed_files(files, tmp_path / "model", show_progress=False)
    assert table.index.tolist() == ["a", "b", "c"]
    inputs = tokenizer.pad(tokenizer([NAMES[:30], NAMES[20:50], NAMES[::2]]), return_tensors="pt")
    with torch.no_grad():
        out = model(**inputs)
    types, assays = out.logits.softmax(dim=1), out.assay_logits.softmax(dim=1)
    assert table["cell_type"].tolist() == [["T", "B", "NK"][i] for i in types.argmax(dim=1)]
    assert table["assay"].tolist() == [["ATAC", "DNase"][i] for i in assays.argmax(dim=1)]
    np.testing.assert_allclose(table["cell_type_probability"], types.amax(dim=1), rtol=1e-5)
    np.testing.assert_allclose(table["assay_probability"], assays.amax(dim=1), rtol=1e-5)
    assert table["share_in_peaks"].tolist() == [1, 1, 0.75]


def test_another_model_is_refused(trained_model, files):
    with pytest.raises(TypeError, match="expected an EpiFoundationForBulkClassification or its folder, got"):
        annotate_bed_files(files, trained_model)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        annotate_bed_files(files, "nowhere/at/all")
