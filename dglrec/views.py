"""A paper's table or figure as text, from the results of runs.

Results under different protocols share no column. Where the metrics of each query were kept, a figure has its 95 %
interval by user, and each row its paired difference to the row that the table is about, or to its own partner.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .checkpoint import read_json
from .errors import ConfigError, DataError
from .intervals import user_bootstrap
from .protocol import Protocol
from .tables import Cell, Plan, clusters, has_nothing_to_train
from .text import aligned

Values = Mapping[str, npt.NDArray[Any]]  # name of a metric -> (Q,), and "user" -> (Q,)
# How the names of what was kept of each query end: on items that are new to their user, and on the full ranking of
# queries that are ranked among sampled candidates.
ENDS = {"measured_new": " new", "measured_full": " full"}
POINTS = "points of "  # how the names of a hop's points begin, in the same file


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        values: what its result file holds.
        per_query: metrics of each test query, and its user; empty where they were not kept.
        by_epoch: a dict per epoch, with the metrics on validation; empty where nothing was trained.
        points: name of a hop -> how its vectors lie (see `dglrec.lm.spread`); empty where no figure needs them.
    """

    values: dict[str, Any]
    per_query: Values = field(default_factory=dict)
    by_epoch: Sequence[dict[str, Any]] = ()
    points: Values = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Result:
        """The run whose result file is at `path`."""
        arrays, lines = path.with_suffix(".npz"), path.with_suffix(".jsonl")
        kept: Values = {}
        if arrays.exists():
            with np.load(arrays, allow_pickle=False) as file:
                kept = dict(file)
        points = {name.removeprefix(POINTS): array for name, array in kept.items() if name.startswith(POINTS)}
        per_query = {name: array for name, array in kept.items() if not name.startswith(POINTS)}
        by_epoch = map(json.loads, lines.read_text("utf-8").splitlines()) if lines.exists() else ()
        return cls(read_json(path), per_query, list(by_epoch), points)


@dataclass(frozen=True)
class Block:
    """A part of a table under one protocol, as text.

    Attributes:
        data: name of the data set.
        protocol: how it was measured, in words.
        header: names of the columns.
        rows: cells; a row of the paper, or the mean over the seeds of a row here.
        notes: lines on what is not there: rows that have no run yet, seeds that only some rows have.
    """

    data: str
    protocol: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"{self.data}, {self.protocol}:", aligned(self.header, self.rows), *self.notes])


