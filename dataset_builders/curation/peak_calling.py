"""Peaks from the fragments of all samples together, by MACS3 through SnapATAC2."""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from epifoundation.tokenization import CHROMOSOME_LENGTHS, PeakVocabulary, canonical_chromosome, canonical_genome
from epifoundation.tokenization.intervals_epifoundation import global_positions

from ..genome.genome_sets import MergedIntervals

_STANDARD = re.compile(r"chr([0-9]+|X|Y)")


def call_peaks(
    files: Mapping[Path, Sequence[str]],
    *,
    genome: str = "hg38",
    blacklist: MergedIntervals | None = None,
    q_value: float = 0.05,
    scratch: Path | None = None,
) -> PeakVocabulary:
    """Call peaks on the fragments of some barcodes, all files together, as the EpiFoundation paper does with MACS2.

    MACS3 runs on cut sites (shift -100, extension 200), as SnapATAC2 sets it up. Peaks that overlap are joined; those
    on other chromosomes than chr1, ..., X and Y, and those that overlap the blacklist, are left out.

    Args:
        files: fragment files with the barcodes to use of each.
        genome: assembly, one whose chromosome lengths are known.
        blacklist: where no peak can be believed.
        q_value: false discovery rate.
        scratch: folder for temporary files, as large as the fragments.

    Raises:
        ImportError: if SnapATAC2 is not installed.
        ValueError: if the lengths of the chromosomes are not known, or there are no peaks.
    """
    try:
        import snapatac2
    except ImportError as error:
        raise ImportError('calling peaks needs SnapATAC2: pip install "epifoundation[qc]"') from error
    lengths = CHROMOSOME_LENGTHS.get(canonical_genome(genome))
    if lengths is None:
        known = ", ".join(CHROMOSOME_LENGTHS)
        raise ValueError(f"cannot call peaks for {genome!r}: the lengths of chromosomes are known for {known} only")
    folder = Path(tempfile.mkdtemp(prefix="macs3-", dir=scratch))
    temporary = tempfile.tempdir
    try:
        found = _called(snapatac2, files, dict(lengths), q_value, folder)
    finally:
        tempfile.tempdir = temporary  # SnapATAC2 leaves it pointing to a folder that it has removed
        shutil.rmtree(folder, ignore_errors=True)
    return _vocabulary(found, genome, blacklist)


def _called(
    snapatac2: Any, files: Mapping[Path, Sequence[str]], lengths: dict[str, int], q_value: float, folder: Path
) -> pd.DataFrame:
    opened = [
        (
            str(i),
            snapatac2.pp.import_fragments(
                path,
                lengths,
                file=folder / f"{i}.h5ad",
                min_num_fragments=0,
                sorted_by_barcode=False,
                whitelist=list(barcodes),
                tempdir=folder,
                n_jobs=1,
            ),
        )
        for i, (path, barcodes) in enumerate(files.items())
    ]
    together = snapatac2.AnnDataSet(adatas=opened, filename=folder / "all.h5ads")
    try:
        groups = ["all"] * together.n_obs
        called = snapatac2.tl.macs3(together, groupby=groups, qvalue=q_value, inplace=False, tempdir=folder, n_jobs=1)
    finally:
        together.close()
    return called["all"].to_pandas() if hasattr(called["all"], "to_pandas") else called["all"]


def _vocabulary(found: pd.DataFrame, genome: str, blacklist: MergedIntervals | None) -> PeakVocabulary:
    names = [canonical_chromosome(str(name)) for name in found["chrom"]]
    is_kept = np.array([_STANDARD.fullmatch(name) is not None for name in names], dtype=bool)
    chromosomes = list(dict.fromkeys(names))
    codes = np.array([chromosomes.index(name) for name in names], dtype=np.int64)
    columns = (codes, found["start"].to_numpy(np.int64), found["end"].to_numpy(np.int64))
    if not is_kept.any():
        raise ValueError("MACS3 found no peaks on the main chromosomes: are there enough fragments?")
    joined = MergedIntervals.from_columns(chromosomes, *(column[is_kept] for column in columns))
    codes, starts = joined.starts >> 32, joined.starts & 0xFFFFFFFF
    names = [f"{chromosomes[c]}:{s}-{e}" for c, s, e in zip(codes, starts, joined.ends & 0xFFFFFFFF, strict=True)]
    vocabulary = PeakVocabulary.from_names(names, genome)
    return vocabulary if blacklist is None else without_blacklist(vocabulary, blacklist)


def without_blacklist(vocabulary: PeakVocabulary, blacklist: MergedIntervals) -> PeakVocabulary:
    """The peaks that do not overlap the blacklist.

    Raises:
        ValueError: if all of them do.
    """
    codes = blacklist.codes(vocabulary.chromosomes)[vocabulary.chromosome_codes]
    is_hit = blacklist.overlaps(global_positions(codes, vocabulary.starts), global_positions(codes, vocabulary.ends))
    if is_hit.all():
        raise ValueError(f"all {len(vocabulary):,} peaks overlap the blacklist: is it one of the same genome?")
    return PeakVocabulary.from_names(vocabulary.names(np.flatnonzero(~is_hit)), vocabulary.genome)
