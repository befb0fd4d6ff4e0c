"""How far a figure can be trusted: intervals by user.

Queries of one user are not independent of each other. The bootstrap here draws users, and all queries of a user come
with them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import DataError

_BLOCK_DRAWS = 1 << 22  # users drawn at once: 32 MiB


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
    means = _means_of_draws(sums, counts, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(each.mean()), float(low), float(high))


def _means_of_draws(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], draws: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(draws,) means over the queries of users drawn with replacement, some draws at a time.

    Adding up what was drawn is the same as weighting users by a multinomial draw, and faster.
    """
    size, means = len(sums), np.empty(draws)
    step = max(1, _BLOCK_DRAWS // size)
    for start in range(0, draws, step):
        drawn = rng.integers(size, size=(min(step, draws - start), size))
        means[start : start + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means
