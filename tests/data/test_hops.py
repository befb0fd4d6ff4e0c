"""The sample "hops": the process is the one that is described, its oracle knows it, and neighbours are what tells."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from dglrec.data import HopOracle, InteractionLog, Queries, Split, leave_one_out, load, sample, sample_oracle
from dglrec.data import hops as process
from dglrec.errors import DataError
from dglrec.evaluate import evaluate
from dglrec.models import preset

# Something new is a new version of the kind; its random stream depends on kind, version and seed alone.
DIGEST = "2d5f54bf70078f2a6920e944c46bc6479fac08a8f77a463ee95e1b0a6caf127e"


@pytest.fixture(scope="module")
def world() -> process.HopWorld:
    return process.HopWorld(process.USERS, process.ITEMS, 0, process.NOISE)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(sample("hops"))


def test_it_has_the_promised_size_and_never_changes() -> None:
    log = load("sample:hops")
    assert (log.num_users, log.num_items, log.name) == (process.USERS, process.ITEMS, "sample-hops")
    assert (np.diff(log.offsets) == process.ROUNDS).all()
    assert len(np.unique(log.user * log.num_items + log.item)) == len(log), "an item comes once"
    assert log.digest() == DIGEST
    assert sample("hops", seed=1).digest() != DIGEST


def test_memory_does_not_grow_with_users_times_items() -> None:
    """A turn of 100 crews among 40,000 items would be 32 MB of numbers at once."""
    tracemalloc.start()
    try:
        process.HopWorld(500, 40_000, 0, 0.1)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_what_is_copied_was_taken_by_a_mate_so_many_rounds_ago(world: process.HopWorld) -> None:
    step = np.arange(len(world.user)) % process.ROUNDS
    crews: dict[tuple[int, int, int], set[int]] = {}
    for crew, when, item, user in zip(world.crew[world.user], step, world.item, world.user, strict=True):
        crews.setdefault((crew, when, item), set()).add(user)
    lags = range(process.FIRST_LAG, process.LAST_LAG + 1)
    counts = dict.fromkeys(lags, 0)
    for row in np.flatnonzero(world.copied)[::7]:
        crew, user = world.crew[world.user[row]], world.user[row]
        found = [lag for lag in lags if crews.get((crew, step[row] - lag, world.item[row]), set()) - {user}]
        assert found
        counts[found[0]] += 1
    assert min(counts.values()) > 0.15 * sum(counts.values()), "each of the rounds is copied from"
    share = world.copied[step >= process.LAST_LAG].mean()
    assert share == pytest.approx((1 - process.NOISE) * process.COPY, abs=0.02)
    assert not world.copied[step < process.FIRST_LAG].any()


def test_times_of_a_crew_never_tie_and_rounds_do_not_overlap(world: process.HopWorld) -> None:
    key = world.crew[world.user] * 1e12 + world.time
    assert len(np.unique(key)) == len(key)
    by_round = world.time.reshape(world.users, process.ROUNDS)
    assert (by_round[:, :-1].max(0) < by_round[:, 1:].min(0)).all()


def test_probabilities_are_those_of_the_draws(split: Split) -> None:
    """They sum to 1, nothing taken is likely, and targets are as likely as the oracle says."""
    oracle = sample_oracle("hops", log=split.log)
    assert isinstance(oracle, HopOracle)
    chances = oracle.probabilities(split.test)
    assert chances.sum(1) == pytest.approx(np.ones(len(split.test)), abs=1e-4)
    row = np.repeat(np.arange(len(split.test)), split.test.lengths)
    assert (chances[row, split.test.items] == 0).all()
    best, reached = oracle.best_scores(split.test), evaluate(oracle, split.test, seen="mask")
    for name in best:
        assert reached[name] == pytest.approx(best[name], abs=0.03)


def test_it_cannot_be_told_by_counting(split: Split) -> None:
    """Popularity is chance, and what came next before says little."""
    best = sample_oracle("hops", log=split.log).best_scores(split.test)["recall@10"]
    assert best > 0.6
    for name, share in (("popularity", 0.03), ("transitions", 0.2)):
        assert evaluate(preset(name, split), split.test, seen="mask")["recall@10"] < share * best


def test_who_reads_the_neighbours_histories_does_well(split: Split) -> None:
    """Without knowing the crews: who took the same items, the more the better, and what they took last."""
    train = split.train
    took = csr_matrix((np.ones(len(train)), (train.user, train.item)), shape=(train.num_users, train.num_items))
    last = np.diff(train.offsets)[train.user] - train.position <= 4
    shared = (took @ took.T).power(2)
    shared.setdiag(0)
    scores = (shared @ took.multiply(csr_matrix((last, (train.user, train.item)), shape=took.shape))).toarray()

    class Reader:
        name = "reader"

        def scores(self, queries: Queries, items: object = None) -> torch.Tensor:
            return torch.as_tensor(scores[queries.user])

    best = sample_oracle("hops", log=split.log).best_scores(split.test)["ndcg@10"]
    for queries in (split.valid, split.test):
        assert evaluate(Reader(), queries, seen="mask")["ndcg@10"] > 0.8 * best


def test_validation_and_test_ask_for_the_same(split: Split) -> None:
    """Who has learned which of the neighbours' latest items are copied is right in both."""
    crew, train = process.HopWorld(process.USERS, process.ITEMS, 0, process.NOISE).crew, split.train
    items = train.item.reshape(process.USERS, -1)[:, ::-1]  # (U, rounds) newest first; users are in their order
    shares = []
    for queries in (split.valid, split.test):
        row, mate = np.nonzero((crew[queries.user][:, None] == crew) & (queries.user[:, None] != np.arange(len(crew))))
        took = items[mate] == queries.targets[row, None]  # (pairs, rounds)
        shares.append(took[:, :5].mean(0) / took[:, :5].mean(0).sum())
    assert np.minimum(*shares).sum() > 0.6, shares


def test_all_that_the_oracle_uses_is_in_the_training_log(split: Split) -> None:
    """What mates took FIRST_LAG rounds before a test target was not held out."""
    log: InteractionLog = split.log
    held_out = np.ones(len(log), dtype=bool).reshape(-1, process.ROUNDS)
    held_out[:, : process.ROUNDS - 2] = False
    assert len(split.train) == (~held_out).sum()
    assert process.FIRST_LAG >= 2


def test_what_is_refused(split: Split) -> None:
    with pytest.raises(DataError, match="hops needs more than 24"):
        sample("hops", items=20)
    with pytest.raises(DataError, match="not in this sample"):
        sample_oracle("hops", items=100, log=split.log)
    strangers = type(split.test).from_histories([[1, 2]])
    with pytest.raises(DataError, match="knows its users by number"):
        sample_oracle("hops", log=split.log).probabilities(strangers)
