"""Splits that deal out events instead of cutting histories at one point: by ratio, and as the source gives them.

`ratio` holds out a share of each user's events, the last ones or any; `given` takes the parts that come with the data,
such as the two files of LightGCN. In both, targets are sets: a query has all held-out items of its user.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .flat import Bools, Ints, first_of_pairs, row_pointers
from .log import InteractionLog
from .queries import Queries
from .splits import Rule, Split, check_order, check_seed, counts_of, digest_of, register

Parts = npt.NDArray[np.int8]  # (n,) 0: training, 1: validation, 2: test


def ratio(
    log: InteractionLog,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    by: Literal["last", "random"] = "last",
    order: Literal["time", "file"] = "time",
    seed: int = 2020,
) -> Split:
    """A share of each user's events for validation, another for test, the rest for training.

    Of a user with n events, the whole part of `test` * n and of `valid` * n are held out, and one each where that is
    zero and something is left to train on, test first. RecBole does the same (`RS: [0.8, 0.1, 0.1], group_by: user`,
    with `order: TO` for "last" and `RO` for "random"; its generator is another one).

    Args:
        log: the full log, filtered as wanted.
        valid: share of each user's events; 0 for none, but then there is nothing to select by.
        test: likewise.
        by: "last" holds out the end of each history, test after validation; "random" any events, so that a training
            event may be later than a target.
        order: "time"; "file" for a log without times, whose rows then count as oldest first.
        seed: of "random".

    Returns:
        A split of kind "position" or "random", with the `counts` of `leave_one_out`; short_users are those without any
        query, and tie_decided_targets_* counts, for "last", the queries whose first target shares its time with the
        event before it.

    Raises:
        DataError: a wrong argument, no times, or no user has events to hold out.

    >>> log = InteractionLog.from_arrays(["a"] * 5, list("pqrst"), time=range(5))
    >>> split = ratio(log, valid=0.2, test=0.4)
    >>> split.train.item.tolist(), split.valid.targets.tolist(), split.test.targets.tolist()
    ([0, 1], [2], [3, 4])
    """
    if by not in ("last", "random"):
        raise DataError(f"by is {by!r}; expected 'last' or 'random'")
    if not (valid >= 0 and test > 0 and valid + test < 1):
        raise DataError(f"valid {valid} and test {test} must not be negative, and sum to less than 1; test is above 0")
    check_order(log, order)
    rule: Rule = {"function": "ratio", "valid": float(valid), "test": float(test), "by": by, "order": order}
    if by == "random":
        check_seed(seed)
        rule["seed"] = int(seed)
    lengths = np.diff(log.offsets)
    held_test, held_valid = _held_out(lengths, test, valid)
    place = log.position if by == "last" else _random_places(log.user, seed)
    left = lengths[log.user] - place  # (n,) 1 for the last
    part = np.zeros(len(log), dtype=np.int8)
    part[left <= (held_test + held_valid)[log.user]] = 1
    part[left <= held_test[log.user]] = 2
    split = _deal(log, part, "position" if by == "last" else "random", rule)
    if by == "last" and log.time is not None:
        for number, queries in ((1, split.valid), (2, split.test)):
            first = np.flatnonzero((np.diff(part, prepend=0) != 0) & (part == number))  # never a user's first event
            split.counts[f"tie_decided_targets_{queries.name}"] = int((log.time[first] == log.time[first - 1]).sum())
    return split


def given(log: InteractionLog, *, valid: float | None = None, seed: int = 2020) -> Split:
    """The split that the data come with: `log.part`, as LightGCN's `train.txt` and `test.txt` have it.

    Where the source has no validation part, a share of each user's training events is drawn for it, as selection never
    looks at the test part. (LightGCN's public code trains on all of them and takes the best epoch on test.)

    Args:
        log: a log with parts: `load` of a folder with such files.
        valid: share of each user's training events for validation, .1 by default; rounded as in `ratio`. With 0 nothing
            is held out, for a last training on all of them: `fit` then runs all its epochs and selects none.
        seed: of the draw.

    Returns:
        A split of kind "given" with the `counts` of `leave_one_out`; short_users are those without any query.

    Raises:
        DataError: the log has no parts or no test events, or `valid` is given beside a validation part of the source.

    >>> log = InteractionLog.from_arrays(["a"] * 4, list("pqrs"), part=[0, 0, 0, 2])
    >>> split = given(log, valid=0.4)
    >>> len(split.train), len(split.valid.targets), split.test.targets.tolist(), split.test.items.tolist()
    (2, 1, [3], [0, 1, 2])
    """
    if log.part is None:
        raise DataError(f"{log.name!r} comes without a split; expected e.g. a folder with train.txt and test.txt")
    rule: Rule = {"function": "given"}
    part = log.part
    if not (part == 2).any():
        raise DataError(f"{log.name!r} comes without test events (part 2); expected some, or use another split")
    if (part == 1).any():
        if valid is not None:
            raise DataError(f"{log.name!r} has a validation part of its own; leave valid out")
    else:
        valid = 0.1 if valid is None else float(valid)
        if not 0 <= valid < 1:
            raise DataError(f"valid is {valid}; expected a share from 0 to below 1")
        check_seed(seed)
        rule |= {"valid": valid, "seed": int(seed)}
        rows = np.flatnonzero(part == 0)
        lengths = np.bincount(log.user[rows], minlength=log.num_users)
        held, _ = _held_out(lengths, valid, 0.0)
        part = part.copy()
        part[rows[_random_places(log.user[rows], seed) < held[log.user[rows]]]] = 1
    return _deal(log, part, "given", rule)


def _held_out(lengths: Ints, first: float, second: float) -> tuple[Ints, Ints]:
    """(U,) each: how many of a user's events two shares hold out; see `ratio`."""
    held = [(share * lengths).astype(np.int64) for share in (first, second)]
    left = lengths - held[0] - held[1]
    for number, share in enumerate((first, second)):
        more = (share * lengths > 0) & (share * lengths < 1) & (left > 1)
        held[number] += more
        left -= more
    return held[0], held[1]


def _random_places(user: Ints, seed: int) -> Ints:
    """(n,) a random order within each user: 0, 1, ... over the rows of sorted users."""
    key = np.random.default_rng([int(seed), 0x5A1E]).random(len(user))
    order = np.lexsort((key, user))
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.searchsorted(user, user)  # users are sorted before and after
    return place


def _deal(log: InteractionLog, part: Parts, kind: Literal["position", "random", "given"], rule: Rule) -> Split:
    """The split of parts (n,)."""
    digest = digest_of(log, rule)
    train = log.select(part == 0)
    if len(train) == 0:  # of a source that comes with its parts
        raise DataError(f"all events of {log.name!r} are held out; nothing to train on")
    valid, test = (_asked(log, part, number, name, digest) for number, name in ((1, "valid"), (2, "test")))
    counts: dict[str, int | float] = {"short_users": log.num_users - len(np.union1d(valid.user, test.user))}
    return Split(log, train, valid, test, kind, rule, digest, counts | counts_of(train, valid, test))


def _asked(log: InteractionLog, part: Parts, number: int, name: str, digest: str) -> Queries:
    """Queries for the distinct items of a part, after the rows of all parts before it."""
    history, target = part < number, part == number
    asked = (_count(log, history) > 0) & (_count(log, target) > 0)  # (U,)
    if not asked.any() and target.any():
        raise DataError(f"no user of {log.name!r} has events both in the {name} part and before it")
    user = np.flatnonzero(asked)
    rows, targets = np.flatnonzero(history & asked[log.user]), np.flatnonzero(target & asked[log.user])
    targets = targets[first_of_pairs(log.user[targets], log.item[targets], log.num_items)]
    lengths, numbers = (np.bincount(log.user[some], minlength=log.num_users)[user] for some in (rows, targets))
    target_offsets = row_pointers(numbers)
    return Queries(
        user=user,
        offsets=row_pointers(lengths),
        items=log.item[rows],
        times=None if log.time is None else log.time[rows],
        target_offsets=target_offsets,
        targets=log.item[targets],
        time=None if log.time is None else log.time[targets[target_offsets[:-1]]],
        name=name,
        split_digest=digest,
    )


def _count(log: InteractionLog, rows: Bools) -> Ints:
    """(U,) the user's rows among these."""
    return np.bincount(log.user[rows], minlength=log.num_users)


def _verify_parts(split: Split) -> None:
    """Checks that no event of the log is in two parts, or in a query's history and among its targets.

    Raises:
        DataError: it is.
    """
    log, train = split.log, split.train

    def pairs(user: Ints, item: Ints) -> Ints:
        return user * log.num_items + item

    def of(queries: Queries) -> tuple[Ints, Ints]:
        users = (np.repeat(queries.user, np.diff(offsets)) for offsets in (queries.offsets, queries.target_offsets))
        histories, targets = (pairs(u, i) for u, i in zip(users, (queries.items, queries.targets), strict=True))
        return histories, targets

    valid, test = of(split.valid), of(split.test)
    cases = {"training": [pairs(train.user, train.item), valid[1], test[1]], "validation": [*valid, test[1]]}
    known, times_known = np.unique(pairs(log.user, log.item), return_counts=True)
    for name, parts in (cases | {"test": list(test)}).items():
        found, times = np.unique(np.concatenate(parts), return_counts=True)
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        if (known[place] != found).any() or (times > times_known[place]).any():
            raise DataError(f"an event of the {name} part is in another part too, or not in the log")


register(ratio, _verify_parts)
register(given, _verify_parts)
