"""Splits by windows: known answers, a slow version written with loops, and what each way of dealing them out leaks."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest

import dglrec
from dglrec.data import InteractionLog, Queries, Split, make_split, windows
from dglrec.errors import DataError
from dglrec.evaluate import evaluate

WAYS = ("window", "user", "time")
SMALL = {"inputs": 4, "targets": 3, "negatives": 5, "valid": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    """60 users with up to 60 events, many repeats and ties."""
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(60), rng.integers(1, 61, 60))
    return InteractionLog.from_arrays(user, rng.integers(0, 90, len(user)), time=rng.integers(0, 5000, len(user)))


def cut(log: InteractionLog, last: str = "drop") -> list[tuple[int, list[int], list[int]]]:
    """(user, inputs, targets) of all windows of 4 + 3 events, as MIP's code cuts them."""
    found = []
    for user in range(log.num_users):
        items = log.item[log.offsets[user] : log.offsets[user + 1]].tolist()
        start = 0
        while start < len(items) - 7 if last == "drop" else start <= len(items) - 7:
            found.append((user, items[start : start + 4], items[start + 4 : start + 7]))
            start += 7
    return found


def pieces(queries: Queries) -> list[tuple[int, list[int], list[int]]]:
    items, targets = queries.items.reshape(len(queries), -1), queries.targets.reshape(len(queries), -1)
    return [(int(user), items[q].tolist(), targets[q].tolist()) for q, user in enumerate(queries.user)]


def parts_of(split: Split) -> Iterator[Queries]:
    assert split.windows is not None
    yield from (split.windows, split.valid, split.test)


@pytest.mark.parametrize("last", ["drop", "keep"])
@pytest.mark.parametrize("by", WAYS)
def test_windows_are_those_of_a_loop_over_users(by: str, last: str, log: InteractionLog) -> None:
    split = windows(log, by=by, last=last, **SMALL)  # type: ignore[arg-type]
    expected = cut(log, last)
    found = [piece for queries in parts_of(split) for piece in pieces(queries)]
    dropped = split.counts["windows_dropped"]
    assert split.counts["windows"] == len(expected) == len(found) + dropped
    assert (dropped > 0) == (by == "time")
    if not dropped:
        assert sorted(found) == sorted(expected)
    split.verify()
    assert split.kind == by
    short = sum(1 for user in range(log.num_users) if user not in {w[0] for w in expected})
    assert split.counts["short_users"] == short > 0
    assert repr(split).endswith(f"test queries; {short} of 60 users too short for a window)")
    # Users' windows stand one after the other in the training log, and nothing else does.
    np.testing.assert_array_equal(
        split.train.item.reshape(-1, 7), [inputs + targets for _, inputs, targets in pieces(next(parts_of(split)))]
    )
    assert (split.train.num_users, split.train.num_items) == (log.num_users, log.num_items)


def test_a_split_is_silent_of_short_users_where_there_are_none() -> None:
    log = InteractionLog.from_arrays(np.repeat(np.arange(4), 8), np.arange(32) % 16, time=np.arange(32))
    assert repr(windows(log, inputs=4, targets=3, negatives=1, valid=1, test=1)).endswith("1 test queries)")


@pytest.mark.parametrize(("events", "published", "kept"), [(6, 0, 0), (7, 0, 1), (8, 1, 1), (14, 1, 2), (15, 2, 2)])
def test_the_last_full_window_is_lost_as_published(events: int, published: int, kept: int) -> None:
    user = np.concatenate([np.repeat(0, events), np.repeat([1, 2, 3], 8)])  # three more users, so that there is a split
    log = InteractionLog.from_arrays(user, np.arange(len(user)) % 40, time=np.arange(len(user)))
    sizes = {"inputs": 4, "targets": 3, "negatives": 1, "valid": 1, "test": 1}
    assert windows(log, **sizes).counts["windows"] == 3 + published  # type: ignore[arg-type]
    assert windows(log, last="keep", **sizes).counts["windows"] == 3 + kept  # type: ignore[arg-type]


