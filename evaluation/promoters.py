"""Which regions look like active promoters, judged by the embeddings of those that are known?"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score

from epifoundation.tokenization import canonical_chromosome
from epifoundation.tokenization.intervals_epifoundation import PeakColumns, global_positions

WITHIN = 1_000  # base pairs from the start of transcription
NUM_SETS = 10_000  # random sets of the null; no p-value is below 1 / (sets + 1), and the FDR needs small ones
SETS_AT_A_TIME = 64
NUM_STRATA = 20
HELD_OUT = 0.2
REGIONS_AT_A_TIME = 1_024
MIN_PROMOTERS = 10  # fewer have no stable mean, nor a fifth to test on


class PromoterScores(NamedTuple):
    """How much regions look like active promoters.

    Attributes:
        similarity: (regions,) cosine in [-1, 1] to the mean of the active promoters (`promoter_similarity`).
        p_value: (regions,) of the permutation null, in (0, 1]; NaN at promoters.
        fdr: (regions,) Benjamini and Hochberg's false discovery rate; NaN at promoters.
    """

    similarity: np.ndarray
    p_value: np.ndarray
    fdr: np.ndarray


class Recovery(NamedTuple):
    """How well held-out promoters are told from as many other regions: average precision, 0.5 by chance.

    Attributes:
        matched_on: what the other regions have in common with the promoters.
        num_promoters: held-out promoters that found a match.
        contextual: of the cosine to the promoters' mean by embeddings in context.
        table: the same by rows of the peak table, which do not depend on the cells.
        accessibility: of the number of cells in which a region is open.
    """

    matched_on: str
    num_promoters: int
    contextual: float
    table: float
    accessibility: float


def distance_to_tss(peaks: PeakColumns, genes: pd.DataFrame) -> np.ndarray:
    """(peaks,) int64 base pairs between a peak and the next start of transcription; 0 if it lies inside.

    A very large number where the chromosome has no gene.

    Args:
        peaks: as `parse_peaks` gives them.
        genes: as `gene_coordinates` gives them; genes without a known start are passed over.

    Raises:
        ValueError: if peaks and genes share no chromosome.
    """
    known = genes[genes["tss"].notna()]
    code_of = {name: code for code, name in enumerate(peaks.chromosomes)}
    codes = np.array([code_of.get(canonical_chromosome(name), -1) for name in known["chromosome"]], dtype=np.int64)
    if not (codes >= 0).any():
        raise ValueError("peaks and genes share no chromosome: check that both are of one genome")
    # A chromosome is 2^32 wide here, so the next start on another one is farther away than any on this one.
    tss = np.sort(global_positions(codes, known["tss"].to_numpy(np.int64))[codes >= 0])
    starts, ends = global_positions(peaks.codes, peaks.starts), global_positions(peaks.codes, peaks.ends)
    after = np.searchsorted(tss, starts)
    next_tss, previous_tss = tss[np.minimum(after, len(tss) - 1)], tss[np.maximum(after - 1, 0)]
    ahead = np.where(next_tss >= starts, np.maximum(next_tss - ends + 1, 0), np.iinfo(np.int64).max)
    behind = np.where(previous_tss < starts, starts - previous_tss, np.iinfo(np.int64).max)
    return np.minimum(ahead, behind)


def promoter_similarity(embeddings: np.ndarray, is_promoter: np.ndarray) -> np.ndarray:
    """(regions,) cosine of each embedding to the mean of those of the promoters, both less the mean of all regions.

    What all embeddings of a model have in common is large; left in, regions in the middle of all come first.

    Args:
        embeddings: (regions, hidden).
        is_promoter: (regions,) bool, true for at least one.
    """
    centred = embeddings - embeddings.mean(axis=0)
    return np.asarray(_unit_rows(centred) @ _unit_rows(centred[is_promoter].mean(axis=0, keepdims=True))[0])


def whitened(embeddings: np.ndarray) -> np.ndarray:
    """(regions, hidden) float32, less their mean, in axes along which all regions vary alike.

    A few directions hold most of the variance of embeddings, such as those of the chromosomes, and a cosine hears
    little else; here all count the same. The covariance is shrunk as Ledoit and Wolf (2004) do, so that few regions do
    no harm.
    """
    if len(embeddings) < 2:
        return np.zeros(embeddings.shape, dtype=np.float32)
    covariance, _ = ledoit_wolf(embeddings)
    variances, axes = np.linalg.eigh(covariance)
    scale = 1 / np.sqrt(np.maximum(variances, np.finfo(np.float32).tiny))
    return np.asarray((embeddings - embeddings.mean(axis=0)) @ (axes * scale), dtype=np.float32)


def promoter_scores(
    embeddings: np.ndarray, is_promoter: np.ndarray, generator: np.random.Generator, num_sets: int = NUM_SETS
) -> PromoterScores:
    """Score each region by its similarity to the promoters, with a permutation null.

    The null permutes the labels: as many regions as there are promoters are drawn from all, `num_sets` times. The
    p-value of a region is the share of these sets, the observed one included, whose mean reaches as far in its
    direction as that of the promoters. The lengths of the means count here, unlike in the cosine: those of random sets
    are short. It tells whether a region lies on the promoters' side, not that it is one, and with many promoters a
    small lead suffices.
    So rank by the similarity, and look at the check on held-out promoters before believing a list.

    Args:
        embeddings: (regions, hidden), in context.
        is_promoter: (regions,) bool.
        generator: draws the sets.
        num_sets: how many.

    Raises:
        ValueError: if there are fewer than 10 promoters, or as few other regions.
    """
    num_promoters, num_others = int(is_promoter.sum()), int((~is_promoter).sum())
    if min(num_promoters, num_others) < MIN_PROMOTERS:
        raise ValueError(
            f"expected at least {MIN_PROMOTERS} known promoters and as many other regions, got {num_promoters:,} and "
            f"{num_others:,}: take more cells, or lower the number of cells asked for (--min-cells)"
        )
    similarity = promoter_similarity(embeddings, is_promoter)
    centred = embeddings - embeddings.mean(axis=0)
    units, centre = _unit_rows(centred), centred[is_promoter].mean(axis=0)
    random_centres = _random_sums(centred, num_promoters, num_sets, generator) / num_promoters
    p_value = np.full(len(embeddings), np.nan)
    others = np.flatnonzero(~is_promoter)
    for start in range(0, num_others, REGIONS_AT_A_TIME):
        rows = others[start : start + REGIONS_AT_A_TIME]
        as_high = (units[rows] @ random_centres.T >= (units[rows] @ centre)[:, None]).sum(axis=1)
        p_value[rows] = (1 + as_high) / (1 + num_sets)
    fdr = np.full(len(embeddings), np.nan)
    fdr[others] = false_discovery_control(p_value[others])
    return PromoterScores(similarity, p_value, fdr)


def held_out_recovery(
    contextual: np.ndarray,
    table: np.ndarray,
    num_cells: np.ndarray,
    is_promoter: np.ndarray,
    positions: np.ndarray,
    generator: np.random.Generator,
) -> list[Recovery]:
    """Hold out a fifth of the promoters and tell them from other regions by their similarity to the rest.

    Each held-out promoter is matched with a region that is no promoter: once by its distance to the next promoter that
    is kept (twenty quantiles), once by the number of cells in which it is open, which then tells nothing of itself.

    Args:
        contextual: (regions, hidden) embeddings in context.
        table: (regions, hidden) rows of the peak table.
        num_cells: (regions,) in which a region is open.
        is_promoter: (regions,) bool, true for at least 10.
        positions: (regions,) int64 global positions (see `global_positions`).
        generator: draws the fifth, and the matches.

    Raises:
        ValueError: if no other region matches.
    """
    promoters = np.flatnonzero(is_promoter)
    held_out = generator.choice(promoters, max(1, round(HELD_OUT * len(promoters))), replace=False)
    is_kept = is_promoter.copy()
    is_kept[held_out] = False
    scores = (promoter_similarity(contextual, is_kept), promoter_similarity(table, is_kept), num_cells)
    distance = _distance_to_next(positions, positions[is_kept])
    others = np.flatnonzero(~is_promoter)
    found = []
    for matched_on, values in (("distance", distance), ("accessibility", num_cells)):
        chosen, beside = matched_pairs(values[held_out], values[others], generator)
        if not len(chosen):
            raise ValueError(f"no region matches a held-out promoter by {matched_on}: take more cells or regions")
        regions = np.concatenate([held_out[chosen], others[beside]])
        truth = np.arange(len(regions)) < len(chosen)
        areas = (float(average_precision_score(truth, score[regions])) for score in scores)
        found.append(Recovery(matched_on, len(chosen), *areas))
    return found


def matched_pairs(
    wanted: np.ndarray, candidates: np.ndarray, generator: np.random.Generator, num_strata: int = NUM_STRATA
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pairs of one of `wanted` and one of `candidates` in the same quantile of `wanted`, each used once.

    Where a stratum has too few of one kind, as many as there are of it are drawn of the other.
    """
    bounds = np.unique(np.quantile(wanted, np.linspace(0, 1, num_strata + 1)))
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    is_inside = (candidates >= bounds[0]) & (candidates <= bounds[-1])
    for stratum in range(len(bounds)):
        ours = np.flatnonzero(_stratum_of(wanted, bounds) == stratum)
        theirs = np.flatnonzero(is_inside & (_stratum_of(candidates, bounds) == stratum))
        size = min(len(ours), len(theirs))
        pairs.append((generator.choice(ours, size, replace=False), generator.choice(theirs, size, replace=False)))
    return np.concatenate([ours for ours, _ in pairs]), np.concatenate([theirs for _, theirs in pairs])


