"""``epifoundation coverage``: how much of a file a model can use."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .inputs import Barcodes, Counting, CountingRule, GenomeCheck, InputFiles, MinFragments, Prefix, peak_file
from .options import Modality, Model, Revision
from .reporting import one_line_errors, quiet_libraries

if TYPE_CHECKING:
    from epifoundation.dataset_builders import PeakFile
    from epifoundation.tokenization import Coverage


@one_line_errors
def coverage(
    inputs: InputFiles,
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    revision: Revision = None,
    modality: Modality = None,
    barcodes: Barcodes = None,
    prefix: Prefix = None,
    min_fragments: MinFragments = None,
    counting: Counting = CountingRule.fragment,
    genome_check: GenomeCheck = True,
) -> None:
    """Report how much of a file a model can use, before embedding it.

    A peak can be used if it overlaps one of the model's. With less than half of the open peaks, results are
    doubtful; with none, the command ends with an error. The report also names the genomes whose chromosomes are
    long enough for the peaks: the usual fault is a file of another genome than the model's. Fragments are counted in
    the peaks of the model, so of them see the share of the fragments that lie in one.

    Example: epifoundation coverage atac.h5ad --model checkpoint
    """
    from epifoundation.dataset_builders import open_peak_file
    from epifoundation.dataset_builders.genome.genome_check import peaks_by_chance, refuse_other_genome
    from epifoundation.inference import coverage_numbers, genomes_of, load_tokenizer, peak_coverage

    quiet_libraries()
    tokenizer = load_tokenizer(model, revision)
    vocabulary = tokenizer.vocabulary
    with (
        peak_file(
            inputs,
            lambda: vocabulary,
            modality=modality,
            barcodes=barcodes,
            prefix=prefix,
            min_fragments=min_fragments,
            counting=counting,
            genome_check=genome_check,
            show_progress=not as_json,
        ) as path,
        open_peak_file(path, modality) as file,
    ):
        measured = peak_coverage(file, tokenizer)
        genomes = genomes_of(file.peak_names)
        if as_json:
            numbers: dict[str, Any] = {**coverage_numbers(measured), "model_genome": vocabulary.genome}
            numbers |= {"possible_genomes": list(genomes), **_fragment_numbers(file)}
            typer.echo(json.dumps({key: _json_value(value) for key, value in numbers.items()}, indent=2))
        else:
            typer.echo("\n".join([*_report(measured, vocabulary.genome, genomes), *_fragment_report(file)]))
        if not measured.num_matched_peaks:
            vocabulary.map_or_explain(file.peak_names)  # raises, with the likely cause
        if not measured.num_matched_entries:
            raise ValueError("no cell has an open peak that overlaps one of the model")
        if genome_check:
            refuse_other_genome(peaks_by_chance(file.peak_names, vocabulary), "peaks", vocabulary)


def _fragment_numbers(file: "PeakFile") -> dict[str, int]:
    """Number of fragments, and of those in peaks, if the counts come from fragments."""
    obs = file.annotations[0]
    return {key: int(obs.read(key).sum()) for key in ("num_fragments", "num_fragments_in_peaks") if key in obs.columns}


def _fragment_report(file: "PeakFile") -> list[str]:
    numbers = _fragment_numbers(file)
    if len(numbers) < 2:
        return []
    total, in_peaks = numbers["num_fragments"], numbers["num_fragments_in_peaks"]
    return [f"{'fragments':<16}{in_peaks:,} of {total:,} lie in a peak of the model ({_percent(in_peaks / total)})"]


def _report(measured: "Coverage", expected: str, genomes: tuple[str, ...]) -> list[str]:
    from epifoundation.inference import coverage_numbers

    numbers = coverage_numbers(measured)
    quantiles = {key: value for key, value in numbers.items() if key.startswith("cells_share_")}
    shares = ", ".join(_percent(value) for value in quantiles.values())
    percents = ", ".join(key.split("_")[2].lstrip("0") for key in quantiles)
    fit = ", ".join(genomes) or "none that is known here"
    rows = [
        ("cells", f"{measured.num_cells:,}"),
        ("peaks", _part(measured.num_matched_peaks, measured.num_peaks, measured.peaks_share)),
        ("open peaks", _part(measured.num_matched_entries, measured.num_entries, measured.entries_share)),
        ("share per cell", f"{shares} (in the cells at {percents} %)"),
        ("empty cells", f"{measured.num_empty_cells:,} without an open peak of the model"),
        ("truncated cells", f"{measured.num_truncated_cells:,} with more peaks than the model reads"),
        ("genome", f"the model's is {expected}; the peaks fit {fit}"),
    ]
    return [f"{name:<16}{value}" for name, value in rows]


def _part(part: int, whole: int, share: float) -> str:
    return f"{part:,} of {whole:,} usable ({_percent(share)})"


def _percent(share: float) -> str:
    return "no value" if math.isnan(share) else f"{100 * share:.1f} %"


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
