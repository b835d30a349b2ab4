"""Regions in context: what the encoder makes of a region, averaged over the cells of a group in which it is open."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from torch import Tensor

from epifoundation.dataset_builders import PeakFile, PeakSource
from epifoundation.dataset_builders.genome.genome_check import other_genome, peaks_by_chance
from epifoundation.dataset_builders.readers.bed_files import read_bed_file
from epifoundation.dataset_builders.readers.peak_files import ENTRIES_PER_BLOCK
from epifoundation.tokenization import NUM_SPECIAL_TOKENS, Coverage, PeakVocabulary

from .cell_run import CellRun, CellTask, run_over_cells, run_record

ALL_CELLS = "all"  # the group where none is asked for
UNS_KEY = "epifoundation_regions"


class CellGroups(NamedTuple):
    """Groups of cells, such as cell types.

    Attributes:
        names: of the groups.
        codes: (cells,) int64 index of the group of each cell, -1 for a cell of none.
    """

    names: list[str]
    codes: np.ndarray


class RegionEmbeddings(NamedTuple):
    """Regions of a vocabulary in context, averaged in groups of cells.

    Attributes:
        ids: (regions,) token ids, rising.
        groups: names of the groups.
        contextual: (groups, regions, hidden) float32, the mean of `last_hidden_state` at the region over the cells of
            the group that have it among the peaks the model reads; zeros where there is no such cell.
        num_cells: (groups, regions) int64, the number of these cells.
        table: (regions, hidden) float32, the rows of the model's peak table: the same in all cells.
    """

    ids: np.ndarray
    groups: list[str]
    contextual: np.ndarray
    num_cells: np.ndarray
    table: np.ndarray


def cell_groups(file: PeakFile, key: str | None, wanted: Sequence[str] | None = None) -> CellGroups:
    """The groups that a column of ``obs`` makes of the cells; one of all cells without a column.

    Args:
        file: the cells.
        key: the column; cells without a value belong to no group.
        wanted: the groups to keep; by default all, in order of their names.

    Raises:
        ValueError: if there is no such column or group, or no cell has a value.
    """
    if key is None:
        return CellGroups([ALL_CELLS], np.zeros(file.num_cells, dtype=np.int64))
    own = file.annotations[:1]
    if not own or key not in own[0].columns:
        known = ", ".join(own[0].columns) if own and own[0].columns else "none"
        raise ValueError(f"{file.path} has no column {key!r} in obs, which is to name the groups: it has {known}")
    values = own[0].read(key)
    labels = values.astype("object").map(str).where(values.notna().to_numpy(), None)
    found = sorted(labels.dropna().unique())
    if not found:
        raise ValueError(f"no cell of {file.path} has a value in the column {key!r} of obs")
    names = found if wanted is None else list(dict.fromkeys(wanted))
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"no cell of {file.path} has {key} {unknown[0]!r}: expected one of {', '.join(found)}")
    return CellGroups(names, np.asarray(pd.Index(names).get_indexer(labels.tolist()), dtype=np.int64))


def region_ids(regions: str, vocabulary: PeakVocabulary) -> np.ndarray:
    """Token ids (regions,) of regions, each once, rising: the peak of the vocabulary that each overlaps most.

    Args:
        regions: a BED file, or names such as ``chr1:100-200`` with commas between them. Of a file, regions that overlap
            no peak are left out with a warning; one that is named has to overlap one.
        vocabulary: the peaks of the model.

    Raises:
        FileNotFoundError: if it looks like a file and there is none.
        ValueError: if it cannot be read, is of another genome, or a region is unknown to the model.

    Warns:
        UserWarning: of the regions of a file that were left out.
    """
    is_file = Path(regions).is_file() or ":" not in regions
    names = _names_of_bed(regions) if is_file else [name.strip() for name in regions.split(",") if name.strip()]
    mapping = vocabulary.map_or_explain(names)
    if is_file and (clause := other_genome(peaks_by_chance(names, vocabulary), "regions", vocabulary)):
        raise ValueError(f"{clause}; lift them over to {vocabulary.genome}")
    unknown = [name for name, known in zip(names, mapping.ids >= 0, strict=True) if not known]
    what = f"{len(unknown):,} of {len(names):,} regions overlap no peak of the model ({vocabulary.genome}), such as "
    if unknown and not is_file:
        raise ValueError(f"{what}{unknown[0]}: leave them out; 'epifoundation coverage' tells of whole data sets")
    if unknown:
        warnings.warn(f"{what}{unknown[0]}; they are left out", stacklevel=2)
    return np.unique(mapping.ids[mapping.ids >= 0])


def embed_regions(
    source: PeakSource, run: CellRun, groups: CellGroups, ids: np.ndarray | None = None
) -> tuple[RegionEmbeddings, Coverage]:
    """Embed regions in the cells of each group; cells of no group are not computed.

    Memory holds one block, one batch and 4 bytes · groups · regions · hidden for the sums, on the device of the model.

    Args:
        source: the cells.
        run: the encoder, by `prepare_run`. It reads at most ``max_peaks`` peaks of a cell: a region left out there
            counts as not open in that cell.
        groups: of the cells.
        ids: (regions,) rising token ids; by default all that a peak of `source` maps to.

    Raises:
        ValueError: as `embed_cells`.

    Warns:
        UserWarning: as `embed_cells`.
    """
    if ids is None:
        found = run.tokenizer.vocabulary.map_or_explain(source.peak_names).ids
        ids = np.unique(found[found >= 0])
    chosen = _CellsOfGroups(source, groups.codes >= 0)
    sums = _RegionSums(run, ids, groups.codes[groups.codes >= 0], len(groups.names))
    of_empty_cells = "no region is seen in them"
    coverage = run_over_cells(
        chosen, run, CellTask("embedding regions", "embeddings", of_empty_cells, sums.forward, sums.add)
    )
    with torch.inference_mode():
        rows = torch.from_numpy(ids).long().to(run.model.device)
        table = run.model.get_input_embeddings()(rows).float().cpu().numpy()
    return RegionEmbeddings(ids, groups.names, *sums.means(), table), coverage


def region_table(regions: RegionEmbeddings, run: CellRun, coverage: Coverage, groupby: str | None = None) -> AnnData:
    """One row for each region and group with a cell: contextual embeddings in ``X``, table rows in ``layers["table"]``.

    ``obs`` has ``region`` (name in the vocabulary), ``group`` and ``num_cells``; ``uns`` tells how it was made.

    Raises:
        ValueError: if none of the regions is open in a cell.
    """
    group, region = np.nonzero(regions.num_cells)
    vocabulary = run.tokenizer.vocabulary
    names = np.array(vocabulary.names(regions.ids - NUM_SPECIAL_TOKENS))
    if not len(group):
        raise ValueError(
            f"none of the {len(names):,} regions, such as {names[0]}, is open in any of the cells chosen: "
            "check the groups, or raise max_peaks (--max-peaks)"
        )
    obs = pd.DataFrame(
        {
            "region": pd.Categorical(names[region]),
            "group": pd.Categorical(np.array(regions.groups)[group]),
            "num_cells": regions.num_cells[group, region],
        },
        index=[f"{names[r]} {regions.groups[g]}" for g, r in zip(group, region, strict=True)],
    )
    var = pd.DataFrame(index=[f"epifoundation_{i}" for i in range(regions.table.shape[1])])
    record = run_record(run, coverage, **({} if groupby is None else {"groupby": groupby}))
    return AnnData(
        regions.contextual[group, region], obs, var, {UNS_KEY: record}, layers={"table": regions.table[region]}
    )


def write_region_table(table: AnnData, partial: Path, ending: str) -> None:
    """Write the table of `region_table` as ``.h5ad``, or as ``.parquet``: a column for each number.

    In Parquet the columns are ``region``, ``group``, ``num_cells``, ``contextual_0`` … and ``table_0`` ….
    """
    if ending == ".h5ad":
        table.write_h5ad(partial)
        return
    numbers = [
        pd.DataFrame(values, columns=[f"{kind}_{i}" for i in range(table.n_vars)])
        for kind, values in (("contextual", table.X), ("table", table.layers["table"]))
    ]
    pd.concat([table.obs.reset_index(drop=True), *numbers], axis=1).to_parquet(partial, index=False)


def _names_of_bed(path: str | os.PathLike[str]) -> list[str]:
    columns = read_bed_file(path)
    rows: Iterable[tuple[int, int, int]] = zip(
        columns.codes.tolist(), columns.starts.tolist(), columns.ends.tolist(), strict=True
    )
    return [f"{columns.chromosomes[code]}:{start}-{end}" for code, start, end in rows]


class _CellsOfGroups:
    """The chosen cells of a `PeakSource`, as one."""

    def __init__(self, source: PeakSource, is_chosen: np.ndarray) -> None:
        self._source, self._is_chosen = source, is_chosen
        self.num_cells = int(is_chosen.sum())

    @property
    def cell_names(self) -> list[str]:
        return [name for name, chosen in zip(self._source.cell_names, self._is_chosen, strict=True) if chosen]

    @property
    def peak_names(self) -> list[str]:
        return self._source.peak_names

    def blocks(self, max_entries: int = ENTRIES_PER_BLOCK) -> Iterator[csr_matrix]:
        start = 0
        for block in self._source.blocks(max_entries):
            rows = np.flatnonzero(self._is_chosen[start : start + block.shape[0]])
            start += block.shape[0]
            if len(rows):
                yield block[rows]


class _RegionSums:
    """Adds up the output of the encoder at each region, by group of cells, while batches are computed."""

    def __init__(self, run: CellRun, ids: np.ndarray, group_of_cell: np.ndarray, num_groups: int) -> None:
        self._run, self._group_of_cell = run, group_of_cell
        self._shape = num_groups, len(ids)
        self._row_of_id = torch.full((run.model.config.vocab_size,), -1)
        self._row_of_id[torch.from_numpy(ids).long()] = torch.arange(len(ids))
        self._sums: Tensor | None = None
        self._num_cells: Tensor | None = None
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, input_ids: Tensor, cu_seq_lens_q: Tensor, **inputs: Any) -> Tensor:
        """Cell embeddings of a packed batch; its tokens are kept for `add`, which is called next."""
        out = self._run.model(input_ids=input_ids, cu_seq_lens_q=cu_seq_lens_q, **inputs)
        self._batch = input_ids[0].long(), cu_seq_lens_q.diff().long(), out.last_hidden_state[0].float()
        cells: Tensor = out.pooler_output
        return cells

    def add(self, cells: np.ndarray, _: np.ndarray) -> None:
        """Add the tokens of the batch; `cells` are its rows in the data set."""
        assert self._batch is not None
        ids, lengths, hidden = self._batch
        device, (num_groups, num_regions) = hidden.device, self._shape
        if self._sums is None or self._num_cells is None:  # here the device is known
            self._row_of_id = self._row_of_id.to(device)
            self._sums = torch.zeros(num_groups * num_regions, hidden.shape[1], device=device)
            self._num_cells = torch.zeros(num_groups * num_regions, dtype=torch.int64, device=device)
        groups = torch.from_numpy(self._group_of_cell[cells]).to(device).repeat_interleave(lengths)
        rows = self._row_of_id[ids]
        is_wanted = rows >= 0
        places = groups[is_wanted] * num_regions + rows[is_wanted]
        self._sums.index_add_(0, places, hidden[is_wanted])
        self._num_cells.index_add_(0, places, torch.ones_like(places))

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """(groups, regions, hidden) float32 and (groups, regions) int64."""
        assert self._sums is not None
        assert self._num_cells is not None
        with torch.inference_mode():
            means = self._sums.div_(self._num_cells.clamp(min=1)[:, None])
        return means.reshape(*self._shape, -1).cpu().numpy(), self._num_cells.reshape(self._shape).cpu().numpy()
