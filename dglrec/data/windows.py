"""Windows: histories cut into pieces of fixed length, the protocol of MIP and MDGR.

Each history is cut into consecutive windows of `inputs + targets` events. The first part is what a model reads, the
second what it has to find among as many items that the user never touched; all of it is fixed once. The published split
deals the windows out at random, so that windows of one user fall on both sides and later ones into training; the two
honest ones keep users apart, or cut at a point in time.

Shi et al., "Everyone's Preference Changes Differently: A Weighted Multi-Interest Model for Retrieval" (MIP), arXiv
2207.06652.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import DataError, closest
from ..streams import Streams
from .flat import Floats, Ints, among, first_of_pairs, in_query, row_pointers
from .log import InteractionLog
from .negatives import check_free, touched_keys
from .queries import Queries
from .splits import Rule, Split, check_order, check_seed, counts_of, digest_of, register

Assignment = Literal["window", "user", "time"]
_ROUNDS = 20  # of drawing negatives for all windows at once; what is left then is drawn window by window


def windows(
    log: InteractionLog,
    *,
    by: Assignment = "window",
    inputs: int = 50,
    targets: int = 50,
    negatives: int = 50,
    valid: float = 0.1,
    test: float = 0.1,
    last: Literal["drop", "keep"] = "drop",
    order: Literal["time", "file"] = "time",
    seed: int = 2020,
) -> Split:
    """Windows of `inputs + targets` consecutive events of a user, dealt out to training, validation and test.

    A query's history is a window's inputs and its targets are the events that follow, each an entry of its own among
    the candidates even where an item comes twice; the other candidates are its negatives, distinct and uniform. All
    candidates are in the order of their indices. `split.windows` has the training windows in the same form, and
    `split.train` holds their events alone: user u's windows one after the other, `inputs + targets` rows each.

    Args:
        log: the full log; the papers filter it by `log.one_pass_core()` first.
        by: which windows are held out. "window": any, shuffled by `seed`, as published. A test window may be older than
            training windows of its own user, and negatives avoid what the user touches in any window, so that those of
            training say a little about held-out targets. "user": all windows of some users. "time": training windows
            end before a cut-off, targets of validation lie from then to a second cut-off, those of test after it;
            inputs may reach back. Negatives avoid what the user did before the part's end, and windows whose targets
            cross a cut-off are left out.
        inputs: events that are read.
        targets: events to predict.
        negatives: items per window that the user did not touch.
        valid: share of the windows for validation, or their number where it is 1 or more. For "user" whole users are
            taken until that is reached.
        test: likewise for test.
        last: "drop" leaves out a window that ends with its user's last event, as published: a user with 200 events has
            one window of 100. "keep" takes it.
        order: "time"; "file" for a log without times, whose rows then count as oldest first.
        seed: of the shuffle and of the negatives.

    Returns:
        A split of kind `by`. Its `counts` are those of `leave_one_out` (targets are counted as events) with
        short_users: those with too few events for a window; windows, windows_train, and windows_dropped (at a cut-off);
        outside_events: events in no window; repeat_share_*: targets that are in their own inputs; and of the queries
        known_users_* (their user has training windows) and later_training_* (one of these is later).

    Raises:
        DataError: a wrong argument, no times, too few windows, or a user who has touched nearly every item.

    >>> log = InteractionLog.from_arrays(["a"] * 13, [f"i{n}" for n in range(13)], time=range(13))
    >>> split = windows(log, inputs=2, targets=2, negatives=1, valid=1, test=1)
    >>> split.counts["windows"], split.counts["outside_events"], len(split.windows), len(split.train)
    (3, 1, 1, 4)
    """
    rule: Rule = {"function": "windows", "by": by, "inputs": int(inputs), "targets": int(targets)}
    rule |= {"negatives": int(negatives), "valid": float(valid), "test": float(test), "last": last, "order": order}
    rule["seed"] = int(seed)
    _check_rule(log, rule)
    digest = digest_of(log, rule)

    rows = _grid(log, inputs + targets, last)  # (W, L) rows of the log
    num_valid, num_test = _sizes(log, rows, valid, test)
    valid_time = test_time = None
    ends = [np.inf] * 3  # of the period whose events a part's negatives avoid
    if by == "time":
        parts, valid_time, test_time = _by_time(log, rows, inputs, num_valid, num_test)
        ends = [valid_time, test_time, np.inf]
    else:
        group = log.user[rows[:, 0]] if by == "user" else np.arange(len(rows))
        parts = _shuffled(group, num_valid, num_test, seed)
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if len(part) == 0:
            raise DataError(f"no window of {log.name!r} is left for {name}; choose other values of valid and test")
    train, valid_queries, test_queries = (
        _window_queries(log, rows, part, inputs, _negatives(log, rows, part, end, negatives, seed), name, digest)
        for name, part, end in zip(("train", "valid", "test"), parts, ends, strict=True)
    )
    train_log = log.select(np.sort(rows[parts[0]], axis=None))
    counts = _window_counts(log, train_log, rows, parts, valid_queries, test_queries)
    return Split(
        *(log, train_log, valid_queries, test_queries, by, rule, digest, counts),
        valid_time=valid_time,
        test_time=test_time,
        windows=train,
    )


def _check_rule(log: InteractionLog, rule: Rule) -> None:
    """Refuse arguments of `windows` that are wrong by themselves, or do not fit the log."""
    by, last, valid, test = (rule[name] for name in ("by", "last", "valid", "test"))
    if by not in ("window", "user", "time"):
        raise DataError(f"by is {by!r}; {closest(str(by), ('window', 'user', 'time'))}")
    if last not in ("drop", "keep"):
        raise DataError(f"last is {last!r}; expected 'drop' or 'keep'")
    sizes = [rule[name] for name in ("inputs", "targets", "negatives")]
    if min(sizes) < 1:
        raise DataError(f"inputs, targets, negatives are {', '.join(map(str, sizes))}; expected at least 1 of each")
    if not (valid > 0 and test > 0):
        raise DataError(f"valid is {valid} and test is {test}; expected shares, or numbers of windows")
    check_seed(rule["seed"])
    check_order(log, rule["order"])
    if by == "time" and log.time is None:
        raise DataError(f"{log.name!r} has no times, so windows cannot be cut by time; take by='user'")


def _sizes(log: InteractionLog, rows: Ints, valid: float, test: float) -> tuple[int, int]:
    """Numbers of windows for validation and for test, which must leave some of `rows` (W, L) for training."""
    length, shorter = rows.shape[1], "take shorter windows (smaller inputs, targets), or split by leave-one-out"
    if len(rows) == 0:
        raise DataError(f"no user of {log.name!r} has enough events for a window of {length}; {shorter}")
    num_valid, num_test = (round(size * len(rows)) if size < 1 else int(size) for size in (valid, test))
    if min(num_valid, num_test) < 1 or num_valid + num_test >= len(rows):
        raise DataError(
            f"{log.name!r} has {len(rows):,} windows of {length} events, too few for training, validation "
            f"(valid={valid:g}) and test (test={test:g}); choose other shares, or {shorter}"
        )
    return num_valid, num_test


def _grid(log: InteractionLog, length: int, last: str) -> Ints:
    """(W, length) rows of all windows, by user and start."""
    events = np.diff(log.offsets)
    number = np.maximum(events - 1, 0) // length if last == "drop" else events // length  # (U,) windows of each user
    within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    starts = np.repeat(log.offsets[:-1], number) + within * length
    rows: Ints = starts[:, None] + np.arange(length)
    return rows


def _short_users(log: InteractionLog, rows: Ints) -> int:
    """How many users have no window."""
    return log.num_users - len(np.unique(log.user[rows[:, 0]]))


def _shuffled(group: Ints, num_valid: int, num_test: int, seed: int) -> list[Ints]:
    """Window numbers of training, validation and test: groups (W,) in random order, test is filled first."""
    _, group, size = np.unique(group, return_inverse=True, return_counts=True)
    order = Streams(int(seed)).numpy("windows").permutation(len(size))
    before = np.zeros(len(size), dtype=np.int64)  # windows in the groups that come before
    before[order] = row_pointers(size[order])[:-1]
    in_test = before < num_test
    taken = int(size[in_test].sum())
    in_valid = ~in_test & (before < taken + num_valid)
    return [np.flatnonzero(some[group]) for some in (~in_test & ~in_valid, in_valid, in_test)]


def _by_time(
    log: InteractionLog, rows: Ints, inputs: int, num_valid: int, num_test: int
) -> tuple[list[Ints], float, float]:
    """Window numbers of the three parts, and the times at which the targets of validation and of test begin."""
    assert log.time is not None
    first, end = log.time[rows[:, inputs]], log.time[rows[:, -1]]  # (W,) time of the first target, and of the last
    test_time = float(np.sort(first)[-num_test])
    done = end < test_time
    if done.sum() <= num_valid:
        raise DataError(
            f"only {int(done.sum()):,} of {len(rows):,} windows of {log.name!r} end before the {num_test} newest ones "
            "begin; choose smaller values of valid and test, or by='user'"
        )
    valid_time = float(np.sort(first[done])[-num_valid])
    parts = [np.flatnonzero(some) for some in (end < valid_time, done & (first >= valid_time), first >= test_time)]
    return parts, valid_time, test_time


def _negatives(log: InteractionLog, rows: Ints, part: Ints, end: float, count: int, seed: int) -> Ints:
    """(n, count) distinct uniform items for the windows `part` (n,) that their users did not touch in any window.

    Only events before `end` count as touched. What a window gets depends on its number, the seed and what its own user
    touched, on nothing else: it stays the same when others' events change.
    """
    items, user = log.num_items, log.user[rows[part, 0]]
    events = rows.reshape(-1) if log.time is None else rows[log.time[rows] < end]
    touched = touched_keys(log, events)
    free = items - np.bincount(touched // items, minlength=log.num_users)[user]
    check_free(log, user, free, count)
    drawn = np.full((len(part), count), -1, dtype=np.int64)
    streams, width = Streams(int(seed)), count + count // 4 + 8
    todo = np.arange(len(part))
    for attempt in range(_ROUNDS):
        new = streams.numpy("negatives", attempt).integers(items, size=(len(rows), width))[part[todo]]
        offered = np.concatenate([drawn[todo], np.where(among(user[todo, None] * items + new, touched), -1, new)], 1)
        drawn[todo] = _first_distinct(offered, count, items)
        todo = todo[drawn[todo, -1] < 0]
        if len(todo) == 0:
            return drawn
    for one in todo:  # users who have touched nearly everything
        known = touched[slice(*np.searchsorted(touched, [user[one] * items, (user[one] + 1) * items]))] % items
        left = np.setdiff1d(np.arange(items), known)
        drawn[one] = streams.numpy("negatives left", int(part[one])).permutation(left)[:count]
    return drawn


def _first_distinct(offered: Ints, count: int, num_items: int) -> Ints:
    """(n, m) items, -1 for none -> (n, count): the first distinct ones of each row, -1 where there are fewer."""
    row = np.repeat(np.arange(len(offered)), offered.shape[1])
    keep = first_of_pairs(row, offered.reshape(-1) + 1, num_items + 1).reshape(offered.shape) & (offered >= 0)
    rank = keep.cumsum(axis=1) - 1
    keep &= rank < count
    first = np.full((len(offered), count), -1, dtype=np.int64)
    first[np.nonzero(keep)[0], rank[keep]] = offered[keep]
    return first


def _window_counts(
    log: InteractionLog, train: InteractionLog, rows: Ints, parts: list[Ints], valid: Queries, test: Queries
) -> dict[str, int | float]:
    """The `counts` of a split whose training, validation and test have the windows `parts` of `rows` (W, L)."""
    counts: dict[str, int | float] = {
        "short_users": _short_users(log, rows),
        "windows": len(rows),
        "windows_train": len(parts[0]),
        "windows_dropped": len(rows) - sum(len(part) for part in parts),
        "outside_events": len(log) - rows.size,
    }
    counts |= counts_of(train, valid, test)
    newest = np.full(log.num_users, -1, dtype=np.int64)  # the user's newest training window
    newest[log.user[rows[parts[0], 0]]] = parts[0]  # parts ascend, so the last one stays
    for queries, part in ((valid, parts[1]), (test, parts[2])):
        name = queries.name
        counts[f"repeat_share_{name}"] = counts[f"repeat_targets_{name}"] / counts[f"targets_{name}"]
        counts[f"known_users_{name}"] = int((newest[queries.user] >= 0).sum())
        counts[f"later_training_{name}"] = int((newest[queries.user] > part).sum())
    return counts


def _window_queries(
    log: InteractionLog, rows: Ints, part: Ints, inputs: int, negatives: Ints, name: str, digest: str
) -> Queries:
    """The windows `part` as queries."""
    known, asked = rows[part, :inputs], rows[part, inputs:]
    user = log.user[known[:, 0]]
    candidates = np.sort(np.concatenate([log.item[asked], negatives], axis=1), axis=1)
    times: Floats | None = None if log.time is None else log.time[known].reshape(-1)
    return Queries(
        user=user,
        offsets=np.arange(len(part) + 1) * inputs,
        items=log.item[known].reshape(-1),
        times=times,
        target_offsets=np.arange(len(part) + 1) * asked.shape[1],
        targets=log.item[asked].reshape(-1),
        time=None if log.time is None else log.time[asked[:, 0]],
        candidate_offsets=np.arange(len(part) + 1) * candidates.shape[1],
        candidates=candidates.reshape(-1),
        first_time=None if log.time is None else log.time[log.offsets[user]],
        name=name,
        split_digest=digest,
    )


def _verify_windows(split: Split) -> None:
    """Checks a split by windows: each window of the log at most once, and nothing held out in training.

    Raises:
        DataError: a window is in two parts or in none of the log's, users or periods mix, or a negative was touched.
    """
    assert split.windows is not None
    log, inputs, parts = split.log, int(split.rule["inputs"]), (split.windows, split.valid, split.test)
    rows = _grid(log, inputs + int(split.rule["targets"]), split.rule["last"])
    known = np.column_stack([log.user[rows[:, :1]], log.item[rows]])  # (W, 1 + L)
    held = [
        np.column_stack([p.user, p.items.reshape(len(p), -1), p.targets.reshape(len(p), -1)])
        for p in parts
        if len(p.items) == len(p) * inputs and len(p.targets) == len(p) * int(split.rule["targets"])
    ]
    if len(held) < len(parts):
        raise DataError("the queries are not those of whole windows")
    _, number = np.unique(np.concatenate([known, *held]), axis=0, return_inverse=True)
    number = number.reshape(-1)
    times_known = np.bincount(number[: len(known)], minlength=number.max() + 1)
    if (np.bincount(number[len(known) :], minlength=len(times_known)) > times_known).any():
        raise DataError("a window is in two parts, or does not match the log that it was cut from")
    if not np.array_equal(held[0][:, 1:].reshape(-1), split.train.item):
        raise DataError("the training log holds other events than the training windows")
    for queries in parts:
        ends = np.arange(len(queries) + 1) * int(split.rule["negatives"])
        if in_query(ends, queries.negatives, queries.offsets, queries.items).any():
            raise DataError(f"a negative of a {queries.name} window is in its inputs")
    if split.kind == "user":
        sides = np.concatenate([np.unique(p.user) for p in parts])
        if len(np.unique(sides)) < len(sides):
            raise DataError("a user has windows in two parts")
    if split.kind == "time":
        assert split.train.time is not None and split.valid.time is not None and split.test.time is not None
        assert split.valid_time is not None and split.test_time is not None
        if split.train.time.max() >= split.valid_time or split.valid.time.min() < split.valid_time:
            raise DataError("training windows reach into the time of the validation targets")
        if split.test.time.min() < split.test_time:
            raise DataError("a test window has targets from before the test period")


register(windows, _verify_windows)
