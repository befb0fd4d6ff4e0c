"""What an epoch of SelfGNN costs beside its floors, what more slices cost, and how long HardGNN mines.

    DGLREC_DATA=... python tests/benchmarks/selfgnn.py [--data yelp-2019] [--threads 2] [--repeats 5]

An epoch is timed as `fit` runs it, batches and optimiser included, without validation, with memory used again
(`reused_memory`). Its floors are timed alone in the same run, on the shapes of its batches, and counted once a step:

    sums        the sums over neighbours of all slices, both sides, all layers, forward and backward: nothing else
    levels      the recurrent and attention levels of the batch's nodes and histories, forward and backward
    optimizer   one pass of Adam over all weights

The same log is cut into 3, 6, 12 and 24 slices. Mining is `HardGNN.mine`, each user against all items. Results go to
`selfgnn.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SLICES = (3, 6, 12, 24)
PROMISES = {"over_floors": 2.0, "times_half_as_many": 2.2, "mining_seconds": 10.0}


def seconds(work: Callable[[], object], repeats: int, device: str) -> float:
    """The median of `repeats` calls after one that is not counted."""
    import torch

    times = []
    for again in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if again:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(split: Any, slices: int, repeats: int, device: str) -> dict[str, Any]:
    """Seconds of an epoch over so many slices, and of its floors."""
    import torch

    import dglrec
    from dglrec.streams import Streams
    from dglrec.train import make_optimizer

    model: Any = dglrec.models.preset("selfgnn", split, slices=slices).to(device).train()
    c, a = model.config, model.adjacency
    optimizer = make_optimizer(c.train, model.parameters())

    def epoch() -> None:
        for batch in model.batches(split, Streams(0)):
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    batches = list(model.batches(split, Streams(0)))
    batch = batches[len(batches) // 2]
    users, items = (torch.randn(len(nodes), c.dim, device=device) for nodes in (a.user_nodes, a.item_nodes))
    sides = [torch.randn(slices, len(rows), c.dim, device=device) for rows in (batch.user, batch.items)]

    def sums() -> None:
        for _ in range(2 * c.layers):  # forward and backward
            a.to_users(items, None)
            a.to_items(users, None)

    def levels() -> None:
        parts = [part.detach().requires_grad_() for part in sides]
        user, item = (model.fusion(part, side) for side, part in enumerate(parts))
        (user.sum() + item.sum() + model.instance(batch.history, item).sum()).backward()

    def optimize() -> None:
        optimizer.step()

    floors = {"sums": seconds(sums, repeats, device), "levels": seconds(levels, repeats, device)}
    for weights in model.parameters():
        weights.grad = torch.zeros_like(weights)
    floors["optimizer"] = seconds(optimize, repeats, device)
    optimizer.zero_grad(set_to_none=True)
    whole = seconds(epoch, max(1, repeats // 3), device)
    return {
        "slices": slices,
        "device": device,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "edges": len(a.user_columns),
        "steps": len(batches),
        "epoch_seconds": whole,
        "floor_seconds": {name: len(batches) * value for name, value in floors.items()},
        "over_floors": whole / (len(batches) * sum(floors.values())),
    }


def mining(split: Any, repeats: int, device: str) -> dict[str, Any]:
    """Seconds of one exact mining for all users, the items' vectors included."""
    import dglrec

    model: Any = dglrec.models.preset("hardgnn", split).to(device)
    sizes = {"users": split.log.num_users, "items": split.log.num_items, "k": model.config.k}
    return sizes | {"device": device, "seconds": seconds(model.mine, max(1, repeats // 3), device)}


def main() -> None:
    """Measures all of it and writes `selfgnn.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="yelp-2019")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small sample, 3 and 6 slices, once; nothing is written")
    parser.add_argument("--out", type=Path, default=HERE / "selfgnn.json")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import torch
    from machine import describe

    import dglrec
    from dglrec.memory import reused_memory

    torch.set_num_threads(args.threads)
    machine = describe()
    counts, repeats = ((3, 6), 1) if args.quick else (SLICES, args.repeats)
    log = dglrec.sample("drift") if args.quick else dglrec.load(args.data, k_core=5)
    split = dglrec.leave_one_out(log)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with reused_memory():
        rows = [measure(split, slices, repeats, device) for device in devices for slices in counts]
    for before, row in zip([None, *rows], rows, strict=False):
        again = before is not None and before["device"] == row["device"]
        row["times_half_as_many"] = row["epoch_seconds"] / before["epoch_seconds"] if again else None
        print(row)
    mined = [mining(split, repeats, device) for device in devices]
    print(mined)
    if not args.quick:
        about = {"machine": machine, "threads": args.threads, "data": log.name, "promises": PROMISES}
        about |= {"epochs": rows, "mining": mined}
        args.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
