"""``epifoundation convert``: from an official checkpoint to a folder that loads like any Hugging Face model."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Overwrite
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation import EpiFoundationConfig, PeakTokenizer
    from epifoundation.convert_official_epifoundation import ConversionReport
    from epifoundation.tokenization import GeneVocabulary

DEFAULT_HEADS = 8
UNIVERSE = "universe.bed.gz"


class Source(StrEnum):
    """Whose checkpoint it is."""

    EPIFOUNDATION = "epifoundation"
    ATACFORMER = "atacformer"


@one_line_errors
def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="The official file, Epoch_*.pth; of Atacformer or CRAFT the folder."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    source: Annotated[
        Source, typer.Option("--from", help="The official code it is of; CRAFT counts as atacformer.")
    ] = Source.EPIFOUNDATION,
    peaks: Annotated[
        Path | None,
        typer.Option(
            help="atac_vocab.json of the checkpoint, with chr_vocab.json beside it, or their folder; of Atacformer "
            f"its {UNIVERSE}.",
            show_default=f"{UNIVERSE} in the folder of an Atacformer",
        ),
    ] = None,
    genes: Annotated[
        Path | None,
        typer.Option(help="rna_vocab.json, with gene2chr.json beside it.", show_default="no gene vocabulary"),
    ] = None,
    genome: Annotated[str, typer.Option(help="Assembly of the peaks, which the files do not tell.")] = "hg38",
    num_attention_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Which an Epoch_*.pth does not tell either.", show_default=str(DEFAULT_HEADS)),
    ] = None,
    overwrite: Overwrite = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Where to write what became of each tensor; - prints it.", show_default="not"
        ),
    ] = None,
) -> None:
    """Convert an official checkpoint into a folder for from_pretrained and all commands here.

    Every tensor must be known and every vocabulary must have the size of its table, or nothing is written. No code
    in the file is run.

    Example, with chr_vocab.json and gene2chr.json in the same folder, and one of a downloaded Atacformer:

    epifoundation convert Epoch_20.pth --peaks vocab --genes vocab -o base

    epifoundation convert atacformer-base-hg38 --from atacformer -o atacformer
    """
    from epifoundation.inference.output import new_folder

    quiet_libraries()
    _refuse_odd_options(source, peaks, genes, num_attention_heads)
    with new_folder(output, overwrite=overwrite) as folder:
        if source is Source.ATACFORMER:
            result, trusted = _convert_atacformer(checkpoint, folder, peaks or checkpoint / UNIVERSE, genome)
        else:
            assert peaks is not None
            heads = num_attention_heads or DEFAULT_HEADS
            result, trusted = _convert_epifoundation(checkpoint, folder, peaks, genes, genome, heads)
        table = _table(result.renamed, result.left_out)
        if report is not None and report != "-":
            Path(report).write_text(table + "\n", encoding="utf-8")
    if report == "-":
        typer.echo(table)
    typer.echo(
        f"{output}: {len(result.renamed)} tensors converted, {len(result.left_out)} left out; saved as "
        f"{result.architecture} {trusted}; other ones give wrong embeddings without an error."
    )


def _refuse_odd_options(
    source: Source, peaks: Path | None, genes: Path | None, num_attention_heads: int | None
) -> None:
    if source is Source.EPIFOUNDATION and peaks is None:
        raise ValueError("an EpiFoundation checkpoint needs --peaks, its atac_vocab.json or the folder of it")
    if source is Source.ATACFORMER and genes is not None:
        raise ValueError("--genes is of EpiFoundation checkpoints: the genes of CRAFT keep their encoder's ids")
    if source is Source.ATACFORMER and num_attention_heads is not None:
        raise ValueError("--num-attention-heads is of EpiFoundation checkpoints: config.json of an Atacformer tells it")


def _convert_atacformer(checkpoint: Path, folder: Path, universe: Path, genome: str) -> "tuple[ConversionReport, str]":
    """Convert, and what to say about it."""
    from epifoundation import PeakTokenizer
    from epifoundation.convert_official_atacformer_epifoundation import (
        config_from_atacformer,
        convert_atacformer_checkpoint,
        read_atacformer_checkpoint,
        read_universe,
    )
    from epifoundation.tokenization import NUM_SPECIAL_TOKENS, PeakVocabulary, parse_peaks

    config = config_from_atacformer(read_atacformer_checkpoint(checkpoint)[0])
    if not universe.is_file():
        raise FileNotFoundError(
            f"{universe} does not exist: expected the regions of the checkpoint; name it by --peaks"
        )
    names = read_universe(universe)
    if len(names) + NUM_SPECIAL_TOKENS != config.vocab_size:
        raise ValueError(
            f"the vocabulary does not belong to the checkpoint: {universe} has {len(names):,} regions, the "
            f"checkpoint {config.vocab_size - NUM_SPECIAL_TOKENS:,}"
        )
    vocabulary = PeakVocabulary(genome, *parse_peaks(names))  # in the order of the file, which is that of the table
    tokenizer = PeakTokenizer(vocabulary, max_peaks=config.max_peaks)
    result = convert_atacformer_checkpoint(checkpoint, folder, tokenizer)
    return result, f"with {len(vocabulary):,} peaks. Taken on trust, for the file does not tell: genome {genome}"


def _convert_epifoundation(
    checkpoint: Path, folder: Path, peaks: Path, genes: Path | None, genome: str, num_attention_heads: int
) -> "tuple[ConversionReport, str]":
    """Convert, and what to say about it."""
    from epifoundation.convert_official_epifoundation import convert_official_checkpoint

    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint} does not exist: expected an official checkpoint, Epoch_*.pth")
    tokenizer = _tokenizer(peaks, genes, genome, _config(checkpoint, num_attention_heads))
    result = convert_official_checkpoint(checkpoint, folder, tokenizer, num_attention_heads)
    return result, (
        f"with {len(tokenizer.vocabulary):,} peaks. Taken on trust, for the file does not tell: "
        f"{num_attention_heads} attention heads and genome {tokenizer.vocabulary.genome}"
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
