"""Intervals by user against their definition, and against data drawn from a known process."""

from __future__ import annotations

import numpy as np
import pytest

from dglrec import DataError, intervals, user_bootstrap


def test_the_mean_is_over_queries_and_users_are_drawn_whole() -> None:
    """Two users: each draw has both of them or one of them twice, so the means are few and known."""
    values, users = [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"]
    assert user_bootstrap(values, users) == (0.25, 0.0, 1.0)
    inner = user_bootstrap(values, users, level=0.4)  # half of the draws have one of each
    assert inner == pytest.approx((0.25, 0.25, 0.25))


def test_it_is_the_percentile_interval_of_multinomial_weights() -> None:
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    values = rng.normal(size=len(users)) + rng.normal(size=60)[users]
    found = user_bootstrap(values, users, draws=20_000, seed=1)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=20_000)  # (draws, users)
    sums, counts = np.bincount(users, values), np.bincount(users)
    low, high = np.quantile(weights @ sums / (weights @ counts), [0.025, 0.975])
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_the_same_seed_gives_the_same_interval_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, users = rng.normal(size=300), rng.integers(90, size=300)
    first = user_bootstrap(values, users, seed=5)
    shuffled = rng.permutation(300)
    assert user_bootstrap(values[shuffled], users[shuffled], seed=5) == pytest.approx(first)
    assert user_bootstrap(values, users, seed=6) != first
    for name, size in (("_BLOCK_DRAWN", 1000), ("_BLOCK_USERS", 7), ("_KEPT", 10_000)):
        monkeypatch.setattr(f"dglrec.intervals.{name}", size)
        intervals._kept_times.cache_clear()
        assert user_bootstrap(values, users, seed=5) == pytest.approx(first, rel=1e-12)


def test_zeros_and_what_was_drawn_before_change_nothing() -> None:
    """As in the rankings: most users have 0, and many intervals are over the same users."""
    rng = np.random.default_rng(4)
    users = rng.permutation(np.repeat(np.arange(400), 2))
    values = np.where(rng.random(800) < 0.1, rng.random(800), 0.0)
    intervals._kept_times.cache_clear()
    first, moved = (user_bootstrap(some, users) for some in (values, values + 1))
    assert moved == pytest.approx([end + 1 for end in first])
    assert user_bootstrap(values, users) == first
    intervals._kept_times.cache_clear()
    assert user_bootstrap(values + 1, users) == moved


def test_it_covers_the_truth_where_queries_of_a_user_go_together() -> None:
    """60 users, 8 queries each, that share most of their deviation: 95 % by user cover, queries as units do not."""
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 8)
    hits = naive = 0
    for trial in range(200):
        values = 0.5 + rng.normal(size=60)[users] + 0.5 * rng.normal(size=480)
        _, low, high = user_bootstrap(values, users, draws=300, seed=trial)
        hits += low <= 0.5 <= high
        error = 1.96 * values.std(ddof=1) / np.sqrt(480)
        naive += abs(values.mean() - 0.5) <= error
    assert 0.89 <= hits / 200 <= 0.99
    assert naive / 200 < 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1.0, 2.0], "users": [1]}, r"values \(2,\) and users \(1,\) do not fit"),
        ({"values": [[1.0], [2.0]], "users": [[1], [2]]}, "do not fit"),
        ({"values": [1.0, np.nan], "users": [1, 2]}, "not finite"),
        ({"values": [1.0, np.inf], "users": [1, 2]}, "not finite"),
        ({"values": [1.0, 2.0], "users": [1, 1]}, "are of 1 user"),
        ({"values": [], "users": []}, "are of 0 user"),
        ({"values": [1.0, 2.0], "users": [1, 2], "draws": 0}, "draws is 0"),
        ({"values": [1.0, 2.0], "users": [1, 2], "level": 95}, "level 95"),
        ({"values": [1.0, 2.0], "users": [1, 2], "level": 1}, "level 1;"),
    ],
)
def test_wrong_arguments_are_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        user_bootstrap(**arguments)  # type: ignore[arg-type]
