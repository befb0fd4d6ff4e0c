"""The sample "interests": the process is the one that is described, and its oracles know it."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

import dglrec
from dglrec.data import (
    InteractionLog,
    InterestOracle,
    Queries,
    Split,
    leave_one_out,
    load,
    sample,
    sample_oracle,
    windows,
)
from dglrec.data import interests as process
from dglrec.errors import DataError
from dglrec.evaluate import evaluate

SIZE = {"users": 400, "items": 2500}  # 50 communities of 50 items
DAY = 86_400


@pytest.fixture(scope="module")
def world() -> process.InterestWorld:
    return process.InterestWorld(400, 2500, 0, 0.1)


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    return sample("interests", **SIZE)


@pytest.fixture(scope="module")
def split(log: InteractionLog) -> Split:
    return windows(log, by="user", test=0.5)


@pytest.fixture(scope="module")
def oracle(log: InteractionLog) -> InterestOracle:
    return sample_oracle("interests", **SIZE, log=log)


def test_users_follow_several_interests_at_a_time(world: process.InterestWorld, log: InteractionLog) -> None:
    np.testing.assert_array_equal(world.user, log.user)  # the log has the events in the order of the process
    np.testing.assert_array_equal(world.item, log.item)
    np.testing.assert_array_equal(world.time, log.time)
    lengths = np.diff(log.offsets)
    assert lengths.min() >= 101 and lengths.max() <= 800
    assert (log.num_users, log.num_items, log.name) == (400, 2500, "sample-interests")
    assert np.bincount(world.group).tolist() == [50] * 50
    told = world.label >= 0
    assert abs((~told).mean() - 0.1) < 0.005
    assert (world.group[world.item[told]] == world.label[told]).all()
    assert (world.state[told] == world.label[told, None]).any(1).all()  # each comes from a strand that is followed
    place = (world.state[told] == world.label[told, None]).argmax(1)
    assert (np.abs(np.bincount(place) / told.sum() - 0.2) < 0.04).all()  # all strands alike, but for doubles
    counts = np.bincount(log.item, minlength=2500)
    assert counts.min() > 20 and counts.max() < 130  # no item is popular


def test_interests_change_at_pauses_alone(world: process.InterestWorld) -> None:
    same_user = np.diff(world.user) == 0
    gap, changed = np.diff(world.time), np.diff(world.state.astype(np.int64), axis=0) != 0
    assert (gap[same_user] > 0).all()
    paused = gap >= DAY
    assert not changed[same_user & ~paused].any()
    at = np.flatnonzero(same_user & paused)
    assert abs(len(at) / same_user.sum() - process.PAUSE) < 0.005
    assert abs(changed[at].mean() - process.DRIFT * (1 - 0.5 / 50)) < 0.01  # "any community" may be the same again
    before, after = world.state[at][changed[at]], world.state[at + 1][changed[at]]
    assert abs(((before + 1) % 50 == after).mean() - (0.5 + 0.5 / 50)) < 0.02
    assert len(np.unique(world.time // DAY)) > 365  # users come over years, so that a split by time makes sense


def test_labels_are_those_of_the_events(
    world: process.InterestWorld, log: InteractionLog, split: Split, oracle: InterestOracle
) -> None:
    np.testing.assert_array_equal(oracle.labels(log), world.label)
    labels = oracle.labels(split.test)
    assert labels.shape == split.test.items.shape
    assert (oracle.item_group[split.test.items] == labels)[labels >= 0].all()
    several = [len(set(row[row >= 0].tolist())) for row in labels.reshape(-1, 50)]
    assert 5 < np.mean(several) < 9
    filtered = log.one_pass_core(300, 5)  # users and items are numbered anew
    assert filtered.num_users < 400
    theirs = sample_oracle("interests", **SIZE, log=filtered)
    told = theirs.labels(filtered) >= 0
    assert (theirs.item_group[filtered.item] == theirs.labels(filtered))[told].all()


def test_the_oracle_that_knows_the_state_is_calibrated(world: process.InterestWorld, split: Split) -> None:
    """Summed over windows, items come as often as it expects, whether it expects much or little of them."""
    known, queries = InterestOracle(world, sees="state"), split.test
    expected = known.scores(queries.without_candidates()).double()
    known_sum = known.scores(queries).double().sum(1)
    torch.testing.assert_close(known_sum, torch.full_like(known_sum, 50.0), rtol=1e-4, atol=0)
    assert expected.shape == (len(queries), 2500)
    table = known.scores(queries).numpy()
    happened = np.zeros(table.shape)
    np.add.at(happened, (np.repeat(np.arange(len(queries)), 50), queries.targets), 1)
    edges = np.quantile(table, [0, 0.5, 0.9, 0.95, 0.99, 1])
    for low, high in itertools.pairwise(edges):
        some = (table >= low) & (table <= high)
        # A window's events hang together, so the error is far above that of independent draws.
        assert happened[some].sum() == pytest.approx(table[some].sum(), rel=0.06)


def test_best_scores(world: process.InterestWorld, split: Split) -> None:
    """Several interests, their order and their time matter; popularity does not. Figures for docs and experiments."""
    asked = {"k": 50, "metrics": ("recall", "auc", "auc_pooled"), "seen": "keep"}
    state = evaluate(InterestOracle(world, sees="state"), split.test, **asked)
    history = evaluate(InterestOracle(world), split.test, **asked)
    counted = evaluate(_Counted(world), split.test, **asked)
    one = evaluate(_Counted(world, largest=True), split.test, **asked)
    chance = evaluate(dglrec.models.preset("popularity", split), split.test, **asked)
    for name in ("recall@50", "auc_pooled"):
        assert chance[name] < 0.53 < one[name] < counted[name] < history[name] < state[name] < 0.9
        assert history[name] > state[name] - 0.03  # what can be reached lies between the two
        assert history[name] > counted[name] + 0.03  # when an interest was seen tells more than how often
        assert counted[name] > one[name] + 0.08  # one interest is not enough


class _Counted:
    """Scores an item by how often its community stands in the history; or only the community that stands there most."""

    def __init__(self, world: process.InterestWorld, largest: bool = False) -> None:
        self.world, self.largest = world, largest

    def scores(self, queries: Queries, items: torch.Tensor | None = None) -> torch.Tensor:
        table = np.zeros((len(queries), self.world.num_groups))
        row = np.repeat(np.arange(len(queries)), queries.lengths)
        np.add.at(table, (row, self.world.group[queries.items]), 1)
        if self.largest:
            table = np.where(table == table.max(1, keepdims=True), table, 0)
        assert items is not None
        return torch.from_numpy(np.take_along_axis(table, self.world.group[items.numpy()], 1))


def test_scores_take_candidates_blocks_and_new_histories(split: Split, oracle: InterestOracle) -> None:
    queries = split.test[:7]
    table = oracle.scores(queries)
    assert (tuple(table.shape), str(table.dtype)) == ((7, 2500), "torch.float32")
    items = torch.arange(21).reshape(7, 3)
    assert torch.equal(oracle.scores(queries, items), table.gather(1, items))
    torch.testing.assert_close(oracle.scores(queries[3:5]), table[3:5])
    new = Queries.from_histories([queries[0].items])  # nobody's, without times: one session, one event to come
    assert float(oracle.scores(new).sum()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(DataError, match="found by user and time"):
        oracle.labels(new)
    next_one = leave_one_out(split.log).test[:50]
    sums = oracle.scores(next_one).sum(1)
    torch.testing.assert_close(sums, torch.ones(50), rtol=1e-3, atol=1e-3)


def test_wrong_arguments_are_named(world: process.InterestWorld, log: InteractionLog) -> None:
    with pytest.raises(DataError, match="sees is 'all'; expected 'history' or 'state'"):
        InterestOracle(world, sees="all")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is not in this sample"):
        sample_oracle("interests", users=400, items=400, log=log)
    other = sample_oracle("interests", **SIZE, seed=1)
    with pytest.raises(DataError, match="made with the same arguments"):
        other.labels(log)
    with pytest.raises(DataError, match="expected at least 2 and 20"):
        sample("interests", users=1)


@pytest.mark.parametrize(("users", "items", "noise"), [(2, 20, 0.0), (7, 33, 0.5), (30, 101, 1.0)])
def test_small_and_odd_sizes(users: int, items: int, noise: float) -> None:
    log = sample("interests", users, items, noise=noise)
    assert (log.num_users, log.num_items) == (users, items)
    found = sample_oracle("interests", users, items, noise=noise).scores(leave_one_out(log).test)
    torch.testing.assert_close(found.sum(1), torch.ones(users), rtol=1e-3, atol=1e-3)
    assert bool((found >= 0).all())


def test_the_default_size_has_20000_windows_in_seconds() -> None:
    start = time.process_time()
    log = load("sample:interests")
    assert time.process_time() - start < 10  # under 2 s on an idle machine
    assert log.num_users == 5000
    assert (np.maximum(np.diff(log.offsets) - 1, 0) // 100).sum() >= 20_000
