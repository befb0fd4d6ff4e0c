"""Measures what docs/protocols.md says of protocols, on real data, and writes it to docs/protocols.json.

    DGLREC_DATA=~/data python docs/measure_protocols.py              # all sections
    DGLREC_DATA=~/data python docs/measure_protocols.py ties seen    # some of them
    python docs/make_tables.py

A section is one line of difference. Each of its rows is a data set and a model, each column a reading of that line.
Models are those that count, which need no training, and rows of papers that `dglrec reproduce` has trained already.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dglrec
from dglrec.reproduce import RESULTS

FIGURES = Path(__file__).with_name("protocols.json")
BEAUTY, MOVIES, PLACES, YELP = "amazon-beauty", "ml-latest-small", "foursquare-nyc", "yelp-2019"

Row = dict[str, Any]  # data, model, queries, values {column: value}, errors {column: standard error}


@functools.cache
def load(name: str, k: int | None = 5) -> dglrec.InteractionLog:
    return dglrec.load(name, k_core=k)


def row(data: str, model: str, queries: Any, cells: dict[str, tuple[float, float]]) -> Row:
    """A row of a table; cells are (value, standard error), `queries` is None where columns use different ones."""
    values = {column: value for column, (value, _) in cells.items()}
    errors = {column: error for column, (_, error) in cells.items()}
    number = None if queries is None else len(queries)
    return {"data": data, "model": model, "queries": number, "values": values, "errors": errors}


def _sizes(data: str, what: str, sizes: dict[str, int]) -> Row:
    """A row of whole numbers."""
    return {"data": data, "model": what, "queries": None, "values": sizes, "errors": {}}


def counted(split: dglrec.Split, what: str, **fields: Any) -> Any:
    return dglrec.models.preset(what, split, **fields)


def measured(model: Any, queries: Any, metric: str = "recall@10", **how: Any) -> tuple[float, float]:
    """A metric and its standard error."""
    found = dglrec.evaluate(model, queries, metrics=metric.split("@")[0], k=int(metric.split("@")[1]), **how)
    return found[metric], found.standard_errors[metric]


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean of a value per query, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


# --- Scores of other models, changed -------------------------------------------------------------------------------


class Successors:
    """How often an item came right after the last one, and nothing else: most items tie at 0.

    `transitions` adds popularity scaled below 1, which orders them.
    """

    def __init__(self, split: dglrec.Split) -> None:
        self.model, self.split = counted(split, "transitions"), split

    def scores(self, queries: Any, items: torch.Tensor | None = None) -> torch.Tensor:
        return self.model.scores(queries, items).floor()


class Constant(Successors):
    """One score for all items: it knows nothing."""

    def scores(self, queries: Any, items: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros(len(queries), self.split.log.num_items)


class OwnHistory(Successors):
    """How often the user touched the item before: it never finds anything new."""

    def scores(self, queries: Any, items: torch.Tensor | None = None) -> torch.Tensor:
        place = (torch.as_tensor(np.repeat(np.arange(len(queries)), queries.lengths)), torch.as_tensor(queries.items))
        scores = torch.zeros(len(queries), self.split.log.num_items)
        return scores.index_put(place, torch.ones(len(queries.items)), accumulate=True)


class Untied:
    """The scores of a model that counts, without ties: targets come "first", or items in the order of their "index".

    "first" is what `rank = (scores > scores[target]).sum()` computes.
    """

    def __init__(self, model: Any, order: str) -> None:
        self.model, self.split, self.order = model, model.split, order

    def scores(self, queries: Any, items: torch.Tensor | None = None) -> torch.Tensor:
        scores = self.model.scores(queries).double()  # counts: steps are far above 1e-4
        if self.order == "index":
            return scores - 1e-9 * torch.arange(scores.shape[1])
        query = torch.as_tensor(np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets)))
        return scores.index_put((query, torch.as_tensor(queries.targets)), torch.tensor(1e-6).double(), accumulate=True)


class Informed:
    """Scores of the queries as they are, where the evaluation masks less: `queries` has one query per user."""

    def __init__(self, model: Any, queries: Any) -> None:
        self.model, self.split, self.queries = model, model.split, queries
        self.number = {int(user): place for place, user in enumerate(queries.user)}

    def scores(self, queries: Any, items: torch.Tensor | None = None) -> torch.Tensor:
        return self.model.scores(self.queries[np.array([self.number[int(user)] for user in queries.user])])


def shorter(queries: Any) -> Any:
    """The queries without the last item of each history: in leave-one-out, the validation item."""
    ends = np.zeros(len(queries.items), dtype=bool)
    ends[queries.offsets[1:] - 1] = True
    offsets = queries.offsets - np.arange(len(queries) + 1)
    times = None if queries.times is None else queries.times[~ends]
    return dataclasses.replace(queries, offsets=offsets, items=queries.items[~ends], times=times)


# --- Sections ------------------------------------------------------------------------------------------------------


def seen(name: str) -> list[Row]:
    """Items of the history: ranked, taken out, or only those of training taken out."""
    split = dglrec.leave_one_out(load(name))
    short = shorter(split.test)
    rows = []
    for what in ("popularity", "transitions"):
        model = counted(split, what)
        rows.append(
            row(name, what, split.test, {
                "kept": measured(model, split.test, seen="keep"),
                "masked": measured(model, split.test, seen="mask"),
                "masked, except the validation item": measured(Informed(model, split.test), short, seen="mask"),
            })
        )  # fmt: skip
    return rows


def trained_seen() -> list[Row]:
    """The same of the papers' rows that are trained, from their result files."""
    rows = []
    for path in sorted((RESULTS / "runs").glob("amazon-*.leave-one-out.*.json")):
        run = json.loads(path.read_text("utf-8"))
        if run["protocol"]["seen"] == "keep":
            values = {"kept": run["measured"], "masked": run["measured_masked"]}
            errors = {"kept": run["standard_errors"]["recall@10"]}
            values = {column: metrics["recall@10"] for column, metrics in values.items()}
            rows.append({"data": run["data"], "model": run["row"], "queries": run["protocol"]["queries"],
                         "values": values, "errors": errors})  # fmt: skip
    return rows


