"""The small checkpoint that comes with the package: how it was made, and its figures on cells it never saw.

    python benchmarks/small_checkpoint.py atac.hg38lift.h5ad --write

The argument is the bone marrow of Granja et al. 2019 in the repository epiCHAOS, lifted to hg38; the SNARE cell lines
come with the project. The vocabulary holds the SNARE peaks open in at least five cells, and those of the bone marrow
that overlap none of them. One model learns the cell types of both: of four fifths of the cell lines, and of one of
the two bone marrow batches. It is tested on the other fifth and on the other batch. Other settings are tried by

    python benchmarks/small_checkpoint.py atac.hg38lift.h5ad --trial "two epochs" --num_train_epochs 2

which scores a tenth of the training cells, held out for that, and notes it in the results. With ``--alignment 6`` the
model first learns for six epochs which genes the cell lines express (the bone marrow has no RNA), from the same peak
table. The checkpoint is replaced only by settings that are better on the validation cells of both data sets.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from anndata import AnnData
from datasets import ClassLabel, Dataset, concatenate_datasets
from measuring import environment
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from transformers import set_seed

from epifoundation import (
    EpiFoundationConfig,
    EpiFoundationForCellClassification,
    EpiFoundationForPeakToGeneAlignment,
    PeakTokenizer,
)
from epifoundation.dataset_builders import gene_annotation, save_cells
from epifoundation.dataset_builders.clustering.lsi import LatentSemanticIndex
from epifoundation.dataset_builders.tokenized.paired_cells import paired_cells
from epifoundation.evaluation.agreement import agreement
from epifoundation.inference import annotate_cells
from epifoundation.inference.carried import CARRIED, HELD_OUT_FILE
from epifoundation.sharing import complete_checkpoint
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary
from epifoundation.training import init_gene_bias, init_peak_embeddings
from epifoundation.training.options import ClassificationOptions, PretrainOptions, read_options
from epifoundation.training.runs import finetune_classification, pretrain

HERE = Path(__file__).resolve().parent
SNARE, SNARE_RNA = (HERE.parent / "examples" / "data" / "snare_cell_lines" / f"{x}.h5ad" for x in ("atac", "rna"))
SETTINGS = HERE / "settings" / "small_checkpoint.yaml"
ALIGNMENT_SETTINGS = HERE / "settings" / "small_checkpoint_alignment.yaml"
ABOUT = HERE / "settings" / "small_checkpoint_about.yaml"
RESULTS = HERE / "results"
TRIALS = RESULTS / "small_checkpoint_trials.json"
TRAINING_BATCH = "BMMC_D6T1"
MIN_CELLS_PER_PEAK, MIN_CELLS_PER_GENE = 5, 100
LSI_DIMENSIONS = 64
SNARE_NAME, MARROW_NAME = "SNARE cell lines", "bone marrow"


@dataclass(frozen=True)
class Source:
    """A data set: the cells to learn from, to choose settings by, and to test on."""

    name: str
    train: AnnData
    validation: AnnData
    test: AnnData


def main() -> None:
    """Train, score, and write the checkpoint and its figures; or note a trial."""
    arguments, words = read_arguments()
    started = time.perf_counter()
    sources = [snare(), bone_marrow(arguments.bone_marrow)]
    tokenizer = shared_tokenizer(sources, with_genes=arguments.alignment > 0)
    with tempfile.TemporaryDirectory() as folder:
        parts = [source.validation if arguments.trial else source.test for source in sources]
        cells = [source.train for source in sources]
        model = align(cells, tokenizer, Path(folder), arguments.alignment) if arguments.alignment else "new"
        trained = train(cells, parts, tokenizer, Path(folder), ["--model", str(model), *words])
        in_bfloat16(trained)
        scores = {s.name: model_scores(trained, part) for s, part in zip(sources, parts, strict=True)}
        print(json.dumps(scores, indent=1))
        seconds = round(time.perf_counter() - started)
        if arguments.trial:
            note_trial(arguments.trial, arguments.alignment, words, scores, seconds)
        elif arguments.write:
            leave(trained, arguments.alignment, sources, scores, seconds)


def read_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and what is left of the words: settings that replace those of the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bone_marrow", type=Path, help="the .h5ad of the bone marrow")
    parser.add_argument("--write", action="store_true", help="replace the checkpoint of the package and its results")
    parser.add_argument("--trial", help="score validation cells, and note the figures under this name")
    parser.add_argument("--alignment", type=float, default=0, help="epochs of peak-to-gene alignment beforehand")
    return parser.parse_known_args()


def snare() -> Source:
    """The cell lines, a fifth of each for the test."""
    cells = anndata.read_h5ad(SNARE)
    names, test = train_test_split(cells.obs_names, test_size=0.2, random_state=0, stratify=cells.obs["cell_type"])
    return divided(SNARE_NAME, cells[names], cells[test])


def bone_marrow(file: Path) -> Source:
    """The bone marrow, one batch for the test."""
    cells = anndata.read_h5ad(file)
    is_training = cells.obs["batch"] == TRAINING_BATCH
    return divided(MARROW_NAME, cells[is_training], cells[~is_training])


def divided(name: str, cells: AnnData, test: AnnData) -> Source:
    """A tenth of the training cells, stratified by type, serves to choose settings."""
    train_names, names = train_test_split(
        cells.obs_names, test_size=0.1, random_state=0, stratify=cells.obs["cell_type"]
    )
    return Source(name, cells[train_names], cells[names], test)


def shared_tokenizer(sources: list[Source], with_genes: bool) -> PeakTokenizer:
    """Peaks of the first source that enough training cells have open, and of the second that overlap none of these."""
    first, second = (source.train for source in sources)
    num_cells = np.asarray((first.X > 0).sum(axis=0)).ravel()
    names = list(first.var_names[num_cells >= MIN_CELLS_PER_PEAK])
    is_new = PeakVocabulary.from_names(names, genome="hg38").map(list(second.var_names)).ids < 0
    peaks = PeakVocabulary.from_names([*names, *second.var_names[is_new]], genome="hg38")
    return PeakTokenizer(peaks, genes_of(first) if with_genes else None)


def genes_of(cells: AnnData) -> GeneVocabulary:
    """Genes that enough of the cell lines' training cells express."""
    rna = anndata.read_h5ad(SNARE_RNA)[cells.obs_names]
    num_cells = np.asarray((rna.X > 0).sum(axis=0)).ravel()
    return GeneVocabulary.from_names(list(rna.var_names[num_cells >= MIN_CELLS_PER_GENE]), gene_annotation("hg38"))


