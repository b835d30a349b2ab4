import numpy as np
import pytest

from epifoundation.tokenization.genomes_epifoundation import (
    CHROMOSOME_LENGTHS,
    canonical_chromosome,
    canonical_genome,
    chromosome_sort_key,
    explain_genome_mismatch,
    plausible_genomes,
)


@pytest.mark.parametrize(
    ("genome", "num_chromosomes", "first", "last"),
    # first and last lengths as NCBI and UCSC publish them
    [
        ("hg38", 25, 248_956_422, 16_569),
        ("hg19", 25, 249_250_621, 16_571),
        ("mm10", 22, 195_471_971, 16_299),
        ("mm39", 22, 195_154_279, 16_299),
    ],
)
def test_each_table_runs_from_chr1_to_the_mitochondrion(genome, num_chromosomes, first, last):
    lengths = CHROMOSOME_LENGTHS[genome]
    assert len(lengths) == num_chromosomes
    assert next(iter(lengths)) == "chr1"
    assert list(lengths)[-3:] == ["chrX", "chrY", "chrM"]
    assert lengths["chr1"] == first
    assert lengths["chrM"] == last


def test_the_sex_chromosomes_have_their_own_lengths():
    assert CHROMOSOME_LENGTHS["hg38"]["chrX"] == 156_040_895
    assert CHROMOSOME_LENGTHS["mm10"]["chrY"] == 91_744_698


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1", "chr1"),
        ("chr1", "chr1"),
        ("Chr1", "chr1"),
        ("CHR22", "chr22"),
        ("x", "chrX"),
        ("MT", "chrM"),
        ("chrMT", "chrM"),
        ("NC_000001.11", "chr1"),
        ("NC_000001.10", "chr1"),
        ("NC_000024.10", "chrY"),
        ("NC_000067.6", "chr1"),
        ("NC_000087.8", "chrY"),
        ("NC_012920.1", "chrM"),
        ("NC_005089.1", "chrM"),
    ],
)
def test_a_chromosome_in_any_spelling_gets_one_name(name, expected):
    assert canonical_chromosome(name) == expected


@pytest.mark.parametrize("name", ["chrUn_KI270442v1", "GL000194.1", "chr1_KI270706v1_random", "NC_999999.1", ""])
def test_the_names_of_scaffolds_are_left_alone(name):
    assert canonical_chromosome(name) == name


def test_an_assembly_may_carry_its_other_name():
    assert [canonical_genome(name) for name in ("GRCh38", "grch37", "GRCm39", "HG38", "GRCh38.p14", "sacCer3")] == [
        "hg38",
        "hg19",
        "mm39",
        "hg38",
        "hg38",
        "sacCer3",
    ]


def test_chromosomes_sort_as_readers_expect():
    names = ["chrM", "GL000194.1", "chr10", "chrY", "chr2", "chrX", "chr1"]
    assert sorted(names, key=chromosome_sort_key) == [
        "chr1",
        "chr2",
        "chr10",
        "chrX",
        "chrY",
        "chrM",
        "GL000194.1",
    ]


def test_a_peak_beyond_the_end_rules_an_assembly_out():
    # chr5 ends at 181.5 Mb in hg38 and at 151.8 Mb in mm10; chr1 of hg19 is longer than that of hg38
    assert plausible_genomes(["chr5"], [181_538_259]) == ("hg38",)
    assert plausible_genomes(["1"], [249_250_621]) == ("hg19",)
    assert plausible_genomes(["chr1"], [1_000]) == ("hg38", "hg19", "mm10", "mm39")


def test_a_chromosome_that_mice_lack_rules_mice_out():
    assert plausible_genomes(["chr1", "chr21"], [1_000, 1_000]) == ("hg38", "hg19")


def test_scaffolds_alone_say_nothing():
    assert plausible_genomes(["chrUn_KI270442v1"], [10]) == ()


def test_the_explanation_names_the_genome_that_fits():
    codes, ends = np.array([0, 1, 1]), np.array([1_000, 91_000_000, 91_744_698])
    assert explain_genome_mismatch("mm10", ["chr1", "chrY"], codes, ends) is None
    assert explain_genome_mismatch("hg38", ["chr1", "chrY"], codes, ends) == (
        "the peaks fit the chromosome lengths of mm10, not of hg38 (2 peaks lie beyond the end of the chromosome)"
    )


def test_the_explanation_says_so_if_no_known_genome_fits():
    text = explain_genome_mismatch("mm10", ["chr21"], np.array([0]), np.array([900_000_000]))
    assert text == (
        "the peaks fit neither mm10 (1 peak lies on a chromosome that mm10 does not have) "
        "nor another assembly known here"
    )


def test_nothing_is_said_about_an_unknown_genome():
    assert explain_genome_mismatch("sacCer3", ["chr1"], np.array([0]), np.array([900_000_000])) is None
