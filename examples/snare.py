r"""Tokenise the cells that come with the project, for the training examples beside this file.

    python examples/snare.py [FOLDER]

prints ``runs/snare/cells: train 837, validation 106, test 104`` and leaves there what the scripts take as ``--data``.
It is the same as

    epifoundation tokenize examples/data/snare_cell_lines/atac.h5ad \
        --rna examples/data/snare_cell_lines/rna.h5ad --cell-type-key cell_type --split stratified -o runs/snare/cells
"""

import sys
from pathlib import Path

from epifoundation.dataset_builders.tokenized.tokenized_folder import Split, tokenize_files

SOURCE = Path(__file__).resolve().parent / "data" / "snare_cell_lines"
CELLS = Path("runs/snare/cells")


def tokenise_snare(folder: Path = CELLS) -> Path:
    """Write cells and tokenizer into a folder, unless they are there."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    split = Split(rule="stratified")
    files = SOURCE / "atac.h5ad", SOURCE / "rna.h5ad"
    report = tokenize_files(*files, folder, cell_type_key="cell_type", split=split)
    print(f"{folder}: {', '.join(f'{name} {size}' for name, size in report.num_cells_of_split.items())}")
    return folder


if __name__ == "__main__":
    tokenise_snare(*map(Path, sys.argv[1:]))
