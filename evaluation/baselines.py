"""Other methods than ours, behind one interface: each learns from the same cells and answers for the same cells.

A method is told the labels of the training cells alone. Whether it also sees the counts of the others, without their
labels, is part of the method and said in its `uses`: what integrates batches has to.
"""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

UNKNOWN_TYPE = ""  # of a cell whose type a method may not know


@dataclass(frozen=True, eq=False)
class MeasuredCells:
    """Cells, and which of them may be learned from.

    Attributes:
        peaks: (cells, peaks) raw counts.
        is_train: (cells,) bool; the others are held out.
        batches: (cells,) names; a single one where batches are not known.
        cell_types: (cells,) names, or None. Methods read `known_types`.
        genes: (cells, genes) raw counts, or None. Methods use those of training cells only.
        gene_levels: (cells, genes) what expression methods are to predict, 0 where there are no counts; or None.
        peak_names: (peaks,) such as ``chr1:100-200``.
        gene_names: (genes,) symbols or Ensembl ids.
        genome: such as "hg38".
    """

    peaks: csr_matrix
    is_train: np.ndarray
    batches: np.ndarray
    cell_types: np.ndarray | None = None
    genes: csr_matrix | None = None
    gene_levels: csr_matrix | None = None
    peak_names: tuple[str, ...] = ()
    gene_names: tuple[str, ...] = ()
    genome: str = "hg38"

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same cells.

        Raises:
            ValueError: if their lengths differ, or there are no cells to learn from or none held out.
        """
        lengths = {"peaks": self.peaks.shape[0], "is_train": len(self.is_train), "batches": len(self.batches)}
        if self.cell_types is not None:
            lengths["cell_types"] = len(self.cell_types)
        for name in ("genes", "gene_levels"):
            matrix = getattr(self, name)
            if matrix is not None:
                lengths[name] = matrix.shape[0]
        if len(set(lengths.values())) != 1:
            raise ValueError(f"expected one row per cell in each, in the same order, got {lengths}")
        if not 0 < self.num_train < lengths["peaks"]:
            raise ValueError(
                f"expected cells to learn from and cells held out, got {self.num_train:,} of {lengths['peaks']:,} "
                "to learn from"
            )

    @property
    def num_train(self) -> int:
        """Number of training cells."""
        return int(np.count_nonzero(self.is_train))

    @cached_property
    def train_peaks(self) -> csr_matrix:
        """(training cells, peaks) raw counts."""
        return self.peaks[self.is_train]

    @cached_property
    def train_types(self) -> np.ndarray:
        """(training cells,) names.

        Raises:
            ValueError: if the types are not known.
        """
        if self.cell_types is None:
            raise ValueError("this method learns from cell types, and there are none: name their column")
        return self.cell_types[self.is_train]

    @cached_property
    def known_types(self) -> np.ndarray:
        """(cells,) names, `UNKNOWN_TYPE` for cells held out."""
        known = np.full(len(self.is_train), UNKNOWN_TYPE, dtype=object)
        known[self.is_train] = self.train_types
        return known


@dataclass(frozen=True)
class Baseline:
    """A method by its name.

    Attributes:
        name: on the command line.
        title: in tables and figures.
        function: name of the function, ``module:function`` inside this package; it is imported when it runs.
        uses: what it learns from.
        extra: the extra of this package that installs what it needs, if any.
        modules: the libraries in it.
    """

    name: str
    title: str
    function: str
    uses: str
    extra: str | None = None
    modules: tuple[str, ...] = ()

    def run(self, cells: MeasuredCells, seed: int, **options: Any) -> Any:
        """What the method answers; see the function's own description."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(f"epifoundation.evaluation.{module}"), name)
        return function(cells, seed, **options)


_COUNTS, _ALL = "peaks of training cells", "peaks and batches of all cells"
_LABELS = "cell types of training cells"
_SCVI = ("baselines", ("scvi",))

