import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from epifoundation import EpiFoundationForCellClassification, EpiFoundationForPeakToGeneAlignment, EpiFoundationModel
from epifoundation.inference import load_model_and_tokenizer, load_tokenizer

OFFICIAL = Path(__file__).parents[1] / "reference" / "official_checkpoint"
SPECIAL = ["<pad>", "<mask>", "<cls>", "<eos>"]
CHROMOSOMES = [f"chr{label}" for label in (*range(1, 23), "X", "Y", "M")]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def write_vocabulary(path, names):
    path.write_text(json.dumps({name: i for i, name in enumerate([*SPECIAL, *names])}))


@pytest.fixture
def official(tmp_path):
    """The official checkpoint with vocabularies of its sizes: 76 peaks, 56 genes, 25 chromosomes."""
    folder = tmp_path / "official"
    folder.mkdir()
    shutil.copy(next(OFFICIAL.glob("*.pth")), folder / "model.pth")
    peaks = sorted(f"{CHROMOSOMES[i % 24]}-{1000 * (i + 1)}-{1000 * (i + 1) + 500}" for i in range(76))
    write_vocabulary(folder / "atac_vocab.json", peaks)
    write_vocabulary(folder / "chr_vocab.json", sorted(CHROMOSOMES))
    genes = [f"GENE{i}" for i in range(54)] + ["TP53", "GATA1"]
    write_vocabulary(folder / "rna_vocab.json", genes)
    (folder / "gene2chr.json").write_text(json.dumps(dict.fromkeys(genes, "chr7")))
    return folder


@pytest.fixture
def command(official, tmp_path):
    return (
        "convert", official / "model.pth", "--output", tmp_path / "out", "--peaks", official / "atac_vocab.json",
        "--num-attention-heads", 4,
    )  # fmt: skip


def test_the_folder_gives_the_official_outputs(run, command, official, tmp_path):
    result = run(*command, "--genes", official / "rna_vocab.json")
    assert result.exit_code == 0, result.output
    assert "saved as EpiFoundationForPeakToGeneAlignment with 76 peaks" in result.stdout
    given, expected = (load_file(OFFICIAL / f"{name}.safetensors") for name in ("inputs", "outputs"))
    cells = {
        "input_ids": given["atac_ids"],
        "chromosome_ids": given["atac_chrs"],
        "attention_mask": 1 - given["src_key_padding_mask"].long(),
    }
    genes = {"gene_ids": given["rna_ids"], "gene_chromosome_ids": given["rna_chrs"], "batch_ids": given["batch_ids"]}
    with torch.no_grad():
        aligned = EpiFoundationForPeakToGeneAlignment.from_pretrained(tmp_path / "out")(**cells, **genes)
        classified = EpiFoundationForCellClassification.from_pretrained(tmp_path / "out")(**cells)
    torch.testing.assert_close(aligned.cell_embeddings, expected["cell_emb"], **TOLERANCE)
    is_gene = given["rna_ids"] != 0
    torch.testing.assert_close(aligned.logits[is_gene], expected["mvc_pred"][is_gene], **TOLERANCE)
    torch.testing.assert_close(classified.logits, expected["cell_pred"], **TOLERANCE)


def test_ids_are_those_of_the_official_vocabularies(run, command, official, tmp_path):
    run(*command, "--genes", official)
    tokenizer = load_tokenizer(tmp_path / "out")
    for name, token_id in list(json.loads((official / "atac_vocab.json").read_text()).items())[4:]:
        assert tokenizer.convert_tokens_to_ids(name) == token_id
    assert tokenizer.genes.names[-2:] == ("TP53", "GATA1")
    assert set(tokenizer.genes.chromosomes) == {"chr7"}


def test_without_gene2chr_the_genes_are_looked_up(run, command, official, tmp_path):
    (official / "gene2chr.json").unlink()
    run(*command, "--genes", official)
    assert load_tokenizer(tmp_path / "out").genes.chromosomes[-2:] == ("chr17", "chrX")


def test_every_tensor_is_reported(run, command, tmp_path):
    result = run(*command, "--report", "-")
    keys = list(torch.load(next(OFFICIAL.glob("*.pth")), weights_only=True)["model"])
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == keys
    assert any("epifoundation.peak_embeddings.embedding.weight" in line for line in lines)
    run(*command, "--overwrite", "--report", tmp_path / "report.txt")
    assert (tmp_path / "report.txt").read_text().splitlines() == lines[:-1]


@pytest.mark.parametrize(
    ("file", "names", "message"),
    [
        ("atac_vocab.json", ["chr1-5-9"], "makes 1 peaks and 4 special tokens, the checkpoint has a table of 80 rows"),
        ("rna_vocab.json", ["TP53"], "makes 1 genes and 4 special tokens, the checkpoint has a table of 60 rows"),
        ("chr_vocab.json", CHROMOSOMES[:24], "makes 24 chromosomes .* a table of 29 rows"),
    ],
)
def test_vocabularies_of_another_size_are_refused(run_badly, command, official, tmp_path, file, names, message):
    write_vocabulary(official / file, names)
    line = run_badly(*command, "--genes", official / "rna_vocab.json")
    assert re.search(message, line)
    assert [entry.name for entry in tmp_path.iterdir()] == ["official"]


