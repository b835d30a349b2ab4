"""A tokenised data set from peaks and gene counts measured in the same cells."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from anndata import AnnData
from datasets import ArrowBasedBuilder, Dataset, DatasetInfo, SplitGenerator
from datasets.builder import Key
from datasets.download.streaming_download_manager import StreamingDownloadManager
from datasets.exceptions import DatasetGenerationError

from epifoundation.tokenization import PeakTokenizer

from ..matrices.row_blocks import ENTRIES_PER_BLOCK
from ..matrices.row_store import RowStore, ScratchFolder
from ..readers.matrix_files import GENES, GeneFile, GeneTable, MatrixFile, MatrixTable, modalities_of
from .cell_tables import CellTables
from .pairing import Pairing, PairingReport, is_rising, match_names, pair

logger = logging.getLogger(__name__)

COPIES = "copies"
PathLike = str | os.PathLike[str]


def paired_cells(
    atac: AnnData,
    rna: AnnData | None,
    tokenizer: PeakTokenizer,
    *,
    cell_type_key: str | None = None,
    batch_key: str | None = None,
    tissue_key: str | None = None,
    donor_key: str | None = None,
    assay_key: str | None = None,
    allow_float_counts: bool = False,
) -> Dataset:
    """Tokenise cells held in memory; `PairedCells` gives the same rows from files of any size.

    Cells are matched by barcode, whatever their order; the order of `atac` is kept. No cell is cut to `max_peaks`
    here, so that training may draw other peaks each time.

    Args:
        atac: (cells, peaks) raw values.
        rna: (cells, genes) raw counts of the same cells; None for peaks alone.
        tokenizer: its peak vocabulary and its genes give the ids.
        cell_type_key: column of ``obs``, of `atac` or else of `rna`, that becomes `cell_type`; missing values are -1.
        batch_key: column that becomes `batch`.
        tissue_key: column that becomes `tissue`.
        donor_key: column that becomes `donor`.
        assay_key: column that becomes `assay`, the kind of a bulk sample; missing values are -1.
        allow_float_counts: take counts that are not whole numbers, such as smoothed ones.

    Returns:
        One row per cell, with the columns of `cell_features`.

    Raises:
        ValueError: if no barcode is in both, barcodes repeat, a column of ``obs`` is missing, cells have no batch, the
            tokenizer has no genes or knows none of these, or values are no raw counts.

    Warns:
        UserWarning: if less than half of the open peaks overlap a peak of the vocabulary.
    """
    peaks, genes = MatrixTable(atac), None if rna is None else GeneTable(rna)
    pairing = pair(peaks, genes, tokenizer, _keys(cell_type_key, batch_key, tissue_key, donor_key, assay_key))
    tables = CellTables(pairing, peaks, genes, tokenizer, allow_float_counts)
    cells = pa.concat_tables([tables.table(start, stop) for start, stop in tables.bounds()])
    tables.warn_if_low_coverage()
    return Dataset(cells.combine_chunks())


def match_cells(atac: AnnData, rna: AnnData) -> tuple[AnnData, AnnData]:
    """The cells that both hold, in the order of `atac`; how many were left out is logged.

    Raises:
        ValueError: if a barcode repeats within a modality, or none is in both.
    """
    _, atac_rows, rna_rows, _ = match_names(atac.obs_names.tolist(), rna.obs_names.tolist())
    return atac[atac_rows], rna[rna_rows]


def peak_matrix(cells: Dataset, vocab_size: int) -> sp.csr_matrix:
    """(cells, vocab_size) float32, 1 where a cell's peak is open, from a tokenised data set; columns are token ids."""
    ids, indptr = _flat(cells, "input_ids")
    return sp.csr_matrix((np.ones(len(ids), np.float32), ids, indptr), shape=(len(cells), vocab_size))


def count_matrix(cells: Dataset, gene_vocab_size: int) -> sp.csr_matrix:
    """(cells, gene_vocab_size) float32 gene counts from a tokenised data set; columns are gene ids."""
    ids, indptr = _flat(cells, "gene_ids")
    counts, _ = _flat(cells, "gene_counts")
    return sp.csr_matrix((counts, ids, indptr), shape=(len(cells), gene_vocab_size))


