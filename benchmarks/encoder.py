"""The encoder at the paper's size: forward and training step, beside a padded encoder of the same weights.

    python benchmarks/encoder.py [--repeats 2] [--curves] [--write]
    python benchmarks/encoder.py --device cuda --curves --write

6 layers, 512 wide, 8 heads, 100,000 peaks; one thread and single precision on a CPU, bfloat16 on a GPU. Two cells of
2,669 and 5,996 tokens (--tokens); with --curves also a draw of cells (lognormal, median 4,000, sigma 0.6, at most
12,000) and cells of various lengths. The peers have the same weights and give the same numbers, which is checked:

- "plain, 12,000" and "plain, longest": nn.TransformerEncoder with a mask, padded to 12,000 as the official loader does,
  or to the longest cell;
- "official design": padded to 12,000, but attention among the real tokens of each cell alone, as flash-attention does
  there.

The floor is the time that the matrix products and the attention calls of a design take by themselves. No code without
fewer operations or a faster product gets below it; the two floors of "ours" and of the "official design" thus bound how
many times faster the one can be than the other.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch import Tensor, nn

from epifoundation import EpiFoundationConfig, EpiFoundationModel

NUM_PEAKS, MAX_TOKENS, WIDTH, WIDE = 100_000, 12_000, 512, 1_024
NUM_LAYERS, NUM_HEADS = 6, 8
PAIR = (2_669, 5_996)
CURVE = (500, 1_000, 2_000, 4_000)
OURS, OFFICIAL = "ours", "official design"
PEERS = (OFFICIAL, "plain, longest", "plain, 12,000")
Cells = tuple[Tensor, Tensor, list[int], int]
Encode = Callable[[Tensor, Tensor, list[int], int], Tensor]
FLOOR, OFFICIAL_FLOOR, RATES = "floor", "floor of the official design", "rates"


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=PAIR, help="of the cells")
    parser.add_argument("--forward-only", action="store_true", help="no training step, which takes two minutes")
    parser.add_argument("--curves", action="store_true", help="a draw of cells and further lengths too")
    parser.add_argument("--draw", type=int, default=4, help="cells of the draw")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", help="by default float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    if arguments.child:
        torch.set_default_device(arguments.device)
        torch.set_default_dtype(getattr(torch, arguments.dtype))
        run_child(arguments.child, arguments.answers)
        return
    with tempfile.TemporaryDirectory() as answers:
        runs = measure(arguments, answers)
        refuse_different(Path(answers), 1e-4 if arguments.dtype == "float32" else 0.2)
    report(runs, arguments)


def measure(arguments: argparse.Namespace, answers: str) -> dict:
    """Figures of all cases; on a CPU what takes minutes runs once."""
    cells = "+".join(map(str, arguments.tokens))
    often = [f"forward/{name}/{cells}" for name in (FLOOR, OURS, OFFICIAL)]
    once = [f"{RATES}/-/{cells}", *(f"forward/{name}/{cells}" for name in (OFFICIAL_FLOOR, *PEERS[1:]))]
    if not arguments.forward_only:
        once += [f"train/{name}/{cells}" for name in (OURS, OFFICIAL, FLOOR)]
    if arguments.curves:
        drawn = "+".join(map(str, lognormal(arguments.draw)))
        once += [f"forward/{name}/{drawn}" for name in (FLOOR, OURS, OFFICIAL)]
        once += [f"forward/{name}/{length}" for length in CURVE for name in (FLOOR, OURS)]
    words = ("--answers", answers, "--device", arguments.device, "--dtype", arguments.dtype)
    repeats_of_long = 1 if arguments.device == "cpu" else arguments.repeats
    return take_turns(__file__, often, arguments.repeats, *words) | take_turns(__file__, once, repeats_of_long, *words)


def lognormal(num_cells: int) -> list[int]:
    """Lengths of cells as in the paper's data, by a fixed seed."""
    drawn = np.random.default_rng(0).lognormal(np.log(4_000), 0.6, num_cells)
    return np.minimum(drawn, MAX_TOKENS).astype(int).tolist()


