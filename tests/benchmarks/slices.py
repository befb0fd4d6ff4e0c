"""Propagation over time slices: all slices in one pass, beside a loop over them and DGL's message passing.

    python tests/benchmarks/slices.py [--threads 2] [--repeats 10]

The same 200,000 random edges are cut into 3, 6, 12 and 24 slices of equal length; each has tables of its own, d = 64. A
step is forward and backward over all nodes, two layers, plain sums. What is beside it:

    loop    one call a slice, each over that slice's own graph
    dgl     `slice_message_passing`: DGL's `multi_update_all`
    dense   what no form can do without: each table read, and its gradient written

Each round runs all of them once, and the fastest of all rounds counts. Results go to `slices.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SLICES = (3, 6, 12, 24)
USERS, ITEMS, EDGES, DIM = 20_000, 10_000, 200_000, 64


def fastest(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, the least of `rounds`, taken in turn so that all meet the same disturbances."""
    for one in work.values():
        one()
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, one in work.items():
            began = time.perf_counter()
            one()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def measure(slices: int, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Milliseconds of a step over so many slices."""
    import numpy as np
    import torch

    from dglrec._dgl import dgl
    from dglrec.graphs import slice_names, time_slices
    from dglrec.nn import SliceAdjacency, SliceEncoder, slice_message_passing

    rng = np.random.default_rng(0)
    arrays = {"user": rng.integers(USERS, size=EDGES), "item": rng.zipf(1.3, size=EDGES) % ITEMS}
    graph = time_slices(time=np.arange(EDGES), n=slices, num_users=USERS, num_items=ITEMS, **arrays)
    adjacency, encoder = SliceAdjacency(graph).to(device), SliceEncoder(layers=2)
    parts = []
    for name in slice_names(graph):
        user, item = graph.edges(order="eid", etype=name)
        relations = {("user", "t0", "item"): (user, item), ("item", "t0_by", "user"): (item, user)}
        one = dgl.heterograph(relations, num_nodes_dict={"user": USERS, "item": ITEMS})
        parts.append(SliceAdjacency(one).to(device))
    x = tuple(torch.randn(slices, size, DIM, device=device).requires_grad_() for size in (USERS, ITEMS))

    def step(forward: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for table in x:
                table.grad = None
            sum(out.sum() for out in forward()).backward()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    def loop() -> list[Any]:
        found = [encoder(part, (x[0][t : t + 1], x[1][t : t + 1])) for t, part in enumerate(parts)]
        return [torch.cat(side) for side in zip(*found, strict=True)]

    work = {
        "one_pass": step(lambda: encoder(adjacency, x)),
        "loop": step(loop),
        "dense": step(lambda: [table * 3 for table in x]),
    }
    if device == "cpu":
        work["dgl"] = step(lambda: slice_message_passing(graph, x, layers=2))
    seconds = fastest(work, repeats)
    return {
        "slices": slices,
        "device": device,
        "edges": len(adjacency.user_columns),
        "active_nodes": len(adjacency.user_nodes) + len(adjacency.item_nodes),
        "nodes": slices * (USERS + ITEMS),
        "milliseconds": {name: 1e3 * value for name, value in seconds.items()},
    }


def main() -> None:
    """Measures all numbers of slices and writes `slices.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="3 and 6 slices, twice, and nothing is written")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import torch
    from machine import describe

    torch.set_num_threads(args.threads)
    machine = describe()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    counts, repeats = ((3, 6), 2) if args.quick else (SLICES, args.repeats)
    rows = [measure(slices, repeats, device) for device in devices for slices in counts]
    for before, row in zip([None, *rows], rows, strict=False):
        again = before is not None and before["device"] == row["device"]
        own = row["milliseconds"]["one_pass"]
        row["times_half_as_many"] = own / before["milliseconds"]["one_pass"] if again else None
        print(row)
    if not args.quick:
        about = {"machine": machine, "threads": args.threads, "users": USERS, "items": ITEMS, "dim": DIM, "rows": rows}
        (HERE / "slices.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
