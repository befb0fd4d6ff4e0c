"""Sampled candidates: the target of a query among items that its user never touched, drawn once and kept.

Much of the literature ranks a target among 99 or 999 sampled items and not among all. Here the sample belongs to the
split: uniform, distinct, fixed by a seed. What a user gets depends on the seed, the user's index and the user's own
events (and on how many items there are), so that it stays the same when the events of others change, or when queries
of others are added. To that end numbers are not taken from one long stream: the n-th number of a user is a function of
(seed, part, user, n), see `streams.mixed`. All users of a block are drawn at once.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..streams import GOLDEN, Streams, mixed
from .flat import Ints, distinct_keys, in_query, ranges, row_pointers
from .log import InteractionLog
from .queries import Queries

Keys: TypeAlias = npt.NDArray[np.uint64]
Ranks: TypeAlias = npt.NDArray[np.int32]

_ROWS = 128  # queries per block: the working data stay in a CPU's cache


def with_negatives(queries: Queries, log: InteractionLog, count: int, *, seed: int, before: float = np.inf) -> Queries:
    """The queries with candidates: each query's target, and `count` distinct items that its user did not touch.

    Negatives are uniform over what is left of the catalogue. A query's candidates are in the order of their indices,
    so that no place says which one is right. They take 4 bytes each: 200 MB for 50,000 queries with 999 negatives.

    Args:
        queries: one target each, of users of the log, one query per user; `queries.name` is part of the draw.
        log: whose events count as touched.
        count: negatives of each query.
        seed: of the draw.
        before: only events before this time, in seconds, count.

    Raises:
        DataError: a query has several targets, `count` is below 1, or a user has fewer items left.
    """
    if len(queries.targets) != len(queries):
        raise DataError("negatives are drawn for queries with one target each; these have sets of targets")
    offsets, touched = _touched(log, before)
    free = log.num_items - np.diff(offsets)[queries.user]  # (Q,) items that are left
    check_free(log, queries.user, free, count)
    # The free item of rank r is r plus the touched items that come before it: those whose own rank among the free,
    # `gap`, is at most r.
    gap = touched - (np.arange(len(touched)) - np.repeat(offsets[:-1], np.diff(offsets)))
    keys = _user_keys(queries.user, seed, f"negatives {queries.name}")
    candidates = np.empty((len(queries), count + 1), np.int32)
    for first in range(0, len(queries), _ROWS):
        part = slice(first, first + _ROWS)
        ranks = _distinct(keys[part], free[part], count)
        gaps, gap_offsets = ranges(offsets[queries.user[part]], offsets[queries.user[part] + 1])
        candidates[part, :count] = ranks + _at_most(ranks, gap[gaps], gap_offsets, log.num_items)
        candidates[part, count] = queries.targets[part]
        candidates[part].sort(axis=1)
    ends = np.arange(len(queries) + 1) * (count + 1)
    return dataclasses.replace(queries, candidates=candidates.reshape(-1), candidate_offsets=ends)


def choose_users(user: Ints, number: int, seed: int) -> Ints:
    """Which `number` of the users (Q,) are chosen, as ascending places in `user`; all where there are fewer.

    Each user has a number by seed, and the smallest ones are taken.
    """
    order = np.argsort(_user_keys(user, seed, "test users"), kind="stable")
    return np.sort(order[:number])


def check_free(log: InteractionLog, user: Ints, free: Ints, count: int) -> None:
    """Refuse to draw `count` negatives for a user (Q,) who has fewer untouched items (Q,).

    Raises:
        DataError: naming the user who has the fewest.
    """
    if len(free) and free.min() < count:
        poor = int(free.argmin())
        mend = f"take {free[poor]} or fewer" if free[poor] else "rank all items"
        raise DataError(
            f"user {str(log.user_ids[user[poor]])!r} has touched all but {free[poor]} of {log.num_items} items; "
            f"{count} negatives cannot be drawn: {mend}"
        )


def touched_keys(log: InteractionLog, events: Any) -> Ints:
    """user * num_items + item of the distinct pairs among some events (row numbers, a mask or a slice), ascending."""
    return distinct_keys(log.user[events] * log.num_items + log.item[events])


def verify_negatives(queries: Queries, log: InteractionLog, count: int, before: float) -> None:
    """Checks candidates that `with_negatives` made.

    Raises:
        DataError: a query has another number of negatives, one of them twice, one that its user touched, or no target.
    """
    ends, candidates = np.arange(len(queries) + 1) * (count + 1), queries.candidates
    if candidates is None or not np.array_equal(queries.candidate_offsets, ends):  # type: ignore[arg-type]
        raise DataError(f"the {queries.name} queries do not have {count} negatives and a target each")
    if (np.diff(candidates.reshape(-1, count + 1), axis=1) <= 0).any():
        raise DataError(f"a {queries.name} query has a negative twice, or candidates that do not ascend")
    right = in_query(ends, candidates, queries.target_offsets, queries.targets)
    if right.sum() < len(queries):
        raise DataError(f"a {queries.name} query has negatives without its target")
    offsets, touched = _touched(log, before)
    own, own_offsets = ranges(offsets[queries.user], offsets[queries.user + 1])
    if (in_query(ends, candidates, own_offsets, touched[own]) & ~right).any():
        raise DataError(f"a {queries.name} query has a negative that its user touched")


def _touched(log: InteractionLog, before: float) -> tuple[Ints, Ints]:
    """The distinct items that each user touched before a time, ascending: (U + 1,) row pointers, (n,) items."""
    pairs = log.pair_keys if log.time is None or before == np.inf else touched_keys(log, log.time < before)
    return row_pointers(np.bincount(pairs // log.num_items, minlength=log.num_users)), pairs % log.num_items


def _at_most(ranks: Ranks, gap: Ints, gap_offsets: Ints, num_items: int) -> Ints:
    """How many of its row's gaps are at most each rank.

    Shapes: ranks (n, count) ascending, gap (g,) ascending within a row, with row pointers (n + 1,) -> (n, count).
    """
    rows, count = ranks.shape
    row = np.repeat(np.arange(rows), np.diff(gap_offsets))  # (g,)
    flat = (ranks + np.arange(rows)[:, None] * (num_items + 1)).reshape(-1)  # ascends over all rows
    place = np.searchsorted(flat, gap + row * (num_items + 1))  # the first rank that is not below the gap
    starts = np.bincount(place + row, minlength=rows * (count + 1))  # one place more per row, for gaps above all ranks
    before: Ints = starts.reshape(rows, count + 1).cumsum(axis=1)[:, :count]
    return before


# Numbers --------------------------------------------------------------------------------------------------------------


def _user_keys(user: Ints, seed: int, name: str) -> Keys:
    """(Q,) where the numbers of each user begin."""
    return mixed(np.uint64(Streams(int(seed)).torch_seed(name)) + (user + 1).astype(np.uint64) * GOLDEN)


def _numbers(key: Keys, which: Ints) -> Keys:
    """The numbers `which`, from 0, of the users with these keys; 64 random bits each."""
    return mixed(key + (which + 1).astype(np.uint64) * GOLDEN)


def _below(limit: Ints, key: Keys, which: Ints) -> Ranks:
    """Numbers from 0 to `limit` - 1; the chance of each is off by `limit` / 2^32 of itself at most."""
    bits = _numbers(key, which)
    bits >>= np.uint64(32)
    bits *= limit.astype(np.uint64)
    bits >>= np.uint64(32)
    return bits.astype(np.int32)


def _distinct(key: Keys, free: Ints, count: int) -> Ranks:
    """`count` distinct numbers below `free` of each row, ascending: keys (n,), free (n,) -> (n, count)."""
    ranks = np.empty((len(key), count), np.int32)
    few = free < 3 * count  # where many numbers are taken, drawing again finds too few that are free
    for rows, draw in ((few, _by_order), (~few, _by_rejection)):
        if rows.any():
            ranks[rows] = draw(key[rows], free[rows], count)
    return ranks


def _by_order(key: Keys, free: Ints, count: int) -> Ranks:
    """The first `count` places of a random order of all numbers below `free`."""
    number = np.arange(free.max())
    order = _numbers(key[:, None], number)
    order[number >= free[:, None]] = np.iinfo(np.uint64).max
    first = np.argpartition(order, count - 1, axis=1)[:, :count].astype(np.int32)
    first.sort(axis=1)
    return first


def _by_rejection(key: Keys, free: Ints, count: int) -> Ranks:
    """Independent numbers; those that repeat another of their row are drawn again until none does."""
    ranks = _below(free[:, None], key[:, None], np.arange(count))
    ranks.sort(axis=1)
    rows = np.arange(len(key))  # those that may hold repeats
    for attempt in itertools.count(1):
        part = ranks[rows]
        repeats = part[:, 1:] == part[:, :-1]
        row, place = np.divmod(np.flatnonzero(repeats), count - 1)  # twice as fast as np.nonzero
        if len(row) == 0:
            break
        part[row, place] = _below(free[rows[row]], key[rows[row]], attempt * count + place)
        part.sort(axis=1)
        ranks[rows] = part
        rows = rows[np.bincount(row, minlength=len(rows)) > 0]
    return ranks
