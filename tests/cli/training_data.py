"""Tokenised cells for the commands that train."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value

from epifoundation import PeakTokenizer
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary


def write_training_cells(folder: Path, peak_names: list[str]) -> Path:
    """Twelve cells of two types, and the tokenizer of their peaks and of two genes."""
    rng = np.random.default_rng(0)
    peaks = [[2, *np.sort(rng.choice(np.arange(4, 4 + len(peak_names)), 10, replace=False))] for _ in range(12)]
    genes = [[4], [5], [4, 5]] * 4
    columns = {
        "barcode": [f"c{i}" for i in range(12)],
        "input_ids": peaks,
        "gene_ids": genes,
        "gene_counts": [[float(i) for i in ids] for ids in genes],
        "cell_type": [0, 1] * 6,
        "batch": [0, 0, 1, 1] * 3,
        "assay": [0, 1, 1, 0] * 3,
    }
    features = Features(
        barcode=Value("string"),
        input_ids=List(Value("int32")),
        gene_ids=List(Value("int32")),
        gene_counts=List(Value("float32")),
        cell_type=ClassLabel(names=["T", "B"]),
        batch=ClassLabel(names=["x", "y"]),
        assay=ClassLabel(names=["ATAC", "DNase"]),
    )
    Dataset.from_dict(columns, features=features).save_to_disk(folder)
    genes_of_data = GeneVocabulary(["A", "B"], ["", ""], ["chr1", "chr2"])
    PeakTokenizer(PeakVocabulary.from_names(peak_names), genes_of_data).save_pretrained(folder)
    return folder
