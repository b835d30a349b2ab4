import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epifoundation.evaluation.promoters import (
    distance_to_tss,
    held_out_recovery,
    matched_pairs,
    promoter_scores,
    promoter_similarity,
    whitened,
)
from epifoundation.tokenization import parse_peaks


def genes(*starts):
    table = pd.DataFrame(starts, columns=["chromosome", "tss"])
    return table.astype({"tss": "Int64"})


def test_distances_by_hand():
    peaks = parse_peaks(["chr1:100-200", "chr1:300-400", "chr1:149-151", "chr2:5-6", "chr3:1-2"])
    found = distance_to_tss(peaks, genes(("chr1", 150), ("chr2", 0), ("chr1", pd.NA), ("2", 10)))
    assert found[:4].tolist() == [0, 150, 0, 5]
    assert found[4] > 10**9


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=20),
    st.lists(st.integers(0, 350), min_size=1, max_size=20),
)
def test_distances_are_those_of_brute_force(peaks, starts):
    names = [f"chr1:{start}-{start + width}" for start, width in peaks]
    found = distance_to_tss(parse_peaks(names), genes(*(("chr1", tss) for tss in starts)))
    expected = [
        min(min(abs(base - tss) for base in range(start, start + width)) for tss in starts) for start, width in peaks
    ]
    assert found.tolist() == expected


def test_genes_of_other_chromosomes_are_refused():
    with pytest.raises(ValueError, match="share no chromosome"):
        distance_to_tss(parse_peaks(["chr1:1-2"]), genes(("chr9", 5)))


def test_similarity_is_the_cosine_of_numpy():
    generator = np.random.default_rng(0)
    rows = generator.normal(3, 1, (30, 5)).astype(np.float32)
    is_promoter = np.arange(30) < 8
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    mean = centred[:8].mean(axis=0)
    expected = [row @ mean / np.linalg.norm(row) / np.linalg.norm(mean) for row in centred]
    np.testing.assert_allclose(promoter_similarity(rows, is_promoter), expected, atol=1e-5)


def test_whitened_rows_vary_alike_in_all_directions():
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 1, (4_000, 6)) @ generator.normal(0, 1, (6, 6)) + 5
    found = whitened(rows.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(found, rowvar=False), np.eye(6), atol=0.05)


def test_whitening_lets_promoters_be_heard_among_chromosomes():
    rows, is_promoter = planted(1_000, 300, 0)
    chromosomes = np.random.default_rng(3).integers(0, 5, 1_000)
    rows[:, 1:6] += 60 * np.eye(5, dtype=np.float32)[chromosomes]

    def lead(embeddings):
        similarity = promoter_similarity(embeddings, is_promoter)
        return (similarity[is_promoter][:, None] > similarity[~is_promoter][None]).mean()

    assert lead(rows) < 0.9
    assert lead(whitened(rows)) > 0.99


def test_fewer_regions_than_numbers_can_be_whitened():
    rows, is_promoter = planted(30, 12, 0)
    assert np.isfinite(whitened(rows)).all()
    assert np.isfinite(whitened(np.ones((20, 4), np.float32))).all()
    assert whitened(np.ones((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]
    similarity = promoter_similarity(whitened(rows), is_promoter)
    assert similarity[is_promoter].mean() > similarity[~is_promoter].mean()


def planted(num_regions=600, num_promoters=200, num_hidden=100):
    """Promoters lie in one direction, and so do a hundred regions that are not known as such."""
    generator = np.random.default_rng(1)
    rows = generator.normal(0, 1, (num_regions, 32)).astype(np.float32)
    rows[: num_promoters + num_hidden, 0] += 6
    return rows + 5, np.arange(num_regions) < num_promoters


def test_planted_promoters_are_found_and_others_are_not():
    rows, is_promoter = planted()
    scores = promoter_scores(rows, is_promoter, np.random.default_rng(0), num_sets=2_000)
    assert np.isnan(scores.fdr[:200]).all()
    is_found = scores.fdr <= 0.05
    assert is_found[200:300].mean() > 0.9
    assert is_found[300:].mean() < 0.05


def test_without_promoters_of_their_own_kind_p_values_are_uniform():
    rows = np.random.default_rng(2).normal(0, 1, (1_500, 16)).astype(np.float32)
    shares = []
    for seed in range(20):  # other labels each time: p-values of one labelling depend on each other
        generator = np.random.default_rng(seed)
        is_promoter = generator.permutation(len(rows)) < 300
        shares.append(np.nanmean(promoter_scores(rows, is_promoter, generator, num_sets=200).p_value <= 0.1))
    assert 0.07 < np.mean(shares) < 0.13


def test_the_false_discovery_rate_is_that_of_the_definition():
    rows, is_promoter = planted()
    scores = promoter_scores(rows, is_promoter, np.random.default_rng(0), num_sets=100)
    p_value, rate = scores.p_value[200:], scores.fdr[200:]
    for i in range(0, len(p_value), 40):
        as_high = p_value[p_value >= p_value[i]]
        expected = min(p * len(p_value) / (p_value <= p).sum() for p in as_high)
        assert rate[i] == pytest.approx(min(expected, 1))


def test_too_few_promoters_are_refused():
    with pytest.raises(ValueError, match=r"at least 10 known promoters .* got 3 and 97"):
        promoter_scores(np.ones((100, 2), np.float32), np.arange(100) < 3, np.random.default_rng(0))


def test_matches_lie_in_the_same_quantile_and_are_used_once():
    generator = np.random.default_rng(0)
    wanted, candidates = generator.normal(2, 1, 300), generator.normal(0, 3, 2_000)
    ours, theirs = matched_pairs(wanted, candidates, generator, num_strata=10)
    assert len(set(ours)) == len(ours) == len(set(theirs)) == len(theirs) > 250
    bounds = np.quantile(wanted, np.linspace(0, 1, 11))
    np.testing.assert_array_equal(np.digitize(wanted[ours], bounds), np.digitize(candidates[theirs], bounds))


def test_held_out_promoters_are_recovered_by_what_tells_them_alone():
    rows, is_promoter = planted(2_000, 500, 0)
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, rows.shape).astype(np.float32)
    num_cells = 5 + 20 * is_promoter + generator.integers(0, 30, 2_000)
    positions = generator.permutation(2_000) * 1_000
    by_distance, by_cells = held_out_recovery(rows, noise, num_cells, is_promoter, positions, generator)
    assert (by_distance.matched_on, by_cells.matched_on) == ("distance", "accessibility")
    assert by_distance.contextual > 0.95
    assert by_distance.table == pytest.approx(0.5, abs=0.15)
    assert by_distance.accessibility > 0.75
    assert by_cells.accessibility == pytest.approx(0.5, abs=0.15)
    assert by_cells.contextual > 0.95