class PairedCells(ArrowBasedBuilder):
    """A `datasets` builder that tokenises .h5ad or .h5mu files of any size, a block of cells at a time.

    .. code-block:: python

        builder = PairedCells("atac.h5ad", "rna.h5ad", tokenizer=tokenizer, cell_type_key="cell_type")
        builder.download_and_prepare(num_proc=4)
        cells = builder.as_dataset("train")

    ``as_streaming_dataset("train")`` gives the same rows without writing them. The one split is called "train", as is
    usual where a data set has no splits yet: see `split_cells`.

    What is prepared is kept in the cache of `datasets`, under a digest of the files' content, the labels, the
    vocabularies and the options: changed data is prepared anew, and the same data in another place is found again. Of
    matrices above 4 million entries the digest takes samples; `MatrixFile.digest` says what it could miss, and
    ``download_and_prepare(download_mode="force_redownload")`` then prepares anew. An interrupted preparation leaves
    nothing that would be taken for a data set.

    Memory stays below 1 GiB per process, some 250 MB of it for the blocks. An RNA file whose cells come in another
    order than those of the ATAC file, and a matrix stored by columns (CSC), is first copied to disk, uncompressed:
    about 8 bytes per stored value, removed afterwards.

    Attributes:
        report: what of the data is used, and how much finds no place.
        pairing: the cells, in the order of the ATAC file.
    """

    VERSION = "1.0.0"  # of the rows: to be raised when the same files would give others

    def __init__(
        self,
        atac: PathLike,
        rna: PathLike | None = None,
        *,
        tokenizer: PeakTokenizer | PathLike,
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        tissue_key: str | None = None,
        donor_key: str | None = None,
        assay_key: str | None = None,
        atac_modality: str | None = None,
        rna_modality: str | None = None,
        allow_float_counts: bool = False,
        max_entries_per_block: int = ENTRIES_PER_BLOCK,
        config_name: str = "default",
        cache_dir: PathLike | None = None,
    ) -> None:
        """Open the files, match their cells and find the labels; no matrix is read beyond what its digest needs.

        Args:
            atac: an .h5ad of peaks, or an .h5mu that holds peaks, and genes too unless `rna` is given.
            rna: an .h5ad or .h5mu of genes; without one, and without genes in an .h5mu, the data set has peaks alone.
            tokenizer: its peak vocabulary and its genes give the ids; an object, the folder of a checkpoint, or a
                name on the Hub.
            cell_type_key: column of ``obs`` that becomes `cell_type`; missing values are -1. Columns are looked for in
                the ATAC data, in the whole of an .h5mu, and in the RNA data.
            batch_key: column that becomes `batch`.
            tissue_key: column that becomes `tissue`.
            donor_key: column that becomes `donor`.
            assay_key: column that becomes `assay`, the kind of a bulk sample; missing values are -1.
            atac_modality: modality of the peaks in an .h5mu; by default "atac", "peaks" or the only one.
            rna_modality: modality of the genes in an .h5mu; by default "rna", "gex" or "genes".
            allow_float_counts: take counts that are not whole numbers, such as smoothed ones.
            max_entries_per_block: stored values read at a time.
            config_name: name of a part of the cache.
            cache_dir: where to prepare; by default the cache of `datasets`.

        Raises:
            FileNotFoundError: if a file is not there.
            ValueError: if a file cannot be used, no barcode is in both, barcodes repeat, a label column is missing,
                cells have no batch, or the tokenizer has no genes or knows none of these.
        """
        if max_entries_per_block < 1:
            raise ValueError(f"max_entries_per_block must be at least 1, got {max_entries_per_block}")
        if not isinstance(tokenizer, PeakTokenizer):
            tokenizer = _loaded(tokenizer)
        self.tokenizer = tokenizer
        self._sources = _sources(atac, rna, atac_modality, rna_modality, has_genes=tokenizer.genes is not None)
        self._allow_float_counts = allow_float_counts
        self._max_entries = max_entries_per_block
        # While streaming, copies last as long as this builder, and with it the streams made of it.
        self._scratch: ScratchFolder | None = None
        self._kept_copies: dict[str, RowStore] = {}
        with self._sources.open() as (peaks, genes):
            keys = _keys(cell_type_key, batch_key, tissue_key, donor_key, assay_key)
            self.pairing: Pairing = pair(peaks, genes, tokenizer, keys)
            digests = [peaks.digest(), "" if genes is None else genes.digest()]
        super().__init__(
            cache_dir=None if cache_dir is None else str(cache_dir),
            config_name=config_name,
            config_id=config_name,  # the digest says all that sets the rows of two builders apart
            hash=self._digest(digests),
        )

    @property
    def report(self) -> PairingReport:
        """What of the data is used, and how much finds no place."""
        return self.pairing.report

    def _digest(self, digests: Sequence[str]) -> str:
        genes = self.tokenizer.genes
        gene_names = "" if genes is None else "\n".join([*genes.symbols, *genes.ensembl_ids])
        parts = [*digests, self.pairing.digest(), self.tokenizer.vocabulary.digest(), gene_names]
        digest = hashlib.blake2b(repr(self._allow_float_counts).encode(), digest_size=16)
        for part in parts:
            digest.update(hashlib.blake2b(part.encode()).digest())
        return digest.hexdigest()

    def _info(self) -> DatasetInfo:
        return DatasetInfo(description=self.report.summary(), features=self.pairing.features)

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **options: Any) -> None:
        # This is the `.incomplete` folder. A killed process leaves its files there, and they would be kept.
        folder = Path(self._output_dir)
        if folder.name.endswith(".incomplete") and folder.is_dir():
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            super()._download_and_prepare(dl_manager, verification_mode, **options)
        finally:
            shutil.rmtree(folder / COPIES, ignore_errors=True)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        with self._sources.open() as (peaks, genes):
            copies = self._copies(peaks, genes, isinstance(dl_manager, StreamingDownloadManager))
            bounds = list(self._tables(peaks, genes, copies).bounds(self._max_entries))
        generator = SplitGenerator(name="train", gen_kwargs={"bounds": bounds, "copies": copies})
        generator.split_info.num_examples = len(self.pairing.barcodes)  # lets the progress bar know its end
        return [generator]

    def _copies(self, peaks: MatrixFile, genes: MatrixFile | None, is_streaming: bool) -> dict[str, RowStore]:
        """Copies of those files that cannot be read in the order of the cells."""
        files = {"atac": (peaks, self.pairing.atac_rows), "rna": (genes, self.pairing.rna_rows)}
        copied = {
            name: (file, rows)
            for name, (file, rows) in files.items()
            if file is not None and rows is not None and (file.is_stored_by_columns or not is_rising(rows))
        }
        if not copied or self._kept_copies:
            return self._kept_copies
        if is_streaming:
            self._scratch = ScratchFolder(self._cache_dir_root)
            self._kept_copies = _copied(copied, Path(self._scratch.path), self._max_entries)
            return self._kept_copies
        # The `.incomplete` folder: an interruption leaves nothing behind there.
        return _copied(copied, Path(self._output_dir, COPIES), self._max_entries)

    def _generate_tables(
        self, bounds: list[tuple[int, int]], copies: Mapping[str, RowStore]
    ) -> Iterator[tuple[Key, pa.Table]]:
        with self._sources.open() as (peaks, genes):
            tables = self._tables(peaks, genes, copies)
            for shard, (start, stop) in enumerate(bounds):
                yield Key(shard, 0), tables.table(start, stop)
            tables.warn_if_low_coverage()

    def _tables(self, peaks: MatrixFile, genes: MatrixFile | None, copies: Mapping[str, RowStore]) -> CellTables:
        rna = None if genes is None else copies.get("rna", genes)
        return CellTables(self.pairing, copies.get("atac", peaks), rna, self.tokenizer, self._allow_float_counts)

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except DatasetGenerationError as error:
            # Its message says only that something went wrong; ours says what to do.
            if isinstance(error.__cause__, ValueError | OSError):
                raise error.__cause__ from None
            raise