def run_child(case: str, answers: Path) -> None:
    """Run "mode/name/lengths" once and leave its answer as a file."""
    mode, name, joined = case.split("/")
    if mode == RATES:
        report_figures(rates())
        return
    lengths, is_train = [int(word) for word in joined.split("+")], mode == "train"
    if name in (FLOOR, OFFICIAL_FLOOR):
        work, warm_up = (floor_of(cells, is_train, name == OFFICIAL_FLOOR) for cells in (lengths, [64]))
    else:
        encode = encoder(name)
        work, warm_up = (step(encode, batch, is_train) for batch in (cells(lengths), cells([64, 32], 64)))
    warm_up()
    if not is_on_cpu():
        work()  # a GPU chooses its kernels by shape, when it first sees them
    figures, answer = measured_on_device(work)
    if answer is not None:
        np.save(answers / f"{mode}-{joined[:40]}-{name.replace(' ', '_')}.npy", answer.float().cpu().numpy())
    report_figures(figures)


def is_on_cpu() -> bool:
    """Whether the work is done by the processor that Python runs on."""
    return torch.get_default_device().type == "cpu"


def measured_on_device(work: Callable[[], Tensor | None]) -> tuple[dict[str, float], Tensor | None]:
    """As `measured`; on a GPU the memory is that of the GPU, and the wall time ends when its work has ended."""
    if is_on_cpu():
        return measured(work)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def to_the_end() -> Tensor | None:
        answer = work()
        torch.cuda.synchronize()
        return answer

    figures, answer = measured(to_the_end)
    return figures | {"memory": (torch.cuda.max_memory_allocated() - before) / 1e6}, answer


def rates() -> dict[str, float]:
    """Operations and bytes a second (billions) of one large product and one large copy."""
    a = torch.randn(2_048, 2_048) if is_on_cpu() else torch.randn(8_192, 8_192)
    large = torch.empty(2**26 if is_on_cpu() else 2**31, dtype=torch.uint8)
    found = {}
    for name, work, amount in (
        ("billion operations/s", lambda: a @ a, 2 * len(a) ** 3),
        ("GB/s", large.clone, 2 * len(large)),
    ):
        work()
        seconds = min(measured_on_device(work)[0]["cpu" if is_on_cpu() else "wall"] for _ in range(5))
        found[name] = amount / seconds / 1e9
    return found


def operations(lengths: list[int], is_train: bool) -> float:
    """Multiplications and additions of our design; backward takes twice those of forward, in attention 2.5 times."""
    full = NUM_LAYERS - 1
    products = 2 * sum(lengths) * WIDTH * (full * (4 * WIDTH + 2 * WIDE) + 2 * WIDTH)
    attention = 4 * WIDTH * full * sum(length**2 for length in lengths)
    return products * 3 + attention * 3.5 if is_train else float(products + attention)


def traffic(lengths: list[int], bytes_of_number: int) -> float:
    """Bytes that forward must read and write at least: weights once, input and output of each product and norm."""
    per_token = 2 * WIDTH + 6 * WIDTH + 2 * WIDTH + 2 * (WIDTH + WIDE) + 2 * 3 * WIDTH  # qkv, attention, out, up, norms
    weights = NUM_LAYERS * WIDTH * (4 * WIDTH + 2 * WIDE)
    return bytes_of_number * float(weights + (NUM_LAYERS - 1) * per_token * sum(lengths))


def model() -> EpiFoundationModel:
    """The encoder, the same each time; BatchNorm keeps its statistics, which padding would change for the peers."""
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        vocab_size=NUM_PEAKS + 4, num_chromosomes=28, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    made = EpiFoundationModel(config).eval()
    made.get_input_embeddings().requires_grad_(False)  # the tables are the subject of train_memory.py
    return made


def cells(lengths: list[int], padded_to: int = MAX_TOKENS) -> Cells:
    """Packed ids and chromosomes, lengths, and the length that the official loader pads to."""
    rng = np.random.default_rng(len(lengths))
    ids = torch.tensor(rng.integers(4, NUM_PEAKS + 4, sum(lengths)))
    ids[np.cumsum([0, *lengths[:-1]])] = 2
    return ids, ids % 24 + 4, lengths, padded_to


def step(encode: Encode, batch: Cells, is_train: bool) -> Callable[[], Tensor]:
    """Cell embeddings of a batch; in training also the gradients of a loss."""

    def forward() -> Tensor:
        with torch.inference_mode():
            return encode(*batch)

    def train() -> Tensor:
        embeddings = encode(*batch)
        (embeddings - 1).square().mean().backward()
        return embeddings.detach()

    return train if is_train else forward


