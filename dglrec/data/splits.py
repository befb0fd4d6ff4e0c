"""Splits: a training log, and the queries that are held out for validation and test.

A split is cut by position (the last event of each user), by time (all events from a cut-off on), into windows of fixed
length (`dglrec.data.windows`), or by ratio and as the source gives it (`dglrec.data.shares`). It carries the recipe
that made it (`rule`) and a digest of log and recipe, so that weights and results can name the split they belong to, and
it counts what a reader of a metric should know: cold targets, repeats, targets that only a tie decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from ..errors import ConfigError, DataError, closest
from .flat import Bools, Floats, Ints, first_of_pairs, in_query, ranges, row_pointers, segments
from .log import InteractionLog
from .negatives import choose_users, verify_negatives, with_negatives
from .queries import Queries

Rule: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Split:
    """A log cut into a training log and held-out queries.

    Attributes:
        log: the full (filtered) log, in the order that the split used.
        train: the training log, over the same users and items.
        valid: queries to select by.
        test: queries to report.
        kind: "position" (the end of each user's history is held out), "time" (all events from a cut-off on),
            "window" and "user" (windows of all users, or all windows of some users; see `windows`), "random" (any
            events of each user; see `ratio`), or "given" (by the source).
        rule: the recipe, {"function": name, argument: value, ...}; `make_split(log, rule)` makes the split again.
        digest: hex SHA-256 of log and rule.
        counts: what a reader of a metric should know; see `leave_one_out`, `time_point` and `windows`.
        valid_time: for kind "time": training events are before it, in seconds; None otherwise.
        test_time: for kind "time": validation events are before it, in seconds; None otherwise.
        windows: the training windows of a split by windows, in the form of queries: histories are inputs, targets are
            positives, the other candidates are negatives. `train` holds their events and nothing else. None otherwise.
    """

    log: InteractionLog
    train: InteractionLog
    valid: Queries
    test: Queries
    kind: Literal["position", "time", "window", "user", "random", "given"]
    rule: Rule
    digest: str
    counts: dict[str, int | float]
    valid_time: float | None = None
    test_time: float | None = None
    windows: Queries | None = None

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{key}={value!r}" for key, value in self.rule.items() if key != "function" and value is not None
        )
        short = self.counts.get("short_users", 0) if self.windows is not None else 0  # they are not in training either
        dropped = f"; {short} of {self.log.num_users} users too short for a window" if short else ""
        return (
            f"Split({self.log.name}, {self.rule['function']}({arguments}): {len(self.train)} training interactions, "
            f"{len(self.valid)} validation and {len(self.test)} test queries{dropped})"
        )

    def verify(self, digest: str | None = None) -> None:
        """Checks that no held-out event is in the training log, and that this is the split with `digest`.

        Raises:
            DataError: the digest is another one, or an event leaks.
        """
        if digest is not None and digest != self.digest:
            raise DataError(
                f"this split has digest {self.digest[:12]}, expected {digest[:12]}: "
                "the data, the filter or the rule differ from those of the saved run"
            )
        for queries in (self.valid, self.test):
            if queries.split_digest != self.digest:
                raise DataError(f"the {queries.name} queries belong to another split ({queries.split_digest[:12]})")
        _cut_of(self.rule).verify(self)


class _Cut(NamedTuple):
    """A function that makes splits, and the one that checks them."""

    make: Callable[..., Split]
    verify: Callable[[Split], None]


_CUTS: dict[str, _Cut] = {}  # by the name that a rule has


def register(make: Callable[..., Split], verify: Callable[[Split], None]) -> None:
    """Let `make_split` find a function that makes splits by its name, and `Split.verify` call what checks them.

    A split of your own needs it as well, before a run on it is loaded or its `verify` is called. Its rule names the
    function: {"function": make.__name__, argument: value, ...}.
    """
    _CUTS[make.__name__] = _Cut(make, verify)


def _cut_of(rule: Mapping[str, Any]) -> _Cut:
    name = str(rule.get("function", ""))
    if name not in _CUTS:
        raise DataError(
            f"unknown split {name!r}; {closest(name, _CUTS)}; one of your own is made known by "
            "dglrec.data.splits.register(make, verify)"
        )
    return _CUTS[name]


def _verify_sampled(split: Split) -> None:
    """The negatives, where the rule names any."""
    if "negatives" in split.rule:
        for queries, end in ((split.valid, split.test_time), (split.test, None)):
            verify_negatives(queries, split.log, split.rule["negatives"], np.inf if end is None else end)


def _verify_by_time(split: Split) -> None:
    """Each query's history is before its time point and its targets after, and training before both."""
    _verify_sampled(split)
    assert split.train.time is not None
    assert split.valid_time is not None
    assert split.test_time is not None
    if len(split.train) and split.train.time.max() >= split.valid_time:
        raise DataError("the training log holds events from the validation period")
    for queries, start in ((split.valid, split.valid_time), (split.test, split.test_time)):
        assert queries.time is not None
        assert queries.times is not None
        if (queries.time < start).any() or (queries.times >= start).any():
            raise DataError(f"a {queries.name} query mixes events before and after its time point")


def _verify_by_position(split: Split) -> None:
    """The target is the last event but one, or the last, and the history all that is before it."""
    _verify_sampled(split)
    log = split.log
    for queries, later in ((split.valid, 2), (split.test, 1)):
        rows, _ = segments(log.offsets, queries.user)
        full = log.offsets[queries.user + 1] - log.offsets[queries.user]
        ends = row_pointers(full)[1:]
        keep = np.ones(len(rows), dtype=bool)
        for back in range(1, later + 1):
            keep[ends - back] = False
        same = np.array_equal(log.item[rows[keep]], queries.items)
        if not same or not np.array_equal(log.item[rows[ends - later]], queries.targets):
            raise DataError(f"the {queries.name} queries do not match the log that they were cut from")
    held_out = np.bincount(split.valid.user, minlength=log.num_users) * 2  # test may have fewer users
    if not np.array_equal(np.diff(log.offsets) - held_out, np.diff(split.train.offsets)):
        raise DataError("the training log holds other rows than the log without its held-out events")


def check_split(split: Any) -> None:
    """Refuse what is not a split.

    Raises:
        ConfigError: it is something else, such as the log that a split is cut from.
    """
    if not isinstance(split, Split):
        mend = "; cut it first: split = dglrec.leave_one_out(log)" if isinstance(split, InteractionLog) else ""
        raise ConfigError(f"expected a Split, got {type(split).__name__}{mend}")


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        DataError: it is negative.
    """
    if seed < 0:
        raise DataError(f"seed is {seed}; expected at least 0")


def leave_one_out(
    log: InteractionLog,
    *,
    ties: Literal["file", "random"] = "file",
    seed: int = 0,
    order: Literal["time", "file"] = "time",
    negatives: int | None = None,
    test_users: int | None = None,
) -> Split:
    """The last event of each user is a test query, the one before it a validation query, the rest is for training.

    The history of a test query holds the validation item. Users with fewer than three events stay in training and give
    no query.

    Args:
        log: the full log, filtered as wanted.
        ties: events of a user at the same time stay in the order of the file ("file"), or are shuffled by `seed`
            ("random"), in histories as well. The random order does not depend on the order in the file.
        seed: of the shuffle, of the negatives and of the choice of test users.
        order: "time"; "file" for a log without times, whose rows then count as oldest first.
        negatives: rank each target among this many items that the user never touched, fixed and uniform, and not among
            all (SelfGNN and HardGNN: 999). All events of the user in the log count as touched, as in their code: no
            negative of a validation query is the user's test item. Validation and test have separate draws.
        test_users: use this many users in test, drawn by seed (those papers: 10,000); all where there are fewer. The
            events of the others are still held out.

    Returns:
        A split with, in `counts`: queries_valid, queries_test, train_interactions; short_users (no query);
        cold_targets_* (the target is not in the training log); repeat_targets_* (it is in the query's own history);
        and with times tie_decided_targets_* (the target shares its time with the event that would else be held out
        in its place) and older_share_* (queries older than the last training event, the leak in time that this kind of
        split has); and unasked_users_test where `test_users` is given.

    Raises:
        DataError: the log has no times, `order` does not fit, no user has three events, `negatives` or `test_users` is
            below 1, or a user has fewer untouched items than `negatives`.

    >>> log = InteractionLog.from_arrays(["a"] * 4, ["p", "q", "r", "s"], time=[1, 2, 3, 4])
    >>> split = leave_one_out(log)
    >>> split.train.item.tolist(), split.valid.items.tolist(), split.valid.targets.tolist(), split.test.items.tolist()
    ([0, 1], [0, 1], [2], [0, 1, 2])
    """
    if ties not in ("file", "random"):
        raise DataError(f"ties is {ties!r}; expected 'file' or 'random'")
    check_order(log, order)
    rule: Rule = {"function": "leave_one_out", "ties": ties, "order": order} | _sampling(negatives, test_users, seed)
    if ties == "random":
        rule["seed"] = int(seed)
        canonical, log = _shuffle_ties(log, seed)
        digest = digest_of(canonical, rule)
    else:
        digest = digest_of(log, rule)

    start, end = log.offsets[:-1], log.offsets[1:]  # (U,)
    user = np.flatnonzero(end - start >= 3)  # (Q,)
    if len(user) == 0:
        raise DataError(
            f"no user of {log.name!r} has three events; leave-one-out needs one each for training, validation, test"
        )
    start, end = start[user], end[user]
    in_train = np.ones(len(log), dtype=bool)
    in_train[end - 1] = in_train[end - 2] = False
    train = log.select(in_train)
    valid = _queries(log, user, start, end - 2, end - 2, end - 1, "valid", digest)
    test = _queries(log, user, start, end - 1, end - 1, end, "test", digest)
    asked = _asked(test, rule)
    valid, test = _with_negatives(valid, log, rule), _with_negatives(test[asked], log, rule)

    counts: dict[str, int | float] = {"short_users": log.num_users - len(user)}
    counts |= counts_of(train, valid, test) | _unasked(rule, len(user) - len(asked))
    if log.time is not None:
        last, second, third = log.time[end - 1], log.time[end - 2], log.time[end - 3]  # (Q,) each
        counts["tie_decided_targets_valid"] = int(((second == last) | (second == third)).sum())
        counts["tie_decided_targets_test"] = int((last == second)[asked].sum())
    return Split(log, train, valid, test, "position", rule, digest, counts)


def time_point(
    log: InteractionLog,
    *,
    valid_share: float = 0.1,
    test_share: float = 0.1,
    valid_time: float | None = None,
    test_time: float | None = None,
    targets: Literal["all", "next"] = "all",
    negatives: int | None = None,
    test_users: int | None = None,
    seed: int = 0,
) -> Split:
    """Training events come before `valid_time`, validation targets from then to `test_time`, and test targets after.

    A validation query is a user with an event before `valid_time` and one in [valid_time, test_time); a test query one
    with an event before `test_time` and one from then on. The history is all that the user did before that time.

    Args:
        log: the full log, with times.
        valid_share: share of the events that fall into validation; events at the same time stay together.
        test_share: share of the (latest) events that fall into test.
        valid_time: the cut-off itself, in seconds, instead of a share.
        test_time: likewise; both are given or none.
        targets: "all" events of the period, as a set in order of first appearance, or the "next" one alone.
        negatives: with targets="next", rank each target among this many items that the user did not touch before the
            end of the query's period, fixed and uniform, and not among all. What the user does later stays unknown: a
            negative of a validation query may be an item of the test period.
        test_users: use this many users in test, drawn by seed; all where there are fewer.
        seed: of the negatives and of the choice of test users.

    Returns:
        A split with the `counts` of `leave_one_out`; short_users are those without any query; older_share_* is 0 by
        construction; tie_decided_targets_* counts, for targets="next", the queries whose first two events of the period
        share a time; cold_users_* are queries of users without a training event; unasked_users_test is there where
        `test_users` is given.

    Raises:
        DataError: the log has no times, the cut-offs leave nothing to train on, to validate or to test, `negatives` or
            `test_users` is below 1, or a user has fewer untouched items than `negatives`.
    """
    if targets not in ("all", "next"):
        raise DataError(f"targets is {targets!r}; expected 'all' or 'next'")
    if negatives is not None and targets == "all":
        raise DataError("negatives are drawn for one target per query; pass targets='next', or rank all items")
    if log.time is None:
        raise DataError(
            f"{log.name!r} has no times, and a split by time needs them; use leave-one-out, with order='file' if the "
            "rows are oldest first"
        )
    rule: Rule = {"function": "time_point", "targets": targets} | _sampling(negatives, test_users, seed)
    if valid_time is None and test_time is None:
        rule |= {"valid_share": float(valid_share), "test_share": float(test_share)}
        valid_time, test_time = _moments(log.time, valid_share, test_share)
    elif valid_time is None or test_time is None:
        raise DataError("valid_time and test_time go together; give both, or the shares alone")
    else:
        valid_time, test_time = float(valid_time), float(test_time)
        rule |= {"valid_time": valid_time, "test_time": test_time}
    if not valid_time < test_time:
        raise DataError(
            f"validation starts at {valid_time:.0f} s and test at {test_time:.0f} s; expected test to be later"
        )
    digest = digest_of(log, rule)

    train = log.select(log.time < valid_time)
    if len(train) == 0:
        raise DataError(f"no event of {log.name!r} is before {valid_time:.0f} s; nothing to train on")
    # Rows are sorted by (user, time), so each user's range of rows falls into training, validation and test in turn.
    valid_start, test_start = _first_rows(log, valid_time), _first_rows(log, test_time)  # (U,) each
    valid, valid_ties = _period(log, valid_start, test_start, targets, "valid", digest)
    test, test_ties = _period(log, test_start, log.offsets[1:], targets, "test", digest)

    known, asked = np.union1d(valid.user, test.user), _asked(test, rule)
    counts: dict[str, int | float] = {"short_users": log.num_users - len(known)}
    counts |= _unasked(rule, len(test) - len(asked))
    valid, test = _with_negatives(valid, log, rule, test_time), _with_negatives(test[asked], log, rule)
    counts |= counts_of(train, valid, test)
    trained = np.diff(train.offsets) > 0
    for queries, ties in ((valid, valid_ties), (test, test_ties[asked])):
        counts[f"tie_decided_targets_{queries.name}"] = int(ties.sum())
        counts[f"cold_users_{queries.name}"] = int((~trained[queries.user]).sum())
    return Split(log, train, valid, test, "time", rule, digest, counts, valid_time, test_time)


def _moments(time: Floats, valid_share: float, test_share: float) -> tuple[float, float]:
    """Seconds at which validation and test start, so that the two periods hold these shares of the events."""
    if not (valid_share > 0 and test_share > 0 and valid_share + test_share < 1):
        raise DataError(
            f"valid_share {valid_share} and test_share {test_share} must be positive and sum to less than 1"
        )
    ordered = np.sort(time)
    valid, test = int(len(time) * (1 - valid_share - test_share)), int(len(time) * (1 - test_share))
    return float(ordered[valid]), float(ordered[test])


def _first_rows(log: InteractionLog, moment: float) -> Ints:
    """(U,) each user's first row at or after `moment`; the end of the user's rows where there is none."""
    assert log.time is not None
    return log.offsets[:-1] + np.bincount(log.user[log.time < moment], minlength=log.num_users)


def _period(
    log: InteractionLog, first: Ints, last: Ints, targets: str, name: str, digest: str
) -> tuple[Queries, Bools]:
    """Queries of a period, and which of them a tie decides, (Q,).

    Args:
        first: (U,) each user's first row of the period; all rows before it are the history.
        last: (U,) the row after the user's last one of the period.
    """
    assert log.time is not None
    start = log.offsets[:-1]
    user = np.flatnonzero((first > start) & (last > first))  # (Q,)
    if len(user) == 0:
        raise DataError(f"no user of {log.name!r} has events before and after the time at which {name} starts")
    start, first, last = start[user], first[user], last[user]
    ties = np.zeros(len(user), dtype=bool)
    if targets == "next":  # the first event alone; the second one is tied with it where they share a time
        second = np.minimum(first + 1, len(log) - 1)
        ties = (last - first > 1) & (log.time[first] == log.time[second])
        last = first + 1
    return _queries(log, user, start, first, first, last, name, digest), ties


def _sampling(negatives: int | None, test_users: int | None, seed: int) -> Rule:
    """What a rule says of sampled candidates and test users: nothing where neither is requested."""
    asked = {"negatives": negatives, "test_users": test_users}
    rule: Rule = {name: int(number) for name, number in asked.items() if number is not None}
    for name, number in rule.items():
        if number < 1:
            raise DataError(f"{name} is {number}; expected at least 1, or None")
    check_seed(seed)
    return rule | ({"seed": int(seed)} if rule else {})


def _asked(test: Queries, rule: Rule) -> Ints:
    """Numbers of the test queries whose users are chosen."""
    return choose_users(test.user, rule["test_users"], rule["seed"]) if "test_users" in rule else np.arange(len(test))


def _unasked(rule: Rule, number: int) -> dict[str, int]:
    """The count of users whom a choice of test users leaves out, where there was a choice."""
    return {"unasked_users_test": number} if "test_users" in rule else {}


def _with_negatives(queries: Queries, log: InteractionLog, rule: Rule, before: float = np.inf) -> Queries:
    """The queries with the negatives that the rule names, if any; only events `before` a time count as touched."""
    if "negatives" not in rule:
        return queries
    return with_negatives(queries, log, rule["negatives"], seed=rule["seed"], before=before)


register(leave_one_out, _verify_by_position)
register(time_point, _verify_by_time)


def make_split(log: InteractionLog, rule: Mapping[str, Any]) -> Split:
    """Makes a split again from its `rule`.

    Raises:
        DataError: the rule names no split, or arguments that it does not take.

    >>> log = InteractionLog.from_arrays(["a"] * 4, ["p", "q", "r", "s"], time=[1, 2, 3, 4])
    >>> split = leave_one_out(log, ties="random", seed=3)
    >>> make_split(log, split.rule).digest == split.digest
    True
    """
    arguments = {key: value for key, value in rule.items() if key != "function"}
    try:
        return _cut_of(rule).make(log, **arguments)
    except TypeError as error:
        raise DataError(f"the rule of split {rule['function']!r} does not fit: {error}") from error


def check_order(log: InteractionLog, order: str) -> None:
    """Refuse an order of rows that is unknown, or that the log does not have.

    Raises:
        DataError: it is; the message says what to pass.
    """
    if order not in ("time", "file"):
        raise DataError(f"order is {order!r}; expected 'time' or 'file'")
    if order == "time" and log.time is None:
        raise DataError(
            f"{log.name!r} has no times; pass order='file' if its rows are oldest first, and the split says so"
        )
    if order == "file" and log.time is not None:
        raise DataError(
            f"{log.name!r} is sorted by time already; load it with order='file' to keep the order of its rows"
        )


def digest_of(log: InteractionLog, rule: Rule) -> str:
    """Hex SHA-256 of a log and the rule of a split."""
    return hashlib.sha256(f"{log.digest()} {json.dumps(rule, sort_keys=True)}".encode()).hexdigest()


def _shuffle_ties(log: InteractionLog, seed: int) -> tuple[InteractionLog, InteractionLog]:
    """The log with its ties sorted (so that the file's order plays no part), and with its ties shuffled by seed."""
    time = np.arange(len(log)) if log.time is None else log.time  # without times nothing is tied
    rating = np.zeros(len(log)) if log.rating is None else log.rating
    canonical = log._take(np.lexsort((rating, log.item, time, log.user)))
    key = np.random.default_rng([int(seed), 0x71E5]).random(len(log))
    return canonical, canonical._take(np.lexsort((key, time, log.user)))


def _queries(
    log: InteractionLog,
    user: Ints,
    start: Ints,
    end: Ints,
    target_start: Ints,
    target_end: Ints,
    name: str,
    digest: str,
) -> Queries:
    """Queries of users whose history is rows start to end, and whose targets are the distinct items of target rows."""
    history, offsets = ranges(start, end)
    rows, target_offsets = ranges(target_start, target_end)
    targets = log.item[rows]
    if len(rows) > len(user):  # sets: keep the first appearance of each (query, item)
        query = np.repeat(np.arange(len(user)), np.diff(target_offsets))
        keep = first_of_pairs(query, targets, log.num_items)
        targets, target_offsets = targets[keep], row_pointers(np.bincount(query[keep], minlength=len(user)))
    return Queries(
        user=user,
        offsets=offsets,
        items=log.item[history],
        times=None if log.time is None else log.time[history],
        target_offsets=target_offsets,
        targets=targets,
        time=None if log.time is None else log.time[target_start],
        name=name,
        split_digest=digest,
    )


def counts_of(train: InteractionLog, valid: Queries, test: Queries) -> dict[str, int | float]:
    """What every kind of split counts."""
    counts: dict[str, int | float] = {"train_interactions": len(train)}
    known = np.bincount(train.item, minlength=train.num_items) > 0
    for queries in (valid, test):
        name, number = queries.name, len(queries)
        seen = in_query(queries.target_offsets, queries.targets, queries.offsets, queries.items)
        counts[f"queries_{name}"] = number
        counts[f"targets_{name}"] = len(queries.targets)
        counts[f"cold_targets_{name}"] = int((~known[queries.targets]).sum())
        counts[f"repeat_targets_{name}"] = int(seen.sum())
        if queries.time is not None and train.time is not None and len(queries):
            counts[f"older_share_{name}"] = float((queries.time < train.time.max()).mean())
    return counts