@dataclass(frozen=True)
class _Sources:
    """The files, to be opened in each process anew."""

    atac: PathLike
    rna: PathLike | None
    atac_modality: str | None
    rna_modality: str | None

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[MatrixFile, MatrixFile | None]]:
        """The open tables of peaks and genes."""
        with contextlib.ExitStack() as stack:
            peaks = stack.enter_context(MatrixFile.open(self.atac, self.atac_modality))
            genes = None
            if self.rna is not None:
                genes = stack.enter_context(GeneFile.open(self.rna, self.rna_modality))
            yield peaks, genes


def _sources(
    atac: PathLike, rna: PathLike | None, atac_modality: str | None, rna_modality: str | None, *, has_genes: bool
) -> _Sources:
    """Find out whether the genes are in the file of the peaks."""
    if rna is None and (has_genes or rna_modality is not None):
        names = modalities_of(atac)
        if rna_modality is not None or any(name in GENES.modalities for name in names):
            rna = atac
        elif len(names) > 1:
            raise ValueError(
                f"{atac} has the modalities {', '.join(names)}, and none is known to hold genes "
                f"({', '.join(GENES.modalities)}): name it with rna_modality=, or write the peaks alone to an .h5ad"
            )
    return _Sources(atac, rna, atac_modality, rna_modality)


def _copied(files: Mapping[str, tuple[MatrixFile, np.ndarray]], folder: Path, max_entries: int) -> dict[str, RowStore]:
    copies = {}
    for name, (file, rows) in files.items():
        logger.info("copying %s to %s, to read its cells in another order", file.path, folder)
        (folder / name).mkdir(parents=True)
        copies[name] = RowStore.copy_of(file, rows, folder / name, max_entries)
    return copies


def _loaded(tokenizer: PathLike) -> PeakTokenizer:
    loaded: PeakTokenizer = PeakTokenizer.from_pretrained(tokenizer)
    return loaded


def _keys(
    cell_type: str | None, batch: str | None, tissue: str | None, donor: str | None, assay: str | None
) -> dict[str, str | None]:
    return {"cell_type": cell_type, "batch": batch, "tissue": tissue, "donor": donor, "assay": assay}


def _flat(cells: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """All values of a list column in one array, and where each row begins and ends."""
    lists = cells.select_columns([column]).with_format("arrow")[:][column].combine_chunks()
    return lists.flatten().to_numpy(), np.r_[0, np.cumsum(lists.value_lengths().to_numpy())]
