"""Quality control of fragment files: the values of muon, and what both take.

    python benchmarks/quality_control.py fragments.tsv.gz other.tsv.gz

For each file, the nucleosome signal and the TSS enrichment of up to --cells barcodes are computed by
``muon.atac.tl`` and by this package, on the same starts of transcription (those of ``gene_coordinates("hg38")``), and
compared. Needs ``pip install muon pysam``. The files are, for example, the test data of muon
(github.com/scverse/muon, BSD-3) and of chromatinhd (MIT). Writes benchmarks/results/quality_control.md.

With --muon-values TABLE.tsv muon's values of the first file are written too; so were made those in
tests/reference/muon_quality.
"""

import argparse
import gzip
import importlib.metadata
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders.genome.gene_coordinates import gene_coordinates
from epifoundation.dataset_builders.genome.genome_sets import TranscriptionStarts
from epifoundation.dataset_builders.quality.fragment_quality import TSS_WIDTH, fragment_quality
from epifoundation.dataset_builders.readers.fragment_files import FragmentFile

RESULTS = Path(__file__).parent / "results" / "quality_control.md"
MEASURES = {"nucleosome_signal": "nucleosome_signal", "tss_score": "tss_score"}  # ours -> muon's


def main() -> None:
    """Measure, print a Markdown table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cells", type=int, default=2_000, help="barcodes with the most fragments of a file")
    parser.add_argument("--muon-values", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for number, path in enumerate(arguments.files):
        theirs, row = compared(path, arguments.cells)
        rows.append(row)
        if arguments.muon_values is not None and number == 0:
            theirs.to_csv(arguments.muon_values, sep="\t", index_label="barcode")
    text = report(rows, arguments.cells)
    print(text)
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


def compared(path: Path, num_cells: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The values of muon for the richest barcodes, and a row of the report."""
    genes = gene_coordinates("hg38").dropna(subset="tss").drop_duplicates(["chromosome", "tss"])
    genes = genes[genes["tss"] >= TSS_WIDTH]  # muon cannot ask for positions before a chromosome
    starts = TranscriptionStarts.from_columns(genes["chromosome"].tolist(), genes["tss"].to_numpy(np.int64))
    richest = fragment_quality(path).table.nlargest(num_cells, "num_unique_fragments").index.tolist()
    whole, of_all = timed(lambda: fragment_quality(path, starts=starts))
    ours = fragment_quality(FragmentFile(path, barcodes=richest), starts=starts).table.loc[richest]
    with tempfile.TemporaryDirectory() as folder:
        indexed = with_index(path, Path(folder))
        theirs, of_muon = timed(lambda: muon_values(indexed, richest, genes))
    differences = {name: float((ours[name] - theirs[other]).abs().max()) for name, other in MEASURES.items()}
    row = {
        "file": path.name,
        "fragments": int(whole.table["num_unique_fragments"].sum()),
        "barcodes": len(whole.table),
        "compared": len(richest),
        **{f"largest difference, {name}": f"{value:.1e}" for name, value in differences.items()},
        "CPU s, all barcodes": f"{of_all:.1f}",
        "CPU s, muon": f"{of_muon:.1f}",
    }
    return theirs, row


def muon_values(path: Path, barcodes: list[str], genes: pd.DataFrame) -> pd.DataFrame:
    """Nucleosome signal and TSS score by muon."""
    import muon

    data = AnnData(csr_matrix((len(barcodes), 1), dtype=np.float32), pd.DataFrame(index=barcodes))
    data.uns["files"] = {"fragments": str(path)}
    starts = genes["tss"].to_numpy(np.int64)
    features = pd.DataFrame({"Chromosome": genes["chromosome"].to_numpy(), "Start": starts, "End": starts + 1})
    with gzip.open(path, "rt") as file:
        num_lines = sum(1 for _ in file)  # muon reads so many lines, and fails where there are fewer
    muon.atac.tl.nucleosome_signal(data, n=num_lines)
    muon.atac.tl.tss_enrichment(data, features, n_tss=len(features), return_tss=False)
    return data.obs[list(MEASURES.values())]


def with_index(path: Path, folder: Path) -> Path:
    """A sorted copy of a fragment file with a tabix index, which muon needs."""
    import pysam

    with gzip.open(path, "rt") as file:
        lines = [line for line in file if not line.startswith("#")]
    lines.sort(key=lambda line: (line.split("\t")[0], int(line.split("\t")[1])))
    plain, packed = folder / "fragments.tsv", folder / "fragments.tsv.gz"
    plain.write_text("".join(lines), encoding="utf-8")
    pysam.tabix_compress(str(plain), str(packed))
    pysam.tabix_index(str(packed), preset="bed")
    return packed


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work returns, and the CPU seconds it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def report(rows: list[dict[str, Any]], num_cells: int) -> str:
    """The measurements as Markdown."""
    columns = list(rows[0])
    lines = [
        "# Quality control beside muon",
        "",
        f"`python benchmarks/quality_control.py FILE... --cells {num_cells}`",
        "",
        "| " + " | ".join(columns) + " |",
        "| " + " | ".join("---" for _ in columns) + " |",
        *("| " + " | ".join(written(row[column]) for column in columns) + " |" for row in rows),
        "",
        "The nucleosome signal and `tss_score` follow muon's definitions, so they are to be equal. Our time is for all",
        "barcodes of the file and all measures; muon's for the compared barcodes and these two measures.",
        "",
        f"Python {platform.python_version()}, muon {importlib.metadata.version('muon')}, numpy {np.__version__}.",
        "",
    ]
    return "\n".join(lines)


def written(value: Any) -> str:
    """A number or text of the table."""
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="(muon|mudata|anndata|scanpy|umap)")
    main()