def align(cells: list[AnnData], tokenizer: PeakTokenizer, folder: Path, epochs: float) -> Path:
    """The folder of a model that has learned which genes the cell lines express.

    Its peak table starts from the LSI of all training cells, as without alignment: the cell lines alone would leave
    the peaks of the bone marrow at random values.
    """
    paired = paired_cells(cells[0], anndata.read_h5ad(SNARE_RNA), tokenizer)
    save_cells(paired, folder / "paired")
    set_seed(0)
    options, _ = read_options(PretrainOptions, [str(ALIGNMENT_SETTINGS), "--data", "none", "--output_dir", str(folder)])
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "pooling", "max_genes")
    config = EpiFoundationConfig(
        **{name: getattr(options, name) for name in (*sizes, "use_gene_bias", "hidden_dropout_prob")},
        attention_probs_dropout_prob=options.attention_probs_dropout_prob,
        max_peaks=options.max_peaks,
        vocab_size=len(tokenizer),
        gene_vocab_size=len(tokenizer.gene_chromosome_ids),
        num_chromosomes=int(max(tokenizer.peak_chromosome_ids.max(), tokenizer.gene_chromosome_ids.max())) + 1,
    )
    model = EpiFoundationForPeakToGeneAlignment(config)
    init_peak_embeddings(model, together(cells, tokenizer))
    init_gene_bias(model, paired)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "start")
    given = ["--model", folder / "start", "--data", folder / "paired", "--output_dir", folder / "aligned"]
    words = [str(ALIGNMENT_SETTINGS), *map(str, given), "--num_train_epochs", str(epochs)]
    pretrain(*read_options(PretrainOptions, words))
    return folder / "aligned"


def train(
    cells: list[AnnData], held_out: list[AnnData], tokenizer: PeakTokenizer, folder: Path, words: list[str]
) -> Path:
    """The folder of a classifier of all sources' cell types. Held-out cells are reported on, and decide on nothing."""
    save_cells(together(cells, tokenizer), folder / "cells")
    tokenizer.save_pretrained(folder / "cells")
    save_cells(together(held_out, tokenizer), folder / "held_out")
    given = ["--data", folder / "cells", "--validation_data", folder / "held_out", "--output_dir", folder / "model"]
    finetune_classification(*read_options(ClassificationOptions, [str(SETTINGS), *map(str, given), *words]))
    return folder / "model"


def together(parts: list[AnnData], tokenizer: PeakTokenizer) -> Dataset:
    """Cells of all parts as one data set, under one list of cell types."""
    cells = [paired_cells(part, None, tokenizer, cell_type_key="cell_type") for part in parts]
    labels = ClassLabel(names=[name for part in cells for name in part.features["cell_type"].names])
    renamed = []
    for part in cells:
        names = part.features["cell_type"]
        types = [labels.str2int(names.int2str(value)) for value in part["cell_type"]]
        renamed.append(part.remove_columns("cell_type").add_column("cell_type", types).cast_column("cell_type", labels))
    return concatenate_datasets(renamed)


def in_bfloat16(folder: Path) -> None:
    """Halve the size of the weights. The figures are those of the rounded ones."""
    model = EpiFoundationForCellClassification.from_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)


