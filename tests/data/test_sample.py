"""Samples: what each kind promises, the oracle's probabilities, and draws that never change."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dglrec.data import InteractionLog, Queries, leave_one_out, sample, sample_oracle
from dglrec.data.sample import KINDS as ALL_KINDS
from dglrec.errors import DataError
from dglrec.evaluate import evaluate

KINDS = [kind for kind in ALL_KINDS if kind not in ("interests", "drift", "hops")]  # those have tests of their own

# A kind that is in use must draw the same log for ever; something new is a new version of the kind, or a new kind.
DIGESTS = {
    "communities": "89872dffd416140255f756932a9b7f9390c3ba6cdf7501cb7990243db6b350a1",
    "grammar": "24188248df7ddbfdb2b55aec2569da46ed865d6f837b9b6da0afcd1f9fe2559e",
    "shop": "e88312f71d234500be31007fbf8cedb3297573c8c88b84be5fe9cae3b8866284",
}
INTERESTS = {  # (users, items): the size that tests and the example use, and the default
    (400, 2500): "809894b4f651980c62512eb0dee2be661c615f3c2d595eee3c450e74c1130c84",
    (5000, 10_000): "49c181070839ec7ea6241e483adc988a5f711bc9767a9f4e40e060df658f599e",
}


def steps(log: InteractionLog) -> tuple[np.ndarray, np.ndarray]:
    """(item, next item) of all consecutive events."""
    same = np.diff(log.user) == 0
    return log.item[:-1][same], log.item[1:][same]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_promised_size_lengths_and_times(kind: str) -> None:
    start = time.process_time()
    log = sample(kind, users=2000, items=1000)  # type: ignore[arg-type]
    assert time.process_time() - start < 6  # under 1 s on an idle machine
    assert (log.num_users, log.num_items, log.name) == (2000, 1000, f"sample-{kind}")
    lengths = np.diff(log.offsets)
    assert lengths.min() == 5
    assert 34 <= lengths.max() <= 50
    assert np.median(lengths) < lengths.mean() < 14  # few long ones
    assert log.time is not None
    assert 1.5e9 < log.time.min() < log.time.max() < 1.8e9
    assert (np.diff(log.time)[np.diff(log.user) == 0] > 0).all()  # no ties
    assert len(np.unique(log.user * log.num_items + log.item)) == len(log)  # no repeats
    assert log.digest() == DIGESTS[kind]
    assert sample(kind, seed=1).digest() != log.digest()  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "digest"), INTERESTS.items())
def test_interests_are_drawn_the_same(size: tuple[int, int], digest: str) -> None:
    assert sample("interests", *size).digest() == digest


def test_communities_are_disjoint() -> None:
    log, oracle = sample("communities", noise=0), sample_oracle("communities", noise=0)
    group = oracle.item_group[log.item]
    assert (group == group[log.offsets[log.user]]).all()  # each user stays in the group of the first item
    assert np.bincount(oracle.item_group).tolist() == [50] * 20
    noisy = sample("communities", noise=0.3)
    group = sample_oracle("communities").item_group[noisy.item]
    own = np.array([np.bincount(group[a:b]).max() for a, b in zip(noisy.offsets, noisy.offsets[1:], strict=False)])
    assert abs(own.sum() / len(noisy) - (0.7 + 0.3 / 20)) < 0.02


def test_grammar_is_one_cycle() -> None:
    log = sample("grammar", noise=0, users=3000)
    item, following = steps(log)
    successor = np.full(log.num_items, -1)
    successor[item] = following
    assert (successor[item] == following).all()
    place, seen = 0, set()
    while place not in seen:
        seen.add(place)
        place = int(successor[place])
    assert len(seen) == log.num_items
    starts = np.unique(log.item[log.offsets[:-1]])
    assert len(starts) > 900  # users start anywhere


def test_shop_has_departments_successors_drift_and_titles() -> None:
    log, oracle = sample("shop", noise=0), sample_oracle("shop", noise=0)
    group = oracle.item_group[log.item]
    assert (group == group[log.offsets[log.user]]).all()
    item, following = steps(log)
    pairs, counts = np.unique(item * log.num_items + following, return_counts=True)
    top = np.zeros(log.num_items)
    np.maximum.at(top, pairs // log.num_items, counts)
    assert 0.5 < top.sum() / len(item) < 0.75  # most steps go to one successor
    popularity = np.sort(np.bincount(log.item, minlength=log.num_items))
    assert popularity[-100:].sum() > 2.5 * popularity[:500].sum() / 5  # skewed

    assert log.time is not None
    assert oracle.drift_time is not None
    late = log.time >= oracle.drift_time
    before, after = (np.bincount(log.item[part], minlength=log.num_items) > 0 for part in (~late, late))
    assert 150 < (before & ~after).sum() < 250  # a fifth goes
    assert 150 < (after & ~before).sum() < 250  # a fifth comes

    assert log.titles is not None
    assert len(set(log.titles.tolist())) == log.num_items
    assert all(title.isascii() and ", " in title and len(title) < 50 for title in log.titles)
    nouns = {title.split(",")[0].rpartition(" ")[2] for title in log.titles[oracle.item_group == 0]}
    assert len(nouns) <= 4  # a department sells few kinds of things


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_oracle_knows_the_frequencies(kind: str, noise: float) -> None:
    """What it gives probability p happens with frequency p, and the evaluator agrees with its expectation."""
    users = 6000
    log = sample(kind, users=users, items=300, noise=noise, seed=5)  # type: ignore[arg-type]
    oracle = sample_oracle(kind, users=users, items=300, noise=noise, seed=5)  # type: ignore[arg-type]
    test = leave_one_out(log).test
    chance = oracle.probabilities(test)
    np.testing.assert_allclose(chance.sum(1), 1, atol=1e-4)
    assert chance.min() >= 0
    row = np.repeat(np.arange(len(test)), test.lengths)
    assert chance[row, test.items].max() == 0  # nothing is taken twice

    happened = np.zeros(chance.shape, dtype=bool)
    happened[np.arange(len(test)), test.targets] = True
    for low, high in ((1e-5, 0.003), (0.003, 0.02), (0.02, 0.1), (0.1, 0.5), (0.5, 1.1)):
        some = (chance >= low) & (chance < high)
        expected, variance = chance[some].sum(), (chance[some] * (1 - chance[some])).sum()
        assert abs(happened[some].sum() - expected) < 4 * np.sqrt(variance) + 0.004 * expected + 1

    best = oracle.best_scores(test, k=(1, 10))
    measured = evaluate(oracle, test, k=(1, 10))
    for name, value in best.items():
        assert abs(measured[name] - value) < 4 * measured.standard_errors[name] + 0.004 * value + 1e-6


def test_best_scores_of_the_kinds() -> None:
    """The figures that docs and contract tests may lean on."""
    best = {kind: sample_oracle(kind).best_scores(leave_one_out(sample(kind)).test, k=(10,)) for kind in KINDS}  # type: ignore[arg-type]
    assert 0.22 < best["communities"]["recall@10"] < 0.24
    assert 0.90 < best["grammar"]["recall@10"] < 0.905
    assert 0.69 < best["shop"]["recall@10"] < 0.72
    grammar = sample_oracle("grammar", noise=0)
    assert grammar.best_scores(leave_one_out(sample("grammar", noise=0)).test, k=(1,)) == {"recall@1": 1, "ndcg@1": 1}


def test_no_order_beats_the_oracle() -> None:
    log, oracle = sample("shop", users=4000, items=200), sample_oracle("shop", users=4000, items=200)
    split = leave_one_out(log)
    counts = np.zeros((log.num_items, log.num_items))
    np.add.at(counts, steps(split.train), 1)
    last = split.test.items[split.test.offsets[1:] - 1]
    rank = (-counts[last]).argsort(1).argsort(1)[np.arange(len(last)), split.test.targets]
    best = oracle.best_scores(split.test, k=(10,))["recall@10"]
    assert 0.5 * best < (rank < 10).mean() < best


def test_scores_take_candidates_blocks_and_unknown_users() -> None:
    oracle, queries = sample_oracle("shop"), leave_one_out(sample("shop")).test[:7]
    table = oracle.scores(queries)
    assert (tuple(table.shape), str(table.dtype)) == ((7, 1000), "torch.float32")
    items = np.arange(21).reshape(7, 3)
    assert oracle.scores(queries, items).tolist() == [[float(table[q, i]) for i in items[q]] for q in range(7)]
    assert oracle.scores(queries[3:5]).tolist() == table[3:5].tolist()
    new = Queries.from_histories([queries[0].items])  # no user, no time: after the drift
    assert oracle.scores(new).sum() == pytest.approx(1, abs=1e-4)


def test_the_oracle_follows_a_filtered_log() -> None:
    log = sample("shop", users=300, items=400).k_core(4)
    oracle = sample_oracle("shop", users=300, items=400, log=log)
    test = leave_one_out(log).test
    assert oracle.scores(test).shape == (len(test), log.num_items)
    assert oracle.best_scores(test, k=(10,))["recall@10"] > 0.3
    assert evaluate(oracle, test, k=10)["recall@10"] > 0.3
    with pytest.raises(DataError, match="is not in sample"):
        sample_oracle("shop", users=300, items=50, log=log)


@pytest.mark.parametrize(("users", "items"), [(2, 20), (7, 20), (50, 33), (300, 101)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_small_and_odd_sizes(kind: str, users: int, items: int, noise: float) -> None:
    log = sample(kind, users, items, noise=noise)  # type: ignore[arg-type]
    assert (log.num_users, log.num_items) == (users, items)
    assert len(np.unique(log.user * items + log.item)) == len(log)
    chance = sample_oracle(kind, users, items, noise=noise).probabilities(leave_one_out(log).test)  # type: ignore[arg-type]
    np.testing.assert_allclose(chance.sum(1), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "shops"}, "unknown kind of sample 'shops'; did you mean 'shop'"),
        ({"users": 1}, "expected at least 2 and 20"),
        ({"items": 19}, "expected at least 2 and 20"),
        ({"noise": 1.5}, "noise is 1.5; expected a probability"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample(**arguments)  # type: ignore[arg-type]