def test_bad_input_is_one_line_and_leaves_nothing(run_badly, command, official, tmp_path):
    assert "none.pth does not exist" in run_badly("convert", official / "none.pth", *command[2:])
    assert "cannot be read as a PyTorch checkpoint" in run_badly("convert", official / "chr_vocab.json", *command[2:])
    assert "multiple of num_attention_heads" in run_badly(*command[:-1], 5)
    (official / "gene2chr.json").unlink()
    line = run_badly(*command, "--genes", official, "--genome", "sacCer3")
    assert "no table of genes for 'sacCer3'" in line
    (official / "atac_vocab.json").unlink()
    assert "atac_vocab.json does not exist" in run_badly(*command)
    assert [entry.name for entry in tmp_path.iterdir()] == ["official"]


def test_the_output_is_replaced_on_request_alone(run, run_badly, command, tmp_path):
    assert run(*command).exit_code == 0
    assert "--overwrite" in run_badly(*command)
    assert run(*command, "--overwrite").exit_code == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["official", "out"]


# Atacformer

ATACFORMER = Path(__file__).parents[1] / "reference" / "official_atacformer"
REGIONS = [(f"chr{1 + i % 3}", 1000 * (200 - i), 1000 * (200 - i) + 300) for i in range(120)]


def write_universe(path, regions=REGIONS):
    text = "".join(f"{chromosome}\t{start}\t{end}\n" for chromosome, start, end in regions)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def atacformer(tmp_path):
    """An official checkpoint of 120 regions, in no order."""
    folder = tmp_path / "official"
    shutil.copytree(ATACFORMER / "base_pos", folder)
    write_universe(folder / "universe.bed.gz")
    return folder


def test_an_atacformer_gives_the_official_outputs_from_region_names(run, atacformer, tmp_path):
    result = run("convert", atacformer, "--from", "atacformer", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "38 tensors converted, 0 left out; saved as EpiFoundationModel with 120 peaks" in result.stdout
    model, tokenizer = load_model_and_tokenizer(tmp_path / "out")
    given, expected = (load_file(ATACFORMER / "base_pos" / f"{name}.safetensors") for name in ("inputs", "outputs"))
    # The only case with positions; they count in the order in which the official code read the regions.
    for i, mask in enumerate(given["attention_mask"]):
        official_ids = given["input_ids"][i, mask].tolist()
        names = ["{}:{}-{}".format(*REGIONS[region]) for region in official_ids if region < 120]
        ids = tokenizer.convert_tokens_to_ids(names)
        assert ids == [region + 4 for region in official_ids if region < 120]
        ids = iter(ids)
        unknown = 4 + 120
        row = [2, *(next(ids) if region < 120 else unknown for region in official_ids)]
        with torch.no_grad():
            out = model(torch.tensor([row]))
        torch.testing.assert_close(out.pooler_output[0], expected["cell_embedding"][i], **TOLERANCE)


def test_a_converted_atacformer_embeds_cells_that_begin_with_cls(run, atacformer, tmp_path):
    run("convert", atacformer, "--from", "atacformer", "-o", tmp_path / "out")
    model, tokenizer = load_model_and_tokenizer(tmp_path / "out", model_class=EpiFoundationModel)
    assert tokenizer.max_peaks == 40
    batch = tokenizer([["chr1:200000-200300", "chr2:199000-199300"], []], return_tensors="pt")
    with torch.no_grad():
        cells = model(**batch).pooler_output
    assert cells[0].ne(0).all()
    assert cells[1].eq(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--genes", "x"), "--genes is of EpiFoundation checkpoints"),
        (("--num-attention-heads", 4), "config.json of an Atacformer tells it"),
        (("--peaks", "none.bed"), "none.bed does not exist: expected the regions of the checkpoint"),
    ],
)
def test_options_that_do_not_fit_an_atacformer_are_refused(run_badly, atacformer, tmp_path, options, message):
    assert message in run_badly("convert", atacformer, "--from", "atacformer", "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (REGIONS[:-1], "has 119 regions, the checkpoint 120"),
        ([*REGIONS[:-1], REGIONS[3]], "line 120: chr1:197000-197300 stands already in line 4"),
        ([*REGIONS[:-1], ("chr1", "x", 5)], "line 120: expected chromosome, start and end, tab between"),
    ],
)
def test_a_universe_that_does_not_fit_is_refused(run_badly, atacformer, tmp_path, regions, message):
    write_universe(atacformer / "universe.bed.gz", regions)
    assert message in run_badly("convert", atacformer, "--from", "atacformer", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_epifoundation_checkpoint_needs_its_peaks(run_badly, official, tmp_path):
    assert "needs --peaks" in run_badly("convert", official / "model.pth", "-o", tmp_path / "out")
