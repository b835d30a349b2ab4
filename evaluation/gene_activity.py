"""How open the peaks in and near genes are, for genes by any name: the usual stand-in for their expression."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.clustering.gene_activity import gene_activity
from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
from epifoundation.tokenization import canonical_chromosome, parse_peaks
from epifoundation.tokenization.intervals_epifoundation import global_positions, overlapping_pairs

REACH = 100_000
DECAY = 5_000.0


def positions_of(names: Sequence[str], genome: str = "hg38") -> pd.DataFrame:
    """Where genes lie: a row for each name, by symbol first, then by Ensembl id, as `gene_coordinates` has it.

    A gene without a known position has a missing ``chromosome``. Of several genes with one symbol the first is meant.

    Raises:
        ValueError: if there is no table of this genome, or none of the genes is in it.
    """
    table = gene_coordinates(genome)
    plain = pd.Index([str(name) for name in names])
    symbols = table.loc[table["symbol"] != "", "symbol"].drop_duplicates()
    rows = pd.Series(symbols.index, symbols).reindex(plain).to_numpy(np.float64)
    by_id = pd.Series(table.index, table["ensembl_id"]).reindex(plain.str.replace(r"\.\d+$", "", regex=True))
    rows = np.where(np.isnan(rows), by_id.to_numpy(np.float64), rows)
    if np.isnan(rows).all():
        raise ValueError(
            f"none of the {len(plain):,} genes, such as {list(plain[:3])}, has a known position in {genome}, whose "
            f"table has names such as {list(symbols[:3])}: check genome and gene names"
        )
    return table.reindex(np.nan_to_num(rows, nan=-1).astype(np.int64)).reset_index(drop=True)


def body_activity(counts: csr_matrix, peak_names: Sequence[str], genes: pd.DataFrame) -> csr_matrix:
    """(cells, genes) counts in the body of each gene and 2,000 base pairs upstream; see `gene_activity`.

    Args:
        counts: (cells, peaks).
        peak_names: (peaks,) such as ``chr1:100-200``.
        genes: as `positions_of` gives; those without a position get 0.
    """
    is_placed = genes["chromosome"].notna().to_numpy()
    # A name of its own for each: genes of one symbol are added up otherwise.
    placed = genes[is_placed].assign(symbol=np.flatnonzero(is_placed))
    activity, columns = gene_activity(counts, peak_names, placed)
    return csr_matrix(activity @ _places(np.array(columns, dtype=np.int64), len(genes)))


def distance_activity(counts: csr_matrix, peak_names: Sequence[str], genes: pd.DataFrame) -> csr_matrix:
    """(cells, genes) counts within 100,000 base pairs of the body of each gene, weighted ``exp(-distance / 5,000)``.

    The distance is the number of base pairs between both, 0 if they overlap or touch. The decay is that of ArchR's gene
    scores, without its constant, its gene boundaries and its weights by gene length.

    Args:
        counts: (cells, peaks).
        peak_names: (peaks,) such as ``chr1:100-200``.
        genes: as `positions_of` gives; those without a position get 0.
    """
    peaks = parse_peaks(peak_names)
    code_of = {name: code for code, name in enumerate(peaks.chromosomes)}
    is_placed = genes["chromosome"].notna().to_numpy()
    placed = genes[is_placed]
    codes = np.array([code_of.get(canonical_chromosome(name), -1) for name in placed["chromosome"]], dtype=np.int64)
    starts, ends = placed["start"].to_numpy(np.int64), placed["end"].to_numpy(np.int64)
    of_peak, of_gene, _ = overlapping_pairs(
        global_positions(peaks.codes, peaks.starts),
        global_positions(peaks.codes, peaks.ends),
        global_positions(codes, np.maximum(starts - REACH, 0)),
        global_positions(codes, ends + REACH),
    )
    gaps = np.maximum(starts[of_gene] - peaks.ends[of_peak], peaks.starts[of_peak] - ends[of_gene])
    weights = np.exp(-np.maximum(gaps, 0) / DECAY)
    columns = np.flatnonzero(is_placed)[of_gene]
    return csr_matrix(counts @ csr_matrix((weights, (of_peak, columns)), shape=(len(peak_names), len(genes))))


def _places(columns: np.ndarray, num_columns: int) -> csr_matrix:
    return csr_matrix((np.ones(len(columns)), (np.arange(len(columns)), columns)), shape=(len(columns), num_columns))
