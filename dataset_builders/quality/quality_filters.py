"""Which barcodes are good enough to be cells: bounds on what quality control measures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]

NUM_ATAC, NUM_RNA = "num_unique_fragments", "num_rna_counts"
MEASURES = (
    NUM_ATAC,
    NUM_RNA,
    "num_fragments",
    "duplicate_fraction",
    "mitochondrial_fraction",
    "nucleosome_signal",
    "tss_enrichment",
    "tss_score",
    "peaks_fraction",
    "blacklist_fraction",
)
_INFINITE = float("inf")


@dataclass(frozen=True)
class Bounds:
    """A value passes if it lies between these two, which do not belong to it themselves.

    Attributes:
        above: lower bound.
        below: upper bound.
    """

    above: float = -_INFINITE
    below: float = _INFINITE

    def __str__(self) -> str:
        texts = (("above", self.above), ("below", self.below))
        return " and ".join(f"{name} {value:,g}" for name, value in texts if abs(value) != _INFINITE)


@dataclass(frozen=True)
class QualityFilters:
    """Bounds by the name of a measure, a column of the table of `fragment_quality`.

    Attributes:
        bounds: what is asked of each measure.
    """

    bounds: Mapping[str, Bounds] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str | os.PathLike[str]) -> Self:
        """Filters by name, "paper" or "none", or those of a YAML file.

        The paper (appendix A) asks for more than 1,000 and less than 25,000 RNA reads, more than 1,000 and less than
        100,000 ATAC reads, a nucleosome signal below 2 and a TSS enrichment (Signac's) above 1. ATAC reads are unique
        fragments here, or the sum of the counts where there are no fragments. Such a file for it reads:

        .. code-block:: yaml

            num_rna_counts: {above: 1000, below: 25000}
            num_unique_fragments: {above: 1000, below: 100000}
            nucleosome_signal: {below: 2}
            tss_enrichment: {above: 1}

        Raises:
            FileNotFoundError: if it is neither a known name nor a file.
            ValueError: if the file does not hold bounds of measures.
        """
        if name == "none":
            return cls()
        if name == "paper":
            return cls(
                {
                    NUM_RNA: Bounds(1_000, 25_000),
                    NUM_ATAC: Bounds(1_000, 100_000),
                    "nucleosome_signal": Bounds(below=2),
                    "tss_enrichment": Bounds(above=1),
                }
            )
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{name} does not exist: expected 'paper', 'none' or a YAML file with bounds")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML file: {error}") from error
        return cls.from_mapping(content or {}, str(path))

    @classmethod
    def from_mapping(cls, content: Any, place: str = "the filters") -> Self:
        """Filters from ``{measure: {"above": number, "below": number}}``.

        Raises:
            ValueError: if `content` is something else, or a measure is not known.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"{place}: expected lines such as 'tss_enrichment: {{above: 1}}', got {content!r}")
        return cls({name: _bounds(str(name), bounds, place) for name, bounds in content.items()})

    def passing(self, table: pd.DataFrame) -> np.ndarray:
        """Which rows pass all filters whose measure the table has, (cells,) bool; a missing value does not pass."""
        passes = np.ones(len(table), dtype=bool)
        for name, bounds in self.bounds.items():
            if name in table:
                passes &= _passes(table[name], bounds)
        return passes

    def not_applied(self, table: pd.DataFrame) -> list[str]:
        """The measures that the table does not have."""
        return [name for name in self.bounds if name not in table]

    def report(self, table: pd.DataFrame) -> list[str]:
        """One line for each measure: how many pass, and how the values are distributed."""
        lines = []
        for name, bounds in self.bounds.items():
            if name not in table:
                lines.append(f"{name}: not applied, it was not measured")
                continue
            low, middle, high = np.nanquantile(table[name].to_numpy(float), [0.05, 0.5, 0.95])
            passes = int(_passes(table[name], bounds).sum())
            lines.append(
                f"{name} {bounds}: {passes:,} of {len(table):,} pass (5 %, median, 95 %: {low:,.4g}, {middle:,.4g}, "
                f"{high:,.4g})"
            )
        return lines

    def kept(self, table: pd.DataFrame, place: str, at_least: int = 1) -> pd.DataFrame:
        """The rows that pass, in their order.

        Args:
            table: one row per barcode.
            place: the file, for the message.
            at_least: how many must pass.

        Raises:
            ValueError: if fewer do, with the distribution of each measure beside its bounds.
        """
        kept = table[self.passing(table)]
        if len(kept) < at_least:
            found = (
                f"{place}: {len(kept):,} of {len(table):,} barcodes pass quality control, expected {at_least} or more"
            )
            if len(kept) == len(table):
                raise ValueError(f"{found}: ask for fewer fragments of a barcode (--min-fragments)")
            raise ValueError(
                f"{found}: {'; '.join(self.report(table))}. Choose other bounds with --qc FILE.yaml, or --qc none for "
                "all barcodes"
            )
        return kept

    def as_mapping(self) -> dict[str, dict[str, float]]:
        """The form that `from_mapping` takes."""
        return {
            name: {key: value for key, value in vars(bounds).items() if abs(value) != _INFINITE}
            for name, bounds in self.bounds.items()
        }


def _passes(values: pd.Series, bounds: Bounds) -> np.ndarray:
    return ((values > bounds.above) & (values < bounds.below)).to_numpy()


def _bounds(name: str, bounds: Any, place: str) -> Bounds:
    if name not in MEASURES:
        raise ValueError(f"{place}: there is no measure {name!r}: expected some of {', '.join(MEASURES)}")
    is_sound = isinstance(bounds, Mapping) and bounds and set(bounds) <= {"above", "below"}
    if not is_sound or any(isinstance(v, bool) or not isinstance(v, int | float) for v in bounds.values()):
        raise ValueError(f"{place}: expected 'above' and 'below' with a number each for {name}, got {bounds!r}")
    found = Bounds(**{key: float(value) for key, value in bounds.items()})
    if found.above >= found.below:
        raise ValueError(f"{place}: no value of {name} can be {found}")
    return found
