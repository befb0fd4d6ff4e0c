"""Neighbourhoods and their prompts: how long 10,000 of them take.

    python tests/benchmarks/hops.py [--data yelp-2019] [--repeats 5]

The seeds are the users of 10,000 test queries (fewer where there are fewer), each with the moment of its target as
cut-off and the target excluded; two hops of 8 neighbours each, and three. Prompts name the last 20 items of each
history and 8 users for each of them. The fastest of all rounds counts. Results go to `hops.json` beside this file.
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
SEEDS = 10_000


def fastest(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Seconds of the fastest round, and what the work gave."""
    seconds, found = float("inf"), None
    for _ in range(rounds):
        began = time.perf_counter()
        found = work()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, found


def measure(data: str, repeats: int) -> dict[str, Any]:
    """Seconds of each part on a data set."""
    import numpy as np

    import dglrec
    from dglrec.data.flat import packed
    from dglrec.graphs import Neighbours, hops, user_item
    from dglrec.lm.hop_prompts import around_users, history_of
    from dglrec.lm.prompts import Prompter, texts

    log = dglrec.sample("hops") if data == "sample" else dglrec.load(data, k_core=5)
    split = dglrec.leave_one_out(log)
    graph, asked = user_item(split.train), split.test[:SEEDS]
    seconds, sizes = {}, {}
    seconds["index"], index = fastest(lambda: Neighbours(graph), repeats)
    for order in ("recent", "uniform"):
        for fanouts in ((8, 8), (8, 8, 8)):
            name = f"{order}, {len(fanouts)} hops"
            how = {"before": asked.time, "exclude": asked.targets, "order": order}
            seconds[name], trees = fastest(lambda f=fanouts, h=how: hops(index, asked.user, f, **h), repeats)
            sizes[name] = [len(level.nodes) for level in trees.levels]
    words = list(dict.fromkeys(" ".join(texts()).split()))
    names = (packed([[len(words) + 1 + node] for node in range(count)]) for count in (log.num_users, log.num_items))
    make = Prompter(lambda text: [words.index(word) for word in text.split()], *names, budget=256, end=len(words))
    questions = history_of(asked, 20)
    found = around_users(index, questions, [8], questions.time, "recent")
    seconds["prompts"], prompts = fastest(lambda: make("user", questions.user, found, question=True), repeats)
    return {
        "data": data,
        "seeds": len(asked),
        "edges": len(split.train),
        "seconds": seconds,
        "nodes": sizes,
        "tokens_a_prompt": float(np.mean(prompts.lengths)),
    }


def main() -> None:
    """Measures and writes `hops.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="yelp-2019")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a sample, once, and nothing is written")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from machine import describe

    machine = describe()
    found = measure("sample", 1) if args.quick else measure(args.data, args.repeats)
    print(json.dumps(found, indent=1))
    if not args.quick:
        command = f"python tests/benchmarks/hops.py --data {args.data} --repeats {args.repeats}"
        about = {"machine": machine, "command": command, **found}
        (HERE / "hops.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
