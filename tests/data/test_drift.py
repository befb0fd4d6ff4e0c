"""The sample "drift": the process is the one that is described, and its oracle knows it exactly."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from dglrec.data import (
    DriftOracle,
    InteractionLog,
    Queries,
    Split,
    leave_one_out,
    load,
    sample,
    sample_oracle,
    time_point,
)
from dglrec.data import drift as process
from dglrec.errors import DataError
from dglrec.evaluate import evaluate
from dglrec.graphs import slice_boundaries, slice_names, time_slices

# Something new is a new version of the kind; its random stream depends on kind, version and seed alone.
DIGEST = "249dce6763f0614fa810ccffba7632add61a1991c7752e51b8deac7d2aef6221"
SPANS, NOISY_SPANS = process.SPANS, process.NOISY_SPANS


@pytest.fixture(scope="module")
def world() -> process.DriftWorld:
    return process.DriftWorld(2000, 1000, 0, 0.1)


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    return sample("drift")


@pytest.fixture(scope="module")
def split(log: InteractionLog) -> Split:
    return leave_one_out(log)


def test_it_has_the_promised_size_lengths_and_times() -> None:
    start = time.process_time()
    log = load("sample:drift")
    assert time.process_time() - start < 6  # under 1 s on an idle machine
    assert (process.VERSION, log.digest()) == (1, DIGEST)
    assert sample("drift", seed=1).digest() != DIGEST
    assert (log.num_users, log.num_items, log.name) == (2000, 1000, "sample-drift")
    lengths = np.diff(log.offsets)
    assert lengths.min() == 8 and lengths.max() == 32 and 18 < lengths.mean() < 24
    assert log.time is not None
    assert (np.diff(log.time)[np.diff(log.user) == 0] > 0).all()  # no ties
    assert len(np.unique(log.user * log.num_items + log.item)) == len(log)  # no repeats
    counts = np.bincount(log.item, minlength=1000)
    assert counts.min() > 10 and counts.max() < 90  # no item is popular
    assert log.titles is not None and len(set(log.titles.tolist())) == 1000


def test_interests_change_at_the_change_times_alone(world: process.DriftWorld) -> None:
    assert np.bincount(world.group).tolist() == [25] * 40
    assert world.change_times.shape == (SPANS - 1,)
    assert np.diff(world.change_times).tolist() == [60 * 86_400] * (SPANS - 2)
    assert world.closing_time - world.change_times[-1] == 60 * 86_400
    assert world.interest.shape == (2000, SPANS)
    there = world.interest >= 0
    assert (np.diff(there.astype(int), axis=1) >= 0).all()  # who has joined stays
    assert abs(there[:, 0].mean() - (0.5 + 0.5 / 4)) < 0.04
    assert there[:, SPANS - NOISY_SPANS - 1].all()
    assert abs(world.noisy.mean() - process.NOISY) < 0.03

    changed = (np.diff(world.interest, axis=1) != 0) & there[:, :-1]
    quiet = np.arange(1, SPANS) >= SPANS - NOISY_SPANS
    assert not changed[world.noisy][:, quiet].any()
    for users, spans in ((~world.noisy, quiet), (~world.noisy, ~quiet), (world.noisy, ~quiet)):
        some, of = changed[users][:, spans], there[:, :-1][users][:, spans]
        assert abs(some.sum() / of.sum() - process.CHANGE) < 0.05

    span = world.span(world.time)
    told = world.label >= 0
    follows = world.interest[world.user, np.minimum(span, SPANS - 1)]
    assert (follows[told] == world.label[told]).all()
    assert (world.group[world.item[told]] == world.label[told]).all()
    assert (follows >= 0).all()  # nobody has events before joining
    per_span = np.zeros((2000, SPANS + 1), dtype=int)
    np.add.at(per_span, (world.user, span), 1)
    assert set(np.unique(per_span[:, :SPANS][there])) == {2, 3, 4, 5}
    assert (per_span[:, :SPANS][~there] == 0).all()


def test_noise_is_where_it_was_planted(world: process.DriftWorld) -> None:
    span, told = world.span(world.time), world.label >= 0
    planted = world.noisy[world.user] & (span >= SPANS - NOISY_SPANS) & (span < SPANS)
    assert not told[planted].any()
    assert abs((~told[~planted]).mean() - 0.1) < 0.01
    assert abs(planted.mean() - 0.08) < 0.02
    closing = span == SPANS
    assert np.bincount(world.user[closing]).tolist() == [2] * 2000
    assert abs((~told[closing & world.noisy[world.user]]).mean() - 0.1) < 0.03  # their interest shows again
    middle = world.closing_time + 7 * 86_400
    assert ((world.time[closing] < middle) == np.tile([True, False], 2000)).all()


def test_slices_of_the_training_log_are_the_spans(world: process.DriftWorld, split: Split) -> None:
    """Leave-one-out takes the closing days away, and equal intervals of what is left are the spans to within hours."""
    boundaries = slice_boundaries(split.train, SPANS)
    assert (np.abs(boundaries - world.change_times) < 0.5 * 86_400).all()
    graph = time_slices(split.train, world.change_times)
    assert len(slice_names(graph)) == SPANS
    assert split.train.time is not None and split.train.time.max() < world.closing_time
    counts = np.array([graph.num_edges(name) for name in slice_names(graph)])
    assert counts.argmin() == 0 and counts[3:].std() < 0.05 * counts[3:].mean()


def test_labels_noisy_users_and_interests_are_known_of_a_filtered_log(
    world: process.DriftWorld, log: InteractionLog, split: Split
) -> None:
    oracle = sample_oracle("drift", log=log)
    np.testing.assert_array_equal(oracle.labels(log), world.label)
    np.testing.assert_array_equal(oracle.noisy, world.noisy)
    labels = oracle.labels(split.test)
    assert (oracle.item_group[split.test.items] == labels)[labels >= 0].all()

    filtered = log.one_pass_core(24, 10)  # users and items are numbered anew
    assert 100 < filtered.num_users < 1500 and filtered.num_items < 1000
    theirs = sample_oracle("drift", log=filtered)
    found = theirs.labels(filtered)
    assert (theirs.item_group[filtered.item] == found)[found >= 0].all()
    known = [int(name.removeprefix("user-")) - 1 for name in filtered.user_ids]
    np.testing.assert_array_equal(theirs.noisy, world.noisy[known])
    np.testing.assert_array_equal(theirs.interest, world.interest[known])


def check_calibration(chance: np.ndarray, queries: Queries) -> None:
    """What has probability p happens with frequency p."""
    np.testing.assert_allclose(chance.sum(1), 1, atol=1e-4)
    row = np.repeat(np.arange(len(queries)), queries.lengths)
    assert chance.min() >= 0 and chance[row, queries.items].max() == 0  # nothing is taken twice
    happened = np.zeros(chance.shape, dtype=bool)
    happened[np.arange(len(queries)), queries.targets] = True
    for low, high in ((1e-5, 0.0005), (0.0005, 0.003), (0.003, 0.01), (0.01, 0.03), (0.03, 0.06), (0.06, 1.1)):
        some = (chance >= low) & (chance < high)
        total, variance = chance[some].sum(), (chance[some] * (1 - chance[some])).sum()
        assert abs(happened[some].sum() - total) < 4 * np.sqrt(variance) + 1


@pytest.mark.parametrize("sees", ["history", "state"])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_oracle_knows_the_frequencies(sees: Any, noise: float) -> None:
    """On queries whose history ends in noise (validation) and on those after it (test); the evaluator agrees."""
    world = process.DriftWorld(4000, 500, 7, noise)
    log = world.log()
    oracle, both = DriftOracle(world, log, sees), leave_one_out(log)
    for queries in (both.valid, both.test):
        check_calibration(oracle.probabilities(queries), queries)
        measured = evaluate(oracle, queries, k=(1, 10), seen="mask")
        for name, value in oracle.best_scores(queries, k=(1, 10)).items():
            assert abs(measured[name] - value) < 4 * measured.standard_errors[name] + 1e-6


def test_under_a_split_by_time_the_oracle_is_asked_at_the_query_s_time(
    world: process.DriftWorld, log: InteractionLog
) -> None:
    """From a change time on, interests may have changed since the newest event; after the noise they show again."""
    oracle = DriftOracle(world, log)
    for moment in (world.change_times[2], world.closing_time):
        split = time_point(log, targets="next", valid_time=moment, test_time=moment + 7 * 86_400)
        check_calibration(oracle.probabilities(split.valid), split.valid)
    late, early = oracle.following(split.valid), oracle.following(split.valid[:3])
    assert late.shape == (len(split.valid), 2, 40)
    np.testing.assert_allclose(late.sum((1, 2)), 1)
    np.testing.assert_array_equal(late[:3], early)


def test_who_is_noisy_and_what_is_followed_can_be_inferred(world: process.DriftWorld, split: Split) -> None:
    follows = DriftOracle(world).following(split.test)  # (U, 2, G)
    noisy = follows[:, 1].sum(1)
    assert noisy[world.noisy].mean() > 0.95 and noisy[~world.noisy].mean() < 0.02
    right = follows.sum(1)[np.arange(2000), world.interest[:, -1]]
    assert right.mean() > 0.95


class _Counted:
    """Scores an item by how often its community stands in the history, or in the last span of it."""

    def __init__(self, world: process.DriftWorld, since: int) -> None:
        self.world, self.since = world, since

    def scores(self, queries: Queries, items: Any = None) -> torch.Tensor:
        table = np.zeros((len(queries), self.world.num_groups))
        row = np.repeat(np.arange(len(queries)), queries.lengths)
        late = self.world.span(queries.times) >= self.since  # type: ignore[arg-type]
        np.add.at(table, (row[late], self.world.group[queries.items[late]]), 1)
        return torch.from_numpy(table[:, self.world.group].astype(np.float32))


def test_best_scores(world: process.DriftWorld, split: Split) -> None:
    """When an interest was seen matters. Figures for docs and experiments."""
    best = {sees: DriftOracle(world, sees=sees).best_scores(split.test, k=(10,)) for sees in ("history", "state")}  # type: ignore[arg-type]
    whole, last = (evaluate(_Counted(world, since), split.test, k=10, seen="mask") for since in (0, SPANS - 1))
    assert round(best["history"]["recall@10"], 3) == 0.521 and round(best["history"]["ndcg@10"], 3) == 0.240
    assert round(best["state"]["recall@10"], 3) == 0.522
    assert whole["recall@10"] + 0.1 < last["recall@10"] < best["history"]["recall@10"]
    clean, noisy = (
        evaluate(_Counted(world, SPANS - 1), split.test[rows], k=10, seen="mask")["recall@10"]
        for rows in (~world.noisy, world.noisy)
    )
    assert noisy < clean - 0.1  # the last span alone misleads on noisy users


def test_scores_take_candidates_blocks_and_new_histories(log: InteractionLog, split: Split) -> None:
    oracle, queries = sample_oracle("drift", log=log), split.test[:7]
    table = oracle.scores(queries)
    assert (tuple(table.shape), str(table.dtype)) == ((7, 1000), "torch.float32")
    items = torch.arange(21).reshape(7, 3)
    assert torch.equal(oracle.scores(queries, items), table.gather(1, items))
    torch.testing.assert_close(oracle.scores(queries[3:5]), table[3:5])
    own = np.flatnonzero(oracle.item_group == 5)
    new = Queries.from_histories([own[:3], []])  # nobody's, without times
    chance = oracle.probabilities(new)
    assert chance[0, own[3:]].sum() > 0.85
    assert chance[1] == pytest.approx(np.full(1000, 1e-3), rel=1e-4)
    with pytest.raises(DataError, match="found by user and time"):
        oracle.labels(new)
    with pytest.raises(DataError, match="a query has no user"):
        DriftOracle(process.DriftWorld(2000, 1000, 0, 0.1), log, "state").scores(new)
    twice = Queries.from_histories([np.repeat(own[:3], 2)])  # the process has no repeats: they tell nothing
    np.testing.assert_allclose(oracle.probabilities(twice)[0], chance[0], rtol=1e-5)
    assert oracle.probabilities(new[np.zeros(2, dtype=bool)]).shape == (0, 1000)


def test_wrong_arguments_are_named(world: process.DriftWorld, log: InteractionLog) -> None:
    with pytest.raises(DataError, match="sees is 'all'; expected 'history' or 'state'"):
        DriftOracle(world, sees="all")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is not in this sample"):
        sample_oracle("drift", items=400, log=log)
    with pytest.raises(DataError, match="made with the same arguments"):
        sample_oracle("drift", seed=1).labels(log)
    with pytest.raises(DataError, match="expected at least 2 and 20"):
        sample("drift", items=5)


@pytest.mark.parametrize(("users", "items", "noise"), [(2, 20, 0.0), (7, 33, 0.5), (30, 101, 1.0), (300, 60, 0.0)])
def test_small_and_odd_sizes(users: int, items: int, noise: float) -> None:
    """Communities run out of new items: then any item comes."""
    log = sample("drift", users, items, noise=noise)
    assert (log.num_users, log.num_items) == (users, items)
    assert len(np.unique(log.user * items + log.item)) == len(log)
    found = sample_oracle("drift", users, items, noise=noise).scores(leave_one_out(log).test)
    torch.testing.assert_close(found.sum(1), torch.ones(users), rtol=1e-3, atol=1e-3)
    assert bool((found >= 0).all())
