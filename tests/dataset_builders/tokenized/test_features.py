from datasets import ClassLabel, List, Value

from epifoundation.dataset_builders import cell_features


def test_a_paired_data_set_has_genes_and_one_of_peaks_alone_has_not():
    assert cell_features(is_paired=False) == {"barcode": Value("string"), "input_ids": List(Value("int32"))}
    assert list(cell_features()) == ["barcode", "input_ids", "gene_ids", "gene_counts"]
    assert cell_features()["gene_counts"] == List(Value("float32"))


def test_labels_are_there_when_asked_for():
    features = cell_features(cell_types=["b", "a"], batches=[], has_tissue=True, has_donor=True)
    assert list(features)[4:] == ["cell_type", "batch", "tissue", "donor"]
    assert features["cell_type"] == ClassLabel(names=["b", "a"])
    assert features["donor"] == Value("string")
