"""Measures what the graph builders cost, for docs/graph_builders.md, and writes it to docs/graphs.json.

    DGLREC_DATA=~/data python docs/measure_graphs.py
    python docs/make_tables.py

Seconds are those of the processor, on one thread: the best of three.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dglrec

# isort: split
import torch

NAMES = ("foursquare-nyc", "yelp-2019")
FIGURES = Path(__file__).with_name("graphs.json")
SEEDS = 1000


def size(made: Any) -> tuple[int, int]:
    """Edges, and the bytes of all tensors: both ends of an edge, and its data."""
    if isinstance(made, dglrec.graphs.Sequences):
        return len(made.items), sum(part.nbytes for part in (made.offsets, made.items, made.times))
    if isinstance(made, dglrec.graphs.Hops):
        arrays = [part for hop in made.levels for part in (hop.offsets, hop.nodes, hop.edges, hop.root)]
        return sum(len(hop.nodes) for hop in made.levels), sum(part.nbytes for part in arrays)
    ends = sum(made.num_edges(kind) for kind in made.etypes)
    data = [made.edges[kind].data for kind in made.etypes]
    features = sum(one[feature].nbytes for one in data for feature in one)
    return ends, features + 16 * ends


def figures(name: str) -> dict[str, dict[str, float]]:
    """What each builder takes and returns."""
    log = dglrec.load(name, k_core=5)
    split = dglrec.time_point(log)
    graph = dglrec.graphs.user_item(log)
    index = dglrec.graphs.Neighbours(graph)
    some = split.test[:SEEDS]
    windows = dglrec.graphs.sequences(graph).last(50)
    vectors = torch.randn(log.num_items, 32, generator=torch.Generator().manual_seed(0))[windows.items]
    builders: dict[str, Callable[[], Any]] = {
        "user_item": lambda: dglrec.graphs.user_item(log),
        "user_item, unique": lambda: dglrec.graphs.user_item(log, unique=True),
        "sequences": lambda: dglrec.graphs.sequences(graph),
        "transitions": lambda: dglrec.graphs.transitions(log),
        "time_slices, 6": lambda: dglrec.graphs.time_slices(log, 6),
        f"hops, {len(some)} seeds, 8 and 8": lambda: dglrec.graphs.hops(index, some.user, [8, 8], before=some.time),
        f"interests, {SEEDS} histories of at most 50": lambda: dglrec.graphs.interests(
            vectors[: int(windows.offsets[SEEDS])], windows.lengths[:SEEDS]
        ),
    }
    return {what: _measured(build) for what, build in builders.items()}


def _measured(build: Callable[[], Any]) -> dict[str, float]:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        made = build()
        seconds.append(time.process_time() - start)
    edges, size_bytes = size(made)
    return {"seconds": min(seconds), "edges": edges, "bytes": size_bytes}


def main() -> None:
    """Measure the data sets."""
    torch.set_num_threads(1)
    known = {name: figures(name) for name in NAMES}
    FIGURES.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    print(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