def _stratum_of(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return np.asarray(np.searchsorted(bounds, values, side="right") - 1)


def _distance_to_next(positions: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """(positions,) to the next mark, itself not counted."""
    marks = np.sort(marks)
    before = np.searchsorted(marks, positions, side="left") - 1
    behind = np.searchsorted(marks, positions, side="right")
    far = np.int64(1) << 62
    to_before = np.where(before >= 0, positions - marks[np.maximum(before, 0)], far)
    to_behind = np.where(behind < len(marks), marks[np.minimum(behind, len(marks) - 1)] - positions, far)
    return np.minimum(to_before, to_behind)


def _random_sums(rows: np.ndarray, size: int, num_sets: int, generator: np.random.Generator) -> np.ndarray:
    """(sets, hidden): the sum of `size` rows drawn without replacement, for each set."""
    sums = np.empty((num_sets, rows.shape[1]), dtype=np.float32)
    for start in range(0, num_sets, SETS_AT_A_TIME):
        is_drawn = np.zeros((min(SETS_AT_A_TIME, num_sets - start), len(rows)), dtype=np.float32)
        for row in is_drawn:
            row[generator.choice(len(rows), size, replace=False, shuffle=False)] = 1
        sums[start : start + len(is_drawn)] = is_drawn @ rows
    return sums


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)
