"""How far a figure can be trusted: intervals by user.

Queries of one user are not independent of each other. The bootstrap here draws users, and all queries of a user come
with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import DataError

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.uint8]  # how often a user is drawn: nobody is 256 times, whose chance is below 1e-500

_BLOCK_DRAWN = 1 << 20  # users drawn at once: 8 MiB
_BLOCK_USERS = 1 << 9  # whose draws are made float64 at once: 8 MiB for 2,000 draws
_KEPT = 1 << 26  # most cells of users by draws in memory at once: 64 MiB


class Interval(NamedTuple):
    """A mean with the ends of its interval."""

    mean: float
    low: float
    high: float


def user_bootstrap(
    values: npt.ArrayLike,
    users: npt.ArrayLike,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over queries, with its percentile interval over draws of users.

    Each draw takes as many users as there are, with replacement, and the mean over all queries of those drawn. For the
    difference of two models give the differences of their values: what makes a query hard for both then cancels out.

    Args:
        values: (Q,) of each query, such as `evaluate(..., per_query=True).per_query["auc_pooled"]`.
        users: (Q,) the user of each query: numbers or ids.
        draws: number of draws.
        seed: of the draws.
        level: share of the draws within the interval.

    Raises:
        DataError: shapes that do not fit, values that are not finite, fewer than two users, or a wrong draws or level.

    >>> user_bootstrap([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    Interval(mean=0.5, low=0.0, high=1.0)
    """
    each, who = np.asarray(values, dtype=np.float64), np.asarray(users)
    if each.ndim != 1 or who.shape != each.shape:
        raise DataError(f"values {each.shape} and users {who.shape} do not fit; expected one of each per query")
    if not np.isfinite(each).all():
        raise DataError("a value is not finite; an interval needs numbers")
    if draws < 1 or not 0 < level < 1:
        raise DataError(f"draws is {draws} and level {level}; expected at least 1 draw and a level between 0 and 1")
    _, user = np.unique(who, return_inverse=True)
    counts = np.bincount(user).astype(np.float64)  # (U,) queries of each user
    if len(counts) < 2:
        raise DataError(f"the queries are of {len(counts)} user; an interval by user needs at least two")
    sums = np.bincount(user, each).astype(np.float64)  # (U,)
    means = np.concatenate([_means(sums, counts, times) for times in _times_drawn(len(sums), draws, seed)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(each.mean()), float(low), float(high))


def _means(sums: Floats, counts: Floats, times: Times) -> Floats:
    """(n,) means over the queries of n draws, from how often each of them has each user (U, n)."""
    same = bool((counts == counts[0]).all())
    return _weighted(sums, times) / (counts.sum() if same else _weighted(counts, times))


def _weighted(values: Floats, times: Times) -> Floats:
    """values (U,) @ times (U, n). Most users of a ranking metric have 0, and their rows need not be read."""
    total, some = np.zeros(times.shape[1]), values.nonzero()[0]
    for start in range(0, len(some), _BLOCK_USERS):
        part = some[start : start + _BLOCK_USERS]
        total += values[part] @ times[part].astype(np.float64)
    return total


def _times_drawn(size: int, draws: int, seed: int) -> Iterable[Times]:
    """How often each draw of `size` users with replacement has each of them, (size, n), some draws at a time.

    A table has many intervals over the same users; what was drawn is kept for the next one if it is small.
    """
    if size * draws <= _KEPT:
        return [_kept_times(size, draws, seed)]
    rng, step = np.random.default_rng(seed), max(1, _KEPT // size)
    return (_draw(size, min(step, draws - start), rng) for start in range(0, draws, step))


@lru_cache(maxsize=1)
def _kept_times(size: int, draws: int, seed: int) -> Times:
    return _draw(size, draws, np.random.default_rng(seed))


def _draw(size: int, draws: int, rng: np.random.Generator) -> Times:
    """(size, draws); the numbers drawn are there for a few draws at a time only."""
    step, parts = max(1, _BLOCK_DRAWN // size), []
    for start in range(0, draws, step):
        number = min(step, draws - start)
        cell = rng.integers(size, size=(number, size)) + size * np.arange(number)[:, None]
        times = np.bincount(cell.reshape(-1), minlength=number * size).reshape(number, size)
        parts.append(times.astype(np.uint8).T)
    return np.concatenate(parts, axis=1)
