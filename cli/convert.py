"""``epifoundation convert``: from an official ``.pth`` to a folder that loads like any Hugging Face model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Overwrite
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation import EpiFoundationConfig, PeakTokenizer
    from epifoundation.tokenization import GeneVocabulary


@one_line_errors
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The official file, Epoch_*.pth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    peaks: Annotated[
        Path, typer.Option(help="atac_vocab.json of the checkpoint, with chr_vocab.json beside it; or their folder.")
    ],
    genes: Annotated[
        Path | None,
        typer.Option(help="rna_vocab.json, with gene2chr.json beside it.", show_default="no gene vocabulary"),
    ] = None,
    genome: Annotated[str, typer.Option(help="Assembly of the peaks, which the files do not tell.")] = "hg38",
    num_attention_heads: Annotated[int, typer.Option(min=1, help="Which the file does not tell either.")] = 8,
    overwrite: Overwrite = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Where to write what became of each tensor; - prints it.", show_default="not"
        ),
    ] = None,
) -> None:
    """Convert an official EpiFoundation checkpoint into a folder for from_pretrained and all commands here.

    Every tensor must be known and every vocabulary must have the size of its table, or nothing is written. No code
    in the file is run.

    Example, with chr_vocab.json and gene2chr.json in the same folder:

    epifoundation convert Epoch_20.pth --peaks vocab --genes vocab -o base
    """
    from epifoundation.convert_official_epifoundation import convert_official_checkpoint
    from epifoundation.inference.output import new_folder

    quiet_libraries()
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint} does not exist: expected an official checkpoint, Epoch_*.pth")
    with new_folder(output, overwrite=overwrite) as folder:
        config = _config(checkpoint, num_attention_heads)
        tokenizer = _tokenizer(peaks, genes, genome, config)
        result = convert_official_checkpoint(checkpoint, folder, tokenizer, num_attention_heads)
        table = _table(result.renamed, result.left_out)
        if report is not None and report != "-":
            Path(report).write_text(table + "\n", encoding="utf-8")
    if report == "-":
        typer.echo(table)
    typer.echo(
        f"{output}: {len(result.renamed)} tensors converted, {len(result.left_out)} left out; saved as "
        f"{result.architecture} with {len(tokenizer.vocabulary):,} peaks. Taken on trust, for the file does not tell: "
        f"{num_attention_heads} attention heads and genome {tokenizer.vocabulary.genome}; other ones give wrong "
        "embeddings without an error."
    )


def _config(checkpoint: Path, num_attention_heads: int) -> "EpiFoundationConfig":
    from huggingface_hub.errors import StrictDataclassError

    from epifoundation.convert_official_epifoundation import config_from_official, read_official_checkpoint

    try:
        return config_from_official(read_official_checkpoint(checkpoint), num_attention_heads)
    except StrictDataclassError as error:  # such as a number of heads that does not divide the width
        reason = " ".join(str(error).split()).partition("ValueError: ")[2] or str(error)
        raise ValueError(f"{checkpoint}: {reason}") from error


def _tokenizer(peaks: Path, genes: Path | None, genome: str, config: "EpiFoundationConfig") -> "PeakTokenizer":
    """The tokenizer of the official vocabularies, once their sizes agree with the weights."""
    from epifoundation import PeakTokenizer
    from epifoundation.tokenization import NUM_SPECIAL_TOKENS, PeakVocabulary

    peak_vocabulary = PeakVocabulary.from_official(peaks, genome)
    gene_vocabulary = None if genes is None else _genes(genes, genome)
    sizes = [("peaks", len(peak_vocabulary), config.vocab_size, peaks)]
    if gene_vocabulary is not None and genes is not None:
        sizes.append(("genes", len(gene_vocabulary), config.gene_vocab_size, genes))
    if config.use_chromosome_embeddings:
        place = (peaks if peaks.is_dir() else peaks.parent) / "chr_vocab.json"
        sizes.append(("chromosomes", len(peak_vocabulary.chromosomes), config.num_chromosomes, place))
        if not place.is_file() and sizes[-1][1] + NUM_SPECIAL_TOKENS != config.num_chromosomes:
            raise FileNotFoundError(
                f"the checkpoint has {config.num_chromosomes} chromosomes, special tokens included, the peaks lie on "
                f"{sizes[-1][1]}: put the official chr_vocab.json, which gives their order, beside {peaks.name}"
            )
    for kind, number, rows, place in sizes:
        if number + NUM_SPECIAL_TOKENS != rows:
            raise ValueError(
                f"the vocabulary does not belong to the checkpoint: {place} makes {number:,} {kind} and "
                f"{NUM_SPECIAL_TOKENS} special tokens, the checkpoint has a table of {rows:,} rows"
            )
    return PeakTokenizer(peak_vocabulary, gene_vocabulary, max_peaks=config.max_peaks)


def _genes(path: Path, genome: str) -> "GeneVocabulary":
    from epifoundation.dataset_builders import gene_annotation
    from epifoundation.tokenization import GeneVocabulary

    beside = (path if path.is_dir() else path.parent) / "gene2chr.json"
    return GeneVocabulary.from_official(path, None if beside.is_file() else gene_annotation(genome))


def _table(renamed: dict[str, list[str]], left_out: dict[str, str]) -> str:
    """One line per official tensor: its name and, beneath each other, its new ones, or why it is left out."""
    rows = [(official, ", ".join(ours)) for official, ours in renamed.items()]
    rows += [(official, f"left out: {why}") for official, why in left_out.items()]
    width = max(len(official) for official, _ in rows)
    return "\n".join(f"{official:<{width}}  {ours}" for official, ours in rows)
