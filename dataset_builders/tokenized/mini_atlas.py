"""MiniAtlas: the paired cells that the EpiFoundation paper trained on, as a `datasets` builder."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from epifoundation.tokenization import PeakTokenizer

from .paired_cells import PairedCells, PathLike

REPOSITORY = "UCSC-VLAA/MiniAtlas"
SUBSETS = ("full", "bmmc", "kidney", "pbmc")


class MiniAtlas(PairedCells):
    """One subset of MiniAtlas: two .h5ad files, one of peaks and one of genes, with the same cells.

    .. code-block:: python

        builder = MiniAtlas("bmmc", tokenizer=tokenizer, data_dir="MiniAtlas")
        builder.download_and_prepare(num_proc=4)
        cells = builder.as_dataset("train")

    Everything else is as in `PairedCells`.

    Attributes:
        subset: "full", "bmmc", "kidney" or "pbmc".
    """

    def __init__(
        self,
        subset: str,
        *,
        tokenizer: PeakTokenizer | PathLike,
        data_dir: PathLike | None = None,
        repo_id: str = REPOSITORY,
        revision: str = "main",
        atac_only: bool = False,
        cell_type_key: str | None = "annot",
        batch_key: str | None = "batch",
        download_dir: PathLike | None = None,
        **options: Any,
    ) -> None:
        """Find or download the files, then do as `PairedCells`.

        Args:
            subset: "full", "bmmc", "kidney" or "pbmc".
            tokenizer: its peak vocabulary and its genes give the ids.
            data_dir: folder with ``{subset}_atlas_atac.h5ad`` and ``{subset}_atlas_rna.h5ad``. Without it both are
                downloaded now, as the names of the classes are in them; the four subsets together take 34 GB.
            repo_id: dataset repository to download from.
            revision: branch, tag or commit of that repository.
            atac_only: leave the genes out, and do not even look for their file.
            cell_type_key: column of ``obs`` with the cell types; None for none.
            batch_key: column of ``obs`` with the batches; None for none.
            download_dir: where to keep downloads; by default the cache of the Hub.
            options: further arguments of `PairedCells`.

        Raises:
            FileNotFoundError: if a file is not in `data_dir`.
            OSError: if a file cannot be downloaded.
            ValueError: if there is no such subset, or for the reasons of `PairedCells`.
        """
        self.subset = subset
        files = mini_atlas_files(
            subset, data_dir, repo_id=repo_id, revision=revision, atac_only=atac_only, download_dir=download_dir
        )
        super().__init__(
            *files,
            tokenizer=tokenizer,
            cell_type_key=cell_type_key,
            batch_key=batch_key,
            config_name=subset,
            **options,
        )


def mini_atlas_files(
    subset: str,
    data_dir: PathLike | None = None,
    *,
    repo_id: str = REPOSITORY,
    revision: str = "main",
    atac_only: bool = False,
    download_dir: PathLike | None = None,
) -> list[PathLike]:
    """The ATAC file of a subset and, unless `atac_only`, its RNA file; for arguments and errors see `MiniAtlas`."""
    if subset not in SUBSETS:
        raise ValueError(f"MiniAtlas has no subset {subset!r}: expected one of {', '.join(SUBSETS)}")
    names = [f"{subset}_atlas_{modality}.h5ad" for modality in ("atac", "rna")[: 1 if atac_only else 2]]
    if data_dir is None:
        return [_downloaded(name, repo_id, revision, download_dir) for name in names]
    return _found(names, Path(data_dir))


def _found(names: list[str], folder: Path) -> list[PathLike]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        there = sorted(entry.name for entry in folder.iterdir())[:10] if folder.is_dir() else []
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}; found {', '.join(there) or 'nothing'}. Put the files of "
            f"{REPOSITORY} there under their own names, or leave data_dir out to download them"
        )
    return [folder / name for name in names]


def _downloaded(name: str, repo_id: str, revision: str, folder: PathLike | None) -> PathLike:
    try:
        return hf_hub_download(
            repo_id,
            name,
            repo_type="dataset",
            revision=revision,
            cache_dir=None if folder is None else os.fspath(folder),
        )
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise OSError(
            f"cannot download {name} of the dataset repository {repo_id} ({revision}): {error}\n"
            "Check the connection and the name, or fetch the files by hand and pass their folder as data_dir"
        ) from error