@dataclass(frozen=True)
class Table:
    """A table of a paper: its own figures, and those of the runs here.

    Attributes:
        plan: what the table is made of.
        paper: {"preset", "name", "data", "paper": metric -> value}, one per row of the paper.
        cells: the requested ones of the plan.
        results: their runs, in the order of the cells.
    """

    plan: Plan
    paper: list[dict[str, Any]]
    cells: list[Cell]
    results: list[Result]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the result files hold, with the paper's figures of the same row and data ("paper", or None)."""
        return [result.values | {"paper": self._printed(result.values)} for result in self.results]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"table": self.plan.name, "title": self.plan.title, "rows": self.rows}

    def __str__(self) -> str:
        title = f"{self.plan.name}: {self.plan.title}"
        return "\n\n".join([title, *map(str, self.blocks()), *self.not_begun()])

    def not_begun(self) -> list[str]:
        """A line for each data set and split that no row was run on yet."""
        there, lines = set(map(_place, self.results)), []
        for data, split in dict.fromkeys(cell[:2] for cell in self.cells):
            if (data, split) not in there:
                rows = _some([cell.row for cell in self.cells if cell[:2] == (data, split)])
                lines.append(f"{data}, {split}: not run yet ({self.plan.command(data, split)}; rows {rows})")
        return lines

    def blocks(self) -> list[Block]:
        """The runs beside the paper's figures, a block for each protocol; then what the paper measured on other data.

        A run of a model that keeps seen items is in two blocks if that matters: the paper's, and one with seen items
        masked. Where targets are in their history, a further block has only targets that are new to their user; where
        they are ranked among sampled candidates, another ranks all items. On the sample, models that cluster have one
        more: how well they find the interests that were planted. A figure of hops has one more as well: how evenly
        their vectors lie.
        """
        groups: list[tuple[Protocol, list[Result]]] = []
        for result in self.results:
            own = Protocol.from_dict(result.values["protocol"])
            protocols = [own]
            if own.seen == "keep" and result.values["measured_masked"] != result.values["measured"]:
                protocols.append(dataclasses.replace(own, seen="mask"))
            if "measured_new" in result.values and self.plan.kind != "epochs":
                protocols.append(dataclasses.replace(own, seen="mask", part=own.part + "-new"))
            if "measured_full" in result.values and self.plan.kind != "epochs":
                protocols.append(dataclasses.replace(own, candidates="full"))
            for protocol in protocols:
                same = next((group for first, group in groups if first.same_column(protocol)), None)
                if same is None:
                    groups.append((protocol, same := []))
                same.append(result)
        order = list(dict.fromkeys(map(_place, self.results)))
        groups.sort(
            key=lambda group: (
                order.index(_place(group[1][0])),
                group[0].part,
                group[0].candidates == "full",
                group[0].seen,
            )
        )
        return [*(self._block(*group) for group in groups), *self._planted(), *self._spread(), *self._apart()]

    def save_figure(self, path: Path) -> None:
        """Draw a figure (not a table) to `path`, a PNG.

        Raises:
            ConfigError: it is a table, or there are results on several data sets.
            DataError: nothing is measured yet, or `path` cannot be written.
        """
        from .curves import save_densities, save_epochs, save_fields

        plan = self.plan
        plan.check_drawn()
        drawn = [result for result in self.results if plan.kind != "hops" or result.points]
        if not drawn:
            raise DataError(f"nothing of {plan.name} is measured yet; dglrec reproduce {plan.name} --run does it")
        if len(places := list(dict.fromkeys(map(_place, drawn)))) > 1:
            known = ", ".join(" under ".join(place) for place in places)
            raise ConfigError(f"{plan.name} has results on {known}; draw one of them: --data {places[0][0]}")
        by_row, title = _by_row(drawn), plan.title[max(plan.title.find("Figure"), 0) :]
        if plan.kind == "fields":
            bars = "bars: 95 % of the draws of users; seconds: fastest and slowest seed"
            save_fields(self._curves(by_row), path, f"{title} ({bars})")
        elif plan.kind == "hops":
            save_densities({row: runs[0].points for row, runs in by_row.items()}, path, title)
        else:
            metric = plan.metrics[0]
            curves = {
                row: [([epoch[metric] for epoch in run.by_epoch], run.values["best_epoch"]) for run in runs]
                for row, runs in by_row.items()
            }
            save_epochs(metric, curves, path, title)

    def _curves(self, by_row: Mapping[str, Sequence[Result]]) -> dict[str, dict[str, dict[float, Any]]]:
        """Field -> system -> value -> `_points` of the rows in which no other field of the figure is changed."""
        plan = self.plan
        usual = plan.config(plan.compare)
        curves: dict[str, dict[str, dict[float, Any]]] = {name: {} for name in plan.fields_over}
        for row, runs in by_row.items():
            config, points = plan.config(row), self._points(runs)
            changed = {name for name in plan.fields_over if getattr(config, name) != getattr(usual, name)}
            for name in plan.fields_over:
                if changed <= {name}:
                    curves[name].setdefault(plan.names_of(row)[0], {})[float(getattr(config, name))] = points
        return curves

    def _points(self, runs: Sequence[Result]) -> dict[str, tuple[float, float, float]]:
        """Metric -> mean over seeds, and the ends of its interval (the mean where there is none); seconds per epoch."""
        each, points = _mean_over_seeds(runs), {}
        for metric in self.plan.metrics:
            mean = statistics.fmean(run.values["measured"][metric] for run in runs)
            _, low, high = user_bootstrap(each[metric], each["user"]) if metric in each else (mean, mean, mean)
            points[metric] = mean, low, high
        seconds = [run.values["epoch_seconds"] for run in runs]
        return points | {"seconds per epoch": (statistics.fmean(seconds), min(seconds), max(seconds))}

    def _block(self, protocol: Protocol, results: Sequence[Result]) -> Block:
        plan, by_row = self.plan, _by_row(results)
        part = {row: _part(runs[0], protocol) for row, runs in by_row.items()}
        each = {row: _mean_over_seeds(runs, part[row]) for row, runs in by_row.items()}
        columns = list(plan.metrics)
        is_new = protocol.part.endswith("-new")
        if is_new and any("auc" in run.values["measured_new"] for run in results):
            columns.append("auc")
        differences = self._differences(by_row, part)
        beside_paper = not is_new and any(row["data"] in dict(plan.data) for row in self.paper)

        header = [*plan.name_columns, *[""] * beside_paper]
        header += [f"valid {column}" if plan.kind == "epochs" else column for column in columns]
        header += [plan.difference_columns[metric] for metric in differences]
        peeked = {row: _peeked(runs, plan.metrics[0]) for row, runs in by_row.items() if part[row] == "measured"}
        header += [f"{plan.metrics[0]}, if the epoch were chosen on test"] * any(peeked.values())
        header += _END[plan.kind]
        lines = []
        for row, runs in by_row.items():
            printed = self._printed(runs[0].values) if part[row] == "measured" else None
            if printed:
                line = [*plan.names_of(row), "paper", *(_number(printed.get(column)) for column in columns)]
                lines.append(line + [""] * (len(header) - len(line)))
            line = [*plan.names_of(row), *["here"] * beside_paper]
            line += [self._figure(runs, column, part[row], each[row]) for column in columns]
            line += [column.get(row, "") for column in differences.values()]
            line += [peeked.get(row, "")] * any(peeked.values())
            lines.append(line + _end_of_line(runs, plan.kind))
        words = _new_in_words(protocol, results, columns) if is_new else _in_words(protocol)
        notes = self._notes(results, protocol.seen, are_compared=bool(differences))
        return Block(protocol.data, words, header, lines, notes)

    def _differences(
        self, by_row: Mapping[str, Sequence[Result]], part: Mapping[str, str]
    ) -> dict[str, dict[str, str]]:
        """Metric -> row -> its partner in the plan minus this row, paired by seed and query; where it is known."""
        plan, found = self.plan, {}
        metrics = plan.difference_columns if plan.kind != "epochs" else {}
        pairs = {row: self._pair(by_row, part, row) for row in by_row} if metrics else {}
        for metric in metrics:
            column = {row: self._difference(pair, row, metric) for row, pair in pairs.items()}
            if any(column.values()):
                found[metric] = column
        return found

    def _pair(
        self, by_row: Mapping[str, Sequence[Result]], part: Mapping[str, str], row: str
    ) -> tuple[Values, Values] | None:
        """What a row's partner and the row reach on the same queries with the same seeds; None where there is none."""
        partner = self.plan.partner(row)
        if partner is None or partner not in by_row:
            return None
        theirs, own = _same_seeds(by_row[partner], by_row[row])
        pair = _mean_over_seeds(theirs, part[partner]), _mean_over_seeds(own, part[row])
        return pair if all(pair) and np.array_equal(pair[0]["user"], pair[1]["user"]) else None

    def _difference(self, pair: tuple[Values, Values] | None, row: str, metric: str) -> str:
        """The first of a pair minus the second, the row, with the interval; "" where one of them is not known."""
        if pair is None or any(metric not in one for one in pair):
            return ""
        apart = np.subtract(pair[0][metric], pair[1][metric], dtype=np.float64)
        mean, low, high = user_bootstrap(apart, pair[1]["user"])
        name = f"{self.plan.partner(row)}: " if self.plan.partners else ""
        return f"{name}{mean:+.4f} [{low:+.4f}, {high:+.4f}]"

    def _figure(self, runs: Sequence[Result], column: str, part: str, each: Values) -> str:
        """The mean over seeds, its deviation where there are three or more, and its interval where it is known."""
        if self.plan.kind == "epochs":
            return _mean([run.values["valid"][column] for run in runs])
        values = [run.values[part].get(column) for run in runs]
        if None in values:
            return ""
        if column not in each:
            return _mean(values)
        _, low, high = user_bootstrap(each[column], each["user"])
        return f"{_mean(values)} [{low:.4f}, {high:.4f}]"

    def _notes(
        self, results: Sequence[Result], seen: str, rows: Iterable[str] | None = None, are_compared: bool = False
    ) -> list[str]:
        """What a block lacks: rows of its data that have no run yet, and seeds that only some of its rows have.

        Args:
            results: those of the block.
            seen: the block's treatment of seen items; a row that masks them has no place where they are kept.
            rows: those that may be in the block; None for all.
            are_compared: whether it shows differences, which pair the seeds.
        """
        place, plan = _place(results[0]), self.plan
        run = {result.values["row"] for result in self.results if _place(result) == place}
        asked = [cell.row for cell in self.cells if cell[:2] == place and (rows is None or cell.row in rows)]
        lacking = [row for row in asked if row not in run and seen in ("mask", plan.config(row, place[0]).seen)]
        notes = [f"Not run yet ({plan.command(*place)}): {_some(lacking)}"] if lacking else []
        seeds = {row: _seeds(runs) for row, runs in _by_row(results).items() if not has_nothing_to_train(row)}
        if len(set(seeds.values())) > 1:
            rows_of: dict[str, list[str]] = {}
            for row, text in seeds.items():
                rows_of.setdefault(text, []).append(row)
            counts = (f"{len(text.split())} ({text}) of {', '.join(own)}" for text, own in rows_of.items())
            paired = "; a difference is over those that both rows have" if are_compared else ""
            notes.append(f"Seeds are not the same: {'; '.join(counts)}{paired}")
        return notes

    def _printed(self, values: dict[str, Any]) -> dict[str, float] | None:
        """The paper's figures of the same row and data."""
        wanted = values["row"], values["data"]
        return next((row["paper"] for row in self.paper if (row["preset"], row["data"]) == wanted), None)

    def _planted(self) -> list[Block]:
        """`planted.agreement` of the models that cluster, as means over the seeds."""
        blocks = []
        found = [result for result in self.results if "planted" in result.values and self.plan.kind != "epochs"]
        clustering = [cell.row for cell in self.cells if clusters(cell.row)]
        for data, split in dict.fromkeys(map(_place, found)):
            lines = []
            for row, runs in _by_row(result for result in found if _place(result) == (data, split)).items():
                each = [run.values["planted"] for run in runs]
                known = [[one[name] for one in each if name in one] for name in _AGREEMENT]
                figures = [_mean(values) if values else "" for values in known]
                exact = " ".join(str(one["histories_where_true_is_1"]) for one in each)
                lines.append([*self.plan.names_of(row), *figures, exact, _seeds(runs)])
            header = [
                *self.plan.name_columns,
                *(name.replace("_", " ") for name in _AGREEMENT),
                "histories where true is 1",
                "seeds",
            ]
            words = f"split by {split}, clusters against the planted interests (adjusted Rand index)"
            notes = self._notes([result for result in found if _place(result) == (data, split)], "mask", clustering)
            blocks.append(Block(data, words, header, lines, notes))
        return blocks

    def _spread(self) -> list[Block]:
        """How evenly the vectors of each hop lie, as means over the seeds; see `dglrec.lm.spread`."""
        blocks = []
        found = [result for result in self.results if self.plan.kind == "hops" and "hops" in result.values]
        for place in dict.fromkeys(map(_place, found)):
            own = [result for result in found if _place(result) == place]
            names = list(own[0].values["hops"])
            lines = [
                [row, *(_mean([run.values["hops"][name] for run in runs]) for name in names), _seeds(runs)]
                for row, runs in _by_row(own).items()
            ]
            words = "uniformity of each hop's vectors (0 where all are one, near -4 where they fill the sphere)"
            blocks.append(Block(place[0], words, ["system", *names, "seeds"], lines))
        return blocks

    def _apart(self) -> list[Block]:
        """What the paper measured on data that are not here, where all of the table is requested."""
        rows = [row for row in self.paper if row["data"] not in dict(self.plan.data)]
        if not rows or len(self.cells) < len(self.plan.cells()):
            return []
        printed = {(row["name"], row["data"], name): value for row in rows for name, value in row["paper"].items()}
        systems, columns = (list(dict.fromkeys(key)) for key in ([k[0] for k in printed], [k[1:] for k in printed]))
        lines = [[system, *(_number(printed.get((system, *column))) for column in columns)] for system in systems]
        words = "as the paper prints it (these data are not here)"
        header = ["system", *(f"{data}: {name}" for data, name in columns)]
        return [Block(", ".join(dict.fromkeys(row["data"] for row in rows)), words, header, lines)]


