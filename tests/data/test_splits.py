"""Splits: known answers, a slow version written with loops, ties, leaks, and queries that can be cut to pieces."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dglrec.data import InteractionLog, Queries, Split, leave_one_out, make_split, splits, time_point
from dglrec.errors import DataError

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=60)


def make_log(events: list[tuple[int, int, int]]) -> InteractionLog:
    """A log of (user, item, time) events."""
    users, items, times = zip(*events, strict=True)
    return InteractionLog.from_arrays(users, items, time=times)


def pieces(queries: Queries) -> list[tuple[int, list[int], list[int]]]:
    """[(user, history, targets)]"""
    return [
        (
            int(queries.user[q]),
            queries.items[queries.offsets[q] : queries.offsets[q + 1]].tolist(),
            queries.targets[queries.target_offsets[q] : queries.target_offsets[q + 1]].tolist(),
        )
        for q in range(len(queries))
    ]


def histories(log: InteractionLog) -> list[list[int]]:
    return [log.item[log.offsets[u] : log.offsets[u + 1]].tolist() for u in range(log.num_users)]


# Leave one out --------------------------------------------------------------------------------------------------------


def test_leave_one_out_on_a_small_log() -> None:
    log = make_log(
        [(0, 10, 1), (0, 11, 2), (0, 12, 3), (0, 13, 4), (1, 10, 1), (1, 11, 2), (2, 13, 1), (2, 11, 1), (2, 13, 5)]
    )
    split = leave_one_out(log)
    a, b, c, d = (log.item_index(str(item)) for item in (10, 11, 12, 13))
    assert histories(split.train) == [[a, b], [a, b], [d]]  # user 1 has two events: all in training
    assert pieces(split.valid) == [(0, [a, b], [c]), (2, [d], [b])]
    assert pieces(split.test) == [(0, [a, b, c], [d]), (2, [d, b], [d])]
    assert split.valid.times is not None
    assert split.valid.times.tolist() == [1, 2, 1]
    assert split.test.time is not None
    assert split.test.time.tolist() == [4, 5]
    assert (split.valid.name, split.test.name, split.kind) == ("valid", "test", "position")
    assert split.counts == {
        "short_users": 1,
        "train_interactions": 5,
        "queries_valid": 2,
        "targets_valid": 2,
        "cold_targets_valid": 1,  # c is in nobody's training
        "repeat_targets_valid": 0,
        "older_share_valid": 0.5,  # the last training event is at 2, and user 2's target at 1
        "queries_test": 2,
        "targets_test": 2,
        "cold_targets_test": 0,
        "repeat_targets_test": 1,
        "older_share_test": 0.0,
        "tie_decided_targets_valid": 1,
        "tie_decided_targets_test": 0,
    }
    assert (split.train.num_users, split.train.num_items) == (log.num_users, log.num_items)
    split.verify()
    json.dumps(split.counts)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_leave_one_out_equals_a_loop_over_users(events: list[tuple[int, int, int]]) -> None:
    log = make_log(events)
    train, valid, test = [], [], []
    for user, items in enumerate(histories(log)):
        if len(items) < 3:
            train.append(items)
            continue
        train.append(items[:-2])
        valid.append((user, items[:-2], items[-2:-1]))
        test.append((user, items[:-1], items[-1:]))
    if not valid:
        with pytest.raises(DataError, match="no user of 'log' has three events"):
            leave_one_out(log)
        return
    split = leave_one_out(log)
    assert histories(split.train) == train
    assert pieces(split.valid) == valid
    assert pieces(split.test) == test
    assert split.counts["repeat_targets_test"] == sum(targets[0] in items for _, items, targets in test)
    trained = {item for items in train for item in items}
    assert split.counts["cold_targets_valid"] == sum(targets[0] not in trained for _, _, targets in valid)
    split.verify()


def test_random_ties_shuffle_within_ties_alone_and_by_seed() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 200, 4000), rng.integers(0, 50, 4000)
    log = InteractionLog.from_arrays(users, items, time=rng.integers(0, 6, 4000))
    split = leave_one_out(log, ties="random", seed=1)
    assert split.log.time is not None
    assert log.time is not None
    np.testing.assert_array_equal(split.log.time, log.time)
    assert not np.array_equal(split.log.item, log.item)
    key = log.user * 100 + log.time
    for moment in np.unique(key)[:50]:
        assert sorted(split.log.item[key == moment]) == sorted(log.item[key == moment])
    same, other = leave_one_out(log, ties="random", seed=1), leave_one_out(log, ties="random", seed=2)
    np.testing.assert_array_equal(same.test.targets, split.test.targets)
    assert not np.array_equal(other.test.targets, split.test.targets)
    assert same.digest == split.digest
    assert len({split.digest, other.digest, leave_one_out(log).digest}) == 3
    for one in (split, other):
        one.verify()
        assert one.counts["tie_decided_targets_test"] == leave_one_out(log).counts["tie_decided_targets_test"]


def test_random_ties_do_not_depend_on_the_order_in_the_file() -> None:
    log = make_log([(0, item, 7) for item in range(8)])
    turned = log.select(np.ones(8, dtype=bool))._take(np.arange(8)[::-1].copy())
    for seed in range(5):
        one, two = (leave_one_out(some, ties="random", seed=seed) for some in (log, turned))
        assert pieces(one.test) == pieces(two.test)
        assert one.digest == two.digest
    rated = [InteractionLog.from_arrays([0] * 3, [1] * 3, [7] * 3, rating=marks) for marks in ([1, 2, 3], [3, 1, 2])]
    assert len({leave_one_out(some, ties="random").digest for some in rated}) == 1
    assert pieces(leave_one_out(log).test) != pieces(leave_one_out(turned).test)
    last = {pieces(leave_one_out(log, ties="random", seed=seed).test)[0][2][0] for seed in range(80)}
    assert last == set(range(8))  # each of the tied items gets its turn


def test_a_log_without_times_must_say_so() -> None:
    log = InteractionLog.from_arrays([0] * 4, [3, 1, 2, 0])
    with pytest.raises(DataError, match="'log' has no times; pass order='file'"):
        leave_one_out(log)
    with pytest.raises(DataError, match="'log' has no times"):
        time_point(log)
    split = leave_one_out(log, order="file")
    assert histories(split.train) == [[0, 1]]
    assert split.valid.times is None
    assert split.test.time is None
    assert not [name for name in split.counts if "tie" in name or "older" in name]  # nobody knows
    assert leave_one_out(log, order="file", ties="random").test.targets.tolist() == [3]  # nothing is tied
    with pytest.raises(DataError, match="'log' is sorted by time already"):
        leave_one_out(make_log([(0, 1, 1)] * 3), order="file")


@pytest.mark.parametrize(
    ("arguments", "message"), [({"ties": "last"}, "ties is 'last'"), ({"order": "rows"}, "order is")]
)
def test_wrong_arguments_are_named(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        leave_one_out(make_log([(0, 1, 1)] * 3), **arguments)  # type: ignore[arg-type]


# Time point -----------------------------------------------------------------------------------------------------------


def test_time_point_on_a_small_log() -> None:
    log = make_log(
        [
            (0, 0, 1),
            (0, 1, 2),
            (0, 2, 11),
            (0, 1, 12),
            (0, 2, 13),
            (0, 3, 21),
            (1, 0, 3),
            (1, 4, 22),
            (2, 5, 12),
            (2, 0, 25),
            (3, 1, 30),
        ]
    )
    split = time_point(log, valid_time=10, test_time=20)
    index = [log.item_index(str(item)) for item in range(6)]
    assert split.train.time is not None
    assert split.train.time.tolist() == [1, 2, 3]
    assert pieces(split.valid) == [(0, [index[0], index[1]], [index[2], index[1]])]  # a set, first appearances
    assert pieces(split.test) == [
        (0, [index[0], index[1], index[2], index[1], index[2]], [index[3]]),
        (1, [index[0]], [index[4]]),
        (2, [index[5]], [index[0]]),  # never trained on, but known by the time of the test
    ]
    assert split.test.time is not None
    assert split.test.time.tolist() == [21, 22, 25]
    assert (split.kind, split.valid_time, split.test_time) == ("time", 10.0, 20.0)
    expected = {
        "short_users": 1,
        "cold_users_valid": 0,
        "cold_users_test": 1,
        "cold_targets_test": 2,
        "repeat_targets_valid": 1,
    }
    assert {name: split.counts[name] for name in expected} == expected
    split.verify()
    following = time_point(log, valid_time=10, test_time=20, targets="next")
    assert pieces(following.valid) == [(0, [index[0], index[1]], [index[2]])]
    assert following.digest != split.digest


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from(["all", "next"]))
@example([(user, 0, time) for user in (0, 1) for time in (4, 7)] + [(2, 0, time) for time in (1, 4, 7)], "all")
def test_time_point_equals_a_loop_over_users(events: list[tuple[int, int, int]], targets: str) -> None:
    log = make_log(events)
    assert log.time is not None
    valid, test = [], []
    for user, items in enumerate(histories(log)):
        times = log.time[log.user == user]
        for queries, start, end in ((valid, 3, 6), (test, 6, np.inf)):
            history = [item for item, time in zip(items, times, strict=True) if time < start]
            future = list(dict.fromkeys(item for item, time in zip(items, times, strict=True) if start <= time < end))
            if history and future:
                queries.append((user, history, future if targets == "all" else future[:1]))
    if not valid or not test:
        with pytest.raises(DataError):
            time_point(log, valid_time=3, test_time=6, targets=targets)  # type: ignore[arg-type]
        return
    split = time_point(log, valid_time=3, test_time=6, targets=targets)  # type: ignore[arg-type]
    assert pieces(split.valid) == valid
    assert pieces(split.test) == test
    np.testing.assert_array_equal(split.train.item, log.item[log.time < 3])
    trained = set(split.train.user.tolist())
    assert split.counts["cold_users_test"] == sum(user not in trained for user, *_ in test)
    assert split.counts["short_users"] == log.num_users - len({user for user, *_ in valid + test})
    split.verify()


def test_shares_are_quantiles_of_the_times() -> None:
    rng = np.random.default_rng(0)
    log = InteractionLog.from_arrays(rng.integers(0, 20, 1000), rng.integers(0, 50, 1000), time=rng.permutation(1000))
    split = time_point(log, valid_share=0.2, test_share=0.1)
    assert (split.valid_time, split.test_time) == (700, 900)
    assert split.counts["train_interactions"] == 700
    assert split.counts["older_share_valid"] == 0
    given = time_point(log, valid_time=700, test_time=900)
    assert given.digest != split.digest  # another recipe
    assert given.digest == time_point(log, valid_time=700.0, test_time=900.0).digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"valid_time": 5}, "go together"),
        ({"valid_time": 5, "test_time": 5}, "expected test to be later"),
        ({"valid_time": 0, "test_time": 5}, "nothing to train on"),
        ({"valid_time": 2, "test_time": 99}, "before and after the time at which test starts"),
        ({"valid_share": 0.6, "test_share": 0.5}, "sum to less than 1"),
        ({"valid_share": 0.0}, "must be positive"),
        ({"test_share": 0.0}, "must be positive"),
        ({"targets": "some"}, "targets is 'some'"),
    ],
)
def test_time_point_refuses_moments_that_leave_nothing(arguments: dict[str, object], message: str) -> None:
    log = make_log([(0, time, time) for time in range(10)])
    with pytest.raises(DataError, match=message):
        time_point(log, **arguments)  # type: ignore[arg-type]


# Rules, digests, leaks ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    rng = np.random.default_rng(3)
    return InteractionLog.from_arrays(rng.integers(0, 40, 900), rng.integers(0, 60, 900), time=rng.integers(0, 50, 900))


RECIPES = [
    lambda log: leave_one_out(log),
    lambda log: leave_one_out(log, ties="random", seed=4),
    lambda log: time_point(log),
    lambda log: time_point(log, valid_time=30, test_time=40, targets="next"),
    lambda log: leave_one_out(log, negatives=9, seed=2),
    lambda log: time_point(log, targets="next", negatives=9),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_rule_makes_the_split_again(recipe: object, log: InteractionLog) -> None:
    split: Split = recipe(log)  # type: ignore[operator]
    rule = json.loads(json.dumps(split.rule))
    for source in (log, split.log):
        again = make_split(source, rule)
        assert again.digest == split.digest == again.test.split_digest
        assert pieces(again.test) == pieces(split.test)
        assert pieces(again.valid) == pieces(split.valid)
        again.verify(split.digest)
    with pytest.raises(DataError, match="expected 000000000000"):
        split.verify("0" * 64)


def test_the_digest_changes_with_the_log(log: InteractionLog) -> None:
    other = log.select(np.arange(len(log)) != 5)
    assert leave_one_out(other).digest != leave_one_out(log).digest
    # Pinned: runs that were saved with this digest must be found again by a later version.
    split = leave_one_out(InteractionLog.from_arrays(["a"] * 4, ["p", "q", "r", "s"], time=[1, 2, 3, 4]))
    assert split.digest == "2a6aeb450c56e5e7f4f6d90a7c39621f9a1f25e6ad8f6a636f889972e734f801"


def test_a_wrong_rule_is_explained(log: InteractionLog) -> None:
    with pytest.raises(DataError, match="unknown split 'leave_one'; did you mean 'leave_one_out'"):
        make_split(log, {"function": "leave_one"})
    with pytest.raises(DataError, match=r"does not fit: .*'tie'"):
        make_split(log, {"function": "leave_one_out", "tie": "file"})


def test_a_split_of_ones_own_is_registered(log: InteractionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(log: InteractionLog, share: float = 0.5) -> Split:
        split = time_point(log, test_share=share)
        return dataclasses.replace(split, rule={"function": "halves", "share": share})

    split, seen = halves(log), []
    with pytest.raises(DataError, match=r"unknown split 'halves'.*splits\.register\(make, verify\)"):
        split.verify()
    monkeypatch.setattr(splits, "_CUTS", dict(splits._CUTS))
    splits.register(halves, seen.append)
    make_split(log, split.rule).verify(split.digest)
    assert [one.rule for one in seen] == [split.rule]


@pytest.mark.parametrize("recipe", RECIPES)
def test_poisoning_every_held_out_item_changes_nothing_in_training(recipe: object, log: InteractionLog) -> None:
    split: Split = recipe(log)  # type: ignore[operator]
    if split.kind == "time":
        assert split.log.time is not None
        held_out = split.log.time >= split.valid_time
    else:
        held_out = np.zeros(len(log), dtype=bool)
        held_out[split.log.offsets[split.test.user + 1] - 1] = True
        held_out[split.log.offsets[split.test.user + 1] - 2] = True
    assert len(log) - held_out.sum() == len(split.train)
    poison = np.where(held_out, (split.log.item + 1 + np.arange(len(log)) % 57) % log.num_items, split.log.item)
    poisoned = InteractionLog(split.log.user, poison, split.log.time, None, log.user_ids, log.item_ids)
    rule = split.rule | ({"ties": "file"} if "ties" in split.rule else {})
    again = make_split(poisoned, rule)
    for column in ("user", "item", "time", "offsets", "position"):
        np.testing.assert_array_equal(getattr(again.train, column), getattr(split.train, column))
    assert again.train.digest() == split.train.digest()
    np.testing.assert_array_equal(again.valid.items, split.valid.items)  # validation histories are training rows
    assert not (again.test.targets[: len(split.test)] == split.test.targets[: len(split.test)]).all()


def test_verify_finds_leaks(log: InteractionLog) -> None:
    split, timed = leave_one_out(log), time_point(log)
    leaks = [
        dataclasses.replace(split, train=log),
        dataclasses.replace(split, valid=split.test),
        dataclasses.replace(split, test=dataclasses.replace(split.test, targets=split.test.targets[::-1])),
        dataclasses.replace(split, test=dataclasses.replace(split.test, items=split.test.items[::-1])),
        dataclasses.replace(split, test=dataclasses.replace(split.test, split_digest="0" * 64)),
        dataclasses.replace(split, test=leave_one_out(log, ties="random").test),
        dataclasses.replace(timed, train=log),
        dataclasses.replace(timed, valid=timed.test),
        dataclasses.replace(timed, test=timed.valid),
    ]
    for leak in leaks:
        with pytest.raises(DataError):
            leak.verify()


def test_what_ties_decide_and_what_is_older_are_counted_exactly() -> None:
    log = InteractionLog.from_arrays(list("aaaabbbb"), list("wxyzwxyz"), time=[0, 10, 10, 20, 1, 10, 11, 20])
    split = time_point(log, valid_time=10, test_time=20, targets="next")
    assert split.counts["tie_decided_targets_valid"] == 1  # a's events at 10, not b's at 10 and 11
    assert split.counts["tie_decided_targets_test"] == 0  # each has one event, and a's at 20 is no tie with b's
    log = InteractionLog.from_arrays(list("aaabbb"), list("xyzxyz"), time=[1, 5, 5, 1, 5, 5])
    counts = leave_one_out(log, test_users=1).counts  # those of a user who is not asked do not count
    assert (counts["tie_decided_targets_valid"], counts["tie_decided_targets_test"]) == (2, 1)
    log = InteractionLog.from_arrays(list("aaaabbbb"), list("wxyzwxyz"), time=[0, 10, 20, 20] * 2)
    split = time_point(log, valid_time=10, test_time=20, targets="next", test_users=1)
    assert split.counts["tie_decided_targets_test"] == 1
    log = InteractionLog.from_arrays(list("aaabbb"), list("xyzxyz"), time=[0, 5, 6, 5, 7, 8])
    assert leave_one_out(log).counts["older_share_valid"] == 0  # a's target at 5 is as old as b's training event


def test_verify_finds_an_event_at_the_very_moment() -> None:
    log = InteractionLog.from_arrays(list("aaabbb"), list("xyzxyz"), time=[0, 10, 20, 1, 11, 21])
    split = time_point(log, valid_time=10, test_time=20)
    split.verify()
    with pytest.raises(DataError, match="holds events from the validation period"):
        dataclasses.replace(split, train=log.select(log.time <= 10)).verify()
    for at in (9, 10):  # the last event of a's history, before and at the moment
        times = split.valid.times.copy()
        times[0] = at
        moved = dataclasses.replace(split, valid=dataclasses.replace(split.valid, times=times))
        if at < 10:
            moved.verify()
            continue
        with pytest.raises(DataError, match="mixes events before and after"):
            moved.verify()


# Queries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_queries_are_cut_like_arrays(recipe: object, log: InteractionLog) -> None:
    queries: Queries = recipe(log).test  # type: ignore[operator]
    whole, mask = pieces(queries), queries.user % 3 == 0
    assert pieces(queries[2:5]) == whole[2:5]
    assert pieces(queries[-1]) == whole[-1:]
    assert pieces(queries[[4, 0, 4]]) == [whole[4], whole[0], whole[4]]
    assert pieces(queries[np.array([3, 1])]) == [whole[3], whole[1]]
    assert pieces(queries[mask]) == [one for one, keep in zip(whole, mask, strict=True) if keep]
    assert pieces(queries[mask.tolist()]) == pieces(queries[mask])
    assert len(queries[[]]) == len(queries[:0]) == 0
    assert [pieces(one)[0] for one in queries] == whole
    part = queries[[4, 0]]
    assert part.lengths.tolist() == [len(whole[4][1]), len(whole[0][1])]
    assert part.times is not None
    assert part.times.tolist() == [*queries[4].times, *queries[0].times]
    assert part.time.tolist() == [queries.time[4], queries.time[0]]
    assert (part.name, part.split_digest) == ("test", queries.split_digest)


def test_candidates_are_cut_too() -> None:
    queries = Queries.from_histories([[1], [2, 3], []], users=[5, -1, 7], times=[[0.5], [1, 2], []])
    queries = dataclasses.replace(queries, candidate_offsets=np.array([0, 2, 3, 3]), candidates=np.array([8, 9, 7]))
    part = queries[[1, 0]]
    assert part.candidates is not None
    assert part.candidates.tolist() == [7, 8, 9]
    assert part.candidate_offsets is not None
    assert part.candidate_offsets.tolist() == [0, 1, 3]
    assert part.user.tolist() == [-1, 5]
    assert pieces(queries[2]) == [(7, [], [])]


def test_histories_must_fit_their_users_and_times() -> None:
    assert len(Queries.from_histories([])) == 0
    assert Queries.from_histories([np.array([2, 1])]).user.tolist() == [-1]
    with pytest.raises(DataError, match="expected one for each of the 2 histories"):
        Queries.from_histories([[1], [2]], users=[0])
    with pytest.raises(DataError, match="different lengths"):
        Queries.from_histories([[1], [2]], times=[[0.0], [1.0, 2.0]])
    with pytest.raises(DataError, match="different lengths"):
        Queries.from_histories([[1], [2, 3]], times=[[0.0, 1.0], [2.0]])