def history(name: str) -> list[Row]:
    """Whether the history of a test query holds the validation item."""
    split = dglrec.leave_one_out(load(name))
    model = counted(split, "transitions")
    cells = {
        "with the validation item": measured(model, split.test, seen="keep"),
        "training items alone": measured(model, shorter(split.test), seen="keep"),
    }
    return [row(name, "transitions", split.test, cells)]


def ties(name: str) -> list[Row]:
    """Items of one score."""
    split = dglrec.leave_one_out(load(name))
    rows = []
    for what, model in {
        "constant": Constant(split),
        "popularity": counted(split, "popularity"),
        "successors": Successors(split),
    }.items():
        cells = {
            "mean over the orders": measured(model, split.test, seen="mask"),
            "target last": measured(model, split.test, seen="mask", ties="pessimistic"),
            "target first": measured(Untied(model, "first"), split.test, seen="mask"),
            "by index": measured(Untied(model, "index"), split.test, seen="mask"),
        }
        rows.append(row(name, what, split.test, cells))
    return rows


def repeats(name: str) -> list[Row]:
    """Targets that are in their own history."""
    log = load(name)
    split = dglrec.leave_one_out(log)
    first = np.zeros(len(log), dtype=bool)
    first[np.unique(log.user * log.num_items + log.item, return_index=True)[1]] = True
    once = dglrec.leave_one_out(log.select(first).k_core(5))
    test = split.test
    number = np.repeat(np.arange(len(test)), test.lengths)
    repeat = np.zeros(len(test), dtype=bool)
    repeat[number[test.items == test.targets[number]]] = True
    rows = []
    for what in ("own history", "popularity", "transitions"):
        model, other = (OwnHistory(s) if what == "own history" else counted(s, what) for s in (split, once))
        masked = dglrec.evaluate(model, test, k=10, metrics="recall", seen="mask", per_query=True)
        values = masked.per_query["recall@10"]
        cells = {
            "kept": measured(model, test, seen="keep"),
            "masked, except the target": mean(values),
            "masked, with the target": mean(np.where(repeat, 0.0, values)),
            "new items alone": measured(model, test.new_items(), seen="mask"),
            "repeats dropped before the split": measured(other, once.test, seen="mask"),
        }
        rows.append(row(name, what, test, cells))
    return rows