_AGREEMENT = ("final", "first", "true", "final_where_true_is_1", "first_where_true_is_1")


def _peeked(runs: Sequence[Result], metric: str) -> str:
    """What a metric would be if the test queries had chosen the epoch: a leak, shown for its size."""
    known = [run.values["selected_on_test"]["metrics"].get(metric) for run in runs if "selected_on_test" in run.values]
    return _mean(known) if known and len(known) == len(runs) and None not in known else ""


_END = {  # names of the last columns
    "systems": ["seeds", "hours", "device"],
    "hops": ["seeds", "hours", "device"],
    "fields": ["best epoch", "seconds per epoch", "seeds", "device"],
    "epochs": ["best epoch", "epochs", "seconds per epoch", "seeds", "device"],
}


def _end_of_line(runs: Sequence[Result], kind: str) -> list[str]:
    """The cells under `_END`; epochs, from 1, and seeds are listed in the same order."""
    values = [run.values for run in runs]
    cells = {
        "seeds": _seeds(runs),
        "hours": f"{statistics.fmean(one['seconds'] for one in values) / 3600:.2f}",
        "device": ", ".join(dict.fromkeys(f"{one['device']}, {_threads(one['threads'])}" for one in values)),
    }
    if kind not in ("systems", "hops"):  # models without training have no epochs
        cells |= {
            "best epoch": " ".join("" if (best := one["best_epoch"]) is None else str(best + 1) for one in values),
            "epochs": " ".join(str(one["epochs"]) for one in values),
            "seconds per epoch": f"{statistics.fmean(one['epoch_seconds'] for one in values):.1f}",
        }
    return [cells[name] for name in _END[kind]]


