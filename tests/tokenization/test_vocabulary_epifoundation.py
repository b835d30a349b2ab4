import copy
import gzip
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from safetensors.numpy import load_file

from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

OFFICIAL = Path(__file__).parents[1] / "reference" / "official_data"
NAMES = ["chr10:5-9", "chrX:1-4", "chr2:700-900", "chr2:100-300", "chr2:100-200", "GL000194.1:1-9"]
SORTED = ["chr2:100-200", "chr2:100-300", "chr2:700-900", "chr10:5-9", "chrX:1-4", "GL000194.1:1-9"]


@pytest.fixture
def vocabulary():
    return PeakVocabulary.from_names(NAMES)


def test_peaks_are_sorted_by_chromosome_start_and_end(vocabulary):
    assert vocabulary.names() == SORTED
    assert vocabulary.chromosomes == ("chr2", "chr10", "chrX", "GL000194.1")
    assert vocabulary.chromosome_codes.tolist() == [0, 0, 0, 1, 2, 3]
    assert vocabulary.starts.dtype == vocabulary.ends.dtype == vocabulary.chromosome_codes.dtype == np.int32
    assert vocabulary.names([4, 0]) == ["chrX:1-4", "chr2:100-200"]
    assert vocabulary.peak(1) == ("chr2", 100, 300)


def test_the_form_of_the_names_does_not_matter(vocabulary):
    other = PeakVocabulary.from_names([name.replace(":", "-") for name in reversed(NAMES)])
    assert other == vocabulary
    assert hash(other) == hash(vocabulary)
    assert other.digest() == vocabulary.digest()


def test_the_digest_knows_genome_and_coordinates(vocabulary):
    others = [PeakVocabulary.from_names(NAMES, "hg19"), PeakVocabulary.from_names([*NAMES[1:], "chr10:5-10"])]
    assert len({vocabulary.digest(), *(other.digest() for other in others)}) == 3
    assert vocabulary not in others
    assert vocabulary != "hg38"


def test_a_vocabulary_cannot_be_changed(vocabulary):
    with pytest.raises(AttributeError, match="does not change"):
        vocabulary.genome = "mm10"
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.starts[0] = 5


def test_pickle_and_copy_give_an_equal_read_only_vocabulary(vocabulary):
    for twin in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary), copy.copy(vocabulary)):
        assert twin == vocabulary
        assert not twin.starts.flags.writeable


def test_repeated_peaks_are_refused_and_named():
    with pytest.raises(ValueError, match="2 peaks repeat an earlier one, such as chr1:5-9, chrX:1-2"):
        PeakVocabulary.from_names(["chr1:5-9", "1_5_9", "X:1-2", "chrX-1-2", "chr1:5-8"])


def test_no_peaks_are_refused():
    with pytest.raises(ValueError, match="there are no peaks"):
        PeakVocabulary.from_names([])


def test_a_peak_beyond_its_chromosome_is_refused_with_the_genome_that_fits():
    with pytest.raises(ValueError, match=r"fit the chromosome lengths of mm10, not of hg38 \(1 peak lies beyond"):
        PeakVocabulary.from_names(["chr1:5-9", "chrY:91000000-91744600"])


def test_a_genome_without_a_table_is_not_checked():
    assert PeakVocabulary.from_names(["chr1:5-2000000000"], "sacCer3").genome == "sacCer3"


def test_columns_that_do_not_fit_each_other_are_refused():
    one, two = np.zeros(1, np.int32), np.arange(2)
    with pytest.raises(ValueError, match="columns of one length"):
        PeakVocabulary("hg38", ["chr1"], one, two, two + 5)
    with pytest.raises(ValueError, match="codes must lie between 0 and 0"):
        PeakVocabulary("hg38", ["chr1"], one + 1, one, one + 5)
    with pytest.raises(ValueError, match="1 peaks are empty or out of range, such as chr1:5-5"):
        PeakVocabulary("hg38", ["chr1"], one, one + 5, one + 5)
    with pytest.raises(ValueError, match="in two spellings"):
        PeakVocabulary("hg38", ["chr1", "1"], one, one, one + 5)


@pytest.mark.parametrize("compress", [False, True])
def test_a_bed_file_is_read_with_its_comments_and_extra_columns(tmp_path, vocabulary, compress):
    lines = ["# made by hand", "#chr1\t1\t2", "track name=peaks", "browser position chr1", ""]
    lines += [f"{n.split(':')[0]}\t{n.split(':')[1].replace('-', chr(9))}\tpeak\t0\t." for n in NAMES]
    content = ("\r\n".join(lines) + "\n").encode()
    path = tmp_path / "peaks.bed.gz"
    path.write_bytes(gzip.compress(content) if compress else content)
    assert PeakVocabulary.from_bed(path) == vocabulary


