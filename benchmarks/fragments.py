"""Fragments to cells by peaks: time and memory beside parsing alone, SnapATAC2 and gtars, on the same files.

    python benchmarks/fragments.py --data FOLDER [--lines 20000000 100000000] [--repeats 3] [--write]

FOLDER holds pbmc10k_tiny/fragments.tsv.gz (chromatinhd, MIT), muon_pbmc_fragments/muon_frag.tsv.gz (muon, BSD-3) and
annot_hg38/GRCh38-cCREs.bed.gz (ENCODE cCREs); each fragment file is read as often as makes about four million lines.
Further files are made up, one for each of `--lines`: so many fragments of 5,000 cells and 200,000 stray barcodes, 55 %
of them in 300,000 peaks. Methods take turns, each in a process of its own with one thread; seconds and memory of the
work are those after the imports, and the peak memory of the whole process is given too. Every matrix must be the same.
SnapATAC2 and gtars are compared where they are installed, on files of up to 20 million lines: they would need many
minutes and gigabytes for more. How much faster two files are read in two processes than one by one is told beside what
merely unpacking them gains, which is what the machine allows. With --write the tables go to benchmarks/results/.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).with_name("results")
METHODS = ("gunzip", "parse", "epifoundation", "snapatac2", "gtars")
NUM_PEAKS, NUM_CELLS, NUM_STRAYS = 300_000, 5_000, 200_000
LINES_OF_REAL_FILES = 4_000_000
LINES_FOR_PEERS = 20_000_000
PEERS = ("snapatac2", "gtars")


def main() -> None:
    """Measure, print and, if asked for, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lines", type=int, nargs="*", default=[20_000_000, 100_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=METHODS, nargs="*", default=list(METHODS))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=4, metavar=("METHOD", "FRAGMENTS", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(*arguments.child)
        return
    methods = [name for name in arguments.only if is_installed(name)]
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in inputs(arguments.data, arguments.lines).items():
            folder = Path(scratch, name.replace(" ", "_"))
            folder.mkdir()
            num_lines = make(folder)
            save_vocabulary(folder)
            is_small = num_lines <= LINES_FOR_PEERS
            compared = [method for method in methods if is_small or method not in PEERS]
            tables[name] = {"lines": num_lines, "methods": measure(folder, compared, arguments.repeats)}
            pair = [method for method in ("gunzip", "parse", "epifoundation") if method in methods and is_small]
            tables[name]["two files"] = {method: measure_two(method, folder, arguments.repeats) for method in pair}
            shutil.rmtree(folder)
            if arguments.write:  # file by file: the last takes longest
                write(report_of(tables))
    print(markdown(report_of(tables)))


