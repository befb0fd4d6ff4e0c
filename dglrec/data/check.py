"""A look at data before anything is trained on them: what is there, what is wrong, and what is worth knowing."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .datasets import columns_of_items, find_items, find_table, log_name, refuse
from .log import InteractionLog
from .readers import Problem, find_problems, first_duplicate, read_interactions, read_items
from .splits import leave_one_out

_UNITS_S = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_PER_SECOND = {"milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
_SHOWN = 20  # problems kept in a report


@dataclass
class Report:
    """What `check` found; prints itself.

    Attributes:
        source: what was checked.
        path: the file that was read, "" where none was found.
        statistics: section -> figures; empty where the file cannot be loaded.
        problems: what is wrong, the first 20; the file cannot be loaded before they are mended.
        num_problems: how many there are.
        notes: what is worth knowing.
    """

    source: str
    path: str = ""
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    num_problems: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the data can be loaded."""
        return self.num_problems == 0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**dataclasses.asdict(self), "problems": [p._asdict() for p in self.problems], "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.path}" if self.path and self.path != self.source else self.source]
        lines += [f"  {name:<14}{text}" for name, text in _sentences(self.statistics)]
        if self.problems:
            lines.append(f"Wrong ({self.num_problems:,}):")
            lines += [f"  {'' if line is None else f'line {line}: '}{text}" for line, text in self.problems]
            if self.num_problems > len(self.problems):
                lines.append(f"  ... and {self.num_problems - len(self.problems):,} more")
        else:
            lines.append("Nothing is wrong.")
        lines += ["Worth knowing:", *(f"  {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)


def check(
    source: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None, format: str | None = None
) -> Report:
    """Looks at a file, a folder or a data set by name. Bad data are reported, not raised.

    Args:
        source: as for `load`; nothing is downloaded.
        columns: the file's names of the columns, such as {"user_id": "uid"}.
        format: form of a file that is not tidy, as for `load`.

    >>> print(check("no/such/file.tsv"))
    no/such/file.tsv
    Wrong (1):
      no file or folder no/such/file.tsv
    """
    report = Report(os.fspath(source))
    try:
        path = find_table(source, download=False)
    except DataError as error:
        return _with_problems(report, iter([Problem(None, str(error))]))
    report.path = str(path)
    titles: dict[str, str] | None = None
    problems: Iterator[Problem] = iter(())
    items = find_items(path, format)
    if items is not None:
        try:
            titles, _ = read_items(items, columns=columns_of_items(items, columns))
        except DataError as error:
            problems = iter([Problem(None, str(error))])
    try:
        if path.name.endswith(".npz"):
            refuse("a saved log", columns=columns, format=format)
            log = InteractionLog.load(path)
        else:
            log = read_interactions(path, columns=columns, titles=titles, name=log_name(path), format=format)
    except DataError as error:
        found = iter(()) if path.suffix in (".parquet", ".npz") else find_problems(path, columns, format=format)
        first = next(found, Problem(None, str(error)))
        return _with_problems(report, itertools.chain(problems, [first], found))
    report.statistics = statistics(log)
    report.notes = _notes(log, path, columns, format, report.statistics)
    return _with_problems(report, problems)


def _with_problems(report: Report, problems: Iterator[Problem]) -> Report:
    for problem in problems:
        report.num_problems += 1
        if len(report.problems) < _SHOWN:
            report.problems.append(problem)
    return report


def statistics(log: InteractionLog) -> dict[str, dict[str, Any]]:
    """The figures of a log by section.

    Sections: size, history, items, repeats, core; times, ties, titles and ratings where the log has them; leave_one_out
    where a user has three events.
    """
    lengths = np.diff(log.offsets)
    pairs = len(log.pair_keys)
    figures: dict[str, dict[str, Any]] = {
        "size": {
            "interactions": len(log),
            "users": log.num_users,
            "items": log.num_items,
            "density": pairs / (log.num_users * log.num_items),
        },
        "history": _spread(lengths) | {"users_below_3": int((lengths < 3).sum())},
        "items": _spread(np.bincount(log.item, minlength=log.num_items)),
        "repeats": {"events": len(log) - pairs, "share": 1 - pairs / len(log)},
    }
    if log.time is not None:
        figures["times"] = _times(log.time)
        tied = int(((np.diff(log.user) == 0) & (log.time[1:] == log.time[:-1])).sum())
        figures["ties"] = {"events": tied, "share": tied / len(log)}
    if (lengths >= 3).any():
        figures["leave_one_out"] = _held_out(log)
    figures["core"] = _core(log, 5)
    if log.titles is not None:
        figures["titles"] = {"items_with_title": int((log.titles != "").sum())}
    if log.rating is not None:
        given = log.rating[~np.isnan(log.rating)].astype(np.float64)
        spread = (("min", np.min), ("mean", np.mean), ("max", np.max))
        values = {name: float(of(given)) if len(given) else None for name, of in spread}
        figures["ratings"] = {"given": len(given), **values}
    return figures


def _held_out(log: InteractionLog) -> dict[str, Any]:
    """What leave-one-out would hold out, and how many of its targets are doubtful."""
    counts = leave_one_out(log, order="file" if log.time is None else "time").counts
    queries = counts["queries_test"]
    figures: dict[str, Any] = {"users": queries}
    for part in ("valid", "test"):
        for what in ("tie_decided_targets", "cold_targets", "repeat_targets"):
            number = counts.get(f"{what}_{part}")
            if number is not None:
                figures[f"{what}_{part}"] = number
                figures[f"{what}_{part}_share"] = number / queries
    return figures


def _core(log: InteractionLog, k: int) -> dict[str, Any]:
    """The size of the k-core, which may be empty, and whether the log is one already."""
    try:
        core = log.k_core(k)
        size = {"interactions": len(core), "users": core.num_users, "items": core.num_items}
    except DataError:
        size = {"interactions": 0, "users": 0, "items": 0}
    return size | {"k": k, "already": size["interactions"] == len(log)}


def _spread(counts: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        "min": int(counts.min()),
        "median": float(np.median(counts)),
        "mean": float(counts.mean()),
        "p90": float(np.quantile(counts, 0.9)),
        "max": int(counts.max()),
    }


def _times(time: npt.NDArray[np.float64]) -> dict[str, Any]:
    """First, last, and the coarsest unit that all times are whole in."""
    granularity = "fractions of a second"
    if (time == np.floor(time)).all() and np.abs(time).max() < 2**53:
        step = int(np.gcd.reduce((time - time.min()).astype(np.int64)))
        granularity = next(name for name, seconds in _UNITS_S.items() if step % seconds == 0) if step else "one moment"
    return {
        "first": float(time.min()),
        "last": float(time.max()),
        "days": float(time.max() / _UNITS_S["days"] - time.min() / _UNITS_S["days"]),
        "granularity": granularity,
    }


def _notes(
    log: InteractionLog,
    path: Path,
    columns: Mapping[str, str] | None,
    format: str | None,
    figures: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What does not prevent using the data, but may surprise."""
    notes = []
    if log.time is None:
        notes.append("there are no times: leave-one-out takes order='file', and a split by time cannot be made")
    elif (begin := figures["times"]["first"]) > 1e11:
        unit = next((unit for unit, per_second in _PER_SECOND.items() if begin / per_second <= 1e11), "nanoseconds")
        notes.append(f"the times look like {unit}; seconds are expected (divide by {_PER_SECOND[unit]:,})")
    elif begin < 3e8:
        notes.append("the times begin before 1980: they seem to be relative, which is fine, or in another unit")
    decided = figures.get("leave_one_out", {}).get("tie_decided_targets_test_share", 0)
    if decided > 0.05:
        notes.append(
            f"for {decided:.0%} of the users the last two events share a time, and the order in the file picks the "
            "test item; compare leave_one_out(log, ties='random', seed=...)"
        )
    short = figures["history"]["users_below_3"]
    if short:
        notes.append(f"{short:,} users have fewer than 3 events: they stay in training and give no query")
    if not figures["core"]["already"]:
        left = figures["core"]["interactions"]
        notes.append(
            f"the papers use the 5-core, load(..., k_core=5): {left:,} interactions would be left"
            if left
            else "the 5-core that the papers use is empty here: no users and items have 5 events with each other"
        )
    if number := _repeated_events(log):
        has_lines = path.suffix not in (".parquet", ".npz")
        line = first_duplicate(path, columns, format) if has_lines else None
        first = "" if line is None else f", the first of them line {line}"
        what = "lines repeat user, item and time of an earlier line" if has_lines else "rows repeat an earlier one"
        notes.append(f"{number:,} {what}{first}")
    return notes


def _repeated_events(log: InteractionLog) -> int:
    """Events with user, item and time of an earlier one."""
    time = np.zeros(len(log)) if log.time is None else log.time
    order = np.lexsort((time, log.item, log.user))
    columns = (values[order] for values in (log.user, log.item, time))
    return int(np.logical_and.reduce([values[1:] == values[:-1] for values in columns]).sum())


def _sentences(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The figures in words: (section, text)."""
    if not figures:
        return
    size = figures["size"]
    sizes = f"{size['interactions']:,} of {size['users']:,} users and {size['items']:,} items"
    yield "interactions", f"{sizes} (density {size['density']:.3%})"
    yield "history", _spread_in_words(figures["history"], "a user")
    yield "items", _spread_in_words(figures["items"], "an item")
    if "times" in figures:
        times, ties = figures["times"], figures["ties"]
        span = f"{_date(times['first'])} to {_date(times['last'])} ({_plain(times['days'])} days)"
        yield "times", f"{span}, in {_whole(times['granularity'])}"
        yield "ties", f"{ties['events']:,} events ({ties['share']:.1%}) share their user's previous time"
    repeats = figures["repeats"]
    yield "repeats", f"{repeats['events']:,} events ({repeats['share']:.1%}) repeat an earlier item of their user"
    if "leave_one_out" in figures:
        yield "leave-one-out", _held_out_in_words(figures["leave_one_out"])
    core = figures["core"]
    core_sizes = f"{core['interactions']:,} interactions of {core['users']:,} users and {core['items']:,} items"
    yield "5-core", "it is one already" if core["already"] else core_sizes if core["interactions"] else "empty"
    titles = figures.get("titles")
    yield "titles", "none" if titles is None else f"{titles['items_with_title']:,} of {size['items']:,} items"
    ratings = figures.get("ratings", {"given": 0})
    if ratings["given"] == 0:
        yield "ratings", "none"
    else:
        spread = f"{ratings['min']:g} to {ratings['max']:g}, mean {ratings['mean']:.2f}"
        yield "ratings", f"{spread}, on {ratings['given']:,} interactions"


def _spread_in_words(one: Mapping[str, Any], of: str) -> str:
    return (
        f"{one['min']:,} to {one['max']:,} events {of}, median {one['median']:g}, mean {one['mean']:.1f}, "
        f"90 % have at most {int(one['p90'])}"
    )


def _held_out_in_words(one: Mapping[str, Any]) -> str:
    text = f"{one['users']:,} users"
    if "tie_decided_targets_test" not in one:
        return text
    test, valid = (
        f"{one[f'tie_decided_targets_{part}']:,} {what} targets ({one[f'tie_decided_targets_{part}_share']:.1%})"
        for part, what in (("test", "test"), ("valid", "validation"))
    )
    return f"{text}; a tie decides {test} and {valid}"


def _whole(granularity: str) -> str:
    return f"whole {granularity}" if granularity in _UNITS_S else granularity


def _date(seconds: float) -> str:
    """A day, where the number is plausible as seconds since 1970; otherwise the number."""
    if not 3e8 <= seconds <= 1e11:
        return f"{_plain(seconds)} s"
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


def _plain(number: float) -> str:
    """A number without fractions, of 20 characters at most."""
    return f"{number:,.0f}" if abs(number) < 1e15 else f"{number:.3g}"
