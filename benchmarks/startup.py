"""How long it takes until the work begins: importing, ``--help``, a bad path, vocabulary and checkpoint.

    python benchmarks/startup.py [--repeats 3] [--write]

Checkpoints of the paper's encoder with 100,000 and 1,000,000 peaks (0.25 and 2.1 GB) are made for it. Each run is a
process of its own; files are in the page cache, as after a first use. `import torch, transformers` stands for what
every model of Transformers pays: the tokenizer's and the model's base classes are imported, not the names alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import leave_results, measured, memory, report_figures, shown_spread, table, take_turns

SIZES = (100_000, 1_000_000)
PEERS = "from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments"


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        figures, _ = measured(work_of(arguments.child, arguments.folder))
        report_figures(figures | {"peak": memory("VmHWM")})
        return
    cases = ["nothing", "import torch", "import transformers", "import epifoundation", "--help", "embed --help"]
    cases += ["bad input"]
    cases += [f"{what} {size}" for size in SIZES for what in ("tokenizer", "checkpoint")]
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            make_checkpoint(Path(folder, str(size)), size)
        runs = take_turns(__file__, cases, arguments.repeats, "--folder", folder)
    report(runs, arguments.write)


def make_checkpoint(folder: Path, num_peaks: int) -> None:
    """A checkpoint of untrained weights with disjoint peaks."""
    import numpy as np

    from epifoundation import EpiFoundationConfig, EpiFoundationModel, PeakTokenizer
    from epifoundation.tokenization import PeakVocabulary

    starts = np.arange(num_peaks) // 24 * 2_500
    names = [f"chr{1 + i % 24}:{start}-{start + 500}" for i, start in enumerate(starts.tolist())]
    PeakTokenizer(PeakVocabulary.from_names(names, genome="made up")).save_pretrained(folder)
    config = EpiFoundationConfig(vocab_size=num_peaks + 4, num_chromosomes=28)
    EpiFoundationModel(config).save_pretrained(folder)


def work_of(case: str, folder: Path) -> Callable[[], object]:
    """What is measured: a Python of its own for imports and commands, a call for loading."""
    import os

    command = [sys.executable, "-m", "epifoundation_cli"]
    programs = {
        "nothing": [sys.executable, "-c", ""],
        "import torch": [sys.executable, "-c", "import torch"],
        "import transformers": [sys.executable, "-c", f"import torch\n{PEERS}"],
        "import epifoundation": [sys.executable, "-c", f"import torch\n{PEERS}\nimport epifoundation"],
        "--help": [*command, "--help"],
        "embed --help": [*command, "embed", "--help"],
        "bad input": [*command, "embed", "missing.h5ad", "--model", str(folder), "-o", str(folder / "out.h5ad")],
    }
    if case in programs:
        return lambda: timed_program(programs[case], os.devnull)
    what, size = case.split()
    from epifoundation.inference import load_model_and_tokenizer, load_tokenizer

    load = load_tokenizer if what == "tokenizer" else load_model_and_tokenizer
    return lambda: load(folder / size)


def timed_program(command: list[str], nowhere: str) -> float:
    with Path(nowhere).open("w") as out:
        started = time.perf_counter()
        subprocess.run(command, stdout=out, stderr=out, check=False)
        return time.perf_counter() - started


def report(runs: dict, write: bool) -> None:
    """The table."""
    rows = [
        (
            case,
            shown_spread(figures["cpu"]),
            shown_spread(figures["wall"]),
            figures["peak"]["median"] if "0" in case else "",
        )
        for case, figures in runs.items()
    ]
    lines = ["Median (lowest to highest). On a busy machine only the CPU seconds mean something.", ""]
    lines += table(("step", "CPU s", "wall s", "MB of the process at its peak"), rows)
    of_peers, ours = (runs[f"import {name}"]["cpu"]["median"] for name in ("transformers", "epifoundation"))
    lines += ["", f"`import epifoundation` adds {ours - of_peers:.2f} CPU s to torch and transformers."]
    ratios = {"import, transformers over ours": of_peers / ours}
    torch_alone, help_ = (runs[name]["cpu"]["median"] for name in ("import torch", "--help"))
    ratios["--help, import of torch over ours"] = torch_alone / help_
    leave_results("startup", "Start", {"runs": runs, "ratios": ratios}, lines, write)


if __name__ == "__main__":
    main()
