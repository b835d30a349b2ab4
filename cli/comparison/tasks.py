"""The four comparisons of ``epifoundation evaluate``: which methods, and how they are scored."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from epifoundation.dataset_builders.genome.gene_coordinates import positions_of
from epifoundation.evaluation.baselines import ANNOTATORS, EMBEDDINGS, EXPRESSION, TypeProbabilities
from epifoundation.evaluation.checks import checked_embedding
from epifoundation.evaluation.classification import classification_scores
from epifoundation.evaluation.clustering import RESOLUTIONS
from epifoundation.evaluation.embedding_metrics import EMBEDDING_METRICS, embedding_metrics
from epifoundation.evaluation.expression import expression_scores
from epifoundation.inference import load_tokenizer

from .cells import expressed_genes, levels_of
from .models import SCRATCH, SplitModels, annotated, embedded, predicted
from .report import Comparison, comparison, types_of_one_batch_remark
from .request import Request
from .runs import Job, Results, Scores, Split, baseline_jobs, run_jobs, split_of

ZERO_SHOT, FINE_TUNED = "zero-shot", "fine-tuned"
OURS = "epifoundation"


def compare_batches(request: Request) -> Comparison:
    """Embeddings of the cells held out: do cell types stay apart, and batches come together?"""
    options, baselines = request.options, request.baselines(EMBEDDINGS)
    splits = _splits(request, needs_batches=True)

    def jobs(split: Split) -> list[Job]:
        held_out = ~split.cells.is_train
        found = baseline_jobs(baselines, split, options, lambda embedding: embedding[held_out])
        return found + _embedding_jobs(request, split)

    results = _run(request, "batch", splits, jobs, _score_embedding)
    remarks = [
        "Metrics: " + "; ".join(f"{title}, {text}" for title, text in EMBEDDING_METRICS.items()) + ".",
        *types_of_one_batch_remark(splits),
    ]
    return comparison(request, "batch", splits, results, remarks)


def compare_annotations(request: Request) -> Comparison:
    """Cell types of the cells held out, learned from those of the training cells."""
    baselines = request.baselines(ANNOTATORS)
    splits = _splits(request)

    def jobs(split: Split) -> list[Job]:
        found = baseline_jobs(baselines, split, request.options, lambda answer: answer)
        for model in request.models:
            models = request.split_models(split, model, _slug(model))

            def run(models: SplitModels = models, model: str = model) -> TypeProbabilities:
                return annotated(split.test, models.annotator if request.finetune or models.is_scratch else model)

            found.append(Job(f"{OURS}-{_slug(model)}", _title(model, ""), run, "peaks and types of training cells"))
        return found

    results = _run(request, "annotation", splits, jobs, _score_annotation)
    remarks = [
        "ACC, macro and micro F1 and one-against-rest ROC-AUC by scikit-learn; ECE is the expected calibration error. "
        "A cell of a type that no training cell has counts as wrong; a type that no cell has gets no ROC-AUC.",
    ]
    return comparison(request, "annotation", splits, results, remarks)


def compare_expression(request: Request) -> Comparison:
    """Levels of expression in the cells held out, predicted from their peaks."""
    baselines = request.baselines(EXPRESSION)
    splits = [_with_genes(split, request) for split in _splits(request)]

    def jobs(split: Split) -> list[Job]:
        found = baseline_jobs(baselines, split, request.options, lambda answer: answer)
        for model in request.models:
            models = request.split_models(split, model, _slug(model))

            def run(models: SplitModels = models, model: str = model) -> np.ndarray:
                checkpoint = models.predictor if request.finetune or models.is_scratch else model
                return predicted(split.test, checkpoint, split.gene_names)

            def shuffled(run: Callable[[], np.ndarray] = run) -> np.ndarray:
                return np.random.default_rng(split.seed).permutation(run())

            name, title = f"{OURS}-{_slug(model)}", _title(model, "")
            uses = "peaks and genes of training cells"
            found += [Job(name, title, run, uses), Job(f"{name}-shuffled", f"{title}, cells shuffled", shuffled, uses)]
        return found

    results = _run(request, "expression", splits, jobs, _score_expression)
    remarks = [
        "Levels run from 0 (no counts) to 9 by the order of counts within each cell. Correlations are taken per gene "
        "across cells (per cell across genes) and averaged; a gene at the same level in all held-out cells is left "
        "out, one that is predicted at the same level everywhere counts as 0. "
        f"Genes: expressed in at least {request.options.min_cells_per_gene} training cells, with a known position.",
        "Gene activity and MultiVI give scores on scales of their own; a line per gene, fitted on training cells, "
        "takes them to levels. 'cells shuffled' gives each cell the prediction for another one: per gene it must fall "
        "to chance, 0; per cell what remains is how much genes differ in the mean.",
    ]
    return comparison(request, "expression", splits, results, remarks)


def compare_ablations(request: Request) -> Comparison:
    """A model trained here with and without batch labels and chromosomes: its fine-tuned embeddings."""
    splits = _splits(request, needs_batches=True)

    def jobs(split: Split) -> list[Job]:
        found = []
        for batches, chromosomes in ((True, True), (False, True), (True, False), (False, False)):
            with_batches, with_chromosomes = ("on" if is_on else "off" for is_on in (batches, chromosomes))
            name = f"batches-{with_batches}-chromosomes-{with_chromosomes}"
            extra = {"use_batch_embeddings": batches, "use_chromosome_embeddings": chromosomes}
            models = request.split_models(split, SCRATCH, name, pretrain=extra)

            def run(models: SplitModels = models) -> np.ndarray:
                return embedded(split.test, models.annotator)

            title = f"batch labels {with_batches}, chromosomes {with_chromosomes}"
            found.append(Job(name, title, run, "peaks, genes, types and batches of training cells"))
        return found

    results = _run(request, "ablation", splits, jobs, _score_embedding)
    remarks = [
        "Batch labels enter pre-training alone (paper, section on peak-to-gene alignment); all four models were then "
        "fine-tuned on the types of the training cells.",
        *types_of_one_batch_remark(splits),
    ]
    return comparison(request, "ablation", splits, results, remarks)


def _embedding_jobs(request: Request, split: Split) -> list[Job]:
    found = []
    for model in request.models:
        models = request.split_models(split, model, _slug(model))

        def zero_shot(models: SplitModels = models) -> np.ndarray:
            return embedded(split.test, models.pretrained)

        def fine_tuned(models: SplitModels = models) -> np.ndarray:
            return embedded(split.test, models.annotator)

        name = f"{OURS}-{_slug(model)}"
        if not models.is_scratch or split.data.genes is not None:
            uses = "peaks and genes of training cells" if models.is_scratch else "nothing of these cells"
            found.append(Job(f"{name}-zero-shot", _title(model, ZERO_SHOT), zero_shot, uses))
        if request.finetune:
            uses = "peaks and types of training cells" + (", their genes" if split.data.genes is not None else "")
            found.append(Job(f"{name}-fine-tuned", _title(model, FINE_TUNED), fine_tuned, uses))
    return found


def _score_embedding(split: Split, embedding: np.ndarray) -> Scores:
    embedding = checked_embedding(embedding)
    resolutions = RESOLUTIONS if find_spec("graspologic_native") and find_spec("umap") else ()
    if not resolutions:
        warnings.warn(
            'NMI and ARI are left out, they need clusters: pip install "epifoundation[clustering]"', stacklevel=2
        )
    has_batches = len(np.unique(split.test.batches)) > 1
    metrics = embedding_metrics(
        embedding,
        split.test.cell_types,
        split.test.batches if has_batches else None,
        resolutions=resolutions,
        seed=split.seed,
    )
    return metrics, {"embedding": embedding.astype(np.float32)}


def _score_annotation(split: Split, answer: TypeProbabilities) -> Scores:
    scores = classification_scores(split.test.cell_types, answer.values, [str(name) for name in answer.types])
    arrays = {"probabilities": answer.values.astype(np.float32), "types": np.array(answer.types, dtype=str)}
    return scores.titled(), arrays


def _score_expression(split: Split, levels: np.ndarray) -> Scores:
    scores = expression_scores(split.levels[split.test_rows], levels)
    return scores.titled(), {"pearson": scores.pearson_per_gene, "spearman": scores.spearman_per_gene}


def _splits(request: Request, *, needs_batches: bool = False) -> list[Split]:
    splits = [split_of(request.data, request.options, seed) for seed in request.options.seeds]
    for split in splits:
        batches = np.unique(split.test.batches)
        if needs_batches and len(batches) < 2:
            raise ValueError(
                f"the cells held out are all of the batch {batches[0]!r}, so how batches mix cannot be told: name the "
                "column of the batches (--batch-key), hold out by cell, or hold out more batches (--test-share)"
            )
    return splits


def _with_genes(split: Split, request: Request) -> Split:
    """The split with the genes to predict: expressed in enough training cells, placed, known to given checkpoints."""
    data = split.data
    is_train = np.zeros(data.num_cells, dtype=bool)
    is_train[split.train_rows] = True
    frequent = expressed_genes(data, is_train, request.options.min_cells_per_gene)
    genes = frequent.copy()
    try:
        genes &= positions_of(data.gene_names, data.genome)["chromosome"].notna().to_numpy()
    except ValueError as error:
        warnings.warn(f"genes are taken whether or not their position is known: {error}", stacklevel=2)
    for model in request.models:
        if model != SCRATCH:
            known = load_tokenizer(model).genes
            genes &= False if known is None else known.map(data.gene_names) >= 0
    if genes.sum() < 2:
        raise ValueError(
            f"{genes.sum()} of the genes, such as {list(data.gene_names[:3])}, can be predicted: check that the "
            "checkpoint and the data name genes alike"
        )
    # Levels follow from all genes that are expressed often enough, whichever of them are asked for.
    assert data.genes is not None
    return replace(split, genes=genes, levels=levels_of(data.genes[:, frequent])[:, genes[frequent]])


def _run(
    request: Request,
    task: str,
    splits: Sequence[Split],
    jobs: Callable[[Split], list[Job]],
    score: Callable[[Split, Any], Scores],
) -> Results:
    return run_jobs(task, request.data.digest, request.options, splits, jobs, score)


def _slug(model: str) -> str:
    name = Path(model).name if Path(model).exists() else model
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _title(model: str, how: str) -> str:
    name = "EpiFoundation (small, trained here)" if model == SCRATCH else Path(model).name
    return f"{name}, {how}" if how else name


TASKS: dict[str, Callable[[Request], Comparison]] = {
    "batch": compare_batches,
    "annotation": compare_annotations,
    "expression": compare_expression,
    "ablation": compare_ablations,
}