def _seeds(runs: Sequence[Result]) -> str:
    return " ".join(str(run.values["seed"]) for run in runs)


def _place(result: Result) -> tuple[str, str]:
    return result.values["data"], result.values["split"]


def _by_row(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Row -> its runs."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.values["row"], []).append(result)
    return found


def _same_seeds(one: Sequence[Result], other: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """The runs of two rows with the seeds that both have; all of them where one of the rows draws nothing."""
    if any(has_nothing_to_train(runs[0].values["row"]) for runs in (one, other)):
        return list(one), list(other)
    seeds = {run.values["seed"] for run in one} & {run.values["seed"] for run in other}
    first, second = ([run for run in runs if run.values["seed"] in seeds] for runs in (one, other))
    return first, second


def _some(rows: Sequence[str], most: int = 5) -> str:
    """Names of rows; of many, the first ones and how many more, as the command covers all of them.

    >>> _some(["a", "b"]), _some(list("abcdefgh"), most=3)
    ('a, b', 'a, b, c and 5 more')
    """
    named = rows if len(rows) <= most + 1 else rows[:most]
    return ", ".join(named) + (f" and {len(rows) - most} more" if len(named) < len(rows) else "")


def _part(result: Result, protocol: Protocol) -> str:
    """Where a run keeps what it measured under a protocol of its table."""
    if protocol.part.endswith("-new"):
        return "measured_new"
    if protocol.candidates != result.values["protocol"]["candidates"]:
        return "measured_full"
    return "measured" if result.values["protocol"]["seen"] == protocol.seen else "measured_masked"


def _mean_over_seeds(runs: Sequence[Result], part: str = "measured") -> Values:
    """The means over the runs of the metrics of each query, where all runs have them.

    Args:
        runs: of one row.
        part: "measured", "measured_new" or "measured_full"; of "measured_masked" nothing is kept.
    """
    each = [_of_part(run.per_query, part) for run in runs]
    same = bool(each) and all("user" in one and np.array_equal(one["user"], each[0]["user"]) for one in each)
    if not same:
        return {}
    common = [name for name in each[0] if all(name in one for one in each)]
    means = {name: np.stack([one[name] for one in each]).astype(np.float64).mean(axis=0) for name in common}
    return means | {"user": each[0]["user"]}


def _of_part(values: Values, part: str) -> Values:
    """Those of one part, under their plain names."""
    if part in ENDS:
        end = ENDS[part]
        return {name.removesuffix(end): array for name, array in values.items() if name.endswith(end)}
    plain = {name: array for name, array in values.items() if not name.endswith(tuple(ENDS.values()))}
    return plain if part == "measured" else {}


def _in_words(protocol: Protocol) -> str:
    """A protocol's filter, split, queries, seen items and candidates in a line."""
    seen = "seen items masked" if protocol.seen == "mask" else "seen items kept in the ranking"
    candidates = [] if protocol.candidates == "full" else [f"{protocol.candidates} candidates"]
    return ", ".join([*_split_in_words(protocol), f"{protocol.queries:,} test queries", seen, *candidates])


def _new_in_words(protocol: Protocol, results: Sequence[Result], columns: Iterable[str]) -> str:
    """The same where only items that are new to their user are targets.

    Old targets are not candidates there, so that each cut has its own chance level, that of the mean query.
    """
    words = [*_split_in_words(protocol), "only targets that are new to their user"]
    user = "user" + ENDS["measured_new"]
    queries = next((len(run.per_query[user]) for run in results if user in run.per_query), 0)
    if not queries:
        return ", ".join([*words, "seen items masked"])
    targets = (protocol.counts["targets"] - protocol.counts["repeat_targets"]) / queries
    words.append(f"{queries:,} test queries with {targets:.1f} targets each")
    if protocol.candidates == "full":
        return ", ".join([*words, "seen items masked"])
    negatives = protocol.candidates.rpartition("+")[2]
    candidates = targets + int(negatives.rpartition("..")[2])
    cuts = {name: int(name.removeprefix("recall@")) for name in columns if name.startswith("recall@")}
    chance = [f"{name} about {min(1.0, cut / candidates):.2f}" for name, cut in cuts.items()]
    return ", ".join([*words, f"{negatives} negatives; by chance"]) + f" {', '.join([*chance, 'auc 0.50'])}"


def _split_in_words(protocol: Protocol) -> list[str]:
    split = protocol.split.partition("(")[0].replace("_", "-")
    split = f"windows by {protocol.kind}" if split == "windows" else split
    split += " without validation" if split == "given" and "valid=0.0" in protocol.split else ""
    return [*protocol.filters, split, *["ties in random order"] * (protocol.tie_rule == "random")]


def _mean(values: Sequence[float]) -> str:
    """The mean over seeds, with the standard deviation where there are three of them or more."""
    spread = f" ±{statistics.stdev(values):.4f}" if len(values) > 2 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _number(value: float | None) -> str:
    """A figure of the paper: a share, or a whole number such as an epoch."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _threads(number: int) -> str:
    return f"{number} thread" if number == 1 else f"{number} threads"