def test_a_share_of_the_windows_is_rounded() -> None:
    log = InteractionLog.from_arrays(np.repeat(np.arange(9), 8), np.arange(72) % 16, time=np.arange(72))
    counts = windows(log, inputs=4, targets=3, negatives=1, valid=0.2, test=0.1).counts
    assert (counts["queries_valid"], counts["queries_test"], counts["windows_train"]) == (2, 1, 6)  # 1.8 and 0.9 of 9


def test_queries_hold_what_a_model_needs(log: InteractionLog) -> None:
    split = windows(log, **SMALL)  # type: ignore[arg-type]
    assert log.time is not None
    for queries in parts_of(split):
        assert queries.times is not None and queries.time is not None and queries.first_time is not None
        assert queries.candidates is not None
        np.testing.assert_array_equal(queries.first_time, log.time[log.offsets[queries.user]])
        assert (queries.times.reshape(-1, 4)[:, -1] <= queries.time).all()
        candidates = queries.candidates.reshape(len(queries), 8)
        assert (np.diff(candidates, axis=1) >= 0).all()  # no place says which are right
        for row, (_, _, targets) in zip(candidates, pieces(queries), strict=True):
            assert sorted(targets) == [item for item in row.tolist() if item in targets]  # as often as they came
        negatives = queries.negatives.reshape(len(queries), 5)
        assert all(len(set(row)) == 5 for row in negatives.tolist())
        part = queries[[1, 0]]
        np.testing.assert_array_equal(part.first_time, queries.first_time[[1, 0]])
        np.testing.assert_array_equal(part.negatives.reshape(2, 5), negatives[[1, 0]])


@pytest.mark.parametrize("by", ["window", "user"])
def test_negatives_are_never_touched_in_any_window(by: str, log: InteractionLog) -> None:
    split = windows(log, by=by, **SMALL)  # type: ignore[arg-type]
    touched = {user: set[int]() for user in range(log.num_users)}
    for user, inputs, targets in cut(log):
        touched[user] |= {*inputs, *targets}
    for queries in parts_of(split):
        for user, row in zip(queries.user, queries.negatives.reshape(-1, 5), strict=True):
            assert not touched[int(user)] & set(row.tolist())


def test_negatives_are_uniform() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(400), 22)
    log = InteractionLog.from_arrays(user, rng.integers(0, 50, len(user)), time=np.arange(len(user)))
    split = windows(log, inputs=5, targets=5, negatives=10)
    counts = np.bincount(np.concatenate([queries.negatives for queries in parts_of(split)]), minlength=50)
    assert counts.sum() == 800 * 10
    assert (np.abs(counts - 160) < 5 * np.sqrt(160)).all()


def test_negatives_of_users_who_know_nearly_everything() -> None:
    """2 of 2000 items are left: no rounds of drawing find them, so that they are looked up."""
    items = np.concatenate([np.arange(2000)[np.arange(2000) % 1000 != 7], [0]])
    user = np.repeat([0, 1, 2, 3], len(items))
    log = InteractionLog.from_arrays(
        user, np.tile(items, 4), time=np.arange(len(user)), item_ids=[f"i{n}" for n in range(2000)]
    )
    split = windows(log, inputs=1000, targets=998, negatives=2, valid=1, test=1)
    assert {tuple(sorted(q.negatives.reshape(-1, 2)[0].tolist())) for q in parts_of(split)} == {(7, 1007)}
    one = windows(log, inputs=1000, targets=998, negatives=1, valid=1, test=1)
    found = {int(u): int(n) for q in parts_of(one) for u, n in zip(q.user, q.negatives, strict=True)}
    assert found == {0: 7, 1: 7, 2: 7, 3: 1007}  # each window has a draw of its own; pinned as below
    with pytest.raises(DataError, match="all but 2 of 2000 items; 3 negatives cannot be drawn: take 2 or fewer"):
        windows(log, inputs=1000, targets=998, negatives=3, valid=1, test=1)


def negatives_of(split: Split) -> dict[tuple[int, ...], list[int]]:
    """Negatives of each window, by its user, inputs and targets."""
    return {
        (user, *inputs, *targets): row
        for queries in parts_of(split)
        for (user, inputs, targets), row in zip(pieces(queries), queries.negatives.reshape(-1, 5).tolist(), strict=True)
    }