def test_a_bad_line_of_a_bed_file_is_named(tmp_path):
    path = tmp_path / "peaks.bed"
    path.write_text("chr1\t1\t5\nchr1\tx\t5\n")
    with pytest.raises(ValueError, match=r"line 2: expected chromosome, start and end"):
        PeakVocabulary.from_bed(path)
    path.write_text("chr1\t9\t5\n")
    with pytest.raises(ValueError, match="chr1:9-5"):
        PeakVocabulary.from_bed(path)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no peaks"):
        PeakVocabulary.from_bed(path)


def test_the_variables_of_an_anndata_are_its_peaks(vocabulary):
    assert PeakVocabulary.from_anndata(SimpleNamespace(var_names=NAMES)) == vocabulary


def test_saving_and_loading_keeps_everything(tmp_path, vocabulary):
    path = tmp_path / "no_ending"
    vocabulary.save(path)
    loaded = PeakVocabulary.load(path)
    assert loaded == vocabulary
    assert loaded.names() == SORTED


def test_saving_twice_gives_the_same_bytes(tmp_path, vocabulary):
    for name in "ab":
        vocabulary.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_that_are_no_vocabulary_are_refused(tmp_path, vocabulary):
    path = tmp_path / "peaks.npz"
    with pytest.raises(FileNotFoundError):
        PeakVocabulary.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged or no peak vocabulary"):
        PeakVocabulary.load(path)
    np.savez(path, starts=vocabulary.starts)
    with pytest.raises(ValueError, match="lacks the arrays chromosome_codes, chromosomes"):
        PeakVocabulary.load(path)
    np.savez(path, np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="damaged or no peak vocabulary"):
        PeakVocabulary.load(path)
    vocabulary.save(path)
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"format_version": 2}))
    with pytest.raises(ValueError, match="install a newer epifoundation"):
        PeakVocabulary.load(path)
    np.savez(path, **(arrays | {"ends": arrays["starts"]}))
    with pytest.raises(ValueError, match="6 peaks are empty"):
        PeakVocabulary.load(path)


def test_overlap_decides_where_a_peak_goes(vocabulary):
    names = [
        "2-100-200",
        "chr2:150-310",
        "chr2:190-210",
        "chr2:500-600",
        "chr5:1-9",
        "10_5_9",
        "chr2_100_200",
    ]
    mapping = vocabulary.map(names)
    assert mapping.ids.tolist() == [4, 5, 5, -1, -1, 7, 4]
    assert (mapping.num_peaks, mapping.num_matched, mapping.num_exact, mapping.num_duplicates) == (7, 5, 3, 2)
    assert mapping.share == pytest.approx(5 / 7)
    assert mapping.ids.dtype == np.int32


def test_the_order_of_the_vocabulary_does_not_change_the_mapping():
    shuffled = PeakVocabulary(
        "hg38", ["chrX", "chr2"], np.array([1, 0, 1]), np.array([50, 1, 5]), np.array([60, 9, 40])
    )
    assert shuffled.map(["chr2:30-52", "chrX:8-20", "chr2:50-60"]).ids.tolist() == [6, 5, 4]


def test_no_match_is_an_error_with_examples_of_both(vocabulary):
    with pytest.raises(ValueError, match="none of the 2 peaks overlaps") as error:
        vocabulary.map(["chr2:5000-5001", "chr10:800-900"])
    assert "chr2:5000-5001, chr10:800-900" in str(error.value)
    assert "chr2:100-200, chr2:100-300, chr2:700-900" in str(error.value)
    assert "check that both are of one genome" in str(error.value)


def test_no_match_blames_the_genome_where_the_peaks_do_not_fit_it(vocabulary):
    with pytest.raises(ValueError, match="fit the chromosome lengths of mm10, not of hg38"):
        vocabulary.map(["chrY:91000000-91744600"])


def test_no_match_blames_the_names_of_the_chromosomes_where_none_is_shared(vocabulary):
    with pytest.raises(ValueError, match="no chromosome name occurs in both"):
        vocabulary.map(["scaffold_7:5-9"])


