"""Real fragments counted in peaks: which rule gives the published counts, and what tells the genome.

    python benchmarks/pbmc_fragments.py --data FOLDER [--write]

FOLDER holds pbmc10k_tiny (fragments.tsv.gz and the published counts atac.epiagent_cCRE.h5ad; chromatinhd, MIT),
muon_pbmc_fragments/muon_frag.tsv.gz (muon, BSD-3), granja_bmmc_atac/atac.hg38lift.h5ad (epiCHAOS, MIT),
snare_cellline4/atac.h5ad (scPECA, MIT), and annot_hg38 with GRCh38-cCREs.bed.gz (ENCODE) and hg19ToHg38.over.chain.gz
(UCSC). SnapATAC2 and gtars are compared where they are installed. With --write the tables go to
benchmarks/results/pbmc_fragments.md.
"""

import argparse
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from fragments import gtars, is_installed, snapatac2
from scipy.sparse import csr_matrix

from epifoundation.dataset_builders import FragmentFile, count_fragments
from epifoundation.dataset_builders.genome.genome_check import OverlapByChance
from epifoundation.dataset_builders.genome.peak_finder import PeakFinder
from epifoundation.tokenization import PeakVocabulary, parse_peaks

RESULTS = Path(__file__).with_name("results") / "pbmc_fragments.md"
Intervals = tuple[list[str], Any, Any, Any]  # names of chromosomes; (intervals,) codes, starts and ends


