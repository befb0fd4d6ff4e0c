"""Times one preset of dglrec in a process of its own, and writes what it saw as JSON; `speed.py` starts it.

train      dglrec.fit for EPOCHS epochs; seconds are those of training alone, the median over the epochs
evaluate   dglrec.evaluate, full ranking of all test users as the preset's protocol says, the median of seven
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from typing import Any


def split_of(data: str, users: int) -> Any:
    """The leave-one-out split of a data set, or of its first `users` users."""
    import dglrec

    log = dglrec.load(data)
    return dglrec.leave_one_out(log.select(log.user < users) if users else log)


def train(preset: str, data: str, epochs: int, users: int) -> dict[str, Any]:
    """Seconds of an epoch, of its validation, and what an epoch holds."""
    import dglrec

    split = split_of(data, users)
    model = dglrec.models.preset(preset, split)
    run = dglrec.fit(model, split, epochs=epochs, device="cpu", progress=False)
    result = run.result
    return {
        "edges": len(split.train),
        "targets": int((split.train.position > 0).sum()),
        "steps_per_epoch": result["steps_per_epoch"],
        "epochs": result["epochs"],
        "epoch_seconds": result["epoch_seconds"],
        "epoch_seconds_each": [row["seconds"] for row in run.rows],
        "epoch_is": "median of whole epochs",
        "valid_seconds": result["valid_seconds"],
    }


def evaluate(preset: str, data: str, users: int) -> dict[str, Any]:
    """Users a second of the full ranking. Weights are the initial ones: what is ranked does not change the work."""
    import dglrec

    split = split_of(data, users)
    model = dglrec.models.preset(preset, split)
    dglrec.evaluate(model, split.test[:512])  # warm-up
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        metrics = dglrec.evaluate(model, split.test, k=(5, 10, 20, 50))
        seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds)
    return {
        "users": len(split.test),
        "users_in_all": len(split.test),
        "seen": metrics.protocol.seen,
        "seconds": middle,
        "seconds_each": seconds,
        "users_per_second": len(split.test) / middle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["train", "evaluate"])
    parser.add_argument("preset")
    parser.add_argument("--data", default="amazon-beauty")
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--users", type=int, default=0, help="the first users only, to see whether it runs; 0: all")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    load = list(os.getloadavg())
    if args.task == "train":
        result = train(args.preset, args.data, args.epochs, args.users)
    else:
        result = evaluate(args.preset, args.data, args.users)
    from dglrec.train import versions

    result.update(
        threads=torch.get_num_threads(),
        load_average_before=load,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        versions=versions(),
    )
    with open(args.out, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
