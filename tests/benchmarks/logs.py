"""Big logs: seconds and memory of reading a Parquet file, its 5-core, leave-one-out, and the graph, at several sizes.

    python tests/benchmarks/logs.py [--millions 5 10 20] [--threads 2] [--repeats 3]

The logs are drawn: a user for each 8 interactions and an item for each 20, both with long tails below 5, so that the
5-core takes several passes; ids as text, times in seconds, rows in the order of time, so that users are spread over the
file. Each size runs in processes of
its own, one a repeat; a stage's seconds are the least of them. A file is first read by a child, for whom CPU seconds
and memory are counted too: `peak_bytes` is the most that the process held until the end of a stage, its imports and
what the stages before it left among it, and the most that a child held, though not at one time.
`times_per_interaction_of_the_row_above` compares CPU seconds, which other work on the machine disturbs less; it is 1
where a stage is linear.

Results go to `logs.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BLOCK = 1_000_000


def write(path: Path, interactions: int) -> None:
    """A drawn log as a Parquet file."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(interactions)
    users, items = interactions // 8, interactions // 20
    order = [rng.permutation(size) for size in (users, items)]
    frames = []
    for begin in range(0, interactions, BLOCK):
        size = min(BLOCK, interactions - begin)
        user, item = (
            each[(len(each) * rng.random(size) ** power).astype(np.int64)]
            for each, power in zip(order, (3.0, 5.0), strict=True)
        )
        columns = {"user": user, "item": item, "timestamp": 1_300_000_000 + 5 * np.arange(begin, begin + size)}
        ids = [pl.format("A{}", pl.col("user")).alias("user_id"), pl.format("B{}", pl.col("item")).alias("item_id")]
        frames.append(pl.DataFrame(columns).select(*ids, pl.lit(5.0).alias("rating"), "timestamp"))
    pl.concat(frames).write_parquet(path)


def stages(path: Path) -> dict[str, Any]:
    """Goes through all stages once."""
    import dglrec

    found: dict[str, Any] = {"stages": {}}

    def used() -> tuple[float, int]:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in both), 1024 * sum(one.ru_maxrss for one in both)

    def stage(name: str, work: Callable[[], Any]) -> Any:
        began, (cpu, _) = time.perf_counter(), used()
        result = work()
        seconds, (after, peak) = time.perf_counter() - began, used()
        found["stages"][name] = {"seconds": seconds, "cpu_seconds": after - cpu, "peak_bytes": peak}
        return result

    dglrec.graphs.user_item(user=[0], item=[0])  # DGL is imported here
    log = stage("read", lambda: dglrec.load(path))
    found["log"] = repr(log)
    log = stage("5-core", lambda: log.k_core(5))
    found["core"] = repr(log)
    split = stage("split", lambda: dglrec.leave_one_out(log))
    graph = stage("graph", lambda: dglrec.graphs.user_item(split.train))
    found["edges"] = graph.num_edges("interacts")
    return found


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several runs the least seconds of each stage, and the most memory."""
    first = runs[0]
    for name, one in first["stages"].items():
        others = [run["stages"][name] for run in runs]
        one |= {key: min(other[key] for other in others) for key in ("seconds", "cpu_seconds")}
        one["peak_bytes"] = max(other["peak_bytes"] for other in others)
    found = list(first["stages"].values())
    sums = {"seconds": sum(one["seconds"] for one in found), "peak_bytes": max(one["peak_bytes"] for one in found)}
    return first | sums


def main() -> None:
    """Measures all sizes and writes `logs.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="50,000 and 100,000, and nothing is written")
    parser.add_argument("--stages", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stages is not None:
        print(json.dumps(stages(args.stages)))
        return
    from machine import describe

    machine, rows = describe(), []
    threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        for millions in (0.05, 0.1) if args.quick else sorted(args.millions):
            path = Path(folder) / "log.parquet"
            write(path, int(millions * 1e6))
            command = [sys.executable, __file__, "--stages", str(path)]
            run = partial(subprocess.run, command, stdout=subprocess.PIPE, env=os.environ | threads, check=True)
            runs = [json.loads(run().stdout) for _ in range(1 if args.quick else args.repeats)]
            row = {"interactions": int(millions * 1e6), "file_bytes": path.stat().st_size, **merged(runs)}
            before = rows[-1] if rows else None
            for name, one in row["stages"].items():
                ratio = None if before is None else one["cpu_seconds"] / before["stages"][name]["cpu_seconds"]
                more = None if before is None else row["interactions"] / before["interactions"]
                one["times_per_interaction_of_the_row_above"] = ratio and more and ratio / more
            rows.append(row)
            print(json.dumps(row, indent=1), flush=True)
    if not args.quick:
        about = {"machine": machine, "threads": args.threads, "repeats": args.repeats, "rows": rows}
        (HERE / "logs.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