def test_few_matches_warn(vocabulary):
    with pytest.warns(UserWarning, match=r"only 1 of 3 peaks \(33%\) overlap"):
        vocabulary.map(["chr2:100-200", "chr5:1-2", "chr6:1-2"])


def test_a_report_on_coverage_can_ask_without_error_or_warning(vocabulary):
    assert vocabulary.map(["chr5:1-2"], check=False).num_matched == 0
    assert vocabulary.map(["chr2:100-200", "chr5:1-2", "chr6:1-2"], check=False).num_matched == 1
    assert np.isnan(vocabulary.map([], check=False).share)


def test_no_names_at_all_are_an_error(vocabulary):
    with pytest.raises(ValueError, match="at least one peak name"):
        vocabulary.map([])


def test_exact_ids_ask_for_the_very_coordinates(vocabulary):
    assert vocabulary.exact_ids(["chr2-100-300", "chr2:100-301", "chr7:1-2"]).tolist() == [5, -1, -1]


def test_an_official_vocabulary_keeps_its_ids():
    vocabulary = PeakVocabulary.from_official(OFFICIAL)
    content = json.loads((OFFICIAL / "atac_vocab.json").read_text())
    peaks = [name for name in content if name.startswith("chr")]
    assert vocabulary.exact_ids(peaks).tolist() == [content[name] for name in peaks]
    chromosome_ids = json.loads((OFFICIAL / "chr_vocab.json").read_text())
    assert [chromosome_ids[name] for name in vocabulary.chromosomes] == list(range(4, 9))
    assert PeakVocabulary.from_official(OFFICIAL / "atac_vocab.json") == vocabulary


def write_official(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


SPECIALS = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}


def test_without_its_file_chromosomes_are_in_lexicographic_order(tmp_path):
    write_official(tmp_path, atac_vocab=SPECIALS | {"chr2-1-5": 4, "chr10-1-5": 5})
    vocabulary = PeakVocabulary.from_official(tmp_path)
    assert vocabulary.chromosomes == ("chr10", "chr2")
    assert vocabulary.names() == ["chr2:1-5", "chr10:1-5"]


def test_official_vocabularies_that_are_not_as_expected_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected atac_vocab.json of an official checkpoint"):
        PeakVocabulary.from_official(tmp_path)
    wrong = {"<pad>": 0, "<cls>": 1, "<mask>": 2, "<eos>": 3}
    for content, message in [
        (wrong | {"chr1-1-2": 4}, "with the ids 0 to 3, got <pad>, <cls>, <mask>, <eos>"),
        (SPECIALS | {"chr1-1-2": 5}, "expected the ids 0 to 4, each once"),
        (SPECIALS | {"chr1-1-2": "4"}, "JSON object from token to id"),
        (list(SPECIALS), "JSON object from token to id"),
    ]:
        write_official(tmp_path, atac_vocab=content)
        with pytest.raises(ValueError, match=message):
            PeakVocabulary.from_official(tmp_path)
    write_official(tmp_path, atac_vocab=SPECIALS | {"chr1-1-2": 4}, chr_vocab=SPECIALS | {"chr2": 4})
    with pytest.raises(ValueError, match="lacks chr1"):
        PeakVocabulary.from_official(tmp_path)


# genes

ANNOTATION = GeneVocabulary(
    ["TP53", "MYC", "Gm1", "TWIN", "TWIN"],
    ["ENSG00000141510", "ENSG00000136997", "ENSMUSG00000000001", "ENSG00000000003", "ENSG00000000004"],
    ["17", "chr8", "chrUn_x", "chr1", "chr2"],
)


def test_genes_take_what_they_lack_from_the_annotation():
    genes = GeneVocabulary.from_names(["MYC", "ENSG00000141510.19", "NOVEL", "ENSG00000000009"], ANNOTATION)
    assert genes.symbols == ("MYC", "TP53", "NOVEL", "")
    assert genes.ensembl_ids == ("ENSG00000136997", "ENSG00000141510", "", "ENSG00000000009")
    assert genes.chromosomes == ("chr8", "chr17", "unknown", "unknown")
    assert genes.names == ("MYC", "TP53", "NOVEL", "ENSG00000000009")


def test_genes_are_found_by_symbol_then_by_ensembl_id():
    names = ["MYC", "ENSG00000141510.2", "ENSG00000136997", "nothing", "TWIN", "ENSG00000000004", ""]
    ids = ANNOTATION.map(names)
    assert ids.tolist() == [5, 4, 5, -1, 7, 8, -1]
    assert ids.dtype == np.int32


