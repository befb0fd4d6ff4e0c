"""Sampled candidates: known answers, what every draw keeps to, and that none knows of other users or of later."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dglrec
from dglrec.data import InteractionLog, Queries, Split, leave_one_out, make_split, time_point
from dglrec.data.negatives import choose_users, with_negatives
from dglrec.errors import DataError
from dglrec.evaluate import evaluate

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=60)
ITEMS = 90


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    """60 users with up to 30 events at 50 moments, with repeats."""
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(60), rng.integers(3, 31, 60))
    return log_of(user, rng.integers(0, ITEMS, len(user)), rng.integers(0, 50, len(user)), ITEMS)


def log_of(user: np.ndarray, item: np.ndarray, moment: np.ndarray | None, num_items: int) -> InteractionLog:
    """A log whose indices are the numbers given, so that nothing that changes in it moves another index."""
    order = np.argsort(user, kind="stable") if moment is None else np.lexsort((moment, user))
    times = None if moment is None else moment[order].astype(float)
    ids = [np.arange(size).astype(str) for size in (int(user.max()) + 1, num_items)]
    return InteractionLog(user[order], item[order], times, None, *ids)


def by_position(log: InteractionLog, **options: int) -> Split:
    return leave_one_out(log, **({"negatives": 20, "seed": 3} | options))  # type: ignore[arg-type]


def by_time(log: InteractionLog, **options: int) -> Split:
    options = {"negatives": 20, "seed": 3} | options
    return time_point(log, valid_time=30, test_time=40, targets="next", **options)  # type: ignore[arg-type]


WAYS = [by_position, by_time]
Way = Callable[..., Split]


def touched_by(log: InteractionLog, before: float = np.inf) -> list[set[int]]:
    """Items that each user touched before a moment."""
    touched = [set[int]() for _ in range(log.num_users)]
    moments = np.zeros(len(log)) if log.time is None else log.time
    for user, item, moment in zip(log.user, log.item, moments, strict=True):
        if moment < before:
            touched[user].add(int(item))
    return touched


def rows_of(queries: Queries) -> list[list[int]]:
    assert queries.candidates is not None and queries.candidate_offsets is not None
    ends = queries.candidate_offsets
    return [queries.candidates[ends[q] : ends[q + 1]].tolist() for q in range(len(queries))]


def draws(queries: Queries) -> dict[int, list[int]]:
    """Negatives of each user."""
    return dict(zip(queries.user.tolist(), queries.negatives.reshape(len(queries), -1).tolist(), strict=True))


def assert_sound(queries: Queries, touched: list[set[int]], count: int, num_items: int = ITEMS) -> None:
    for user, target, row in zip(queries.user, queries.targets, rows_of(queries), strict=True):
        negatives = [item for item in row if item != target]
        assert row == sorted(set(row)) and len(row) == count + 1 and target in row and row[-1] < num_items
        assert len(negatives) == count and not touched[user] & set(negatives)


# What every draw keeps to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_negatives_are_distinct_and_never_touched(way: Way, log: InteractionLog) -> None:
    """By time, what a user does after the end of the query's period does not count as touched; nobody knows it then."""
    split, plain = way(log), make_split(log, {k: v for k, v in way(log).rule.items() if k not in ("negatives", "seed")})
    end = np.inf if split.test_time is None else split.test_time
    assert_sound(split.valid, touched_by(log, end), 20)
    assert_sound(split.test, touched_by(log), 20)
    split.verify()
    for one, other in ((split.valid, plain.valid), (split.test, plain.test)):
        for name in ("user", "offsets", "items", "times", "target_offsets", "targets", "time"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.without_candidates().candidates is None
        assert one.negatives.dtype == np.int64  # while candidates have 32 bits: user * items + negative would not fit
    later = [set(row) & touched_by(log)[user] for user, row in draws(split.valid).items()]
    assert any(later) == (split.kind == "time")


@given(EVENTS, st.integers(1, 7), st.sampled_from(["leave_one_out", "time_point"]))
def test_any_log(events: list[tuple[int, int, int]], count: int, function: str) -> None:
    user, item, moment = (np.array(column) for column in zip(*events, strict=True))
    log = log_of(user, item, moment, 8)
    rule = {"function": function} | (
        {"targets": "next", "valid_time": 3, "test_time": 6} if "point" in function else {}
    )
    try:
        plain = make_split(log, rule)
    except DataError:
        return
    end = np.inf if plain.test_time is None else plain.test_time
    parts = [(plain.valid, touched_by(log, end)), (plain.test, touched_by(log))]
    if any(8 - len(touched[u]) < count for queries, touched in parts for u in queries.user):
        with pytest.raises(DataError, match=f"{count} negatives cannot be drawn: (take [1-7] or|rank all)"):
            make_split(log, rule | {"negatives": count})
        return
    split = make_split(log, rule | {"negatives": count})
    split.verify()
    for queries, (_, touched) in zip((split.valid, split.test), parts, strict=True):
        assert_sound(queries, touched, count, 8)


@pytest.mark.parametrize("free", [7, 20, 21, 30])
def test_who_has_few_items_left_gets_them_all(free: int) -> None:
    """Users who touched all items but 7 get these 7; those with more left get as many of theirs."""
    rng = np.random.default_rng(free)
    known = np.stack([rng.permutation(500)[: 500 - free] for _ in range(9)])
    log = log_of(np.repeat(np.arange(9), 500 - free), known.reshape(-1), None, 500)
    split = leave_one_out(log, order="file", negatives=7)
    for user, row in draws(split.test).items():
        left = set(range(500)) - set(known[user].tolist())
        assert set(row) <= left and len(set(row)) == 7
        assert free > 7 or set(row) == left


@pytest.mark.parametrize("num_items", [30, 200])
def test_negatives_are_uniform(num_items: int) -> None:
    """Drawn by order (of 26 free items) and by rejection (of 196): each item, and each pair of items, as often."""
    user = np.repeat(np.arange(4000), 4)
    item = np.tile([3, 4, 10, 25], 4000)  # all users know these
    split = leave_one_out(log_of(user, item, None, num_items), order="file", negatives=12)
    table = np.zeros((4000, num_items))
    np.put_along_axis(table, split.test.negatives.reshape(4000, 12), 1, axis=1)
    free = np.setdiff1d(np.arange(num_items), [3, 4, 10, 25])
    share = 12 / len(free)
    assert table.sum() == table[:, free].sum() == 4000 * 12
    assert (np.abs(table[:, free].mean(0) - share) < 5 * np.sqrt(share * (1 - share) / 4000)).all()
    together = (table.T @ table / 4000)[np.ix_(free, free)][np.triu_indices(len(free), 1)]
    expected = share * 11 / (len(free) - 1)
    assert (np.abs(together - expected) < 6 * np.sqrt(expected / 4000)).all()


# Fixed, and a user's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_seed_fixes_the_draw_and_each_part_has_its_own(way: Way, log: InteractionLog) -> None:
    one, again, other = way(log), way(log), way(log, seed=4)
    np.testing.assert_array_equal(one.test.candidates, again.test.candidates)
    assert one.digest == again.digest != other.digest
    assert draws(one.test) != draws(other.test)
    both = draws(one.valid).keys() & draws(one.test).keys()
    assert any(draws(one.valid)[user] != draws(one.test)[user] for user in both)


def test_every_model_is_asked_the_same(log: InteractionLog) -> None:
    """However many queries are scored at once, and the target's place says nothing."""

    class Spy:
        def __init__(self) -> None:
            self.asked: list[np.ndarray] = []

        def scores(self, queries, items):  # type: ignore[no-untyped-def]
            self.asked.append(items.numpy())
            return items * 0.5

    spies = [Spy(), Spy()]
    for spy, block in zip(spies, (None, 7), strict=True):
        evaluate(spy, by_position(log).test, block=block)
    one, other = (np.concatenate(spy.asked) for spy in spies)
    np.testing.assert_array_equal(one, other)
    assert (np.diff(one, axis=1) > 0).all()


def test_a_draw_is_pinned() -> None:
    """Results that were measured on these negatives must find them again in a later version."""
    log = log_of(np.repeat([0, 1], 4), np.array([0, 1, 2, 3, 9, 8, 7, 6]), None, 60)
    split = leave_one_out(log, order="file", negatives=4, seed=1)
    assert draws(split.valid) == {0: [17, 46, 56, 59], 1: [21, 28, 29, 56]}
    assert draws(split.test) == {0: [38, 43, 44, 59], 1: [35, 36, 50, 52]}
    log = log_of(np.repeat([0, 1], [4, 6]), np.array([0, 1, 2, 3, 9, 8, 7, 6, 5, 4]), None, 12)  # few are left
    assert draws(leave_one_out(log, order="file", negatives=4, seed=1).test) == {0: [6, 8, 9, 11], 1: [1, 2, 3, 10]}
    log = log_of(np.repeat([0, 1], 4), np.tile(np.arange(4), 2), None, 600)  # and where they are many
    many = draws(leave_one_out(log, order="file", negatives=200, seed=1).test)
    assert [sum(row) for row in many.values()] == [59183, 61868]


@pytest.mark.parametrize("way", WAYS)
def test_a_draw_does_not_depend_on_others(way: Way, log: InteractionLog) -> None:
    """Other items for all other users, then all their events but three gone: the same negatives for those who stay."""
    stay = log.user % 7 == 0
    item = np.where(stay, log.item, (log.item + 1 + np.arange(len(log)) % 57) % ITEMS)
    few = stay | (log.position < 3) | (log.position > np.diff(log.offsets)[log.user] - 3)
    expected = way(log)
    for changed in (dataclasses.replace(log, item=item), log.select(few)):
        split = way(changed)
        for one, other in ((expected.valid, split.valid), (expected.test, split.test)):
            own = [{user: row for user, row in draws(some).items() if user % 7 == 0} for some in (one, other)]
            assert own[0] == own[1] and own[0]


@pytest.mark.parametrize("way", WAYS)
def test_fewer_test_users(way: Way, log: InteractionLog) -> None:
    """They are some of the others, with the same negatives; what is left out of test stays out of training."""
    full, some = way(log), way(log, test_users=11)
    chosen = some.test.user.tolist()
    assert len(chosen) == 11 and chosen == sorted(chosen)
    assert draws(some.test) == {user: draws(full.test)[user] for user in chosen}
    assert draws(some.valid) == draws(full.valid)
    assert some.train.digest() == full.train.digest() and some.digest != full.digest
    assert some.counts["queries_test"] == 11
    assert some.counts["unasked_users_test"] == len(full.test) - 11
    assert chosen != way(log, test_users=11, seed=4).test.user.tolist()
    assert some.counts["short_users"] == full.counts["short_users"]
    some.verify()
    everyone = way(log, test_users=10_000)
    assert draws(everyone.test) == draws(full.test) and everyone.counts["unasked_users_test"] == 0
    without = leave_one_out(log, test_users=11)  # under full ranking
    assert without.test.candidates is None and len(without.test) == 11
    assert without.counts["tie_decided_targets_test"] <= 11
    without.verify()


def test_a_user_is_chosen_whoever_else_is_there() -> None:
    user = np.arange(1000)
    chosen = set(choose_users(user, 300, seed=1).tolist())
    assert len(chosen) == 300 and 100 < sum(u < 500 for u in chosen) < 200
    fewer = user[user % 10 > 0]
    again = set(fewer[choose_users(fewer, 270, seed=1)].tolist())
    assert len(again & chosen) > 250  # those at the edge may change sides


# What leaks, and what does not ----------------------------------------------------------------------------------------


def test_by_time_nothing_after_the_period_is_used(log: InteractionLog) -> None:
    """Poisoning: other items from the test period on leave validation as it was, to the bit."""
    split = by_time(log)
    assert log.time is not None
    poison = np.where(log.time >= 40, (log.item + 1 + np.arange(len(log)) % 57) % ITEMS, log.item)
    other = by_time(dataclasses.replace(log, item=poison))
    assert other.digest != split.digest
    for name in ("user", "items", "targets", "candidates"):
        np.testing.assert_array_equal(getattr(other.valid, name), getattr(split.valid, name))
    assert not np.array_equal(other.test.candidates, split.test.candidates)  # type: ignore[arg-type]
    cut = log.select(log.time < 40)
    rows = [with_negatives(q, some, 20, seed=3, before=40) for q, some in ((split.valid, log), (split.valid, cut))]
    np.testing.assert_array_equal(rows[0].candidates, rows[1].candidates)


def test_by_position_no_negative_of_validation_is_the_test_item(log: InteractionLog) -> None:
    split = by_position(log, negatives=40)
    for user, target in zip(split.test.user, split.test.targets, strict=True):
        assert target not in draws(split.valid)[user]


@pytest.mark.parametrize("way", WAYS)
def test_verify_finds_wrong_negatives(way: Way, log: InteractionLog) -> None:
    split = way(log)
    rows = np.array(rows_of(split.test))
    first, target, history = rows[0], split.test.targets[0], split.test.items[: split.test.offsets[1]]
    place, other = np.flatnonzero(first != target)[:2]
    stranger = np.setdiff1d(np.arange(ITEMS), [*history, *first])[0]
    changes = {
        "twice": (place, first[other]),
        "touched": (place, history[history != target][0]),
        "without its target": (np.flatnonzero(first == target)[0], stranger),
    }
    for message, (where, item) in changes.items():
        wrong = rows.copy()
        wrong[0, where] = item
        wrong[0].sort()
        test = dataclasses.replace(split.test, candidates=wrong.reshape(-1))
        with pytest.raises(DataError, match=message):
            dataclasses.replace(split, test=test).verify()
    with pytest.raises(DataError, match="do not have 20 negatives"):
        ends = np.arange(len(rows) + 1) * 20
        test = dataclasses.replace(split.test, candidates=rows[:, :-1].reshape(-1), candidate_offsets=ends)
        dataclasses.replace(split, test=test).verify()
    with pytest.raises(DataError, match="do not have 20 negatives"):
        dataclasses.replace(split, test=split.test.without_candidates()).verify()


# Rules, protocol, ranks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_makes_the_split_again(way: Way, log: InteractionLog) -> None:
    split = way(log, test_users=15)
    again = make_split(log, json.loads(json.dumps(split.rule)))
    assert again.digest == split.digest == again.test.split_digest
    np.testing.assert_array_equal(again.valid.candidates, split.valid.candidates)
    np.testing.assert_array_equal(again.test.candidates, split.test.candidates)
    others = [way(log), way(log, test_users=16), way(log, test_users=15, negatives=19)]
    assert len({split.digest, *(other.digest for other in others)}) == 4


def test_the_protocol_says_what_is_ranked(log: InteractionLog) -> None:
    split = by_position(log, test_users=15)
    model = dglrec.models.preset("popularity", split)
    sampled, full = (evaluate(model, queries) for queries in (split.test, split.test.without_candidates()))
    assert sampled.protocol.candidates == "1+20"
    text = str(sampled.protocol)
    assert "1+20 candidates" in text and "test queries: 15" in text and "unasked users 45" in text
    assert "negatives=20, test_users=15, seed=3" in text
    assert "full catalogue" in str(full.protocol) and full.protocol.split_digest == sampled.protocol.split_digest
    assert sampled.protocol.differences(full.protocol) == ["candidates"]
    assert {"auc", "recall@10", "ndcg@20"} <= set(sampled) and "auc_pooled" not in sampled


def test_all_that_is_left_as_negatives_is_the_full_ranking() -> None:
    """Where a user's negatives are all untouched items, the ranking is the full one with seen items masked."""
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(50)[:10] for _ in range(40)])
    log = log_of(np.repeat(np.arange(40), 10), items.reshape(-1), None, 50)
    split = leave_one_out(log, order="file", negatives=40)
    model = dglrec.models.preset("lightgcn", split, dim=8)
    sampled, full = (
        evaluate(model, q, seen="mask", per_query=True) for q in (split.test, split.test.without_candidates())
    )
    assert sampled.per_query is not None and full.per_query is not None
    for name in full:
        np.testing.assert_allclose(sampled.per_query[name], full.per_query[name])