def main() -> None:
    """Compare, print and, if asked for, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = "\n".join(
        [
            "# Real fragments in peaks",
            "",
            "`python benchmarks/pbmc_fragments.py --data FOLDER`",
            "",
            *counting_rules(arguments.data / "pbmc10k_tiny"),
            "",
            *genomes(arguments.data),
        ]
    )
    print(text)
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text + "\n")


def counting_rules(folder: Path) -> list[str]:
    """The published counts beside those of each rule and each library."""
    published = anndata.read_h5ad(folder / "atac.epiagent_cCRE.h5ad")
    cells, names = published.obs_names.tolist(), published.var_names.tolist()
    theirs = published.X.tocsr().astype(np.int64)
    vocabulary = PeakVocabulary.from_names(names)
    columns = vocabulary.exact_ids(names) - 4
    counted = {}
    for rule in ("fragment", "insertion"):
        counts = count_fragments(folder / "fragments.tsv.gz", vocabulary, barcodes=cells, counting=rule)
        counted[f"epifoundation, {rule}"] = counts.matrix[:, columns].astype(np.int64)
    counted |= others(folder / "fragments.tsv.gz", vocabulary, names, cells)
    lines = [
        f"## {len(cells):,} cells, {len(names):,} cCREs; published: {theirs.nnz:,} entries, sum {theirs.sum():,}",
        "",
        "| counted by | entries | sum | entries with another value | open here alone | open there alone |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, matrix in counted.items():
        differing = (matrix != theirs).nnz
        here, there = ((matrix > 0) > (theirs > 0)).nnz, ((matrix > 0) < (theirs > 0)).nnz
        lines.append(f"| {name} | {matrix.nnz:,} | {matrix.sum():,} | {differing:,} | {here:,} | {there:,} |")
    return lines


def others(fragments: Path, vocabulary: PeakVocabulary, names: list[str], cells: list[str]) -> dict[str, csr_matrix]:
    """The same by SnapATAC2 and gtars, which counts each line once too."""
    counted = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "cells.txt").write_text("\n".join(cells))
        peaks = parse_peaks(names)
        rows = zip([peaks.chromosomes[code] for code in peaks.codes], peaks.starts, peaks.ends, strict=True)
        (folder / "peaks.bed").write_text("".join(f"{name}\t{start}\t{end}\n" for name, start, end in rows))
        for name, work in (("snapatac2", snapatac2), ("gtars", gtars)):
            if is_installed(name):
                counted[name] = work(str(fragments), folder)()().astype(np.int64)
    return counted


def genomes(data: Path) -> list[str]:
    """How often data lie in peaks and beside them: of hg38, and the same lifted over to hg19."""
    with gzip.open(data / "annot_hg38" / "GRCh38-cCREs.bed.gz", "rt") as file:
        fields = [line.split("\t") for line in file]
    ccres = PeakVocabulary.from_names(f"{a}:{b}-{c.strip()}" for a, b, c, *_ in fields[::4])
    snare = PeakVocabulary.from_anndata(anndata.read_h5ad(data / "snare_cellline4" / "atac.h5ad", backed="r"))
    lift = lifted(data / "annot_hg38" / "hg19ToHg38.over.chain.gz")
    bone_marrow = parse_peaks(anndata.read_h5ad(data / "granja_bmmc_atac" / "atac.hg38lift.h5ad", backed="r").var_names)
    inputs: dict[str, Intervals] = {
        "PBMC fragments (51 loci)": intervals(data / "pbmc10k_tiny" / "fragments.tsv.gz"),
        "muon PBMC fragments": intervals(data / "muon_pbmc_fragments" / "muon_frag.tsv.gz"),
        "bone marrow peaks": (list(bone_marrow.chromosomes), *bone_marrow[1:]),
    }
    lines = [
        "## In peaks and beside them",
        "",
        "| data | peaks | genome | in peaks | beside | ratio | refused |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (chromosomes, codes, starts, ends) in inputs.items():
        old_starts = lift(chromosomes, codes, starts)
        for kind, vocabulary in (("a quarter of the cCREs", ccres), ("SNARE-seq cell lines", snare)):
            for genome, first in (("hg38", starts), ("hg19", old_starts)):
                finder, found = PeakFinder(vocabulary), OverlapByChance()
                known = finder.chromosome_codes(chromosomes)[codes]
                found.add(finder, known[known >= 0], first[known >= 0], (first + ends - starts)[known >= 0], 10**9)
                inside, beside = found.num_inside / found.num_intervals, found.num_beside / found.num_intervals
                row = [name, kind, genome, f"{inside:.1%}", f"{beside:.1%}", f"{inside / beside:.2f}"]
                lines.append(f"| {' | '.join(row)} | {'yes' if found.is_by_chance else 'no'} |")
    return lines


def intervals(path: Path) -> Intervals:
    file = FragmentFile(path)
    batches = list(file)
    columns = (np.concatenate(column) for column in list(zip(*batches, strict=True))[:3])
    return (file.chromosomes, *columns)


def lifted(chain: Path) -> Callable[[list[str], Any, Any], Any]:
    """A function from positions of hg38 to those of hg19, by the chains that keep chromosome and strand."""
    blocks: dict[str, list[tuple[int, int]]] = {}
    with gzip.open(chain, "rt") as file:
        for line in file:
            words = line.split()
            if words[:1] == ["chain"]:
                name, old, new, is_kept = words[7], int(words[5]), int(words[10]), words[2] == words[7]
                is_kept = is_kept and words[9] == "+"
            elif words:
                if is_kept:
                    blocks.setdefault(name, []).append((new, old))
                size, old_gap, new_gap = int(words[0]), *map(int, words[1:] or (0, 0))
                old, new = old + size + old_gap, new + size + new_gap
    tables = {name: np.array(sorted(pairs)) for name, pairs in blocks.items()}

    def lift(chromosomes: list[str], codes: Any, starts: Any) -> Any:
        moved = starts.astype(np.int64)
        for code, name in enumerate(chromosomes):
            rows = np.flatnonzero(codes == code)
            if name in tables:
                block = np.maximum(np.searchsorted(tables[name][:, 0], starts[rows], side="right") - 1, 0)
                moved[rows] += tables[name][block, 1] - tables[name][block, 0]
        return moved

    return lift


if __name__ == "__main__":
    main()
