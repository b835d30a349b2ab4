"""Bulk samples as a tokenised data set: BED files with a table of their cell types and assays."""

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from epifoundation.tokenization import PeakTokenizer
from epifoundation.tokenization.vocabulary_epifoundation import LOW_COVERAGE

from ..matrices.matrix_writing import write_matrix
from ..readers.bed_files import count_bed_files
from .paired_cells import PathLike
from .tokenized_folder import TokenizedReport, tokenize_files

FILE, CELL_TYPE, ASSAY = "file", "cell_type", "assay"
FURTHER = ("batch", "donor", "tissue")


def read_sample_table(labels: PathLike, folder: PathLike) -> pd.DataFrame:
    """The table of bulk samples, checked against the files.

    Args:
        labels: a table, with tabs (or commas, if it ends in .csv) between the columns `file`, `cell_type`, `assay` and,
            if there are any, `batch`, `donor` and `tissue`; a field left empty is not known.
        folder: where the files are.

    Returns:
        One row per sample, `file` being its path; all columns are texts, None where they are not known.

    Raises:
        FileNotFoundError: if the table, the folder or a file is not there.
        ValueError: if a column is missing, there are no samples, or a file is named twice.
    """
    for path, what in ((Path(labels), Path.is_file), (Path(folder), Path.is_dir)):
        if not what(path):
            raise FileNotFoundError(f"{path} does not exist")
    separator = "," if Path(labels).suffix == ".csv" else "\t"
    lines = Path(labels).read_text(encoding="utf-8-sig").splitlines()
    # Not `comment="#"` of pandas, which would cut a name such as "donor #3" short.
    text = io.StringIO("\n".join(line for line in lines if not line.startswith("#")))
    table = pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False)
    missing = [name for name in (FILE, CELL_TYPE, ASSAY) if name not in table.columns]
    if missing:
        raise ValueError(
            f"{labels} has no column {' and no '.join(missing)}: expected {FILE}, {CELL_TYPE} and {ASSAY}, got "
            f"{', '.join(table.columns)}"
        )
    table = table[[FILE, CELL_TYPE, ASSAY, *(name for name in FURTHER if name in table.columns)]]
    if not len(table) or table[FILE].duplicated().any():
        twice = table[FILE][table[FILE].duplicated()].tolist()
        raise ValueError(f"{labels} {f'names {twice[0]} twice' if twice else 'names no files'}")
    files = [Path(folder, name) for name in table[FILE]]
    absent = [str(path) for path in files if not path.is_file()]
    if absent:
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise FileNotFoundError(f"{labels} names {absent[0]}{more}, which is not there")
    return table.assign(file=[str(path) for path in files]).replace({"": None})


def tokenize_bed_files(
    labels: PathLike, folder: PathLike, output: PathLike, *, tokenizer: PeakTokenizer, **options: Any
) -> TokenizedReport:
    """Tokenise bulk samples, each as if it were a cell, with the columns `cell_type` and `assay`.

    Args:
        labels: the table of samples, see `read_sample_table`.
        folder: of the BED, narrowPeak or broadPeak files that it names.
        output: what to write, as `tokenize_files`.
        tokenizer: that of a checkpoint, or one made of any peaks.
        **options: as for `tokenize_files`, such as `split`.

    Returns:
        What became of the data.

    Raises:
        FileExistsError, FileNotFoundError: as `tokenize_files` and `read_sample_table`.
        ValueError: as `read_sample_table` and `count_bed_files`, among others if the files are of another genome.

    Warns:
        UserWarning: if less than half of the intervals overlap a peak of the vocabulary.
    """
    table = read_sample_table(labels, folder)
    counts = count_bed_files(table[FILE].tolist(), tokenizer.vocabulary, show_progress=False)
    share = counts.num_in_peaks.sum() / counts.num_fragments.sum()
    if share < LOW_COVERAGE:
        warnings.warn(
            f"only {share:.1%} of the intervals overlap a peak of the vocabulary; choose one that fits the samples",
            stacklevel=2,
        )
    obs = table.drop(columns=FILE).set_index(pd.Index(counts.cell_names)).astype("category")
    keys = {f"{name}_key": name for name in obs.columns}
    with tempfile.TemporaryDirectory(prefix="epifoundation-") as scratch:
        written = Path(scratch, "samples.h5ad")
        write_matrix(written, counts.blocks(), obs, pd.DataFrame(index=counts.peak_names))
        return tokenize_files(written, None, output, tokenizer=PeakTokenizer(tokenizer.vocabulary), **keys, **options)
