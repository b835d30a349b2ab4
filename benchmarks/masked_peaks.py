"""Memory and time of one masked-peak step over the vocabulary of the published Atacformer, 890,704 peaks.

    python benchmarks/masked_peaks.py [--threads 2] [--device cuda] [--only VARIANT ...] [--results benchmarks/results]

One step is a forward and a backward pass of `EpiFoundationForMaskedPeaks`, 8 cells of 4,000 tokens, 15 % of the peaks
masked. Each variant runs in a process of its own. Memory is the highest resident set (on a GPU, the highest memory that
was allocated) less what there was with the model and the batch loaded, so it counts the gradients of all weights too.
On Linux glibc keeps freed blocks of up to 32 MiB, by which the resident set exceeds what is in use; all variants but
"blocks kept" have it give them back (MALLOC_MMAP_THRESHOLD_).
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from epifoundation import EpiFoundationConfig, EpiFoundationForMaskedPeaks

NUM_PEAKS, NUM_CELLS, NUM_TOKENS, MASK_RATE = 890_704, 8, 4_000, 0.15
LIMIT = 2 * 2**30
VARIANTS = {
    "single precision, gradient checkpointing": ("checkpointing",),
    "single precision": (),
    "bfloat16 autocast, gradient checkpointing": ("checkpointing", "autocast"),
    "bfloat16 autocast": ("autocast",),
    "single precision, gradient checkpointing, blocks kept": ("checkpointing", "blocks kept"),
}
OF_CPU, OF_GPU = ("blocks kept",), ("autocast",)
RETURNED_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}


def main() -> None:
    """Measure, print a Markdown table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, help="folder for masked_peaks.md and masked_peaks.json")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="variants to run; each takes minutes on a CPU")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant is not None:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(VARIANTS[arguments.variant], arguments.device)))
        return
    left_out = OF_GPU if arguments.device == "cpu" else OF_CPU
    variants = arguments.only or [name for name, options in VARIANTS.items() if not set(options) & set(left_out)]
    results = {name: in_a_fresh_process(name, arguments) for name in variants}
    where = f"{arguments.threads} thread(s) of a CPU" if arguments.device == "cpu" else torch.cuda.get_device_name()
    text = report(results, where, command_line(sys.argv[1:]))
    print(text)
    if arguments.results is not None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        Path(arguments.results, "masked_peaks.md").write_text(text, encoding="utf-8")
        ratios = {
            f"{name}: 2 GiB over memory above the weights": LIMIT / found["above_weights"]
            for name, found in results.items()
        }
        content = {"machine": where, "torch": torch.__version__, "variants": results, "ratios": ratios}
        Path(arguments.results, "masked_peaks.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def in_a_fresh_process(variant: str, arguments: argparse.Namespace) -> dict[str, float]:
    """What `measure` finds in a process that did nothing before."""
    command = [sys.executable, __file__, "--variant", variant, "--threads", str(arguments.threads)]
    environment = os.environ | ({} if "blocks kept" in VARIANTS[variant] else RETURNED_BLOCKS)
    command += ["--device", arguments.device]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def measure(options: tuple[str, ...], device: str) -> dict[str, float]:
    """One step: bytes of weights and gradients, bytes above the weights at the highest, seconds, the loss."""
    torch.manual_seed(0)
    model = EpiFoundationForMaskedPeaks(published_sizes()).to(device).train()
    if "checkpointing" in options:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
    batch = {name: values.to(device) for name, values in masked_batch().items()}
    before = memory_in_use(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    with torch.autocast(device, torch.bfloat16, enabled="autocast" in options):
        loss = model(**batch).loss
    loss.backward()
    highest = highest_memory(device)
    return {
        "weights": sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        "gradients": sum(weight.grad.numel() * weight.grad.element_size() for weight in model.parameters()),
        "above_weights": highest - before,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "loss": loss.item(),
        "labels": int((batch["labels"] >= 0).sum()),
    }


def published_sizes() -> EpiFoundationConfig:
    """The paper's Atacformer; attention without dropout, which on a CPU would leave the fused kernel."""
    return EpiFoundationConfig(
        vocab_size=NUM_PEAKS + 4, additional_vocab_size=3, hidden_size=192, num_hidden_layers=6,
        num_attention_heads=8, intermediate_size=768, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0,
        use_embedding_norms=False, use_input_norm=False, use_final_norm=False, use_cls_token=False,
        use_chromosome_embeddings=False, pooling="mean", max_peaks=8192,
    )  # fmt: skip


def masked_batch() -> dict[str, torch.Tensor]:
    """Cells of peaks drawn at random, some of them masked."""
    rng = np.random.default_rng(0)
    ids = np.stack([np.sort(rng.choice(NUM_PEAKS, NUM_TOKENS, replace=False)) + 4 for _ in range(NUM_CELLS)])
    is_masked = rng.random(ids.shape) < MASK_RATE
    masked, labels = np.where(is_masked, 1, ids), np.where(is_masked, ids, -100)
    return {"input_ids": torch.from_numpy(masked), "labels": torch.from_numpy(labels)}


def memory_in_use(device: str) -> int:
    """Bytes, now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def highest_memory(device: str) -> int:
    """Bytes, at the highest so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def command_line(words: list[str]) -> str:
    """How this run was called, to be repeated."""
    return f"python benchmarks/masked_peaks.py {shlex.join(words)}"


def report(results: dict[str, dict[str, float]], where: str, command: str) -> str:
    """A Markdown page."""
    first = next(iter(results.values()))
    rows = [
        f"| {name} | {result['above_weights'] / 2**20:,.0f} MiB | {result['gradients'] / 2**20:,.0f} MiB "
        f"| {'yes' if result['above_weights'] <= LIMIT else 'no'} | {result['seconds']:.0f} s "
        f"| {result['cpu_seconds']:.0f} s | {result['loss']:.3f} |"
        for name, result in results.items()
    ]
    whole = first["labels"] * (NUM_PEAKS + 7) * 4 / 2**20
    return "\n".join(
        [
            "# One masked-peak step over 890,711 rows\n",
            f"{NUM_CELLS} cells of {NUM_TOKENS:,} tokens, {first['labels']:,.0f} of them masked; 192 wide, 6 layers; "
            f"{where}, torch {torch.__version__}; the weights take {first['weights'] / 2**20:,.0f} MiB.\n",
            "| variant | highest memory above the weights | of it gradients | within 2 GiB | wall | CPU | loss |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            f"\nThe logits of these labels alone, held at once, would take {whole:,.0f} MiB in single precision.\n",
            f"Reproduce: `{command}`\n",
        ]
    )


if __name__ == "__main__":
    main()