def encoder(name: str) -> Encode:
    """One of the ways to compute the same cell embeddings."""
    ours = model()
    if name.startswith(OURS):
        only = name == OURS

        def packed(ids: Tensor, chromosome_ids: Tensor, lengths: list[int], padded_to: int) -> Tensor:
            bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
            out = ours(ids[None], chromosome_ids[None], cu_seq_lens_q=bounds, cell_embeddings_only=only)
            return out.pooler_output

        return packed
    peer = official_design if name == OFFICIAL else plain
    layers = padded_layers(ours)

    def padded(ids: Tensor, chromosome_ids: Tensor, lengths: list[int], padded_to: int) -> Tensor:
        longest = max(lengths) if name == "plain, longest" else padded_to
        batch = torch.zeros(2, len(lengths), longest, dtype=torch.long)
        for row, (own, of_chromosomes) in enumerate(
            zip(ids.split(lengths), chromosome_ids.split(lengths), strict=True)
        ):
            batch[0, row, : len(own)], batch[1, row, : len(own)] = own, of_chromosomes
        x = ours.peak_embeddings(batch[0]) + ours.chromosome_embeddings(batch[1])
        x = ours.input_norm(x.transpose(1, 2)).transpose(1, 2)
        return ours.norm(peer(layers, x, batch[0] == 0, lengths)[:, 0])

    return padded


def padded_layers(ours: EpiFoundationModel) -> nn.TransformerEncoder:
    """Torch's own encoder with the weights of ours."""
    config = ours.config
    sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size)
    layer = nn.TransformerEncoderLayer(*sizes, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False).eval()
    for theirs, mine in zip(encoder.layers, ours.layers, strict=True):
        theirs.self_attn.in_proj_weight, theirs.self_attn.in_proj_bias = mine.attention.qkv_proj.parameters()
        theirs.self_attn.out_proj = mine.attention.o_proj
        theirs.linear1, theirs.linear2 = mine.up_proj, mine.down_proj
        theirs.norm1, theirs.norm2 = mine.attention_norm, mine.feed_forward_norm
    return encoder


def plain(layers: nn.TransformerEncoder, x: Tensor, is_padding: Tensor, lengths: list[int]) -> Tensor:
    """nn.TransformerEncoder with a mask; its fast path would make a table of length², which fits no memory here."""
    torch.backends.mha.set_fastpath_enabled(False)
    return layers(x, src_key_padding_mask=is_padding)


def official_design(layers: nn.TransformerEncoder, x: Tensor, is_padding: Tensor, lengths: list[int]) -> Tensor:
    """Everything on padded rows but attention, which is given the real tokens of each cell."""
    for layer in layers.layers:
        attention = layer.self_attn
        qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).unflatten(-1, (3, attention.num_heads, -1))
        context = [
            F.pad(
                F.scaled_dot_product_attention(*cell[:length].permute(1, 2, 0, 3).unsqueeze(1)).permute(0, 2, 1, 3)[0],
                (0, 0, 0, 0, 0, len(cell) - length),
            )
            for cell, length in zip(qkv, lengths, strict=True)
        ]
        x = layer.norm1(x + attention.out_proj(torch.stack(context).flatten(2)))
        x = layer.norm2(x + layer.linear2(F.relu(layer.linear1(x))))
    return x


