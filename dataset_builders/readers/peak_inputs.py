"""Any kind of input as one table of cells by peaks: count matrices, fragment files, bulk samples."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from epifoundation.tokenization import PeakVocabulary

from ..matrices.matrix_writing import write_matrix
from .bed_files import count_bed_files, is_bed_file
from .fragment_counts import Counting, VocabularyCounts, count_fragments
from .fragment_files import FragmentFile
from .peak_files import PeakFile, open_peak_file
from .tenx_files import is_tenx_folder, read_tenx_folder
from .text_files import TextFile

FRAGMENT_ENDINGS = (".tsv", ".txt", ".tsv.gz", ".txt.gz", ".tsv.bgz", ".txt.bgz")


class FragmentOptions(NamedTuple):
    """How fragment files are read; `count_fragments` explains each.

    Attributes:
        barcodes: the wanted ones.
        prefixes: one for each file, put before its barcodes.
        min_fragments: fewest fragments of a cell.
        counting: "fragment" or "insertion".
        check_genome: refuse data that lie in the peaks no more than by chance.
        show_progress: show a progress bar.
    """

    barcodes: Sequence[str] | None = None
    prefixes: Sequence[str] | None = None
    min_fragments: int | None = None
    counting: Counting = "fragment"
    check_genome: bool = True
    show_progress: bool = True


def read_barcodes(path: str | os.PathLike[str]) -> list[str]:
    """The barcodes of a file, plain or gzip: the first column, each once; a header named "barcode" is passed over.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no text, or holds no barcode.
    """
    text = b"".join(block.text for block in TextFile(path).blocks(1 << 20)).decode(errors="replace")
    first = (re.split(r"[\t,\r]", line, maxsplit=1)[0].strip() for line in text.split("\n") if not line.startswith("#"))
    barcodes = [name for name in dict.fromkeys(first) if name and name.lower() != "barcode"]
    if not barcodes:
        raise ValueError(f"{path} holds no barcodes: expected one a line")
    return barcodes


def is_matrix_file(path: str | os.PathLike[str]) -> bool:
    """Whether an input is opened by `open_peak_file` as it stands: an .h5ad or .h5mu, or what is no known text."""
    name = Path(path).name
    return not (is_bed_file(path) or name.endswith((*FRAGMENT_ENDINGS, ".h5")) or Path(path).is_dir())


@contextmanager
def as_peak_file(
    inputs: Sequence[str | os.PathLike[str]],
    vocabulary: Callable[[], PeakVocabulary],
    modality: str | None = None,
    options: FragmentOptions | None = None,
) -> Iterator[Path]:
    """Give the path of an .h5ad or .h5mu file with the counts of any kind of input.

    A single .h5ad or .h5mu is given as it is. Of all else a temporary .h5ad is written, in ``TMPDIR`` if that is set,
    and removed afterwards: the features of an .h5 or a folder of Cell Ranger; fragments (.tsv, .tsv.gz) and bulk
    samples (.bed, .narrowPeak) counted in the peaks of the vocabulary.

    Args:
        inputs: one or several files; several only of fragments or of bulk samples.
        vocabulary: gives the peaks; asked only where something is counted in them.
        modality: which part of an .h5mu.
        options: how fragments are read.

    Raises:
        FileNotFoundError: if an input does not exist.
        ValueError: if inputs of several kinds are mixed, or cannot be read.
        OSError: if the temporary disk is full.
    """
    options = options or FragmentOptions()
    paths = [Path(path) for path in inputs]
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} does not exist")
    if len(paths) == 1 and is_matrix_file(paths[0]):
        yield paths[0]
        return
    with tempfile.TemporaryDirectory(prefix="epifoundation-") as folder:
        written = Path(folder, "counts.h5ad")
        if len(paths) == 1 and paths[0].is_dir():
            read_tenx_folder(_tenx_folder(paths[0])).write_h5ad(written)
        elif len(paths) == 1 and paths[0].suffix == ".h5":
            with open_peak_file(paths[0], modality) as file:
                _write(file, written)
        else:
            _write(_counted(paths, vocabulary(), options), written)
        yield written


def _counted(paths: list[Path], vocabulary: PeakVocabulary, options: FragmentOptions) -> VocabularyCounts:
    if all(is_bed_file(path) for path in paths):
        return count_bed_files(
            paths, vocabulary, check_genome=options.check_genome, show_progress=options.show_progress
        )
    others = [str(path) for path in paths if not path.name.endswith(FRAGMENT_ENDINGS)]
    if others:
        raise ValueError(
            f"cannot read {others[0]} together with other inputs: expected one count matrix, or only fragment files "
            f"({', '.join(FRAGMENT_ENDINGS[::2])}), or only BED files"
        )
    prefixes = options.prefixes or [""] * len(paths)
    if len(prefixes) != len(paths):
        raise ValueError(f"expected one prefix for each of {len(paths)} fragment files, got {len(prefixes)}")
    files = [
        FragmentFile(path, barcodes=options.barcodes, prefix=prefix, genome=vocabulary.genome)
        for path, prefix in zip(paths, prefixes, strict=True)
    ]
    return count_fragments(
        files,
        vocabulary,
        min_fragments=options.min_fragments,
        counting=options.counting,
        check_genome=options.check_genome,
        show_progress=options.show_progress,
    )


def _tenx_folder(path: Path) -> Path:
    if not is_tenx_folder(path):
        raise ValueError(f"{path} is a folder without matrix.mtx: expected a file, or a folder of Cell Ranger")
    return path


def _write(source: VocabularyCounts | PeakFile, path: Path) -> None:
    obs = pd.DataFrame(index=source.cell_names)
    if isinstance(source, VocabularyCounts):
        obs["num_fragments"], obs["num_fragments_in_peaks"] = source.num_fragments, source.num_in_peaks
    write_matrix(path, source.blocks(), obs, pd.DataFrame(index=source.peak_names))