def sampled(name: str, numbers: tuple[int, ...] = (99, 999)) -> list[Row]:
    """One target among some negatives, and among all."""
    log = load(name)
    splits = {number: dglrec.leave_one_out(log, negatives=number) for number in numbers}
    full = splits[999].test.without_candidates()
    deep = round(10 * log.num_items / 1000)
    rows = []
    for what in ("popularity", "successors", "transitions"):
        models = {n: Successors(s) if what == "successors" else counted(s, what) for n, s in splits.items()}
        found = dglrec.evaluate(models[999], full, k=(10, deep), metrics="recall", seen="mask")
        cells = {"all items": (found["recall@10"], found.standard_errors["recall@10"])}
        for number, model in models.items():
            cells[f"1 + {number}"] = measured(model, splits[number].test)
        deeper = f"recall@{deep}"
        cells["all items, at a hundredth of the catalogue"] = (found[deeper], found.standard_errors[deeper])
        rows.append(row(name, what, full, cells))
    return rows


def trained_sampled() -> list[Row]:
    """The same of a trained SASRec, from its result file."""
    run = _movies_run()
    values = {"all items": run["measured_full"]["recall@10"], "1 + 999": run["measured"]["recall@10"]}
    errors = {"1 + 999": run["standard_errors"]["recall@10"]}
    return [{"data": MOVIES, "model": "sasrec", "queries": run["protocol"]["queries"], "values": values,
             "errors": errors}]  # fmt: skip


def _movies_run() -> dict[str, Any]:
    return json.loads((RESULTS / "runs" / f"{MOVIES}.leave-one-out-999.sasrec.2020.json").read_text("utf-8"))


def selection(name: str) -> list[Row]:
    """The half-life of recency, chosen on validation or on test."""
    split = dglrec.leave_one_out(load(name))
    models = [counted(split, "recency", half_life_days=2.0**power) for power in range(-2, 13)]
    valid, test = ([measured(model, part, "ndcg@10") for model in models] for part in (split.valid, split.test))
    cells = {"chosen on validation": test[int(np.argmax([value for value, _ in valid]))], "chosen on test": max(test)}
    return [row(name, f"recency, {len(models)} half-lives", split.test, cells)]


def trained_selection() -> list[Row]:
    """The epoch of a SASRec, chosen on validation or on test, from its result file."""
    run = _movies_run()
    values = {
        "chosen on validation": run["measured"]["ndcg@10"],
        "chosen on test": run["selected_on_test"]["metrics"]["ndcg@10"],
    }
    errors = {"chosen on validation": run["standard_errors"]["ndcg@10"]}
    return [{"data": MOVIES, "model": f"sasrec among 1 + 999, {run['epochs']} epochs",
             "queries": run["protocol"]["queries"], "values": values, "errors": errors}]  # fmt: skip


def splits(name: str) -> list[Row]:
    """Which events are the targets."""
    log = load(name)
    ways = {
        "leave-one-out": dglrec.leave_one_out(log),
        "a tenth of each user, the last": dglrec.ratio(log),
        "a tenth of each user, any": dglrec.ratio(log, by="random"),
        "after a time cut-off, the next": dglrec.time_point(log, targets="next"),
    }
    rows = [_sizes(name, "queries", {way: len(split.test) for way, split in ways.items()})]
    for what in ("popularity", "recency", "transitions"):
        cells = {way: measured(counted(split, what), split.test, seen="keep") for way, split in ways.items()}
        rows.append(row(name, what, None, cells))
    return rows