def model_scores(folder: Path, cells: AnnData) -> dict[str, float]:
    """How well the classifier, which does not know which source a cell is of, annotates these cells."""
    copy = AnnData(cells.X, obs=cells.obs, var=cells.var)
    annotate_cells(copy, str(folder), show_progress=False)
    return annotation_scores(cells.obs["cell_type"], copy.obs["epifoundation_cell_type"].astype(str))


def lsi_scores(source: Source) -> dict[str, float]:
    """The same by logistic regression on an LSI of one source's training cells, which need not tell sources apart."""
    index = LatentSemanticIndex.fit(source.train.X, LSI_DIMENSIONS)
    train, test = (index.transform(cells.X) for cells in (source.train, source.test))
    scaler = StandardScaler().fit(train)
    classifier = LogisticRegression(max_iter=3_000).fit(scaler.transform(train), source.train.obs["cell_type"])
    return annotation_scores(source.test.obs["cell_type"], classifier.predict(scaler.transform(test)))


def annotation_scores(truth: Any, predicted: Any) -> dict[str, float]:
    """Rounded to what a reader can use."""
    return {name: round(value, 4) for name, value in agreement(truth, predicted).items()}


def note_trial(name: str, alignment: float, words: list[str], scores: dict[str, Any], seconds: int) -> None:
    """Add a trial to those noted."""
    words = [*(["--alignment", f"{alignment:g}"] if alignment else []), *words]
    trials = json.loads(TRIALS.read_text()) if TRIALS.is_file() else []
    trials.append({"name": name, "words": words, "validation": scores, "seconds": seconds})
    TRIALS.write_text(json.dumps(trials, indent=1) + "\n")
    if (RESULTS / "small_checkpoint.json").is_file():
        write_report(json.loads((RESULTS / "small_checkpoint.json").read_text()))


def leave(trained: Path, alignment: float, sources: list[Source], scores: dict[str, Any], seconds: int) -> None:
    """Replace the checkpoint of the package, with a card of these figures, and write the report."""
    record = json.loads((trained / "run.json").read_text())
    record["settings"]["options"]["epochs_of_alignment_before"] = alignment
    record["metrics"] = {f"{name}_{m}".replace(" ", "_"): v for name, of in scores.items() for m, v in of.items()}
    (trained / "run.json").write_text(json.dumps(record, indent=1))
    shutil.copy(ABOUT, trained / "about.yaml")
    (trained / HELD_OUT_FILE).write_text(json.dumps({s.name: list(s.test.obs_names) for s in sources}))
    complete_checkpoint(trained, renew_card=True)
    shutil.rmtree(CARRIED, ignore_errors=True)
    CARRIED.mkdir(parents=True)
    for file in trained.iterdir():
        if file.is_file() and file.suffix not in (".py", ".bin"):
            shutil.copy(file, CARRIED)
    report(sources, scores, seconds)


def report(sources: list[Source], scores: dict[str, Any], seconds: int) -> None:
    """Markdown and JSON of the figures."""
    lsi = {source.name: lsi_scores(source) for source in sources}
    figures = {"carried checkpoint": scores, f"LSI ({LSI_DIMENSIONS}) + logistic regression, one per data set": lsi}
    sizes = [f"{sources[0].test.n_obs:,} cells of the cell lines", f"{sources[1].test.n_obs:,}"]
    command = " ".join([Path(sys.argv[1]).name, *sys.argv[2:]])
    content = {
        "environment": environment(),
        "command": f"python benchmarks/small_checkpoint.py {command}",
        "seconds": seconds,
        "test": f"{', '.join(sizes)} of the other bone marrow batch",
        "figures": figures,
    }
    write_report(content)


def write_report(content: dict[str, Any]) -> None:
    """Markdown and JSON of figures, and of all trials so far."""
    trials = json.loads(TRIALS.read_text()) if TRIALS.is_file() else []
    names = list(next(iter(content["figures"].values())))
    rows = [[method, *(v for name in names for v in of[name].values())] for method, of in content["figures"].items()]
    tried = [[t["name"], *(v for name in names for v in t["validation"][name].values())] for t in trials]
    heads = [f"{name}, {metric}" for name in names for metric in ("accuracy", "macro F1")]
    lines = [
        "# The small checkpoint that comes with the package",
        "",
        f"`{content['command']}`",
        "",
        *markdown("held-out cells", heads, rows),
        f"{content['test']}.",
        "",
        *markdown("trials, on validation cells", heads, tried),
    ]
    (RESULTS / "small_checkpoint.md").write_text("\n".join(lines))
    (RESULTS / "small_checkpoint.json").write_text(json.dumps({**content, "trials": trials}, indent=1) + "\n")


def markdown(first: str, heads: list[str], rows: list[list[Any]]) -> list[str]:
    """A table."""
    lines = [f"| {first} | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
    return [*lines, *(f"| {row[0]} | {' | '.join(f'{value:.3f}' for value in row[1:])} |" for row in rows), ""]


if __name__ == "__main__":
    main()
