"""Tokenise the cells that come with the project, for the training examples beside this file.

    python examples/snare.py [FOLDER]

prints ``runs/snare/cells: 1,047 cells`` and leaves there what the scripts take as ``--data``: the cells, and the
tokenizer of their peaks and genes.
"""

import sys
from pathlib import Path

import anndata
import numpy as np

from epifoundation import PeakTokenizer
from epifoundation.dataset_builders.gene_annotation import gene_annotation
from epifoundation.dataset_builders.paired_cells import paired_cells
from epifoundation.tokenization import GeneVocabulary, PeakVocabulary

SOURCE = Path(__file__).resolve().parent / "data" / "snare_cell_lines"
CELLS = Path("runs/snare/cells")
MIN_CELLS_PER_GENE = 10


def tokenise_snare(folder: Path = CELLS) -> Path:
    """Write cells and tokenizer into a folder, unless they are there."""
    if (folder / "peaks.npz").is_file():
        return folder
    atac, rna = anndata.read_h5ad(SOURCE / "atac.h5ad"), anndata.read_h5ad(SOURCE / "rna.h5ad")
    cells_per_gene = np.asarray((rna.X > 0).sum(axis=0)).ravel()
    names = rna.var_names[cells_per_gene >= MIN_CELLS_PER_GENE]
    genes = GeneVocabulary.from_names(names, annotation=gene_annotation("hg38"))
    tokenizer = PeakTokenizer(PeakVocabulary.from_anndata(atac, genome="hg38"), genes)
    cells = paired_cells(atac, rna, tokenizer, cell_type_key="cell_type")
    cells.save_to_disk(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {len(cells):,} cells")
    return folder


if __name__ == "__main__":
    tokenise_snare(*map(Path, sys.argv[1:]))
