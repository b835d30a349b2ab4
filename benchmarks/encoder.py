"""The encoder at the paper's size: forward and training step, beside a padded encoder of the same weights.

    python benchmarks/encoder.py [--repeats 3] [--curves] [--write]

6 layers, 512 wide, 8 heads, 100,000 peaks, one thread. Two cells of 2,669 and 5,996 tokens; with --curves also a draw
of cells (lognormal, median 4,000, sigma 0.6, at most 12,000), one to eight cells of various lengths, and padding to the
longest. The peers have the same weights and give the same numbers, which is checked:

- "official design": padded to 12,000 as the official loader does, attention among the real tokens of each cell, as
  flash-attention does there;
- "plain, 12,000" and "plain, longest": nn.TransformerEncoder with a mask, padded to 12,000 or to the longest cell.

The floor is the time that the matrix products and the attention calls of our design take by themselves.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import leave_results, measured, report_figures, shown_spread, table, take_turns
from torch import Tensor, nn

from epifoundation import EpiFoundationConfig, EpiFoundationModel

NUM_PEAKS, MAX_TOKENS = 100_000, 12_000
PAIR = (2_669, 5_996)
CURVE = ((500, 1), (1_000, 1), (2_000, 1), (4_000, 1), (8_000, 1), (1_000, 2), (1_000, 4), (1_000, 8))
OURS, OFFICIAL = "ours", "official design"
PEERS = (OFFICIAL, "plain, longest", "plain, 12,000")


def main() -> None:
    """Measure, print and, if asked for, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--draw", type=int, default=8, help="cells of the lognormal draw")
    parser.add_argument("--curves", action="store_true", help="the draw and further lengths too")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.answers)
        return
    with tempfile.TemporaryDirectory() as answers:
        runs = measure(arguments.repeats, arguments.draw if arguments.curves else 0, answers)
        refuse_different(Path(answers))
    report(runs, arguments.write)


def measure(repeats: int, num_drawn: int, answers: str) -> dict:
    """Figures of all cases; what takes minutes runs once. `num_drawn` of 0 leaves the draw and the curves out."""
    pair = "+".join(map(str, PAIR))
    often = [f"{mode}/{name}/{pair}" for mode in ("forward", "train") for name in ("floor", OURS, OFFICIAL)]
    once = [f"forward/{PEERS[2]}/{pair}"]
    if num_drawn:
        once += [f"{mode}/{PEERS[1]}/{pair}" for mode in ("forward", "train")] + [f"forward/ours, all tokens/{pair}"]
        drawn = "+".join(map(str, lognormal(num_drawn)))
        once += [f"forward/{name}/{drawn}" for name in ("floor", OURS, OFFICIAL)]
        curve = ["+".join([str(length)] * count) for length, count in CURVE]
        once += [f"forward/{name}/{lengths}" for lengths in curve for name in ("floor", OURS)]
        once += [f"forward/{OFFICIAL}/{length}" for length in (500, 2_000, 8_000)]
    words = ("--answers", answers)
    return take_turns(__file__, often, repeats, *words) | take_turns(__file__, once, 1, *words)


def lognormal(num_cells: int) -> list[int]:
    """Lengths of cells as in the paper's data, by a fixed seed."""
    drawn = np.random.default_rng(0).lognormal(np.log(4_000), 0.6, num_cells)
    return np.minimum(drawn, MAX_TOKENS).astype(int).tolist()


def run_child(case: str, answers: Path) -> None:
    """Run "mode/name/lengths" once and leave its answer as a file."""
    mode, name, joined = case.split("/")
    lengths = [int(word) for word in joined.split("+")]
    is_train = mode == "train"
    if name == "floor":
        work = floor_of(lengths, is_train)
        warm_up = floor_of([64], is_train)
    else:
        encode = encoder(name)
        work, warm_up = step(encode, cells(lengths), is_train), step(encode, cells([64, 32]), is_train)
    warm_up()
    figures, answer = measured(work)
    if answer is not None:
        np.save(answers / f"{mode}-{joined[:40]}-{name.replace(' ', '_')}.npy", answer)
    report_figures(figures)


