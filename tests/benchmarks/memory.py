"""What it is worth that large arrays get memory that was freed before (`dglrec.memory.reused_memory`).

    DGLREC_DATA=... python tests/benchmarks/memory.py [--threads 2] [--steps 15] [--rounds 2]

Steps of a training, batch, loss, gradient and optimizer, with it and as glibc is by itself: each in processes of its
own, in turn, and the fastest process counts. Beside the milliseconds of a step stand the pages of memory that were new
in it. Results go to `memory.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SYSTEMS = (
    ("lightgcn", "amazon-beauty", {}),
    ("lightgcn", "yelp-2019", {}),
    ("gsau-rec", "amazon-beauty", {}),
    ("selfgnn", "yelp-2019", {"slices": 12}),
    ("selfgnn", "yelp-2019", {"slices": 24}),
)


def worker(preset: str, data: str, fields: dict[str, Any], reused: bool, steps: int, threads: int) -> dict[str, float]:
    """Milliseconds of a step and new pages in it, as the mean of `steps` after five that do not count; peak bytes."""
    import resource

    import torch

    import dglrec
    from dglrec.memory import peak_memory_bytes, reused_memory
    from dglrec.streams import Streams
    from dglrec.train import make_optimizer

    torch.set_num_threads(threads)
    split = dglrec.leave_one_out(dglrec.load(data, k_core=None if data == "sample" else 5))
    model = dglrec.models.preset(preset, split, **fields).train()
    optimizer = make_optimizer(model.train_config, model.parameters())
    with reused_memory() if reused else nullcontext():
        for number, batch in enumerate(islice(model.batches(split, Streams(0)), steps + 5)):
            if number == 5:
                began, pages = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds, found = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
        peak = peak_memory_bytes(torch.device("cpu"))
    done = number - 4
    return {"ms_per_step": 1e3 * seconds / done, "new_pages_per_step": found / done, "peak_bytes": peak}


def measure(preset: str, data: str, fields: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turn; of each the fastest process."""
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(args.rounds):
        for reused, rows in found.items():
            what = json.dumps([preset, data, fields, reused, args.steps, args.threads])
            command = [sys.executable, __file__, "--worker", what]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    with_it, without = (min(rows, key=lambda row: row["ms_per_step"]) for rows in (found[True], found[False]))
    saved = 1 - with_it["ms_per_step"] / without["ms_per_step"]
    return {"preset": preset, "data": data, "fields": fields, "with": with_it, "without": without, "saved": saved}


def main() -> None:
    """Measures all of it and writes `memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small sample, few steps, once; nothing is written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(*json.loads(args.worker))))
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import torch
    from machine import describe

    machine, systems = describe(), SYSTEMS
    if args.quick:
        systems, args.steps, args.rounds = (("lightgcn", "sample", {}),), 3, 1
    rows = []
    for one in systems:
        rows.append(measure(*one, args))
        print(rows[-1])
    if not args.quick:
        about = {
            "machine": machine,
            "threads": args.threads,
            "steps": args.steps,
            "rounds": args.rounds,
            "torch": torch.__version__,
        }
        (HERE / "memory.json").write_text(json.dumps(about | {"systems": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