def report_of(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables with the command and the machine they are of."""
    command = " ".join(["python", "benchmarks/fragments.py", *shown(sys.argv[1:])])
    return {"command": command, "environment": environment(), "inputs": tables}


def write(report: dict[str, Any]) -> None:
    """Leave a report as JSON and Markdown."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fragments.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / "fragments.md").write_text(markdown(report) + "\n")


def inputs(data: Path | None, lines: list[int]) -> dict[str, Callable[[Path], int]]:
    """What to measure: functions that write fragments.tsv.gz, peaks.bed, cells.txt and give the number of lines."""
    made_up = {
        f"made up, {number // 1_000_000} million": lambda folder, number=number: make_up(folder, number)
        for number in lines
    }
    if data is None:
        return made_up
    peaks = data / "annot_hg38" / "GRCh38-cCREs.bed.gz"
    files = {
        "PBMC": data / "pbmc10k_tiny" / "fragments.tsv.gz",
        "muon PBMC": data / "muon_pbmc_fragments" / "muon_frag.tsv.gz",
    }
    return {name: lambda folder, path=path: repeat(path, peaks, folder) for name, path in files.items()} | made_up


def save_vocabulary(folder: Path) -> None:
    """The peaks as they lie in a checkpoint."""
    from epifoundation.tokenization import PeakVocabulary

    PeakVocabulary.from_bed(folder / "peaks.bed").save(folder / "peaks.npz")


def repeat(path: Path, peaks: Path, folder: Path) -> int:
    """A real file, end to end with itself: gzip allows that. Wanted are barcodes with 20 fragments or more."""
    with gzip.open(path, "rt") as file:
        barcodes = [line.split("\t")[3] for line in file if not line.startswith("#")]
    times = max(1, LINES_OF_REAL_FILES // len(barcodes))
    with (folder / "fragments.tsv.gz").open("wb") as file:
        file.write(path.read_bytes() * times)
    names, counts = np.unique(barcodes, return_counts=True)
    (folder / "cells.txt").write_text("\n".join(names[counts >= 20]))
    with gzip.open(peaks, "rt") as file:
        lines = ["\t".join(line.split("\t")[:3]).strip() for line in file]
    chosen = np.linspace(0, len(lines) - 1, NUM_PEAKS).astype(int)
    (folder / "peaks.bed").write_text("\n".join(lines[i] for i in chosen) + "\n")
    return len(barcodes) * times


def make_up(folder: Path, num_lines: int) -> int:
    """Fragments sorted by position, as Cell Ranger writes them, made a stripe of the genome at a time."""
    from epifoundation.tokenization import CHROMOSOME_LENGTHS

    rng = np.random.default_rng(0)
    lengths = {name: size for name, size in CHROMOSOME_LENGTHS["hg38"].items() if name != "chrM"}
    letters = np.array(list("ACGT"))[rng.integers(0, 4, (NUM_CELLS + NUM_STRAYS, 16))]
    barcodes = np.unique(["".join(row) + "-1" for row in letters.tolist()])
    rng.shuffle(barcodes)
    (folder / "cells.txt").write_text("\n".join(barcodes[:NUM_CELLS]))
    weights = np.append(np.cumsum(rng.lognormal(0, 0.5, NUM_CELLS)), 0.0)
    share = np.array(list(lengths.values())) / sum(lengths.values())
    total = 0
    with (folder / "peaks.bed").open("w") as bed, (folder / "fragments.tsv.gz").open("wb") as file:
        file.write(gzip.compress(b"# made up\n"))
        for number, (name, size) in enumerate(lengths.items()):
            num_peaks = int(NUM_PEAKS * share[number])
            starts = np.arange(num_peaks) * (size // num_peaks) + rng.integers(0, size // num_peaks - 500, num_peaks)
            bed.writelines(f"{name}\t{start}\t{start + 500}\n" for start in starts.tolist())
            stripes = max(1, int(num_lines * share[number]) // 1_000_000)
            for peaks in np.array_split(starts, stripes):
                count = int(num_lines * share[number]) // stripes
                file.write(stripe(rng, name, size, peaks, count, barcodes, weights[:-1]))
                total += count
    return total


def stripe(
    rng: np.random.Generator, name: str, size: int, peaks: Any, count: int, barcodes: Any, weights: Any
) -> bytes:
    """The compressed lines of a stretch of a chromosome."""
    import pyarrow as pa
    from isal import igzip
    from pyarrow import csv

    popularity = np.cumsum(rng.lognormal(0, 1.2, len(peaks)))
    in_peak = peaks[np.searchsorted(popularity, rng.random(count) * popularity[-1])] + rng.integers(-150, 450, count)
    anywhere = rng.integers(peaks[0], peaks[-1] + 500, count)
    starts = np.where(rng.random(count) < 0.55, in_peak, anywhere)
    ends = starts + rng.choice([60, 200, 380], count, p=[0.6, 0.3, 0.1]) + rng.integers(-35, 60, count)
    starts = np.clip(starts, 0, size - 1000)
    ends = np.maximum(np.minimum(ends, size), starts + 1)
    cells = np.searchsorted(weights, rng.random(count) * weights[-1])
    strays = rng.random(count) < 0.05
    cells[strays] = rng.integers(NUM_CELLS, len(barcodes), int(strays.sum()))
    order = np.argsort(starts, kind="stable")
    columns = [starts[order], ends[order], barcodes[cells[order]], rng.integers(1, 4, count)]
    table = pa.table([pa.array([name] * count), *map(pa.array, columns)], names=list("abcde"))
    sink = pa.BufferOutputStream()
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    csv.write_csv(table, sink, options)
    return igzip.compress(sink.getvalue().to_pybytes(), 2)


def measure(folder: Path, methods: list[str], repeats: int) -> dict[str, Any]:
    """Figures of each method, the median of its runs; asserts that all matrices are the same."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name in methods:
            runs[name].append(child(name, folder))
    compare({name: folder / f"{name}.npz" for name in methods if name not in ("gunzip", "parse")})
    return {
        name: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]} for name, of_one in runs.items()
    }


def compare(files: dict[str, Path]) -> None:
    """Check that all open the same peaks in the same cells, and that ours and SnapATAC2 count the same."""
    import scipy.sparse as sp

    matrices = {name: sp.load_npz(file) for name, file in files.items() if file.exists()}
    reference = matrices.get("epifoundation")
    for name, matrix in matrices.items():
        assert (matrix.astype(bool) != reference.astype(bool)).nnz == 0, f"{name} opens other peaks"
        if name == "snapatac2":
            assert (matrix.astype(np.int64) != reference.astype(np.int64)).nnz == 0, "SnapATAC2 counts otherwise"


def measure_two(method: str, folder: Path, repeats: int) -> dict[str, float]:
    """The same file twice, one after the other and in two processes at once; least seconds of the work."""
    after_each_other, at_once = [], []
    for _ in range(repeats):
        after_each_other.append(sum(child(method, folder)["wall"] for _ in range(2)))
        both = [start(method, folder, f"{i}.npz") for i in range(2)]
        at_once.append(max(figures["wall"] for figures in finished(both)))
    seconds = {"after each other": min(after_each_other), "at once": min(at_once)}
    return {**seconds, "speed-up": seconds["after each other"] / seconds["at once"]}


def child(method: str, folder: Path) -> dict[str, float]:
    """Figures of one run in a process of its own."""
    return finished([start(method, folder, f"{method}.npz")])[0]


def start(method: str, folder: Path, out: str) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--child", method, folder / "fragments.tsv.gz", folder, folder / out]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env={**os.environ, **threads})


def finished(processes: "list[subprocess.Popen[str]]") -> list[dict[str, float]]:
    """Figures of processes, which begin their work together when all have done their imports."""
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    figures = []
    for process in processes:
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        figures.append(json.loads(out.strip().split("\n")[-1]))
    return figures


def run_child(method: str, fragments: str, folder: str, out: str) -> None:
    """Run one method and print its figures as JSON."""
    work = {"gunzip": gunzip, "parse": parse, "epifoundation": ours, "snapatac2": snapatac2, "gtars": gtars}[method]
    prepared = work(fragments, Path(folder))
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu, before = time.perf_counter(), cpu_seconds(), resident("VmRSS")
    matrix = prepared()
    figures = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "memory before": before}
    figures |= {"peak memory": resident("VmHWM"), "cpu with imports": cpu_seconds()}
    if matrix is not None:
        import scipy.sparse as sp

        sp.save_npz(out, matrix(), compressed=False)
    print(json.dumps(figures))


def cpu_seconds() -> float:
    return sum(os.times()[:4])


def resident(key: str) -> float:
    """Memory of this process in MB; VmHWM is its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


# Each method imports what it needs, and gives the work that is measured; that gives the matrix, made afterwards.


def gunzip(fragments: str, folder: Path) -> Callable[[], None]:
    from isal import igzip

    def work() -> None:
        with igzip.open(fragments, "rb") as file:
            while file.read(1 << 22):
                pass

    return work


def parse(fragments: str, folder: Path) -> Callable[[], None]:
    import pyarrow as pa
    from isal import igzip
    from pyarrow import csv

    texts = pa.dictionary(pa.int32(), pa.string())
    types = dict(zip("abcde", [texts, pa.int32(), pa.int32(), texts, pa.int32()], strict=True))

    def work() -> None:
        with igzip.open(fragments, "rb") as file:
            file.readline()
            batches = csv.open_csv(
                file,
                read_options=csv.ReadOptions(column_names=list("abcde"), use_threads=False, block_size=1 << 22),
                parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=csv.ConvertOptions(column_types=types),
            )
            for _ in batches:
                pass

    return work


def ours(fragments: str, folder: Path) -> Callable[[], Callable[[], Any]]:
    import pandas  # noqa: F401  pyarrow would import it within the work

    from epifoundation.dataset_builders.readers.fragment_counts import count_fragments
    from epifoundation.tokenization import PeakVocabulary

    vocabulary = PeakVocabulary.load(folder / "peaks.npz")
    cells = (folder / "cells.txt").read_text().split()

    def work() -> Callable[[], Any]:
        counts = count_fragments(fragments, vocabulary, barcodes=cells, show_progress=False)
        return lambda: counts.matrix[:, vocabulary.exact_ids(peak_names(folder)) - 4]

    return work


def snapatac2(fragments: str, folder: Path) -> Callable[[], Callable[[], Any]]:
    import snapatac2 as snap

    cells = (folder / "cells.txt").read_text().split()

    def work() -> Callable[[], Any]:
        data = snap.pp.import_fragments(
            Path(fragments),
            snap.genome.hg38,
            file=folder / "snap.h5ad",
            min_num_fragments=0,
            sorted_by_barcode=False,
            whitelist=cells,
            n_jobs=1,
            tempdir=folder,
        )
        peaks = snap.pp.make_peak_matrix(data, peak_file=folder / "peaks.bed", counting_strategy="fragment")

        def matrix() -> Any:
            position = {name: i for i, name in enumerate(peaks.var_names)}
            columns = [position[name] for name in peak_names(folder)]
            found = peaks.X[:].tocsr()[:, columns]
            data.close()
            (folder / "snap.h5ad").unlink()
            return in_order(found, list(peaks.obs_names), cells)

        return matrix

    return work


def gtars(fragments: str, folder: Path) -> Callable[[], Callable[[], Any]]:
    import scipy.sparse as sp
    from gtars.tokenizers import Tokenizer, tokenize_fragment_file

    cells = (folder / "cells.txt").read_text().split()

    def work() -> Callable[[], Any]:
        tokenizer = Tokenizer.from_bed(str(folder / "peaks.bed"))
        tokens = tokenize_fragment_file(fragments, tokenizer)

        def matrix() -> Any:
            vocabulary = tokenizer.get_vocab()
            column_of = np.full(max(vocabulary.values()) + 1, -1)
            names = peak_names(folder)
            for column, name in enumerate(names):
                column_of[vocabulary[name]] = column
            rows = [column_of[np.array(tokens.get(cell, []), dtype=np.int64)] for cell in cells]
            found = np.concatenate(rows)
            row_ids = np.repeat(np.arange(len(cells)), [len(row) for row in rows])[found >= 0]
            shape = (len(cells), len(names))
            return sp.csr_matrix((np.ones(len(row_ids), np.int64), (row_ids, found[found >= 0])), shape=shape)

        return matrix

    return work


def peak_names(folder: Path) -> list[str]:
    fields = (line.split("\t") for line in (folder / "peaks.bed").read_text().splitlines())
    return [f"{chromosome}:{start}-{end}" for chromosome, start, end in fields]


def in_order(matrix: Any, names: list[str], cells: list[str]) -> Any:
    """Rows in the order of `cells`, those that are missing empty."""
    import scipy.sparse as sp

    row_of = {name: i for i, name in enumerate(names)}
    padded = sp.vstack([matrix, sp.csr_matrix((1, matrix.shape[1]), dtype=matrix.dtype)]).tocsr()
    return padded[[row_of.get(cell, matrix.shape[0]) for cell in cells]]


def is_installed(method: str) -> bool:
    try:
        return bool(version(method if method in ("snapatac2", "gtars") else "epifoundation"))
    except PackageNotFoundError:
        return False


def environment() -> dict[str, Any]:
    """Versions and machine, without names of the machine or its users."""
    packages = ("epifoundation", "numpy", "pyarrow", "isal", "scipy", "snapatac2", "gtars")
    versions = {name: version(name) for name in packages if name not in ("snapatac2", "gtars") or is_installed(name)}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"python": platform.python_version(), **versions, "cpu": cpu, "cores": os.cpu_count()}


def shown(arguments: list[str]) -> list[str]:
    """The arguments, the folder of the data without its place."""
    return ["FOLDER" if before == "--data" else word for before, word in zip(["", *arguments], arguments, strict=False)]


def markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""
    lines = ["# Fragments to cells by peaks", "", f"`{report['command']}`", ""]
    lines += [", ".join(f"{key} {value}" for key, value in report["environment"].items()) + ".", ""]
    lines += ["Medians of the runs. Seconds without imports if not said otherwise, peak memory with them."]
    for name, table in report["inputs"].items():
        lines += ["", f"## {name}: {table['lines']:,} lines, {NUM_PEAKS:,} peaks", ""]
        lines += ["| method | wall s | CPU s | CPU s, ours = 1 | with imports, CPU s | peak MB | of it imports |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        mine = table["methods"].get("epifoundation", {"cpu": float("nan")})["cpu"]
        for method, run in table["methods"].items():
            cells = [run["wall"], run["cpu"], run["cpu"] / mine, run["cpu with imports"]]
            sizes = [run["peak memory"], run["memory before"]]
            row = [method, *(f"{cell:.2f}" for cell in cells), *(f"{size:,.0f}" for size in sizes)]
            lines.append(f"| {' | '.join(row)} |")
        if two := table.get("two files"):
            gains = ", ".join(f"{method} {seconds['speed-up']:.2f}" for method, seconds in two.items())
            lines += ["", f"Two files in two processes at once, times as fast as one by one: {gains}."]
        if not set(PEERS) & set(table["methods"]) and table["lines"] > LINES_FOR_PEERS:
            lines += ["", "SnapATAC2 and gtars were not run on so many lines."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