def test_a_window_has_the_same_negatives_in_whichever_part_it_is(log: InteractionLog) -> None:
    one, other = (windows(log, **(SMALL | {"test": test})) for test in (0.2, 0.4))  # type: ignore[arg-type]
    assert negatives_of(one) == negatives_of(other)
    seeded = windows(log, seed=1, **SMALL)  # type: ignore[arg-type]
    assert pieces(seeded.test) != pieces(one.test)
    assert all(row != negatives_of(one)[window] for window, row in negatives_of(seeded).items())


def test_a_draw_is_pinned() -> None:
    """Results that were measured on these negatives must find them again in a later version."""
    log = InteractionLog.from_arrays(
        np.repeat(np.arange(3), 20), np.tile(np.arange(20), 3), np.arange(60), item_ids=[str(n) for n in range(30)]
    )
    split = windows(log, inputs=10, targets=10, negatives=5, valid=1, test=1, last="keep")
    found = {q.user[0]: q.negatives.tolist() for q in parts_of(split)}
    assert found == {0: [20, 21, 27, 28, 29], 1: [21, 22, 25, 27, 28], 2: [21, 25, 27, 28, 29]}


# What leaks, and what does not ----------------------------------------------------------------------------------------


def test_by_window_mixes_users_and_says_so(log: InteractionLog) -> None:
    split = windows(log, by="window", **SMALL)  # type: ignore[arg-type]
    assert split.windows is not None
    trained = set(split.windows.user.tolist())
    assert split.counts["known_users_test"] == sum(int(user) in trained for user in split.test.user) > 0
    starts = {int(user): 0.0 for user in split.windows.user}
    assert split.windows.time is not None and split.test.time is not None
    for user, first in zip(split.windows.user, split.windows.time, strict=True):
        starts[int(user)] = max(starts[int(user)], float(first))
    later = sum(starts.get(int(u), -1.0) > t for u, t in zip(split.test.user, split.test.time, strict=True))
    assert 0 < later <= split.counts["later_training_test"] <= later + 1  # one pair of windows may tie
    repeated = sum(item in inputs for _, inputs, targets in pieces(split.test) for item in targets)
    assert split.counts["repeat_targets_test"] == repeated
    assert split.counts["repeat_share_test"] == repeated / len(split.test.targets)
    assert windows(log, seed=1, **SMALL).digest != split.digest  # type: ignore[arg-type]


def test_by_user_keeps_users_apart(log: InteractionLog) -> None:
    split = windows(log, by="user", **SMALL)  # type: ignore[arg-type]
    users = [set(queries.user.tolist()) for queries in parts_of(split)]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]
    wanted = 0.2 * split.counts["windows"]
    for name in ("valid", "test"):
        assert split.counts[f"known_users_{name}"] == split.counts[f"later_training_{name}"] == 0
        assert wanted <= split.counts[f"queries_{name}"] < wanted + 9  # whole users; nobody has more than 8 windows


def test_by_time_nothing_later_than_the_cut_is_in_training(log: InteractionLog) -> None:
    split = windows(log, by="time", **SMALL)  # type: ignore[arg-type]
    assert split.train.time is not None and split.valid.time is not None and split.test.time is not None
    assert split.valid_time is not None and split.test_time is not None
    assert split.train.time.max() < split.valid_time <= split.valid.time.min()
    assert split.valid_time < split.test_time <= split.test.time.min()
    assert split.counts["older_share_valid"] == split.counts["later_training_valid"] == 0
    assert abs(split.counts["queries_valid"] - 0.2 * split.counts["windows"]) <= 2  # moments may tie
    # Negatives may be what the user touched only later: nobody knew it then.
    assert log.time is not None
    assert split.windows is not None
    in_windows = {(user, item) for user, inputs, targets in cut(log) for item in inputs + targets}
    for queries, end in ((split.windows, split.valid_time), (split.valid, split.test_time)):
        early = set(zip(log.user[log.time < end], log.item[log.time < end], strict=True))
        pairs = set(zip(np.repeat(queries.user, 5), queries.negatives, strict=True))
        assert not pairs & early & in_windows
        assert pairs & in_windows