def floor_of(lengths: list[int], is_train: bool, is_official: bool = False) -> Callable[[], None]:
    """The products and attention calls alone of our design (five layers, one for [CLS]) or of the official one."""
    tokens = MAX_TOKENS * len(lengths) if is_official else sum(lengths)
    x, wide = torch.randn(tokens, WIDTH), torch.randn(tokens, WIDE)
    shapes = ((x, 3 * WIDTH), (x, WIDTH), (x, WIDE), (wide, WIDTH))
    weights = [torch.randn(rows, inputs.shape[1], requires_grad=is_train) for inputs, rows in shapes]
    last = torch.randn(2 * WIDTH, WIDTH, requires_grad=is_train)
    for tensor in (x, wide):
        tensor.requires_grad_(is_train)
    sizes = (1, NUM_HEADS, WIDTH // NUM_HEADS)
    heads = [torch.randn(sizes[0], sizes[1], length, sizes[2], requires_grad=is_train) for length in lengths]

    def work() -> None:
        with torch.set_grad_enabled(is_train):
            for _ in range(NUM_LAYERS if is_official else NUM_LAYERS - 1):
                products = [F.linear(inputs, w) for (inputs, _), w in zip(shapes, weights, strict=True)]
                products += [F.scaled_dot_product_attention(head, head, head) for head in heads]
                finish(products, is_train)
            if not is_official:
                finish([F.linear(x, last)], is_train)

    return work


def finish(products: list[Tensor], is_train: bool) -> None:
    if is_train:
        torch.autograd.backward(products, [torch.ones_like(product) for product in products])


def refuse_different(answers: Path, tolerance: float) -> None:
    """Check that all ways give the same cell embeddings."""
    first: dict[str, np.ndarray] = {}
    for file in sorted(answers.iterdir()):
        cells_of_file = file.name.rsplit("-", 1)[0]
        answer = np.load(file)
        np.testing.assert_allclose(answer, first.setdefault(cells_of_file, answer), atol=tolerance, err_msg=file.name)


def report(runs: dict, arguments: argparse.Namespace) -> None:
    """The tables."""
    is_cpu = arguments.device == "cpu"
    time = "cpu" if is_cpu else "wall"
    pair = "+".join(map(str, arguments.tokens))
    speeds = {name: figures["median"] for name, figures in runs.pop(f"{RATES}/-/{pair}").items()}
    most = speeds["billion operations/s"]
    ratios, rows = {}, []
    for case, figures in runs.items():
        mode, name, lengths = case.split("/")
        mine, floor = (runs[f"{mode}/{other}/{lengths}"] for other in (OURS, FLOOR))
        times = figures[time]["median"] / mine[time]["median"]
        share = figures["memory"]["median"] / max(mine["memory"]["median"], 1.0)
        if name in PEERS:
            ratios |= {f"{mode}, {name}, {lengths}: time": times, f"{mode}, {name}, {lengths}: memory": share}
        if name == OURS:
            ratios[f"{mode}, {lengths}: share of the floor"] = floor[time]["median"] / figures[time]["median"]
            done = operations([int(word) for word in lengths.split("+")], mode == "train")
            rate = done / mine[time]["median"] / 1e9
            ratios[f"{mode}, {lengths}: operations/s, share of a large product's"] = rate / most
        shown = shown_spread(figures[time]), figures["wall"]["median"], times, figures["memory"]["median"], share
        rows.append((mode, lengths.replace("+", " + "), name, *shown))
    bound = runs[f"forward/{OFFICIAL_FLOOR}/{pair}"][time]["median"] / runs[f"forward/{FLOOR}/{pair}"][time]["median"]
    lines = [*floors_in_words(arguments, speeds), ""]
    lines += ["Times are the median (lowest to highest), memory is what the step adds.", ""]
    header = ("step", "tokens", "encoder", f"{'CPU ' if is_cpu else ''}s", "wall s", "time, ours = 1", "added MB")
    lines += table((*header, "memory, ours = 1"), rows)
    lines += [
        "",
        f"The official design's products and attention alone take {bound:.2f} times those of ours, forward. Nothing "
        "can be ahead of it by much more: attention among the real tokens, the larger part of the work, is the same in "
        "both, but for the last layer, where we need that of [CLS] alone.",
        "",
    ]
    lines += ["Times better than the peer, and the share of the floor reached:", "", *table(("", ""), ratios.items())]
    name = "encoder" if is_cpu else f"encoder_{arguments.device}"
    content = {"runs": runs, "rates": speeds, "floor over floor": bound, "ratios": ratios}
    title = "The encoder" if is_cpu else f"The encoder on {torch.cuda.get_device_name()}"
    words = "".join(word + " " for word in sys.argv[1:] if word != "--write") + "--write"
    leave_results(name, title, content, lines, arguments.write, script="encoder", words=words)


def floors_in_words(arguments: argparse.Namespace, speeds: dict[str, float]) -> list[str]:
    """The two floors of a forward pass, counted: operations and bytes."""
    done = operations(arguments.tokens, is_train=False) / 1e9
    moved = traffic(arguments.tokens, 4 if arguments.dtype == "float32" else 2) / 1e9
    products, copies = (speeds[name] for name in ("billion operations/s", "GB/s"))
    return [
        f"{arguments.dtype}{', one thread' if arguments.device == 'cpu' else ''}. Forward of "
        f"{' + '.join(map(str, arguments.tokens))} tokens takes {done:,.0f} billion operations and moves at least "
        f"{moved:.1f} GB. At the rate of one large product, {products:,.0f} billion operations/s, that is "
        f"{done / products:.3g} s; at that of a large copy, {copies:,.0f} GB/s, it is {moved / copies:.3g} s: "
        f"{'operations' if done / products > moved / copies else 'bytes'} are the limit.",
    ]


if __name__ == "__main__":
    main()
