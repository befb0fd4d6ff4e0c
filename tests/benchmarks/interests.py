"""What a training step of MDGR costs, beside its relatives' and in parts.

    python tests/benchmarks/interests.py [--threads 2] [--repeats 20]

All models take the same batches of 128 windows of the sample "interests", one step each in turn; the fastest of all
rounds counts, and the median stands beside it. Results go to `interests.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SYSTEMS: dict[str, dict[str, Any]] = {
    "mip": {"k": 8},
    "mdgr": {},
    "mdgr, K-means": {"method": "kmeans"},
    "mdgr, one round": {"m": 1},
    "mdgr-dgc": {},
    "comirec-sa": {},
    "comirec-dr": {},
    "surge": {},
}


def steps(split: Any) -> tuple[dict[str, Callable[[], None]], dict[str, int]]:
    """A training step of each system, and its parameters without the item table."""
    import torch

    import dglrec
    from dglrec.streams import Streams
    from dglrec.train import make_optimizer

    work: dict[str, Callable[[], None]] = {}
    parameters: dict[str, int] = {}
    for name, fields in SYSTEMS.items():
        model = dglrec.models.preset(name.partition(",")[0], split, **fields)
        batch = next(iter(model.batches(split, Streams(1))))
        optimizer = make_optimizer(model.train_config, model.parameters())

        def step(model: Any = model, batch: Any = batch, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            sum(model.loss(batch).values()).backward()
            optimizer.step()

        work[name] = step
        parameters[name] = sum(part.numel() for part in model.parameters()) - model.item.weight.numel()
    return work, parameters


def parts() -> dict[str, Callable[[], object]]:
    """What each round of MDGR does to 128 sets of 50 vectors before its attention."""
    import torch

    from dglrec.graphs import sparsify, weighted_cosine
    from dglrec.graphs.clustering import kmeans, ward

    vectors, weight = torch.randn(128, 50, 32), torch.rand(4, 32)
    cluster, similarity = ward(vectors, 8), weighted_cosine(vectors, weight)
    return {
        "ward": lambda: ward(vectors, 8),
        "kmeans": lambda: kmeans(vectors, 8),
        "weighted_cosine": lambda: weighted_cosine(vectors, weight),
        "sparsify": lambda: sparsify(similarity, cluster, 0.5),
    }


def timed(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each, taken in turn so that all meet the same disturbances."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for one in work.values():
        one()
    for _ in range(repeats):
        for name, one in work.items():
            began = time.perf_counter()
            one()
            seconds[name].append(1e3 * (time.perf_counter() - began))
    return {name: {"least_ms": min(each), "median_ms": statistics.median(each)} for name, each in seconds.items()}


def versions() -> dict[str, str]:
    """Of what takes part; without numba, Ward runs in rounds."""
    names = ("dglrec", "torch", "numpy", *(["numba"] if find_spec("numba") else []))
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="a small sample, two rounds; writes nothing")
    parser.add_argument("--out", type=Path, default=HERE / "interests.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)

    import machine
    import torch

    import dglrec

    torch.set_num_threads(args.threads)
    here = machine.describe()
    users, items = (40, 400) if args.quick else (600, 10_000)
    split = dglrec.windows(dglrec.sample("interests", users=users, items=items, seed=1), by="user", seed=1)
    work, parameters = steps(split)
    found = timed(work, 2 if args.quick else args.repeats)
    result = {
        "command": f"python tests/benchmarks/interests.py --threads {args.threads} --repeats {args.repeats}",
        "machine": here,
        "threads": args.threads,
        "versions": versions(),
        "windows_a_step": 128,
        "systems": {name: {**found[name], "parameters": parameters[name]} for name in work},
        "parts_of_a_round": timed(parts(), 2 if args.quick else args.repeats),
        "mdgr_over_mip": found["mdgr"]["median_ms"] / found["mip"]["median_ms"],
    }
    print(f"{here['processor']}, {args.threads} threads; a step of 128 windows, least and median ms, parameters")
    for name, values in result["systems"].items():
        print(f"{name:<18}{values['least_ms']:>9.1f}{values['median_ms']:>9.1f}{values['parameters']:>10,}")
    for name, values in result["parts_of_a_round"].items():
        print(f"  {name:<16}{values['least_ms']:>9.2f}{values['median_ms']:>9.2f}")
    print(f"mdgr takes {result['mdgr_over_mip']:.1f} times mip's step, with 6 clusterings for one")
    if not args.quick:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