def leak(name: str) -> list[Row]:
    """The same queries, with and without what others did after them.

    They are the test queries of leave-one-out that fall into the validation period of a time point. A third model has
    as many training events as the second, drawn from all times: it tells the leak from the amount.
    """
    log = load(name)
    split, moments = dglrec.leave_one_out(log), dglrec.time_point(log)
    asked = split.test[(split.test.time >= moments.valid_time) & (split.test.time < moments.test_time)]
    train = split.train
    past = train.time < moments.valid_time
    as_many = np.zeros(len(train), dtype=bool)
    as_many[np.random.default_rng(0).permutation(len(train))[: past.sum()]] = True
    known = {"all of training": train, "as many events, of all times": train.select(as_many),
             "events before the period": train.select(past)}  # fmt: skip
    rows = []
    for what in ("popularity", "recency", "transitions"):
        models = {way: counted(dataclasses.replace(split, train=part), what) for way, part in known.items()}
        cells = {way: measured(model, asked, seen="keep") for way, model in models.items()}
        rows.append(row(name, what, asked, cells))
    return rows


def means(name: str) -> list[Row]:
    """What is divided by what where a query has several right items; and right items without training events."""
    split = dglrec.time_point(load(name))
    test = split.test
    right = np.diff(test.target_offsets)
    known = np.bincount(split.train.item, minlength=split.log.num_items) > 0
    warm = np.add.reduceat(known[test.targets], test.target_offsets[:-1])
    rows = []
    for what in ("popularity", "transitions"):
        model = counted(split, what)
        found = dglrec.evaluate(model, test, k=10, metrics=("recall", "hit", "precision"), seen="keep", per_query=True)
        recall = found.per_query["recall@10"]
        hits = recall * right
        cells = {
            "hits / targets": mean(recall),
            "hits / min(10, targets)": mean(hits / np.minimum(right, 10)),
            "at least one hit": mean(found.per_query["hit@10"]),
            "hits / 10": mean(found.per_query["precision@10"]),
            # An item without training events has no count, and is not among the first 10.
            "hits / targets, cold ones dropped": mean(hits[warm > 0] / warm[warm > 0]),
        }
        rows.append(row(name, what, test, cells))
    return rows


def filters(name: str) -> list[Row]:
    """Which users and items stay."""
    raw = load(name, None)
    logs = {"unfiltered": raw, **{f"{k}-core": load(name, k) for k in (5, 10, 20)}}
    if raw.rating is not None and not np.isnan(raw.rating).all():
        logs["ratings of 4 and more, 5-core"] = raw.select(raw.rating >= 4).k_core(5)
    cuts = {way: dglrec.leave_one_out(log) for way, log in logs.items()}
    rows = [
        _sizes(name, "items", {way: log.num_items for way, log in logs.items()}),
        _sizes(name, "queries", {way: len(split.test) for way, split in cuts.items()}),
    ]
    for what in ("popularity", "transitions"):
        cells = {way: measured(counted(split, what), split.test, seen="mask") for way, split in cuts.items()}
        rows.append(row(name, what, None, cells))
    return rows


SECTIONS: dict[str, tuple[str, list[Callable[[], list[Row]]]]] = {
    name: (metric, [*(functools.partial(measure, data) for data in names), *trained])
    for name, metric, measure, names, trained in (
        ("seen", "recall@10", seen, (BEAUTY, MOVIES), [trained_seen]),
        ("history", "recall@10", history, (BEAUTY, MOVIES, PLACES), []),
        ("ties", "recall@10", ties, (MOVIES, PLACES), []),
        ("repeats", "recall@10", repeats, (PLACES,), []),
        ("sampled", "recall@10", sampled, (MOVIES, PLACES), [lambda: sampled(BEAUTY, (999,)), trained_sampled]),
        ("selection", "ndcg@10", selection, (MOVIES, PLACES), [trained_selection]),
        ("splits", "recall@10", splits, (BEAUTY, MOVIES, PLACES), []),
        ("leak", "recall@10", leak, (BEAUTY, YELP), []),
        ("means", "recall@10", means, (BEAUTY, PLACES), []),
        ("filters", "recall@10", filters, (MOVIES,), []),
    )
}


def main() -> None:
    """Measure the sections that are named, or all of them; the others keep the figures that they have."""
    known = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    for name in sys.argv[1:] or SECTIONS:
        metric, parts = SECTIONS[name]
        known[name] = {"metric": metric, "rows": [row for part in parts for row in part()]}
        print(name, json.dumps(known[name], indent=1), flush=True)
        text = json.dumps({name: known[name] for name in SECTIONS if name in known}, indent=1)
        FIGURES.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
