import subprocess
import sys

import anndata
import numpy as np
import pytest
from transformers import pipeline

import epifoundation
from epifoundation.inference import annotate_cells, embed_cells


def test_cell_embedding_takes_cells_files_and_lists(adata, peaks_file, checkpoint):
    embed = pipeline("cell-embedding", model=str(checkpoint), device="cpu")
    assert type(embed.model) is epifoundation.EpiFoundationModel
    embed_cells(adata, checkpoint)
    expected = adata.obsm["X_epifoundation"]
    np.testing.assert_array_equal(embed(adata), expected)
    np.testing.assert_allclose(embed(peaks_file, max_entries_per_block=100), expected, atol=1e-5)
    both = embed([str(peaks_file), anndata.read_h5ad(peaks_file)[:5]])
    assert [len(one) for one in both] == [40, 5]
    np.testing.assert_allclose(both[1], expected[:5], atol=1e-5)


def test_cell_annotation_gives_a_table_to_join(adata, classifier_checkpoint):
    annotate = pipeline("cell-annotation", model=str(classifier_checkpoint), device="cpu")
    table = annotate(adata, min_peaks=10)
    annotate_cells(adata, classifier_checkpoint, min_peaks=10)
    added = adata.obs[list(table)]
    assert list(table) == ["epifoundation_cell_type", "epifoundation_cell_type_probability", "epifoundation_num_peaks"]
    assert table.equals(added)
    assert table.iloc[:, 0].isna().any()


def test_options_that_make_no_sense_are_refused(adata, checkpoint):
    embed = pipeline("cell-embedding", model=str(checkpoint), device="cpu")
    with pytest.raises(TypeError, match="colour"):
        embed(adata, colour="red")
    with pytest.raises(TypeError, match="expected an AnnData or a MuData"):
        embed(3)


def test_the_tasks_are_known_after_the_import_alone_and_cost_nothing_before():
    code = (
        "import sys, epifoundation; from transformers.pipelines import PIPELINE_REGISTRY as registry\n"
        "print(registry.check_task('cell-embedding')[1]['impl'], 'anndata' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["epifoundation.inference.pipelines.CellEmbeddingPipeline", "False"]
