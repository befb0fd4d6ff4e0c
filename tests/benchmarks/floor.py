"""The distance to the floor: what a step of GSAU (rec) must compute and move, and how long each part takes alone.

    DGLREC_DATA=FOLDER python tests/benchmarks/floor.py [--threads 2] [--repeats 20]

First the machine's own speeds are measured: multiply-adds of a large matrix product, copied bytes, exponentials. Then,
on one real batch of Amazon Beauty, each part of a step runs alone, forward and backward. Beside its time stand the
operations and bytes that no form of it can do without, and the floor: the time of those operations plus exponentials,
or that of those bytes, whichever is longer, at the machine's measured speeds. The count is kind to the hardware: every
array moves once, what is made and used within a part stays in the cache, and padding, index arithmetic, random numbers
and dispatch are free. Results go to `floor.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
FLOAT, INDEX = 4, 8  # bytes


@dataclass(frozen=True)
class Cost:
    """What a part cannot do without, forward and backward together.

    Attributes:
        operations: additions and multiplications.
        moved_bytes: each array that enters or leaves the part, once.
        exponentials: of softmax, uniformity and GELU.
        gathered_bytes: rows read by index, where they do not stay in a cache (not part of the floor).
    """

    operations: float
    moved_bytes: float
    exponentials: float = 0.0
    gathered_bytes: float = 0.0


@dataclass(frozen=True)
class Speeds:
    """What the machine reaches, a second."""

    operations: float
    copied_bytes: float
    exponentials: float

    def best(self, other: Speeds) -> Speeds:
        """The faster of two measurements."""
        return Speeds(*(max(pair) for pair in zip(astuple(self), astuple(other), strict=True)))

    def floor(self, cost: Cost) -> float:
        """Seconds."""
        arithmetic = cost.operations / self.operations + cost.exponentials / self.exponentials
        return max(arithmetic, cost.moved_bytes / self.copied_bytes)


def propagation(nodes: int, edges: int, dim: int, layers: int) -> Cost:
    """Both directions of `layers` propagations and the mean of the layers; the backward pass is as much again.

    A layer reads and writes all rows once, adds a row an edge and direction, and scales each row twice. The
    columns of both CSR forms are read in each layer; a sum over layers is read and written.
    """
    rows = nodes * dim
    operations = layers * (2 * edges * dim + 3 * rows) + rows
    moved = layers * (4 * rows * FLOAT + (2 * edges + nodes) * INDEX)
    return Cost(2 * operations, 2 * moved, gathered_bytes=2 * layers * 2 * edges * dim * FLOAT)


def transformer(lengths: np.ndarray, dim: int, inner: int, heads: int, layers: int) -> Cost:
    """A causal transformer over packed sequences of which the last position alone is wanted.

    All blocks but the last compute every position, over the lower triangle of the attention; the last block needs keys
    and values of every position, and the rest for one position a sequence. The backward pass of a product is two
    products. What it needs is written once and read once: input, query, key, value, weights, mixture, two
    norms' inputs and outputs, the feed-forward layer's input to GELU. Rows of the item table are read, and their
    gradients written, once a position.
    """
    tokens, rows = float(lengths.sum()), float(len(lengths))
    triangle = float((lengths * (lengths + 1) / 2).sum())

    def block(queries: float, pairs: float) -> tuple[float, float, float]:
        products = 2 * (2 * dim * dim * tokens + (2 * dim * dim + 2 * dim * inner) * queries) + 4 * dim * pairs
        kept = 3 * dim * tokens + (6 * dim + inner) * queries + heads * pairs
        return 3 * products, 2 * kept * FLOAT, heads * pairs + inner * queries  # GELU's erf counts as an exponential

    blocks = [block(tokens, triangle)] * (layers - 1) + [block(rows, tokens)]
    operations, moved, exponentials = (sum(values) for values in zip(*blocks, strict=True))
    rows_of_table = 2 * tokens * (dim * FLOAT + INDEX)
    return Cost(operations, moved + rows_of_table, exponentials, gathered_bytes=2 * tokens * dim * FLOAT)


def cross_entropy(batch: int, items: int, dim: int) -> Cost:
    """Logits, and the gradients of both sides: three matrix products and one exponential a logit."""
    moved = (3 * items + 3 * batch) * dim * FLOAT  # the table twice and its gradient, the queries likewise
    return Cost(6.0 * batch * items * dim, moved, float(batch * items))


def spreading(batch: int, dim: int) -> Cost:
    """Two alignments and four uniformities of a batch, as similarities of half of the pairs each."""
    pairs = batch * (batch - 1) / 2
    return Cost(4 * 3 * 2 * pairs * dim, 2 * 5 * batch * dim * FLOAT, 4 * pairs)


def adam(parameters: int) -> Cost:
    """Weights and both moments are read and written, gradients are read."""
    return Cost(12.0 * parameters, 7.0 * parameters * FLOAT)


def measure(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of `work`, after two runs that are not counted."""
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def speeds(repeats: int) -> Speeds:
    """The fastest that this machine does each of the three, with the current number of threads."""

    def best(work: Callable[[], object]) -> float:
        return min(measure(work, 1) for _ in range(repeats))

    size = 1536
    a, b, c = (torch.rand(size, size) for _ in range(3))
    product = best(lambda: torch.mm(a, b, out=c))
    source = torch.rand(2**24 // FLOAT)  # 16 MiB, the order of the tables and their moments
    target = torch.empty_like(source)
    copy = best(lambda: target.copy_(source))
    values = torch.rand(2**20 // FLOAT)  # 1 MiB, stays in a cache
    result = torch.empty_like(values)
    exponential = best(lambda: torch.exp(values, out=result))
    return Speeds(2 * size**3 / product, 2 * source.numel() * FLOAT / copy, values.numel() / exponential)


def parts(model: Any, batch: Any) -> dict[str, tuple[Cost, Callable[[], object]]]:
    """Each part of a step: its cost and the work that is timed."""
    from dglrec.losses import alignment, cross_uniformity, item_cross_entropy, uniformity
    from dglrec.train import make_optimizer

    c = model.config
    edges, prefixes = batch.edges, batch.prefixes
    rows = (edges.user, edges.item)
    size, nodes = len(prefixes.target), model.num_users + model.num_items
    tables = (model.user.weight, model.item.weight)
    generator = torch.Generator().manual_seed(0)
    grads = tuple(torch.randn(size, c.dim, generator=generator) for _ in tables)
    query, user, item, state, target = (
        torch.nn.functional.normalize(torch.randn(size, c.dim, generator=generator)).requires_grad_() for _ in range(5)
    )
    state_grad = torch.randn(size, c.dim, generator=generator)

    def propagate() -> None:
        users, items = model.graph_encoder(model.adjacency, tables, rows)
        torch.autograd.grad((users, items), tables, grads)

    weights = [*model.sequence_encoder.parameters(), model.item.weight]

    def transform() -> None:
        states = model.sequence_encoder(prefixes.history, model.item.weight, last=True)
        torch.autograd.grad(states, weights, state_grad, allow_unused=True)  # the last key bias

    def entropy() -> None:
        loss = item_cross_entropy(query, model.item.weight, prefixes.target)
        torch.autograd.grad(loss, (query, model.item.weight))

    def spread() -> None:
        terms = [alignment(user, item), alignment(state, target), cross_uniformity(state, target.roll(1, 0))]
        loss = sum(terms) + sum(uniformity(rows) for rows in (user, item, state, target))
        torch.autograd.grad(loss, (user, item, state, target))

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(model.train_config, parameters)
    for p in parameters:
        p.grad = torch.full_like(p, 1e-8)
    count = sum(p.numel() for p in parameters)
    lengths = prefixes.history.lengths
    return {
        "propagation": (propagation(nodes, len(model.adjacency.user_items), c.dim, c.graph_layers), propagate),
        "transformer": (transformer(lengths, c.dim, c.inner, c.heads, c.layers), transform),
        "cross-entropy": (cross_entropy(size, model.num_items, c.dim), entropy),
        "alignment and uniformity": (spreading(len(edges.user), c.dim), spread),
        "optimizer": (adam(count), optimizer.step),
    }


def whole_step(model: Any, batches: list[Any]) -> Callable[[], object]:
    """Loss, backward and optimizer of the next batch."""
    from dglrec.train import make_optimizer

    optimizer = make_optimizer(model.train_config, [p for p in model.parameters() if p.requires_grad])
    turn = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(model.loss(batches[next(turn) % len(batches)]).values()).backward()
        optimizer.step()

    return step


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    here, reached = result["machine"], result["speeds"]
    lines = [
        f"{here['processor']}, {here['cores']} cores, {result['threads']} threads",
        f"measured: {reached['operations'] / 1e9:.0f} GFLOP/s in a product of matrices, "
        f"{reached['copied_bytes'] / 1e9:.1f} GB/s copied, {reached['exponentials'] / 1e9:.2f} G exponentials a second",
        f"one step: {result['tokens']:,} packed items, {result['targets']} targets; "
        f"{result['attention_padding']:.1%} of the slots in attention are padding",
        "",
        f"{'part':<26}{'GFLOP':>8}{'MB':>8}{'gathered':>10}{'M exp':>8}{'floor ms':>10}{'ms':>8}{'times':>7}",
    ]
    for name, row in result["parts"].items():
        cost = row["cost"]
        counted = (cost["operations"] / 1e9, cost["moved_bytes"] / 1e6, cost["gathered_bytes"] / 1e6)
        floor, seconds = row["floor_seconds"], row["seconds"]
        lines.append(
            f"{name:<26}{counted[0]:>8.2f}{counted[1]:>8.1f}{counted[2]:>10.1f}{cost['exponentials'] / 1e6:>8.2f}"
            f"{floor * 1e3:>10.2f}{seconds * 1e3:>8.2f}{seconds / floor:>7.1f}"
        )
    whole = result["step"]
    for name in ("sum of parts", "whole step"):
        row = whole[name]
        times = row["seconds"] / row["floor_seconds"]
        lines.append(f"{name:<60}{row['floor_seconds'] * 1e3:>10.2f}{row['seconds'] * 1e3:>8.2f}{times:>7.1f}")
    count = result["steps_per_epoch"]
    lines += [
        f"{'making a batch':<70}{result['batch_seconds'] * 1e3:>8.2f}",
        "",
        f"an epoch of {count} steps: {whole['whole step']['seconds'] * count:.1f} s and "
        f"{result['batch_seconds'] * count:.1f} s of batches; the floor is "
        f"{whole['whole step']['floor_seconds'] * count:.1f} s",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "floor.json")
    args = parser.parse_args()

    import dglrec
    from dglrec.nn.attention import Buckets
    from dglrec.streams import Streams

    torch.set_num_threads(args.threads)
    here = machine.describe()
    split = dglrec.leave_one_out(dglrec.load(args.data))
    model = dglrec.models.preset("gsau-rec", split)
    model.train()
    began = time.perf_counter()
    batches = list(model.batches(split, Streams(2020)))
    batch_seconds = (time.perf_counter() - began) / len(batches)
    before = speeds(args.repeats)
    tokens = [len(batch.prefixes.history.items) for batch in batches[:-1]]
    typical = batches[int(np.argsort(tokens)[len(tokens) // 2])]  # the batch with the median number of items
    timed = {name: (cost, measure(work, args.repeats)) for name, (cost, work) in parts(model, typical).items()}
    reached = before.best(speeds(args.repeats))
    rows: dict[str, dict[str, Any]] = {
        name: {"cost": asdict(cost), "floor_seconds": reached.floor(cost), "seconds": seconds}
        for name, (cost, seconds) in timed.items()
    }
    floor = sum(row["floor_seconds"] for row in rows.values())
    step = measure(whole_step(model, batches), args.repeats)
    result = {
        "command": "python tests/benchmarks/floor.py "
        f"--data {args.data} --threads {args.threads} --repeats {args.repeats}",
        "machine": here,
        "threads": torch.get_num_threads(),
        "versions": {"dglrec": dglrec.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "data": args.data,
        "speeds": asdict(reached),
        "tokens": len(typical.prefixes.history.items),
        "targets": len(typical.prefixes.target),
        "attention_padding": Buckets(typical.prefixes.history.lengths).padding,
        "steps_per_epoch": len(batches),
        "batch_seconds": batch_seconds,
        "parts": rows,
        "step": {
            "sum of parts": {"floor_seconds": floor, "seconds": sum(row["seconds"] for row in rows.values())},
            "whole step": {"floor_seconds": floor, "seconds": step},
        },
    }
    print(report(result))
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {args.out.name}")


if __name__ == "__main__":
    main()
