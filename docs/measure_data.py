"""Measures what docs/evaluation.md and docs/hardgnn.md say of public data, into docs/figures.json and docs/slices.json.

    DGLREC_DATA=~/data python docs/measure_data.py
    python docs/make_tables.py

Data sets that are not there keep the figures that they have.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import dglrec
from dglrec.data.check import statistics
from dglrec.tables import PLANS

NAMES = ("amazon-beauty", "amazon-toys", "amazon-sports", "yelp-2019", "foursquare-nyc")
FIGURES = Path(__file__).with_name("figures.json")
SLICED = tuple(dict.fromkeys(data for data, _ in PLANS["hardgnn-table1"].data))
SLICES = Path(__file__).with_name("slices.json")


def figures(name: str) -> dict[str, float | int | str]:
    """The size of a data set, what its leave-one-out split counts, and what tie rule and seen items change."""
    log = dglrec.load(name, k_core=5)
    found = statistics(log)
    split = dglrec.leave_one_out(log)
    queries = split.counts["queries_test"]
    values: dict[str, float | int | str] = {
        "users": log.num_users,
        "items": log.num_items,
        "interactions": len(log),
        "granularity": found["times"]["granularity"],
        "tie_decided_test": split.counts["tie_decided_targets_test"] / queries,
        "tie_decided_valid": split.counts["tie_decided_targets_valid"] / queries,
        "repeat_test": split.counts["repeat_targets_test"] / queries,
        "cold_test": split.counts["cold_targets_test"] / queries,
        "older_test": split.counts["older_share_test"],
    }
    for ties in ("file", "random"):
        split = dglrec.leave_one_out(log, ties=ties)
        for preset in ("popularity", "recency", "transitions"):
            model = dglrec.models.preset(preset, split)
            for seen in ("keep", "mask"):
                metrics = dglrec.evaluate(model, split.test, k=10, metrics="recall", seen=seen)
                values[f"{preset}_{ties}_{seen}"] = metrics["recall@10"]
                values[f"{preset}_{ties}_{seen}_error"] = metrics.standard_errors["recall@10"]
    return values


def slices(name: str) -> dict[str, float | int]:
    """How dense a data set is, and the largest of five equal lengths of its training events' time."""
    log = dglrec.load(name, k_core=5)
    size = statistics(log)["size"]
    graph = dglrec.graphs.time_slices(dglrec.leave_one_out(log).train, 5)
    edges = np.array([graph.num_edges(t) for t in dglrec.graphs.slice_names(graph)])
    kept = ("users", "items", "interactions", "density")
    return {figure: size[figure] for figure in kept} | {"largest_fifth": float(edges.max() / edges.sum())}


def main() -> None:
    """Measure the data sets that are here."""
    here = {info.name for info in dglrec.data.list_datasets() if info.place in ("DGLREC_DATA", "cache")}
    for path, names, measure in ((SLICES, SLICED, slices), (FIGURES, NAMES, figures)):
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        for name in names:
            if name in here:
                known[name] = measure(name)
                print(name, known[name], flush=True)
        path.write_text(json.dumps({name: known[name] for name in names if name in known}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