def test_chance_is_the_cut_over_the_candidates(log: InteractionLog) -> None:
    class Constant:
        def scores(self, queries, items):  # type: ignore[no-untyped-def]
            return items * 0.0

    found = evaluate(Constant(), by_position(log).test, metrics=("hit", "ndcg", "auc"))
    assert found["hit@10"] == pytest.approx(10 / 21)
    assert found["hit@20"] == pytest.approx(20 / 21)
    assert found["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda log: leave_one_out(log, negatives=0), "negatives is 0; expected at least 1, or None"),
        (lambda log: leave_one_out(log, test_users=0), "test_users is 0; expected at least 1, or None"),
        (lambda log: leave_one_out(log, negatives=999), r"has touched all but \d+ of 90 items; 999 negatives cannot"),
        (lambda log: leave_one_out(log, negatives=9, seed=-1), "seed is -1; expected at least 0"),
        (lambda log: time_point(log, negatives=9), "pass targets='next', or rank all items"),
        (lambda log: with_negatives(time_point(log).test, log, 9, seed=0), "one target each"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[InteractionLog], object], message: str, log: InteractionLog) -> None:
    with pytest.raises(DataError, match=message) as error:
        make(log)
    assert len(str(error.value).splitlines()) == 1


def test_no_queries_have_no_negatives(log: InteractionLog) -> None:
    none = with_negatives(leave_one_out(log).test[:0], log, 9, seed=0)
    assert len(none) == 0 and none.candidates is not None and len(none.candidates) == 0


def test_who_has_touched_too_much_is_named() -> None:
    """The fewest left are those of user 2; user 0 has no query."""
    log = log_of(np.repeat([0, 1, 2, 3], [1, 3, 5, 4]), np.array([0, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3]), None, 8)
    with pytest.raises(DataError, match=r"user '2' has touched all but 3 of 8 items; 6 negatives .*: take 3 or fewer"):
        leave_one_out(log, order="file", negatives=6)


# Size -----------------------------------------------------------------------------------------------------------------


def test_fifty_thousand_users_take_seconds() -> None:
    rng = np.random.default_rng(0)
    log = log_of(np.repeat(np.arange(50_000), 10), rng.integers(0, 20_000, 500_000), None, 20_000)
    test = leave_one_out(log, order="file").test
    start = time.process_time()
    queries = with_negatives(test, log, 999, seed=0)
    assert time.process_time() - start < 15  # 2 s on an idle machine
    assert queries.candidates is not None and queries.candidates.nbytes == 4 * 50_000 * 1000