def test_chromosome_ids_are_indexed_by_gene_id():
    ids = ANNOTATION.chromosome_ids(("chr8", "chr1", "chr17"))
    assert ids.tolist() == [0, 0, 0, 0, 6, 4, 0, 5, 0]
    assert ids.dtype == np.int32


def test_repeated_genes_are_refused():
    with pytest.raises(ValueError, match="1 genes repeat an earlier one, such as ENSG00000141510"):
        GeneVocabulary.from_names(["ENSG00000141510.1", "ENSG00000141510.2"])
    with pytest.raises(ValueError, match="such as MYC"):
        GeneVocabulary.from_names(["MYC", "A", "MYC"])
    with pytest.raises(ValueError, match="such as TP53 ENSG00000141510"):
        GeneVocabulary.from_names(["TP53", "ENSG00000141510"], ANNOTATION)


def test_bad_columns_of_genes_are_refused():
    with pytest.raises(ValueError, match=r"got \[1, 0, 1\]"):
        GeneVocabulary(["A"], [], ["chr1"])
    with pytest.raises(ValueError, match="gene 1 has neither"):
        GeneVocabulary(["A", ""], ["", ""], ["chr1", "chr1"])
    with pytest.raises(TypeError, match="put it in a list"):
        GeneVocabulary.from_names("MYC")


def test_an_anndata_may_bring_its_ensembl_ids():
    adata = anndata.AnnData(np.zeros((1, 3), np.float32))
    adata.var_names = ["MYC", "TP53-1", "ENSG00000000003.4"]
    assert GeneVocabulary.from_anndata(adata).symbols == ("MYC", "TP53-1", "")
    adata.var["gene_ids"] = ["ENSG00000136997.5", "ENSG00000141510", ""]
    genes = GeneVocabulary.from_anndata(adata, ANNOTATION)
    assert genes.symbols == ("MYC", "TP53-1", "TWIN")
    assert genes.ensembl_ids == ("ENSG00000136997", "ENSG00000141510", "ENSG00000000003")
    assert genes.chromosomes == ("chr8", "chr17", "chr1")


def test_genes_survive_the_table(tmp_path):
    path = tmp_path / "genes.tsv"
    genes = GeneVocabulary.from_names(["MYC", 'odd "quote"', "ENSG00000000009"], ANNOTATION)
    genes.save(path)
    assert path.read_text().splitlines()[:2] == [
        "symbol\tensembl_id\tchromosome",
        "MYC\tENSG00000136997\tchr8",
    ]
    assert GeneVocabulary.load(path) == genes
    assert pickle.loads(pickle.dumps(genes)) == copy.deepcopy(genes) == genes
    assert hash(GeneVocabulary.load(path)) == hash(genes)


def test_tables_that_are_not_as_expected_are_refused(tmp_path):
    path = tmp_path / "genes.tsv"
    path.write_text("name\tchromosome\n")
    with pytest.raises(ValueError, match="expected the header symbol ensembl_id chromosome"):
        GeneVocabulary.load(path)
    path.write_text("symbol\tensembl_id\tchromosome\nMYC\tchr8\n")
    with pytest.raises(ValueError, match="line 2: expected 3 columns, got 2"):
        GeneVocabulary.load(path)


def test_a_gene_vocabulary_cannot_be_changed():
    with pytest.raises(AttributeError, match="does not change"):
        ANNOTATION.symbols = ()


def test_official_genes_have_the_ids_and_chromosomes_of_the_official_loader():
    genes = GeneVocabulary.from_official(OFFICIAL)
    official = load_file(OFFICIAL / "items_full_genes.safetensors")
    ids = genes.map(anndata.read_h5ad(OFFICIAL / "rna.h5ad").var_names)
    chromosome_ids = genes.chromosome_ids(PeakVocabulary.from_official(OFFICIAL).chromosomes)
    np.testing.assert_array_equal(np.tile(ids, (12, 1)), official["rna_ids"])
    np.testing.assert_array_equal(np.tile(chromosome_ids[ids], (12, 1)), official["rna_chrs"])


def test_official_genes_need_their_chromosomes_from_somewhere(tmp_path):
    write_official(tmp_path, rna_vocab=SPECIALS | {"MYC": 4, "NOVEL": 5})
    with pytest.raises(ValueError, match=r"gene2chr.json does not exist.*annotation="):
        GeneVocabulary.from_official(tmp_path)
    assert GeneVocabulary.from_official(tmp_path, ANNOTATION).chromosomes == ("chr8", "unknown")