def model() -> EpiFoundationModel:
    """The encoder, the same each time; BatchNorm keeps its statistics, which padding would change for the peers."""
    torch.manual_seed(0)
    config = EpiFoundationConfig(
        vocab_size=NUM_PEAKS + 4, num_chromosomes=28, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    made = EpiFoundationModel(config).eval()
    made.get_input_embeddings().requires_grad_(False)  # the tables are the subject of train_memory.py
    return made


def cells(lengths: list[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Packed ids and chromosomes, and lengths."""
    generator = torch.Generator().manual_seed(len(lengths))
    ids = torch.randint(4, NUM_PEAKS + 4, (sum(lengths),), generator=generator)
    ids[np.cumsum([0, *lengths[:-1]])] = 2
    return ids, ids % 24 + 4, lengths


Encode = Callable[[Tensor, Tensor, list[int]], Tensor]


def step(encode: Encode, batch: tuple[Tensor, Tensor, list[int]], is_train: bool) -> Callable[[], np.ndarray]:
    """Cell embeddings of a batch; in training also the gradients of a loss."""

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return encode(*batch).numpy()

    def train() -> np.ndarray:
        embeddings = encode(*batch)
        (embeddings - 1).square().mean().backward()
        return embeddings.detach().numpy()

    return train if is_train else forward


def encoder(name: str) -> Encode:
    """One of the ways to compute the same cell embeddings."""
    ours = model()
    if name.startswith(OURS):
        only = name == OURS

        def packed(ids: Tensor, chromosome_ids: Tensor, lengths: list[int]) -> Tensor:
            bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
            out = ours(ids[None], chromosome_ids[None], cu_seq_lens_q=bounds, cell_embeddings_only=only)
            return out.pooler_output

        return packed
    peer = official_design if name == OFFICIAL else plain
    layers = padded_layers(ours)

    def padded(ids: Tensor, chromosome_ids: Tensor, lengths: list[int]) -> Tensor:
        longest = max(lengths) if name == "plain, longest" else MAX_TOKENS
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


def floor_of(lengths: list[int], is_train: bool) -> Callable[[], None]:
    """The matrix products and attention calls of our design alone: five layers in full, one for [CLS]."""
    tokens = sum(lengths)
    x, wide = torch.randn(tokens, 512), torch.randn(tokens, 1_024)
    shapes = ((x, 1_536), (x, 512), (x, 1_024), (wide, 512))
    weights = [torch.randn(rows, inputs.shape[1], requires_grad=is_train) for inputs, rows in shapes]
    last = torch.randn(1_024, 512, requires_grad=is_train)
    for tensor in (x, wide):
        tensor.requires_grad_(is_train)
    heads = [torch.randn(1, 8, length, 64, requires_grad=is_train) for length in lengths]

    def work() -> None:
        with torch.set_grad_enabled(is_train):
            for _ in range(5):
                products = [F.linear(inputs, w) for (inputs, _), w in zip(shapes, weights, strict=True)]
                products += [F.scaled_dot_product_attention(head, head, head) for head in heads]
                finish(products, is_train)
            finish([F.linear(x, last)], is_train)

    return work


def finish(products: list[Tensor], is_train: bool) -> None:
    if is_train:
        torch.autograd.backward(products, [torch.ones_like(product) for product in products])


def refuse_different(answers: Path) -> None:
    """Check that all ways give the same cell embeddings."""
    first: dict[str, np.ndarray] = {}
    for file in sorted(answers.iterdir()):
        cells_of_file = file.name.rsplit("-", 1)[0]
        answer = np.load(file)
        np.testing.assert_allclose(answer, first.setdefault(cells_of_file, answer), atol=1e-4, err_msg=file.name)


def report(runs: dict, write: bool) -> None:
    """The tables."""
    ratios = {}
    lines = ["One thread. CPU seconds, median (lowest to highest); memory is what the step adds to the process.", ""]
    rows = []
    for case, figures in runs.items():
        mode, name, lengths = case.split("/")
        mine, floor = (runs[f"{mode}/{other}/{lengths}"] for other in (OURS, "floor"))
        times = figures["cpu"]["median"] / mine["cpu"]["median"]
        share = figures["memory"]["median"] / max(mine["memory"]["median"], 1.0)
        if name in PEERS:
            ratios |= {f"{mode}, {name}, {lengths}: time": times, f"{mode}, {name}, {lengths}: memory": share}
        if name == OURS:
            ratios[f"{mode}, {lengths}: share of the floor"] = floor["cpu"]["median"] / figures["cpu"]["median"]
        cpu, size = shown_spread(figures["cpu"]), figures["memory"]["median"]
        rows.append((mode, lengths.replace("+", " + "), name, cpu, figures["wall"]["median"], times, size, share))
    header = ("step", "tokens", "encoder", "CPU s", "wall s", "time, ours = 1", "added MB", "memory, ours = 1")
    lines += table(header, rows)
    lines += ["", "Times better than the peer, and the share of the floor reached:", ""]
    lines += table(("", ""), ratios.items())
    leave_results("encoder", "The encoder", {"runs": runs, "ratios": ratios}, lines, write)


if __name__ == "__main__":
    main()