def test_a_window_that_ends_at_the_very_moment_of_a_cut_is_left_out() -> None:
    """User u has an input at u, and targets at u + 1 and u + 2."""
    time = np.arange(6)[:, None] + np.arange(3)
    log = InteractionLog.from_arrays(np.repeat(np.arange(6), 3), np.arange(18) % 9, time.reshape(-1))
    split = windows(log, by="time", inputs=1, targets=2, negatives=1, valid=1, test=2, last="keep")
    assert (split.valid_time, split.test_time) == (3, 5)
    assert [queries.user.tolist() for queries in parts_of(split)] == [[0], [2], [4, 5]]
    assert split.counts["windows_dropped"] == 2


def poison(split: Split) -> Split:
    """The split of the same log in which all events that are not in training have other items."""
    log = split.log
    in_training = np.zeros(len(log), dtype=bool)
    if split.kind == "time":
        assert log.time is not None and split.valid_time is not None
        in_training = log.time < split.valid_time  # what happened before may be known
    else:
        rows = cut(InteractionLog(log.user, np.arange(len(log)), None, None, log.user_ids, np.arange(len(log))))
        assert split.windows is not None
        trained = {(user, *inputs, *targets) for user, inputs, targets in pieces(split.windows)}
        for user, inputs, targets in rows:
            if (user, *log.item[inputs], *log.item[targets]) in trained:
                in_training[inputs + targets] = True
    item = np.where(in_training, log.item, (log.item + 1 + np.arange(len(log)) % 57) % log.num_items)
    return make_split(dataclasses.replace(log, item=item), split.rule)


@pytest.mark.parametrize("by", WAYS)
def test_poisoning_what_is_held_out_changes_no_training_tensor(by: str, log: InteractionLog) -> None:
    split = windows(log, by=by, **SMALL)  # type: ignore[arg-type]
    other = poison(split)
    assert other.digest != split.digest
    assert not np.array_equal(other.test.targets, split.test.targets)
    assert split.windows is not None and other.windows is not None
    assert other.train.digest() == split.train.digest()
    for name in ("user", "offsets", "items", "times", "target_offsets", "targets", "time", "first_time"):
        np.testing.assert_array_equal(getattr(other.windows, name), getattr(split.windows, name))
    same = np.array_equal(other.windows.candidates, split.windows.candidates)  # type: ignore[arg-type]
    assert same == (by != "window")  # the published negatives know a user's held-out windows; docs/evaluation.md


@pytest.mark.parametrize("by", WAYS)
def test_a_rule_makes_the_split_again(by: str, log: InteractionLog) -> None:
    split = windows(log, by=by, **SMALL)  # type: ignore[arg-type]
    again = make_split(log, json.loads(json.dumps(split.rule)))
    assert again.digest == split.digest == again.test.split_digest
    for one, two in zip(parts_of(split), parts_of(again), strict=True):
        assert pieces(one) == pieces(two)
        np.testing.assert_array_equal(one.candidates, two.candidates)  # type: ignore[arg-type]
    again.verify(split.digest)
    json.dumps(split.counts)
    assert "repeat share" in str(evaluate(dglrec.models.preset("popularity", split), split.test).protocol)


