"""Measures what can be reached on the samples, for data/README.md, and writes it to docs/samples.json.

python docs/measure_samples.py    # a minute or two
python docs/make_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dglrec
from dglrec.data import Queries, sample, sample_oracle

FIGURES = Path(__file__).with_name("samples.json")


class Counted:
    """Scores an item by how often its community is in the history, of which only what came after `since` counts."""

    def __init__(self, item_group: Any, since: float = -np.inf) -> None:
        self.group, self.since = item_group, since

    def scores(self, queries: Queries, items: torch.Tensor | None = None) -> torch.Tensor:
        """Shapes: B queries, items (B, C) or None -> (B, M) or (B, C)."""
        table = np.zeros((len(queries), int(self.group.max()) + 1), dtype=np.float32)
        row = np.repeat(np.arange(len(queries)), queries.lengths)
        late = queries.times >= self.since
        np.add.at(table, (row[late], self.group[queries.items[late]]), 1)
        scores = torch.from_numpy(table[:, self.group])
        return scores if items is None else scores.gather(1, items)


def of_one_target(kind: str) -> dict[str, float]:
    """The expected recall@10 and ndcg@10 of the best ranking there is, leave-one-out."""
    return sample_oracle(kind).best_scores(dglrec.leave_one_out(sample(kind)).test, k=(10,))


def of_windows() -> dict[str, dict[str, float]]:
    """Who knows how much of the sample "interests" -> recall@50 and pooled AUC of its test windows."""
    log = sample("interests")
    split = dglrec.windows(log, by="user")
    state, history = (sample_oracle("interests", log=log) for _ in range(2))
    state.sees, history.sees = "state", "history"
    systems = {
        "knows the state": state,
        "infers it from the input": history,
        "counts an item's community in the input": Counted(state.item_group),
        "popularity": dglrec.models.preset("popularity", split),
    }
    metrics = {"k": 50, "metrics": ("recall", "auc_pooled"), "seen": "keep"}
    return {name: dict(dglrec.evaluate(system, split.test, **metrics)) for name, system in systems.items()}


def of_drift() -> dict[str, dict[str, float]]:
    """The same of the sample "drift": recall@10 and ndcg@10 of its test queries, and recall@10 by who is noisy."""
    log = sample("drift")
    test, oracle = dglrec.leave_one_out(log).test, sample_oracle("drift", log=log)
    last = Counted(oracle.item_group, oracle.change_times[-1])
    found = {"infers it from the history": oracle.best_scores(test, k=(10,))}
    for name, system in (("last span", last), ("whole history", Counted(oracle.item_group))):
        metrics = dglrec.evaluate(system, test, k=10, metrics=("recall", "ndcg"), seen="mask")
        found[f"counts an item's community in the {name}"] = dict(metrics)
    noisy = oracle.noisy[test.user]
    for name, rows in (("of the users who are not noisy", ~noisy), ("of the noisy ones", noisy)):
        metrics = dglrec.evaluate(last, test[rows], k=10, metrics=("recall", "ndcg"), seen="mask")
        found[f"the last span, {name}"] = dict(metrics)
    return found


def main() -> None:
    """Measure and write."""
    values = {kind: of_one_target(kind) for kind in ("communities", "grammar", "shop")}
    values |= {"interests": of_windows(), "drift": of_drift()}
    FIGURES.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