# Each returns (cells, dimensions), an embedding of all cells.
EMBEDDINGS = {
    method.name: method
    for method in (
        Baseline("pca", "PCA", "linear_baselines:embed_pca", _COUNTS),
        Baseline("lsi", "TF-IDF + LSI", "linear_baselines:embed_lsi", _COUNTS),
        Baseline("harmony", "Harmony", "integration_baselines:embed_harmony", _ALL, "baselines", ("harmony",)),
        Baseline("liger", "LIGER", "integration_baselines:embed_liger", _ALL, "baselines-gpl", ("pyliger",)),
        Baseline("peakvi", "PeakVI", "variational_baselines:embed_peakvi", _ALL, *_SCVI),
        Baseline("scanvi", "scANVI", "variational_baselines:embed_scanvi", f"{_ALL}, {_LABELS}", *_SCVI),
    )
}
# Each returns `TypeProbabilities` of the cells held out.
ANNOTATORS = {
    method.name: method
    for method in (
        Baseline("logistic", "LSI + logistic", "linear_baselines:annotate_logistic", f"{_COUNTS}, {_LABELS}"),
        Baseline("knn", "LSI + kNN", "linear_baselines:annotate_knn", f"{_COUNTS}, {_LABELS}"),
        Baseline("scanvi", "scANVI", "variational_baselines:annotate_scanvi", f"{_ALL}, {_LABELS}", *_SCVI),
    )
}
# Each returns (held-out cells, genes), predicted levels.
EXPRESSION = {
    method.name: method
    for method in (
        Baseline("gene_mean", "per-gene mean", "expression_baselines:predict_gene_mean", "genes of training cells"),
        Baseline(
            "lsi_ridge",
            "LSI + ridge",
            "expression_baselines:predict_lsi_ridge",
            f"{_COUNTS}, genes of training cells",
        ),
        Baseline(
            "gene_activity",
            "gene activity (body + 2 kb)",
            "expression_baselines:predict_gene_activity",
            "peaks in and near each gene; a line per gene fitted on training cells",
        ),
        Baseline(
            "distance_activity",
            "gene activity (by distance)",
            "expression_baselines:predict_distance_activity",
            "peaks within 100 kb of each gene; a line per gene fitted on training cells",
        ),
        Baseline(
            "multivi",
            "MultiVI",
            "variational_baselines:predict_multivi",
            "peaks and batches of all cells, genes of training cells; a line per gene fitted on those",
            "baselines,mudata",
            ("scvi", "mudata"),
        ),
    )
}


@dataclass(frozen=True, eq=False)
class TypeProbabilities:
    """What an annotating method says.

    Attributes:
        types: (types,) names, in sorted order: those of the training cells.
        values: (cells, types) probabilities; rows sum to 1.
    """

    types: np.ndarray
    values: np.ndarray


def chosen(names: list[str], methods: dict[str, Baseline]) -> list[Baseline]:
    """The methods of these names, in this order.

    Raises:
        ValueError: if one is not known.
    """
    unknown = [name for name in names if name not in methods]
    if unknown:
        raise ValueError(f"there is no method {', '.join(unknown)}: choose of {', '.join(methods)}")
    return [methods[name] for name in names]


def required(module: str, extra: str) -> ModuleType:
    """An optional library.

    Raises:
        ImportError: if it is not there, with the command that installs it; or if it does not work, with the reason.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name == module:
            reason = f'which is not installed: pip install "epifoundation[{extra}]"'
        elif error.name == "pkg_resources":  # setuptools no longer brings it; h5sparse, which pyliger needs, imports it
            reason = 'and that an older setuptools: pip install "setuptools<81"'
        else:
            reason = f"which is installed but cannot be imported: {error}"
        raise ImportError(f"this method needs {module}, {reason}") from error


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Undo what a library does to the global state: seeds of NumPy and torch; its warnings are not shown."""
    of_numpy = np.random.get_state()  # noqa: NPY002
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
