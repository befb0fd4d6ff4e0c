"""Microseconds of evaluation a query, beside the scores that it needs and beside the usual way to rank.

    DGLREC_DATA=FOLDER python tests/benchmarks/evaluate.py [--threads 2] [--queries 5000] [--rounds 3]

Untrained models over the whole catalogue, seen items masked, recall and NDCG at 10, 20 and 50. In each round come in
turn `dglrec.evaluate`; the scores alone, in the same slices, which no form of it can do without; and the plain way of
most code, which takes the 50 best items of each row (`torch.topk`) and looks which of them are targets. The fastest
round of each counts. Both ways must find the same recall. Results go to `evaluate.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

import dglrec
from dglrec.data.queries import Queries
from dglrec.evaluate import _SLICE_SCORES, block_size, blocks
from dglrec.tables import make_split

HERE = Path(__file__).resolve().parent
CUTS = (10, 20, 50)
CASES = (
    ("lightgcn", "gowalla-lightgcn", "given"),
    ("lightgcn", "amazon-beauty", "leave-one-out"),
    ("sasrec", "amazon-beauty", "leave-one-out"),
)


@torch.no_grad()
def scores_alone(model: Any, queries: Queries) -> None:
    """All scores that `evaluate` asks for, each slice made and let go."""
    for part in blocks(queries, block_size(model, queries, None), None):
        for _ in model.score_slices(part, _SLICE_SCORES["cpu"]):
            pass


@torch.no_grad()
def plain_recall(model: Any, queries: Queries, block: int = 512) -> dict[str, float]:
    """Recall at the cuts from the best items of each row, in blocks."""
    found = dict.fromkeys(CUTS, 0.0)
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        scores = model.scores(part).clone()
        lengths, counts = np.diff(part.offsets), np.diff(part.target_offsets)
        rows, owners = (np.repeat(np.arange(len(part)), sizes) for sizes in (lengths, counts))
        targets = torch.from_numpy(part.targets)
        kept = scores[owners, targets]
        scores[rows, torch.from_numpy(part.items)] = -math.inf
        scores[owners, targets] = kept
        wanted = torch.zeros(scores.shape, dtype=torch.bool)
        wanted[owners, targets] = True
        hits = wanted.gather(1, scores.topk(max(CUTS)).indices).double().numpy()
        for k in CUTS:
            found[k] += float((hits[:, :k].sum(1) / counts).sum())
    return {f"recall@{k}": total / len(queries) for k, total in found.items()}


def measure(preset: str, data: str, how: str, most: int, rounds: int) -> dict[str, Any]:
    """The three ways in turn, in microseconds a query."""
    split = make_split(data, how)
    model = dglrec.models.preset(preset, split).eval()
    queries = split.test[:most]
    metrics: dict[str, float] = {}

    def ours() -> None:
        metrics.update(dglrec.evaluate(model, queries, k=CUTS, seen="mask"))

    def plain() -> None:
        for name, value in plain_recall(model, queries).items():
            assert abs(value - metrics[name]) < 1e-6, (name, value, metrics[name])

    ways: dict[str, Callable[[], None]] = {
        "evaluate": ours,
        "scores alone": lambda: scores_alone(model, queries),
        "plain": plain,
    }
    seconds = dict.fromkeys(ways, math.inf)
    for number in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return {
        "preset": preset,
        "data": data,
        "queries": len(queries),
        "targets_a_query": len(queries.targets) / len(queries),
        "items": split.log.num_items,
        "microseconds_a_query": {name: 1e6 * value / len(queries) for name, value in seconds.items()},
        "over_scores_alone": seconds["evaluate"] / seconds["scores alone"],
        "plain_over_evaluate": seconds["plain"] / seconds["evaluate"],
    }


def main() -> None:
    """Measures all cases and writes `evaluate.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small sample, once; nothing is written")
    parser.add_argument("--out", type=Path, default=HERE / "evaluate.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = machine.describe()
    cases = (("lightgcn", "sample", "leave-one-out"),) if args.quick else CASES
    rows = []
    for preset, data, how in cases:
        rows.append(measure(preset, data, how, args.queries, 1 if args.quick else args.rounds))
        print(rows[-1])
    if not args.quick:
        found = {"machine": about, "threads": args.threads, "rounds": args.rounds, "torch": torch.__version__}
        args.out.write_text(json.dumps(found | {"cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
