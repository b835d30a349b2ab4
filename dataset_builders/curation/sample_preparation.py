"""The steps of preparing one sample: quality of its barcodes, then matrix, clusters and cell types of its cells.

After appendix A of the EpiFoundation paper. Every step reads files and writes one sealed folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from epifoundation.tokenization import PeakVocabulary

from ..clustering.clusters import FEWEST_CELLS, cluster_cells
from ..clustering.gene_activity import gene_activity
from ..clustering.reference_labels import label_clusters, read_reference
from ..genome.gene_coordinates import gene_coordinates, has_gene_coordinates
from ..genome.genome_sets import MergedIntervals, TranscriptionStarts
from ..matrices.matrix_writing import write_matrix
from ..matrices.remapping import remap_matrix
from ..quality.fragment_quality import FragmentQuality, fragment_quality
from ..quality.quality_filters import NUM_ATAC, NUM_RNA, QualityFilters
from ..readers.fragment_counts import count_fragments
from ..readers.fragment_files import FragmentFile
from ..readers.matrix_files import GENES, GeneFile, MatrixFile, modalities_of
from ..readers.peak_files import open_peak_file
from ..readers.tenx_files import is_tenx
from .sealed_folders import Recipe, sealed_folder

QUALITY_TABLE, LENGTHS, RANKS = "quality.parquet", "fragment_lengths.tsv", "fragments_by_rank.npy"
ATAC, RNA, CLUSTER_TABLE = "atac.h5ad", "rna.h5ad", "clusters.tsv"


@dataclass(frozen=True)
class Sample:
    """One sample: a file of fragments or of counts in peaks, and maybe one of counts of genes.

    Attributes:
        name: put before the barcodes of its cells.
        path: fragments (.tsv, .tsv.gz), or counts of peaks (.h5ad, .h5mu, .h5 of Cell Ranger).
        rna: counts of genes of the same barcodes (.h5ad, .h5mu, .h5); None if `path` holds them, or there are none.
    """

    name: str
    path: Path
    rna: Path | None = None

    @property
    def has_fragments(self) -> bool:
        """Whether `path` is a file of fragments."""
        return not (h5py.is_hdf5(self.path) or self.path.suffix in (".h5ad", ".h5mu", ".h5"))

    @property
    def genes_path(self) -> Path | None:
        """The file that holds counts of genes; None if there is none."""
        if self.rna is not None or self.has_fragments:
            return self.rna
        return self.path if _has_genes(self.path) else None


@dataclass(frozen=True)
class SampleReport:
    """What became of a sample.

    Attributes:
        num_barcodes: barcodes with enough fragments to be looked at.
        num_cells: those that passed quality control.
        num_peaks: peaks open in any of them.
        num_clusters: clusters of them.
        quality: a line for each filter.
        cell_types: number of cells of each type; empty without reference profiles.
    """

    num_barcodes: int
    num_cells: int
    num_peaks: int
    num_clusters: int
    quality: list[str]
    cell_types: dict[str, int]


def measure_sample(
    sample: Sample,
    folder: Path,
    recipe: Recipe,
    *,
    genome: str,
    peaks: Path | None,
    blacklist: Path | None,
    min_fragments: int,
    show_progress: bool = False,
) -> int:
    """Write the quality of a sample's barcodes to a sealed folder; their number comes back.

    The folder holds ``quality.parquet``, one row per barcode, and for fragments ``fragment_lengths.tsv`` and
    ``fragments_by_rank.npy``.

    Args:
        sample: the sample.
        folder: what to write.
        recipe: what the folder is sealed with.
        genome: assembly of the sample.
        peaks: file of a `PeakVocabulary`, for the fraction in peaks; None leaves it out.
        blacklist: BED file, for the blacklist fraction; None leaves it out.
        min_fragments: fragments (or counts) a barcode needs to be looked at.
        show_progress: show a progress bar on a terminal.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if a file cannot be read, no barcode has enough fragments, or none is in both measurements.
        OSError: if the disk is full.
    """
    with sealed_folder(folder, recipe) as partial:
        if sample.has_fragments:
            quality = fragment_quality(
                FragmentFile(sample.path, genome=genome),
                starts=TranscriptionStarts.of_genome(genome) if has_gene_coordinates(genome) else None,
                peaks=None if peaks is None else PeakVocabulary.load(peaks),
                blacklist=None if blacklist is None else MergedIntervals.from_bed(blacklist, genome),
                min_fragments=min_fragments,
                show_progress=show_progress,
            )
            table = quality.table
            lengths = pd.Series(quality.lengths, name="num_fragments").rename_axis("length")
            lengths.to_csv(partial / LENGTHS, sep="\t")
            np.save(partial / RANKS, quality.num_unique_fragments)
        else:
            table = _counts_per_cell(sample.path, min_fragments)
        if sample.genes_path is not None:
            table = _with_rna(table, sample)
        table.to_parquet(partial / QUALITY_TABLE)
    return len(table)


def read_quality(folder: Path) -> FragmentQuality:
    """What `measure_sample` wrote; of a sample without fragments, the two arrays are empty."""
    table = pd.read_parquet(folder / QUALITY_TABLE)
    if not (folder / RANKS).is_file():
        return FragmentQuality(table, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    lengths = pd.read_csv(folder / LENGTHS, sep="\t")["num_fragments"].to_numpy()
    return FragmentQuality(table, lengths, np.load(folder / RANKS))


def prepare_sample(
    sample: Sample,
    folder: Path,
    recipe: Recipe,
    *,
    quality: Path,
    filters: QualityFilters,
    peaks: Path,
    reference: Path | None,
    resolution: float,
    seed: int,
    show_progress: bool = False,
) -> SampleReport:
    """Write the cells of a sample to a sealed folder: ``atac.h5ad``, ``rna.h5ad`` if there is RNA, ``clusters.tsv``.

    The files hold raw counts; ``obs`` has the quality, the cluster and, with reference profiles, the cell type of
    each cell, ``obsm`` the embeddings that the clusters were found by.

    Args:
        sample: the sample.
        folder: what to write.
        recipe: what the folder is sealed with.
        quality: folder that `measure_sample` wrote.
        filters: which barcodes are cells.
        peaks: file of the `PeakVocabulary` to count in.
        reference: profiles of cell types, see `read_reference`; None names no types.
        resolution: of the clusters.
        seed: of the clusters.
        show_progress: show a progress bar on a terminal.

    Raises:
        ValueError: if no barcode passes, too few do for clusters, or the reference profiles do not fit.
        OSError: if the disk is full.
    """
    table = read_quality(quality).table
    kept = filters.kept(table, str(sample.path), at_least=FEWEST_CELLS)
    vocabulary = PeakVocabulary.load(peaks)
    matrix = _peak_counts(sample, list(kept.index), vocabulary, show_progress)
    genes = None if sample.genes_path is None else _gene_counts(sample.genes_path, list(kept.index))
    clusters = cluster_cells(matrix, None if genes is None else genes[0], resolution=resolution, seed=seed)
    obs = kept.copy()
    obs.insert(0, "sample", pd.Categorical([sample.name] * len(kept)))
    obs.insert(1, "barcode", kept.index.to_numpy())
    obs.index = pd.Index([f"{sample.name}_{barcode}" for barcode in kept.index], name="cell")
    obs["cluster"] = pd.Categorical([f"{sample.name}:{number}" for number in clusters.of_cell])
    if clusters.rna_weight is not None:
        obs["rna_weight"] = clusters.rna_weight
    labels = _labels(matrix, genes, clusters.of_cell, vocabulary, reference)
    if "cell_type" in labels:
        obs["cell_type"] = pd.Categorical(labels["cell_type"].to_numpy()[clusters.of_cell])
    with sealed_folder(folder, recipe) as partial:
        labels.to_csv(partial / CLUSTER_TABLE, sep="\t")
        var = pd.DataFrame(index=pd.Index(vocabulary.names(), dtype=object))
        write_matrix(partial / ATAC, [matrix], obs, var, obsm={"X_lsi": clusters.embeddings["X_lsi"]})
        if genes is not None:
            obsm = {"X_pca": clusters.embeddings["X_pca"]}
            write_matrix(partial / RNA, [genes[0]], obs, genes[1], dtype=genes[0].dtype, obsm=obsm)
    return SampleReport(
        num_barcodes=len(table),
        num_cells=len(kept),
        num_peaks=len(np.unique(matrix.indices)),
        num_clusters=int(clusters.of_cell.max()) + 1,
        quality=filters.report(table),
        cell_types=obs["cell_type"].value_counts().to_dict() if "cell_type" in obs else {},
    )


def _has_genes(path: Path) -> bool:
    """Whether a file of peaks holds genes too: as a modality of an .h5mu, or as features of Cell Ranger."""
    with h5py.File(path, "r") as file:
        if is_tenx(file):
            return b"Gene Expression" in file["matrix/features/feature_type"][:]
    return not set(GENES.modalities).isdisjoint(modalities_of(path))


def _counts_per_cell(path: Path, min_counts: int) -> pd.DataFrame:
    with open_peak_file(path) as file:
        totals = _row_sums(file)
        table = pd.DataFrame({NUM_ATAC: totals}, index=pd.Index(file.cell_names, name="barcode"))
    enough = table[table[NUM_ATAC] >= max(1, min_counts)]
    if enough.empty:
        raise ValueError(f"{path}: no cell has {min_counts:,} counts or more, the largest has {totals.max():,.0f}")
    return enough


def _with_rna(table: pd.DataFrame, sample: Sample) -> pd.DataFrame:
    """The barcodes that the RNA has too, with its counts."""
    assert sample.genes_path is not None, "asked for a sample with RNA only"
    with GeneFile.open(sample.genes_path) as file:
        counts = pd.Series(_row_sums(file), index=file.cell_names)
    shared = table.index.intersection(counts.index)
    if shared.empty:
        raise ValueError(
            f"no barcode is in both measurements: {sample.path} has {list(table.index[:3])}, "
            f"{sample.genes_path} has {list(counts.index[:3])}"
        )
    table = table.loc[shared].copy()
    table[NUM_RNA] = counts.loc[shared].to_numpy()
    return table


def _row_sums(file: MatrixFile) -> np.ndarray:
    sums = []
    for block in file.blocks():
        _refuse_no_counts(block.data, file.path)
        sums.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
    return np.concatenate(sums)


def _refuse_no_counts(values: np.ndarray, path: Path) -> None:
    """Refuse normalised values here, before minutes of work: they would be summed as reads and cut to whole numbers."""
    is_no_count = ~((values >= 0) & (values < np.inf) & (values == np.floor(values)))
    if is_no_count.any():
        raise ValueError(
            f"{path} holds values that are no counts, such as {values[is_no_count][0]:g}: put the raw counts into X "
            "(they may be in a layer or in raw)"
        )


def _peak_counts(
    sample: Sample, barcodes: Sequence[str], vocabulary: PeakVocabulary, show_progress: bool
) -> csr_matrix:
    """(barcodes, peaks) counts, in the order of `barcodes`."""
    if sample.has_fragments:
        file = FragmentFile(sample.path, barcodes=barcodes, genome=vocabulary.genome)
        return count_fragments(file, vocabulary, show_progress=show_progress).matrix
    with open_peak_file(sample.path) as table:
        mapping = vocabulary.map(table.column_names)
        parts = (remap_matrix(block, mapping, len(vocabulary)) for block in _rows_named(table, barcodes))
        return vstack(list(parts), format="csr").astype(np.int32)


def _gene_counts(path: Path, barcodes: Sequence[str]) -> tuple[csr_matrix, pd.DataFrame]:
    """(barcodes, genes) counts, in the order of `barcodes`, and the names of the genes."""
    with GeneFile.open(path) as file:
        var = pd.DataFrame(index=pd.Index(file.column_names, dtype=object))
        found = vstack(list(_rows_named(file, barcodes)), format="csr")
        in_file = pd.Index(file.cell_names)
    return found[in_file[in_file.isin(barcodes)].get_indexer(pd.Index(barcodes))], var


def _rows_named(file: MatrixFile, names: Sequence[str]) -> Iterator[csr_matrix]:
    """The rows with these names, in the order of the file, block by block."""
    is_wanted = pd.Index(file.cell_names).isin(names)
    start = 0
    for block in file.blocks():
        yield csr_matrix(block)[np.flatnonzero(is_wanted[start : start + block.shape[0]])]
        start += block.shape[0]


def _labels(
    matrix: csr_matrix,
    genes: tuple[csr_matrix, pd.DataFrame] | None,
    clusters: np.ndarray,
    vocabulary: PeakVocabulary,
    reference: Path | None,
) -> pd.DataFrame:
    """One row per cluster: its size and, with reference profiles, its cell type."""
    if reference is None:
        return pd.DataFrame({"num_cells": np.bincount(clusters)}).rename_axis("cluster")
    profiles = read_reference(reference)
    if genes is not None:
        return label_clusters(genes[0], list(genes[1].index), clusters, profiles)
    coordinates = gene_coordinates(vocabulary.genome)
    activity = gene_activity(matrix, vocabulary.names(), coordinates)
    return label_clusters(activity, list(coordinates["symbol"]), clusters, profiles)
