"""Where results of cells go: into an AnnData, into a copy of the file they came from, or into a table of their own."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anndata.io import write_elem

from epifoundation.dataset_builders import PeakFile
from epifoundation.tokenization import Coverage

from .output import new_file

NUM_PEAKS_KEY = "epifoundation_num_peaks"
ROWS_PER_GROUP = 65_536  # of a parquet file


class CellResults(NamedTuple):
    """What was found out about the cells of a data set, in the order of its rows.

    Attributes:
        uns_key: key of ``uns`` for `record`.
        record: how the results were made.
        obs: columns by their names: one value per cell.
        obsm: arrays by their keys: some numbers per cell.
        columns: names for the columns of each array in a table; none for arrays that a table leaves out.
    """

    uns_key: str
    record: dict[str, Any]
    obs: Mapping[str, pd.Series]
    obsm: Mapping[str, np.ndarray]
    columns: Mapping[str, list[str]]


def num_peaks_of(coverage: Coverage) -> pd.Series:
    """(cells,) int64: how many open peaks of each cell the model could read."""
    return pd.Series(coverage.num_matched_entries_per_cell.astype(np.int64))


def add_to_anndata(adata: Any, results: CellResults) -> None:
    """Put results where scanpy's users look for them; nothing else of `adata` changes."""
    for name, values in results.obs.items():
        adata.obs[name] = values.array
    for key, numbers in results.obsm.items():
        adata.obsm[key] = numbers
    adata.uns[results.uns_key] = results.record


def output_for(source: PeakFile, output: str | os.PathLike[str], overwrite: bool) -> Any:
    """A path to write to (see `new_file`), once all that can be known of the output is found to be well.

    Raises:
        ValueError: if the ending tells nothing known.
        OSError: as `new_file`.
    """
    endings = (".h5ad" if source.table_path == "/" else ".h5mu", ".parquet")
    if Path(output).suffix not in endings:
        raise ValueError(
            f"cannot tell from its ending what {output} is to be: expected {' or '.join(endings)} for {source.path}"
        )
    return new_file(output, overwrite=overwrite)


def bytes_needed(source: PeakFile, output: str | os.PathLike[str], numbers_per_cell: int) -> int:
    """About how many bytes `write_results` will write."""
    copied = 0 if Path(output).suffix == ".parquet" else source.path.stat().st_size
    return copied + 4 * source.num_cells * numbers_per_cell


def write_results(source: PeakFile, output: str | os.PathLike[str], partial: Path, results: CellResults) -> None:
    """Write results to `partial`, which is to become `output`: its ending tells whether as a copy or as a table."""
    if Path(output).suffix == ".parquet":
        _write_parquet(partial, source.cell_names, results)
    else:
        source.close()  # the input may be what is about to be replaced
        _write_copy(source, partial, results)


def _write_copy(source: PeakFile, partial: Path, results: CellResults) -> None:
    """A copy of the input, byte for byte but for what is added."""
    shutil.copyfile(source.path, partial)
    with h5py.File(partial, "r+") as file:
        table = file[source.table_path]
        for group in ("obsm", "uns"):
            if group not in table:
                write_elem(table, group, {})
        _add_columns(table["obs"], results.obs)
        for key, numbers in results.obsm.items():
            write_elem(table["obsm"], key, numbers)
        write_elem(table["uns"], results.uns_key, results.record)


def _add_columns(frame: h5py.Group, columns: Mapping[str, pd.Series]) -> None:
    order = [str(name) for name in frame.attrs.get("column-order", [])]
    for name, values in columns.items():
        write_elem(frame, name, values.array if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy())
    order += [name for name in columns if name not in order]
    frame.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())


def _write_parquet(partial: Path, cell_names: list[str], results: CellResults) -> None:
    """A table written in groups of rows, so that no second copy of all numbers is needed."""
    columns = [("cell", pa.string())] + [(name, _parquet_type(values)) for name, values in results.obs.items()]
    columns += [(name, pa.float32()) for key in results.obsm for name in results.columns.get(key, [])]
    metadata = {results.uns_key: json.dumps(without_nan(results.record))}
    schema = pa.schema([pa.field(name, kind) for name, kind in columns], metadata=metadata)
    with pq.ParquetWriter(partial, schema) as writer:
        for start in range(0, len(cell_names), ROWS_PER_GROUP):
            rows = slice(start, start + ROWS_PER_GROUP)
            parts: list[Any] = [cell_names[rows]]
            parts += [pa.Array.from_pandas(_plain(values.iloc[rows])) for values in results.obs.values()]
            for key, numbers in results.obsm.items():
                parts += list(np.ascontiguousarray(numbers[rows].T)) if key in results.columns else []
            writer.write_table(pa.table(parts, schema=schema))


def _parquet_type(values: pd.Series) -> pa.DataType:
    is_text = isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object
    return pa.string() if is_text else pa.from_numpy_dtype(values.dtype)


def _plain(values: pd.Series) -> pd.Series:
    """Categories as the texts they stand for, which every reader of Parquet knows."""
    return values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