def test_verify_finds_leaks(log: InteractionLog) -> None:
    split = windows(log, **SMALL)  # type: ignore[arg-type]
    timed, users = windows(log, by="time", **SMALL), windows(log, by="user", **SMALL)  # type: ignore[arg-type]
    assert split.windows is not None and split.test.candidates is not None and timed.valid.time is not None
    known = split.test.candidates.copy()  # a negative of the first window becomes one of its inputs
    place = np.flatnonzero(~np.isin(known[:8], split.test.targets[:3]))[0]
    known[place] = np.setdiff1d(split.test.items[:4], split.test.targets[:3])[0]
    assert users.test.user[0] == users.test.user[1]
    leaks = [
        dataclasses.replace(split, train=log),
        dataclasses.replace(split, valid=split.test),
        dataclasses.replace(split, test=dataclasses.replace(split.test, targets=split.test.targets[::-1])),
        dataclasses.replace(split, test=split.test.new_items()),
        dataclasses.replace(split, test=dataclasses.replace(split.test, candidates=known)),
        dataclasses.replace(timed, valid_time=0.0),
        dataclasses.replace(timed, valid_time=float(timed.valid.time.max())),
        dataclasses.replace(users, valid=users.test[:1], test=users.test[1:]),
        dataclasses.replace(timed, valid=timed.valid[:2], test_time=1e9),
        dataclasses.replace(users, valid=windows(log, by="user", **(SMALL | {"seed": 1})).valid),  # type: ignore[arg-type]
    ]
    for leak in leaks:
        with pytest.raises(DataError):
            leak.verify()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "windows"}, "by is 'windows'; did you mean 'window'"),
        ({"last": "lose"}, "last is 'lose'; expected 'drop' or 'keep'"),
        ({"inputs": 0}, "expected at least 1 of each"),
        ({"valid": 0}, "expected shares, or numbers of windows"),
        ({"inputs": 50, "targets": 50}, "no user of '.*' has enough events for a window of 100; take shorter"),
        ({"test": 10_000}, r"events, too few for training, .* and test \(test=10000\); choose other shares"),
        ({"order": "file"}, "is sorted by time already"),
        ({"negatives": 80}, r"has touched all but \d+ of 90 items; 80 negatives cannot be drawn: take \d+ or"),
        ({"by": "time", "valid": 0.75, "test": 0.24}, "choose smaller values"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str, log: InteractionLog) -> None:
    with pytest.raises(DataError, match=message) as error:
        windows(log, **(SMALL | arguments))  # type: ignore[arg-type]
    assert len(str(error.value).splitlines()) <= 2


def test_a_log_without_times(log: InteractionLog) -> None:
    plain = dataclasses.replace(log, time=None)
    with pytest.raises(DataError, match="has no times"):
        windows(plain, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be cut by time; take by='user'"):
        windows(plain, by="time", order="file", **SMALL)  # type: ignore[arg-type]
    split = windows(plain, by="user", order="file", **SMALL)  # type: ignore[arg-type]
    assert split.test.times is None and split.test.first_time is None
    split.verify()


# Queries with candidates ----------------------------------------------------------------------------------------------


def asked() -> Queries:
    """Two windows with repeated targets: 1, 5 and a negative, 9, are in the inputs of the first, 7 in the second's."""
    queries = Queries.from_histories([[1, 5, 9], [7, 7]], users=[0, 1])
    return dataclasses.replace(
        queries,
        target_offsets=np.array([0, 4, 6]),
        targets=np.array([5, 2, 2, 1, 7, 7]),
        candidate_offsets=np.array([0, 6, 9]),
        candidates=np.array([1, 2, 2, 5, 8, 9, 3, 7, 7]),
    )


def test_new_items_leave_the_candidates_too() -> None:
    """A target that stands in the inputs is dropped, and does not come back as a negative."""
    new = asked().new_items()
    assert (len(new), new.user.tolist(), new.targets.tolist()) == (1, [0], [2, 2])
    assert new.candidates is not None
    assert new.candidates.tolist() == [2, 2, 8, 9]
    assert new.negatives.tolist() == [8, 9]
    assert dataclasses.replace(asked(), name="test").new_items().name == "test-new"
    assert asked().negatives.tolist() == [8, 9, 3]


def test_without_candidates_targets_are_sets() -> None:
    full = asked().without_candidates()
    assert full.candidates is None and full.candidate_offsets is None
    assert (full.targets.tolist(), full.target_offsets.tolist()) == ([5, 2, 1, 7], [0, 3, 4])
    with pytest.raises(DataError, match="no candidates, and so no negatives"):
        _ = full.negatives
    assert asked().new_items().without_candidates().targets.tolist() == [2]
    two = dataclasses.replace(Queries.from_histories([[], []]), target_offsets=np.arange(3), targets=np.array([3, 0]))
    assert two.without_candidates().targets.tolist() == [3, 0]  # of different queries


# Size -----------------------------------------------------------------------------------------------------------------


def test_a_split_of_many_windows_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(1000), 1001)
    log = InteractionLog.from_arrays(user, rng.integers(0, 5000, len(user)), time=np.arange(len(user)))
    start = time.process_time()
    split = windows(log)
    assert time.process_time() - start < 5  # under 1 s on an idle machine
    assert split.counts["windows"] == 10_000
