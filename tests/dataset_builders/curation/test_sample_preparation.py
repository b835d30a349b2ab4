import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy.sparse import hstack

from epifoundation.dataset_builders.curation.sample_preparation import (
    Sample,
    measure_sample,
    prepare_sample,
    read_quality,
)
from epifoundation.dataset_builders.quality.fragment_quality import fragment_quality
from epifoundation.dataset_builders.quality.quality_filters import Bounds, QualityFilters
from epifoundation.dataset_builders.readers.fragment_counts import count_fragments
from epifoundation.tokenization import PeakVocabulary

from ..raw_samples import (
    FRAGMENTS_PER_CELL,
    NUM_CELLS,
    TYPES,
    barcodes,
    peak_names,
    write_atac,
    write_atac_reference,
    write_fragments,
    write_rna,
    write_rna_reference,
)

FILTERS = QualityFilters({"num_unique_fragments": Bounds(above=10)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_fragments(folder / "f.tsv.gz")
    write_rna(folder / "rna.h5ad")
    write_atac(folder / "atac.h5ad")
    write_rna_reference(folder / "rna.tsv")
    write_atac_reference(folder / "atac.tsv")
    PeakVocabulary.from_names(peak_names()).save(folder / "peaks.npz")
    return folder


@pytest.fixture
def prepared(folder, tmp_path):
    def prepared(sample, filters=FILTERS, reference=None, min_fragments=1):
        measure_sample(
            sample,
            tmp_path / "quality",
            {},
            genome="hg38",
            peaks=folder / "peaks.npz",
            blacklist=None,
            min_fragments=min_fragments,
        )
        report = prepare_sample(
            sample,
            tmp_path / "sample",
            {},
            quality=tmp_path / "quality",
            filters=filters,
            peaks=folder / "peaks.npz",
            reference=reference,
            resolution=1.0,
            seed=0,
        )
        return report, tmp_path / "sample"

    return prepared


def types_of(adata):
    return [TYPES[barcodes().index(barcode) % 3] for barcode in adata.obs["barcode"]]


def test_fragments_become_counts_with_quality_and_clusters(folder, prepared):
    report, output = prepared(Sample("s1", folder / "f.tsv.gz"))
    cells = read_h5ad(output / "atac.h5ad")
    assert report.num_cells == cells.n_obs == NUM_CELLS
    assert report.num_barcodes == NUM_CELLS + 10
    assert set(cells.obs_names) == {f"s1_{barcode}" for barcode in barcodes()}
    expected = count_fragments(folder / "f.tsv.gz", PeakVocabulary.from_names(peak_names()), min_fragments=10)
    in_order = pd.Index(expected.barcodes).get_indexer(cells.obs["barcode"])
    assert (expected.matrix[in_order] != cells.X).nnz == 0
    quality = fragment_quality(folder / "f.tsv.gz").table
    assert cells.obs["nucleosome_signal"].tolist() == quality.loc[cells.obs["barcode"], "nucleosome_signal"].tolist()
    assert (cells.obs["num_unique_fragments"] == FRAGMENTS_PER_CELL).all()
    assert cells.obsm["X_lsi"].shape[0] == NUM_CELLS
    assert not (output / "rna.h5ad").exists()
    assert report.num_clusters == cells.obs["cluster"].nunique()


def test_clusters_are_named_by_expression(folder, prepared):
    sample = Sample("s1", folder / "f.tsv.gz", folder / "rna.h5ad")
    report, output = prepared(sample, reference=folder / "rna.tsv")
    atac, rna = read_h5ad(output / "atac.h5ad"), read_h5ad(output / "rna.h5ad")
    assert atac.obs_names.tolist() == rna.obs_names.tolist()
    assert np.mean(atac.obs["cell_type"] == types_of(atac)) > 0.9
    assert sum(report.cell_types.values()) == NUM_CELLS
    source = read_h5ad(folder / "rna.h5ad")
    assert (rna.X != source[atac.obs["barcode"].tolist()].X).nnz == 0
    assert atac.obs["num_rna_counts"].tolist() == np.asarray(rna.X.sum(axis=1)).ravel().tolist()


def test_clusters_are_named_by_gene_activity_where_there_is_no_expression(folder, prepared):
    _, output = prepared(Sample("s1", folder / "f.tsv.gz"), reference=folder / "atac.tsv")
    cells = read_h5ad(output / "atac.h5ad")
    assert np.mean(cells.obs["cell_type"] == types_of(cells)) > 0.9
    assert (pd.read_csv(output / "clusters.tsv", sep="\t")["correlation"] > 0).all()


def test_counts_may_take_the_place_of_fragments(folder, prepared):
    report, output = prepared(Sample("s1", folder / "atac.h5ad"))
    cells, source = read_h5ad(output / "atac.h5ad"), read_h5ad(folder / "atac.h5ad")
    assert (cells.X != source[:, cells.var_names].X).nnz == 0
    assert report.quality[0].startswith("num_unique_fragments above 10: ")


def test_a_file_of_cell_ranger_gives_peaks_and_genes(folder, prepared, tmp_path):
    parts = [
        (read_h5ad(folder / "atac.h5ad"), "Peaks"),
        (read_h5ad(folder / "rna.h5ad")[barcodes()], "Gene Expression"),
    ]
    matrix = hstack([data.X for data, _ in parts], format="csr").astype(np.int32)
    names = [name for data, _ in parts for name in data.var_names]
    kinds = [kind for data, kind in parts for _ in data.var_names]
    with h5py.File(tmp_path / "both.h5", "w") as file:
        arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape[::-1]}
        texts = {"barcodes": barcodes(), "features/name": names, "features/id": names, "features/feature_type": kinds}
        for name, values in arrays.items():
            file[f"matrix/{name}"] = values
        for name, values in texts.items():
            file[f"matrix/{name}"] = np.array(values, dtype="S")
    report, output = prepared(Sample("s1", tmp_path / "both.h5"), reference=folder / "rna.tsv")
    assert report.num_cells == NUM_CELLS
    assert (read_h5ad(output / "atac.h5ad").X != parts[0][0][:, peak_names()].X).nnz == 0
    assert (read_h5ad(output / "rna.h5ad").X != parts[1][0].X).nnz == 0


def test_only_barcodes_of_both_measurements_are_cells(folder, prepared, tmp_path):
    few = read_h5ad(folder / "rna.h5ad")[:20].copy()
    few.write_h5ad(tmp_path / "few.h5ad")
    report, output = prepared(Sample("s1", folder / "f.tsv.gz", tmp_path / "few.h5ad"))
    assert report.num_cells == 20
    assert set(read_h5ad(output / "atac.h5ad").obs["barcode"]) == set(few.obs_names)


def test_no_common_barcode_is_an_error(folder, prepared, tmp_path):
    other = read_h5ad(folder / "rna.h5ad")
    other.obs_names = [f"other_{name}" for name in other.obs_names]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(ValueError, match=r"no barcode is in both measurements: .*'CELL[0-9]*-1.*other_CELL041-1"):
        prepared(Sample("s1", folder / "f.tsv.gz", tmp_path / "other.h5ad"))
    assert not (tmp_path / "quality").exists()


def test_filters_that_nothing_passes_show_the_distribution(folder, prepared):
    with pytest.raises(
        ValueError, match=r"f\.tsv\.gz: 0 of 42 barcodes pass quality control, expected 10 or more: .*80, 80"
    ):
        prepared(Sample("s1", folder / "f.tsv.gz"), QualityFilters.named("paper"), min_fragments=10)


def test_cells_without_counts_are_an_error(folder, prepared):
    with pytest.raises(ValueError, match=r"atac\.h5ad: no cell has 100,000 counts or more, the largest has"):
        prepared(Sample("s1", folder / "atac.h5ad"), min_fragments=100_000)


def test_quality_is_read_as_it_was_written(folder, prepared, tmp_path):
    prepared(Sample("s1", folder / "f.tsv.gz"))
    stored, expected = read_quality(tmp_path / "quality"), fragment_quality(folder / "f.tsv.gz")
    assert stored.lengths.tolist() == expected.lengths.tolist()
    assert stored.num_unique_fragments.tolist() == expected.num_unique_fragments.tolist()
    assert {"tss_enrichment", "tss_score", "peaks_fraction"} <= set(stored.table)
    pd.testing.assert_frame_equal(stored.table[expected.table.columns], expected.table)
