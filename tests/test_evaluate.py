"""The evaluator against ranx, against all orders of tied items one by one, and against its own rules."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dglrec.base import Model
from dglrec.data.log import InteractionLog
from dglrec.data.queries import Queries
from dglrec.data.sample import sample
from dglrec.data.splits import leave_one_out, time_point
from dglrec.errors import ConfigError, DataError
from dglrec.evaluate import AT_K, Metrics, evaluate, pooled_auc
from dglrec.models.gsau import GSAUConfig


def pack(lists):
    """Lists as (offsets, values)."""
    return np.cumsum([0] + [len(one) for one in lists]), np.array([x for one in lists for x in one], dtype=np.int64)


def ask(histories, targets, candidates=None, **fields):
    """Queries made by hand; query q is of user q."""
    offsets, items = pack(histories)
    target_offsets, targets = pack(targets)
    candidate_offsets, candidates = (None, None) if candidates is None else pack(candidates)
    user = np.arange(len(histories))
    return Queries(user, offsets, items, None, target_offsets, targets, None, candidate_offsets, candidates, **fields)


class Table(torch.nn.Module):
    """Scores from a table (users, items)."""

    def __init__(self, table, seen="mask"):
        super().__init__()
        self.table = torch.as_tensor(table)
        self.config = SimpleNamespace(seen=seen)
        self.calls = []

    def scores(self, queries, items=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls.append(len(queries))
        rows = self.table[torch.as_tensor(queries.user)]
        return rows if items is None else rows.gather(1, items)


class Generative:
    """Gives the best items of a table as a list; it cannot score an item that it is asked for."""

    config = SimpleNamespace(seen="keep")

    def __init__(self, table, beam):
        self.table, self.beam = torch.as_tensor(table), beam

    def top(self, queries, k):
        best = self.table[torch.as_tensor(queries.user)].topk(min(k, self.beam), dim=1)
        return best.indices, best.values


class CandidateConditioned(Table):
    """Looks at each candidate beside the history: its score is the table's plus a bonus for the history's last item."""

    def scores(self, queries, items=None):
        scores = super().scores(queries, items)
        last = torch.as_tensor(queries.items[queries.offsets[1:] - 1])[:, None]
        ids = torch.arange(scores.shape[1]).expand_as(scores) if items is None else items
        return scores + 10.0 * (ids == (last + 1) % self.table.shape[1])


def random_queries(rng, num_queries=50, num_items=40, most_targets=4, most_seen=6):
    histories = [rng.integers(0, num_items, rng.integers(0, most_seen + 1)) for _ in range(num_queries)]
    targets = [rng.permutation(num_items)[: rng.integers(1, most_targets + 1)] for _ in range(num_queries)]
    return ask(histories, targets)


def one_order(order, targets, name, k):
    """A metric of one query from the definition; `order` is the full ranking, best first."""
    places = [place for place, item in enumerate(order, 1) if item in targets]
    inside = [place for place in places if k is None or place <= k]
    if name in ("recall", "precision"):
        return len(inside) / (len(targets) if name == "recall" else k)
    if name == "hit":
        return float(bool(inside))
    if name == "mrr":
        return 1 / inside[0] if inside else 0.0
    if name == "ndcg":
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(targets)) + 1))
        return sum(1 / math.log2(1 + place) for place in inside) / ideal
    negatives = [place for place in range(1, len(order) + 1) if place not in places]
    return np.mean([p < n for p in places for n in negatives])


def all_orders(scores, targets, hidden, name, k, ties):
    """Mean of a metric over all orders of the tied items; for "pessimistic" the worst of them."""
    items = [item for item in range(len(scores)) if item not in hidden or item in targets]
    values = []
    for shuffled in itertools.permutations(items):
        order = sorted(shuffled, key=lambda item: -scores[item])
        values.append(one_order(order, targets, name, k))
    return np.mean(values) if ties == "expected" else min(values)


@pytest.mark.parametrize("most_targets", [1, 4])
def test_equals_ranx_without_ties(most_targets, monkeypatch):
    """Of ranx as it is written: to compile its loops would take a minute, and they are run once."""
    monkeypatch.setattr(pytest.importorskip("numba").config, "DISABLE_JIT", True)
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(7)
    queries = random_queries(rng, most_targets=most_targets)
    table = rng.permutation(50 * 40).reshape(50, 40) / 2000  # no two alike
    ks = (1, 5, 10, 40)
    ours = evaluate(Table(table), queries, k=ks, metrics=AT_K, seen="keep")
    qrels = {f"q{q}": {f"i{item}": 1 for item in queries[q].targets} for q in range(50)}
    run = {f"q{q}": {f"i{item}": float(table[q, item]) for item in range(40)} for q in range(50)}
    theirs = {"recall": "recall", "ndcg": "ndcg", "mrr": "mrr", "precision": "precision", "hit": "hit_rate"}
    wanted = [f"{theirs[name]}@{k}" for name in AT_K for k in ks]
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), wanted)
    for name in AT_K:
        for k in ks:
            assert ours[f"{name}@{k}"] == pytest.approx(found[f"{theirs[name]}@{k}"], abs=1e-9), (name, k)
    assert ours["mrr"] == pytest.approx(ours["mrr@40"])


@pytest.mark.parametrize("ties", ["expected", "pessimistic"])
@pytest.mark.parametrize("seen", ["mask", "keep"])
def test_equals_all_orders_of_tied_items(ties, seen):
    rng = np.random.default_rng(11)
    queries = random_queries(rng, num_queries=30, num_items=6, most_targets=4, most_seen=2)
    table = rng.integers(0, 3, (30, 6)).astype(np.float32)
    table[:3] = 1.0
    ks = (1, 2, 3, 5, 9)
    found = evaluate(Table(table), queries, k=ks, metrics=(*AT_K, "auc"), seen=seen, ties=ties, per_query=True)
    assert found.per_query is not None
    for q in range(30):
        targets, hidden = set(queries[q].targets), set(queries[q].items) if seen == "mask" else set()
        wanted = [(name, k) for name in AT_K for k in ks] + [("auc", None), ("mrr", None)]
        for name, k in wanted:
            key = name if k is None else f"{name}@{k}"
            truth = all_orders(table[q], targets, hidden, name, k, ties)
            assert found.per_query[key][q] == pytest.approx(truth, abs=1e-9), (q, key)


@pytest.mark.parametrize("single", [True, False])
def test_a_constant_scorer_gets_chance(single):
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 100, (200, 1)) if single else [rng.permutation(100)[:5] for _ in range(200)]
    queries = ask([[]] * 200, targets)
    found = evaluate(Table(np.zeros((200, 100))), queries, k=(10, 50), metrics=("recall", "hit", "auc", "mrr"))
    assert found["recall@10"] == pytest.approx(0.1)
    assert found["recall@50"] == pytest.approx(0.5)
    assert found["auc"] == pytest.approx(0.5)
    if single:
        assert found["hit@10"] == pytest.approx(0.1)
        assert found["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 101)))
    else:
        assert found["hit@10"] == pytest.approx(1 - math.comb(95, 10) / math.comb(100, 10))
    worst = evaluate(Table(np.zeros((200, 100))), queries, k=50, ties="pessimistic")
    assert worst["recall@50"] == 0


def test_standard_errors_and_per_query_values():
    rng = np.random.default_rng(1)
    queries = random_queries(rng)
    found = evaluate(Table(rng.random((50, 40))), queries, k=10, per_query=True)
    each = found.per_query["recall@10"]
    assert each.shape == (50,)
    assert found["recall@10"] == pytest.approx(each.mean())
    assert found.standard_errors["recall@10"] == pytest.approx(each.std(ddof=1) / math.sqrt(50))
    assert evaluate(Table(rng.random((50, 40))), queries, k=10).per_query is None


def test_a_single_query_has_no_standard_error():
    found = evaluate(Table(np.eye(4)), ask([[]], [[1]]), k=2)
    assert found["recall@2"] == pytest.approx(1 / 3)
    assert found.standard_errors == found.to_dict()["standard_errors"] == {}
    assert "+-" not in str(found)
    assert "no standard errors: they need at least two queries" in str(found)


# --- Seen items ----------------------------------------------------------------------------------------------------


def test_seen_items_are_masked_but_never_a_target():
    table = np.array([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
    queries = ask([[0, 1, 0], [0, 2, 2]], [[2], [2]])  # the second target is a repeat
    masked = evaluate(Table(table), queries, k=1, seen="mask", per_query=True)
    assert masked.per_query["recall@1"].tolist() == [1.0, 0.0]  # behind item 1, which was not seen
    kept = evaluate(Table(table), queries, k=(1, 3), seen="keep", per_query=True)
    assert kept.per_query["recall@1"].tolist() == [0.0, 0.0]
    assert kept.per_query["recall@3"].tolist() == [1.0, 1.0]


def test_seen_is_the_models_own_unless_given():
    queries = ask([[0]], [[1]])
    table = np.array([[2.0, 1.0]])
    assert evaluate(Table(table, seen="keep"), queries, k=1)["recall@1"] == 0
    assert evaluate(Table(table, seen="mask"), queries, k=1)["recall@1"] == 1
    found = evaluate(Table(table, seen="mask"), queries, k=1, seen="keep")
    assert found["recall@1"] == 0
    assert found.protocol.seen == "keep"
    with pytest.raises(ConfigError, match="seen is 'hide'"):
        evaluate(Table(table), queries, seen="hide")


def test_a_masked_item_never_ties_with_a_target_that_a_model_rules_out():
    queries = ask([[0, 1]], [[3]])
    table = np.array([[1.0, 1.0, 1.0, -np.inf]])
    assert evaluate(Table(table), queries, k=2)["recall@2"] == 1.0


@pytest.mark.parametrize("candidates", [None, [[0, 1, 2, 3]] * 3])
def test_the_models_scores_are_not_written_to(candidates):
    class Kept(Table):
        def scores(self, queries, items=None):
            return self.table

    table = np.arange(12.0).reshape(3, 4)
    model = Kept(table.copy())
    evaluate(model, ask([[0], [1], [2]], [[3], [3], [3]], candidates), k=1)
    assert torch.equal(model.table, torch.as_tensor(table))


# --- What must change nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_targets", [1, 4])
def test_block_size_changes_nothing(most_targets):
    rng = np.random.default_rng(5)
    queries = random_queries(rng, most_targets=most_targets)
    model = Table(rng.integers(0, 9, (50, 40)).astype(np.float32))
    whole = evaluate(model, queries, metrics=(*AT_K, "auc"), per_query=True)
    for block in (1, 7, 50):
        model.calls.clear()
        parts = evaluate(model, queries, metrics=(*AT_K, "auc"), block=block, per_query=True)
        assert max(model.calls) == block
        assert sum(model.calls) == 50
        assert all(np.abs(parts.per_query[name] - whole.per_query[name]).max() < 1e-15 for name in whole)


@pytest.mark.parametrize(("candidates", "calls"), [(None, [3, 3, 3]), ([[0, 1]] * 9, [6, 3])])
def test_blocks_are_small_where_a_query_has_many_scores(candidates, calls, monkeypatch):
    monkeypatch.setattr(sys.modules["dglrec.evaluate"], "BLOCK_SCORES", 12)
    model = Table(np.zeros((9, 4)))
    model.split = SimpleNamespace(kind="position", log=SimpleNamespace(num_items=4))
    evaluate(model, ask([[]] * 9, [[1]] * 9, candidates))
    assert model.calls == calls


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    queries, model = random_queries(rng), Table(rng.integers(0, 9, (50, 40)).astype(np.float32))
    whole = evaluate(model, queries)
    monkeypatch.setitem(sys.modules["dglrec.evaluate"]._SLICE_SCORES, "cpu", 90)
    assert dict(evaluate(model, queries)) == dict(whole)


@pytest.mark.parametrize("levels", [7, 40, 10**6])
@pytest.mark.parametrize("ties", ["expected", "pessimistic"])
@pytest.mark.parametrize("cuts", [(1,), (1, 2, 3), (4, 10)])
def test_leaving_out_targets_that_no_cut_reaches_changes_nothing(cuts, ties, levels):
    """Where the reciprocal rank without a cut is asked for, too, every target's rank is counted."""
    rng = np.random.default_rng(levels)
    queries = random_queries(rng, num_queries=400, num_items=130, most_targets=3, most_seen=60)
    model = Table(rng.integers(0, levels, (400, 130)).astype(np.float32))
    how = {"k": cuts, "ties": ties, "per_query": True}
    for seen in ("mask", "keep"):
        near = evaluate(model, queries, metrics=("recall", "ndcg", "hit", "precision"), seen=seen, **how)
        every = evaluate(model, queries, metrics=("recall", "ndcg", "hit", "precision", "mrr"), seen=seen, **how)
        assert all(np.array_equal(near.per_query[name], every.per_query[name]) for name in near)
        for name in ("mrr", "auc"):
            some, all_places = (
                evaluate(model, queries, metrics=name, seen=seen, ties=ties, per_query=True, k=k) for k in (cuts, 130)
            )
            assert np.array_equal(some.per_query[name], all_places.per_query[name])
            if name == "mrr":
                assert all_places.per_query["mrr"] == pytest.approx(all_places.per_query["mrr@130"], abs=1e-12)


def test_few_targets_are_compared_with_all_items(monkeypatch):
    """Of targets at random places the first tenth is within the cut, and little more is counted."""
    module, counted = sys.modules["dglrec.evaluate"], []
    count = module._Ranker._count
    monkeypatch.setattr(
        module._Ranker, "_count", lambda self, *args: (counted.append(len(args[-1])), count(self, *args))[1]
    )
    rng = np.random.default_rng(2)
    queries = random_queries(rng, num_queries=500, num_items=200)
    evaluate(Table(rng.random((500, 200)).astype(np.float32)), queries, k=20, metrics="recall")
    assert 0.1 < sum(counted) / len(queries.targets) < 0.2


def test_counts_are_exact_beyond_what_float32_counts():
    ranker = sys.modules["dglrec.evaluate"]._Ranker(None, "keep", ("recall",), 1)
    scores = torch.ones(1, (1 << 24) + 1)
    scores[0, 0] = 0
    greater, equal = ranker._count(scores, None, scores[:, 0])
    assert (int(greater), int(equal)) == (1 << 24, 1)


@pytest.mark.parametrize("interests", [1, 3])
@pytest.mark.parametrize("seen", ["mask", "keep"])
def test_slices_of_a_model_equal_its_scores(monkeypatch, interests, seen):
    """Vectors made for a whole block, their scores in slices: the same ranks as from all scores at once."""

    class Vectors(Model):
        Config = GSAUConfig  # any config will do

        def query_vectors(self, queries):
            return torch.as_tensor(rng_table[queries.user]).unflatten(1, (interests, -1))

        def item_vectors(self):
            return torch.as_tensor(item_table)

    class Scores(Vectors):
        def scores(self, queries, items=None):
            return super().scores(queries, items)

    split = leave_one_out(sample("shop", users=120, items=60, seed=3))
    rng = np.random.default_rng(4)
    rng_table = rng.integers(-3, 4, (120, 4 * interests)).astype(np.float32)
    item_table = rng.integers(-3, 4, (split.log.num_items, 4)).astype(np.float32)
    metrics = (*AT_K, "auc")
    expected = evaluate(Scores(split), split.test, metrics=metrics, seen=seen)
    for size in (1, 500, 1 << 20):
        monkeypatch.setitem(sys.modules["dglrec.evaluate"]._SLICE_SCORES, "cpu", size)
        assert dict(evaluate(Vectors(split), split.test, metrics=metrics, seen=seen)) == dict(expected)


def test_order_of_queries_changes_nothing():
    rng = np.random.default_rng(9)
    queries, model = random_queries(rng), Table(rng.integers(0, 9, (50, 40)).astype(np.float32))
    order = rng.permutation(50)
    straight, turned = (evaluate(model, q, metrics=AT_K, per_query=True) for q in (queries, queries[order]))
    for name in straight:
        assert turned[name] == pytest.approx(straight[name], abs=1e-12)
        assert np.abs(turned.per_query[name] - straight.per_query[name][order]).max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_scores(dtype):
    rng = np.random.default_rng(2)
    queries, table = random_queries(rng), torch.as_tensor(rng.integers(0, 9, (50, 40))).float()
    for seen in ("mask", "keep"):
        found = evaluate(Table(table.to(dtype)), queries, seen=seen)
        assert dict(found) == dict(evaluate(Table(table), queries, seen=seen))


def test_float64_is_not_rounded():
    assert evaluate(Table(np.array([[1.0, 1.0 + 1e-12]])), ask([[]], [[1]]), k=1)["recall@1"] == 1


def test_one_row_of_scores_for_all():
    class Popularity(Table):
        def scores(self, queries, items=None):
            return self.table.expand(len(queries), -1)  # all rows in one memory

    queries = ask([[0], [1]], [[1], [0]])
    assert evaluate(Popularity(np.array([3.0, 2.0, 1.0])), queries, k=1)["recall@1"] == 1.0


def test_modes_are_put_back():
    model = Table(np.zeros((1, 3)))
    model.part, model.other = torch.nn.Dropout(), torch.nn.Dropout()
    model.train()
    model.part.eval()  # a part that its owner keeps frozen
    evaluate(model, ask([[]], [[1]]))
    assert model.training and model.other.training
    assert not model.part.training
    model.table.fill_(math.nan)
    with pytest.raises(DataError, match="NaN"):
        evaluate(model, ask([[]], [[1]]))
    assert model.training and model.other.training


# --- Candidates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [Table, CandidateConditioned])
@pytest.mark.parametrize("seen", ["mask", "keep"])
def test_all_items_as_candidates_equal_the_full_ranking(model_type, seen):
    rng = np.random.default_rng(4)
    queries = random_queries(rng)
    queries = queries[queries.lengths > 0]
    every = ask(
        np.split(queries.items, queries.offsets[1:-1]),
        np.split(queries.targets, queries.target_offsets[1:-1]),
        [rng.permutation(40) for _ in range(len(queries))],
    )
    every = dataclasses.replace(every, user=queries.user)
    model = model_type(rng.integers(0, 9, (50, 40)).astype(np.float32))
    full = evaluate(model, queries, metrics=(*AT_K, "auc"), seen=seen)
    some = evaluate(model, every, metrics=(*AT_K, "auc"), seen=seen, block=7)
    assert dict(some) == pytest.approx(dict(full), abs=1e-12)


def test_candidates_of_different_number_are_padded():
    table = np.array([[9.0, 5.0, 4.0, 3.0], [9.0, 1.0, 2.0, 3.0]])
    queries = ask([[], []], [[2], [2]], [[3, 2], [1, 3, 2]])
    found = evaluate(Table(table), queries, k=(1, 2), metrics=("recall", "auc"), per_query=True)
    assert found.per_query["recall@1"].tolist() == [1.0, 0.0]
    assert found.per_query["auc"].tolist() == [1.0, 0.5]
    assert found.protocol.candidates == "1+1..2"


def test_pooled_auc_compares_across_queries():
    table = np.array([[1.0, 2.0, 0.0, 9.0], [8.0, 6.0, 8.0, 9.0]])
    queries = ask([[3], [3]], [[1], [0]], [[0, 1, 3], [1, 0, 2, 3]])  # item 3 is seen: masked
    found = evaluate(Table(table), queries, k=1, metrics=("auc", "auc_pooled"), block=1)
    # positives 2, 8; negatives 1, 6, 8: 2 beats 1; 8 beats 1 and 6, and ties with 8
    assert found["auc_pooled"] == pytest.approx((1 + 2.5) / 6)
    assert found["auc"] == pytest.approx((1 + 0.75) / 2)
    assert found.standard_errors["auc_pooled"] > 0
    worst = evaluate(Table(table), queries, k=1, metrics="auc_pooled", ties="pessimistic")
    assert worst["auc_pooled"] == pytest.approx(3 / 6)


def pairs_of_queries(num_queries, rng, levels):
    """Query, score and truth of 4 to 9 candidates a query; queries are not on one scale, and scores tie."""
    query = np.repeat(np.arange(num_queries), rng.integers(4, 10, num_queries))
    positive = rng.random(len(query)) < 0.4
    first = np.flatnonzero(np.diff(query, prepend=-1))
    positive[first], positive[first + 1] = True, False  # each query has both
    scores = rng.normal(size=len(query)) + positive + rng.normal(size=num_queries)[query]
    return query, np.round(scores * levels) / levels, positive


@pytest.mark.parametrize(("ties", "half"), [("expected", 0.5), ("pessimistic", 0.0)])
def test_the_values_of_pooled_auc_are_those_of_its_definition(ties, half):
    query, scores, positive = pairs_of_queries(7, np.random.default_rng(4), levels=2)
    auc, values = pooled_auc(query, scores, positive, 7, ties)
    above, below = scores[positive], scores[~positive]
    wins = (above[:, None] > below) + half * (above[:, None] == below)  # (positives, negatives)
    assert auc == pytest.approx(wins.mean())
    for number in range(7):
        own, others = query[positive] == number, query[~positive] == number
        a, b = wins[own].mean(1).sum(), wins[:, others].mean(0).sum()
        part = (a - auc * own.sum()) / len(above) + (b - auc * others.sum()) / len(below)
        assert values[number] == pytest.approx(auc + 7 * part)
    assert values.mean() == pytest.approx(auc)


def test_the_standard_error_of_pooled_auc_is_that_of_drawing_queries_anew():
    rng = np.random.default_rng(5)
    query, scores, positive = pairs_of_queries(150, rng, levels=50)
    _, values = pooled_auc(query, scores, positive, 150)
    members = [np.flatnonzero(query == number) for number in range(150)]
    draws = []
    for _ in range(400):
        rows = np.concatenate([members[number] for number in rng.integers(150, size=150)])
        draws.append(pooled_auc(query[rows], scores[rows], positive[rows], 150)[0])
    assert values.std(ddof=1) / np.sqrt(150) == pytest.approx(np.std(draws), rel=0.12)


def test_pooled_auc_has_values_of_queries_in_any_block():
    rng = np.random.default_rng(6)
    table = rng.normal(size=(9, 30))
    lists = [rng.permutation(30)[:8] for _ in range(9)]
    queries = ask([[]] * 9, [one[:3] for one in lists], lists)
    found = [evaluate(Table(table), queries, k=1, per_query=True, block=block) for block in (1, 4, 9)]
    for one in found:
        assert one.per_query["auc_pooled"].tolist() == pytest.approx(found[0].per_query["auc_pooled"].tolist())
        assert one.per_query["auc_pooled"].mean() == pytest.approx(one["auc_pooled"])
        error = one.per_query["auc_pooled"].std(ddof=1) / 3
        assert one.standard_errors["auc_pooled"] == pytest.approx(error)


def auc_of_mip(scores, positive):
    """MIP's AUC, that of Keras: the area under a ROC curve of 200 fixed thresholds from 0 to 1."""
    thresholds = np.concatenate([[-1e-7], np.arange(1, 199) / 199, [1 + 1e-7]])
    above = scores[:, None] > thresholds
    true, false = above[positive].mean(0), above[~positive].mean(0)
    return float(np.sum((false[:-1] - false[1:]) * (true[:-1] + true[1:]) / 2))


def test_pooled_auc_is_that_of_mip_where_its_thresholds_can_tell_scores_apart():
    """Both pool all pairs of window and candidate. Thresholds lose what lies between two of them; we count exactly."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(60, 300)) + rng.normal(size=(60, 1))  # windows are not on one scale
    lists = [rng.permutation(300)[:100] for _ in range(60)]
    queries = ask([[]] * 60, [one[:50] for one in lists], lists)
    logits[np.repeat(np.arange(60), 50), queries.targets] += 1
    positive = np.tile(np.arange(100) < 50, 60)
    for squeeze, close in ((1.0, 1e-3), (0.001, None)):
        table = 1 / (1 + np.exp(-squeeze * logits))
        found = evaluate(Table(table), queries, k=50, metrics=("recall", "auc", "auc_pooled"))
        theirs = auc_of_mip(np.concatenate([table[q, one] for q, one in enumerate(lists)]), positive)
        if close is None:
            assert abs(found["auc_pooled"] - theirs) > 0.05  # all scores lie between the same few thresholds
        else:
            assert found["auc_pooled"] == pytest.approx(theirs, abs=close)
            assert found["auc_pooled"] < found["auc"] - 0.05  # a window's own level does not matter within it
            exact = found["auc_pooled"]
        assert found["auc_pooled"] == pytest.approx(exact)  # the order is the same
    constant = evaluate(Table(np.zeros((60, 300))), queries, k=50)
    assert constant.protocol.candidates == "50+50"
    assert {name: constant[name] for name in ("recall@50", "auc", "auc_pooled")} == pytest.approx(
        {"recall@50": 0.5, "auc": 0.5, "auc_pooled": 0.5}
    )  # chance of MIP's recall is a half


def test_a_positive_that_is_two_candidates_counts_twice():
    """In a window of check-ins, events are ranked: item 1 comes twice, and both times it is right."""
    queries = ask([[], []], [[1, 1, 2], [0, 3, 4]], [[1, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]])
    table = np.array([[0.0, 5, 1, 4, 3, 2], [5.0, 0, 1, 4, 3, 2]])
    found = evaluate(Table(table), queries, k=(1, 2, 3), metrics=("recall", "auc"), per_query=True)
    assert found.per_query["recall@1"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert found.per_query["recall@2"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert found.per_query["recall@3"].tolist() == pytest.approx([2 / 3, 1])
    assert found.per_query["auc"].tolist() == pytest.approx([(3 + 3 + 1) / 9, 1])
    worst = evaluate(Table(table), queries, k=1, metrics="auc", ties="pessimistic", per_query=True)
    assert worst.per_query["auc"].tolist() == pytest.approx([(3 + 3 + 1) / 9, 1])  # copies are both right: no harm


@pytest.mark.parametrize("candidates", [[[0, 2], [0, 1]], [[0, 1, 1], [0, 1]]])
def test_positives_stand_once_among_their_candidates(candidates):
    with pytest.raises(DataError, match="query 0: each of its positives must be among its candidates exactly once"):
        evaluate(Table(np.zeros((2, 3))), ask([[], []], [[1], [1]], candidates))


# --- Generative models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 7])
def test_a_generative_model_equals_scoring_within_its_beam(block):
    rng = np.random.default_rng(8)
    queries, table = random_queries(rng), rng.permutation(50 * 40).reshape(50, 40) / 1.0
    metrics = ("recall", "ndcg", "mrr", "hit", "precision")
    listed = evaluate(Generative(table, beam=10), queries, k=(5, 10), metrics=metrics, block=block)
    scored = evaluate(Table(table), queries, k=(5, 10), metrics=metrics, seen="keep")
    assert dict(listed) == pytest.approx({name: scored[name] for name in listed})
    assert "mrr" not in listed
    assert listed.protocol.beam == 10
    assert "beam 10" in str(listed)


def test_a_generative_list_is_masked_and_may_repeat_itself_or_end_early():
    class Fixed(Generative):
        def top(self, queries, k):
            return torch.tensor([[0, 3, 3, 2, -1], [2, 0, 1, -1, -1]]), None

    queries = ask([[0], [2, 2]], [[2, 1], [2]])
    found = evaluate(Fixed(np.zeros((2, 4)), beam=5), queries, k=(1, 2), seen="mask", per_query=True)
    assert found.per_query["recall@1"].tolist() == [0.0, 1.0]  # 3, 2 stay; a repeated target stays
    assert found.per_query["recall@2"].tolist() == [0.5, 1.0]


def test_places_without_an_item_do_not_count_wherever_they_are():
    class Gaps(Generative):
        def top(self, queries, k):
            return torch.tensor([[-1, 3, -1, 1]]), None

    found = evaluate(Gaps(np.zeros((1, 4)), beam=4), ask([[]], [[1]]), k=(1, 2), metrics="recall")
    assert (found["recall@1"], found["recall@2"]) == (0, 1)


def test_a_generative_model_gives_nothing_beyond_its_beam():
    model, queries = Generative(np.zeros((1, 30)), beam=10), ask([[]], [[1]])
    with pytest.raises(ConfigError, match="k=20 is more than the model's beam of 10"):
        evaluate(model, queries, k=(20, 10))
    for beam in (7, 10):
        names = list(evaluate(Generative(np.zeros((1, 30)), beam), queries, metrics="recall"))
        assert names == ["recall@5", f"recall@{beam}"]
    with pytest.raises(ConfigError, match="auc needs a ranking of all items"):
        evaluate(model, queries, k=5, metrics="auc")
    with pytest.raises(ConfigError, match="cannot rank given candidates"):
        evaluate(model, ask([[]], [[1]], [[1, 2]]), k=5)


# --- Leaks and bad input -------------------------------------------------------------------------------------------


def small_log(name="log"):
    user, item = np.repeat(np.arange(4), 5), np.tile(np.arange(5), 4)
    return InteractionLog.from_arrays(user, item, time=np.tile(np.arange(5.0), 4), name=name)


def test_queries_of_another_split_are_refused():
    ours, theirs = leave_one_out(small_log()), leave_one_out(small_log(), ties="random")
    model = Table(np.zeros((4, 5)))
    model.split = ours
    found = evaluate(model, ours.test)
    assert found.protocol.split_digest == ours.digest
    assert found.protocol.data == "log"
    with pytest.raises(DataError, match=f"{ours.digest[:12]}.*{theirs.digest[:12]}.*model.split.valid"):
        evaluate(model, theirs.test)
    evaluate(model, dataclasses.replace(theirs.test, split_digest=""))  # made by hand


def test_a_split_by_time_is_checked_by_time():
    split = time_point(small_log(), valid_time=3.0, test_time=4.0)
    model = Table(np.zeros((4, 5)))
    model.split = split
    assert evaluate(model, split.valid).protocol.kind == "time"
    late = split.log.select(split.log.time <= 3)
    model.split = dataclasses.replace(split, train=late)  # learnt from validation too, under the same name
    with pytest.raises(DataError, match="reaches to time 3, the queries begin at 3"):
        evaluate(model, split.valid)


@pytest.mark.parametrize("block", [None, 2])
def test_nan_scores_are_an_error(block):
    table = np.zeros((5, 4))
    table[3, 1] = np.nan
    model = Table(table)
    model.preset = "gsau-rec"
    queries = ask([[1]] * 5, [[2]] * 5)  # item 1 is masked: still an error
    with pytest.raises(DataError, match="'gsau-rec' gave NaN scores, first for query 3"):
        evaluate(model, queries, block=block)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (ask([], []), "no queries"),
        (ask([[], []], [[1], []]), "query 1 has no positive"),
        (ask([[], []], [[1], [0, 0]]), "query 1 holds a positive twice"),
        (ask([[], []], [[1], [4]]), "item 4 is in a query, but the model scores 4"),
        (ask([[], [7]], [[1], [2]]), "item 7 is in a query, but the model scores 4"),
        (ask([[], []], [[1], [-1]]), "item -1 is in a query; expected numbers of items, from 0"),
        (ask([[], [-2]], [[1], [2]]), "item -2 is in a query"),
        (ask([[], []], [[1], [2]], [[1, 3], [2, -1]]), "item -1 is in a query"),
    ],
)
def test_queries_that_cannot_be_measured(queries, message):
    with pytest.raises(DataError, match=message):
        evaluate(Table(np.zeros((2, 4))), queries)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ("ndgc",)}, "did you mean 'ndcg'"),
        ({"metrics": ("recall@10",)}, "cuts go into k="),
        ({"metrics": ()}, "no metrics"),
        ({"metrics": ("auc_pooled",)}, "given candidates"),
        ({"k": ()}, "k is"),
        ({"k": 0}, "k is 0"),
        ({"k": 10**20}, "k is 100000000000000000000; expected positive whole numbers below"),
        ({"k": 10.0}, "k is 10.0; expected positive whole numbers"),
        ({"k": [10.7]}, "k is"),
        ({"k": "10"}, "k is '10'"),
        ({"ties": "lucky"}, "ties is 'lucky'"),
        ({"block": 0}, "block is 0"),
        ({"block": 7.5}, "block is 7.5"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(Table(np.zeros((1, 4))), ask([[]], [[1]]), **arguments)


def test_a_query_without_negatives_has_no_auc():
    table = np.zeros((2, 2))
    with pytest.raises(DataError, match="a query has no negative to rank; auc needs one in each query"):
        evaluate(Table(table), ask([[], [0]], [[1], [1]]), metrics="auc")  # the only other item of query 1 is masked
    with pytest.raises(DataError, match="no query has a negative to rank"):
        evaluate(Table(table), ask([[], []], [[1], [1]], [[1], [1]]), metrics="auc_pooled")


@pytest.mark.parametrize("ties", ["expected", "pessimistic"])
def test_a_cut_far_beyond_the_catalogue_takes_no_memory(ties):
    rng = np.random.default_rng(4)
    queries, model = random_queries(rng), Table(rng.integers(0, 4, (50, 40)).astype(np.float32))
    tracemalloc.start()
    found = evaluate(model, queries, k=(40, 10_000_000), metrics=AT_K, ties=ties)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23
    for name in set(AT_K) - {"precision"}:
        assert found[f"{name}@10000000"] == pytest.approx(found[f"{name}@40"], abs=1e-12)
    assert found["precision@10000000"] == pytest.approx(found["precision@40"] * 40 / 10_000_000)


def test_a_cut_of_numpy_is_a_cut():
    found = evaluate(Table(np.zeros((1, 4))), ask([[]], [[1]]), k=np.int64(2), metrics="recall")
    assert dict(found) == {"recall@2": 0.5}


@pytest.mark.parametrize("what", [lambda split: split, lambda split: split.log, lambda split: None, lambda split: [1]])
def test_what_is_no_queries_is_refused(what):
    split = leave_one_out(sample("communities", users=9, items=20))
    with pytest.raises(DataError, match=f"such as split.test, and got {type(what(split)).__name__}"):
        evaluate(Table(np.zeros((1, 4))), what(split))


def test_scores_of_another_shape_or_type():
    with pytest.raises(DataError, match=r"shape \(1,\)"):
        evaluate(Table(np.zeros(4)), ask([[]], [[1]]))
    with pytest.raises(DataError, match=r"type torch\.int64"):
        evaluate(Table(np.zeros((1, 4), np.int64)), ask([[]], [[1]]))


@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_scores_of_another_number_of_queries(rows):
    class Wrong(Table):
        def scores(self, queries, items=None):
            return self.table[:rows]

    model = Wrong(np.arange(24.0).reshape(6, 4))
    with pytest.raises(DataError, match=f"gave scores of {rows} queries; expected 3"):
        evaluate(model, ask([[]] * 3, [[1, 2], [0], [3]]))
    with pytest.raises(DataError, match=rf"gave scores of shape \({rows}, 4\); expected \(3, 2\)"):
        evaluate(model, ask([[]] * 3, [[1], [0], [3]], [[1, 2], [0, 1], [3, 0]]))


# --- What comes back -----------------------------------------------------------------------------------------------


def test_metrics_are_a_mapping_that_prints_its_protocol():
    found = evaluate(Table(np.eye(4)), ask([[]] * 4, [[0], [1], [2], [3]]), k=(1, 2), metrics=("recall", "mrr"))
    assert isinstance(found, Metrics)
    assert list(found) == ["recall@1", "recall@2", "mrr", "mrr@1", "mrr@2"]
    assert found.queries == 4
    assert found.seconds > 0
    text = str(found)
    assert text.startswith(str(found.protocol))
    assert "@1" in text
    assert "1.0000 +-0.0000" in text
    saved = json.loads(found.to_json())
    assert saved["metrics"]["recall@1"] == 1.0
    assert saved["protocol"]["queries"] == 4
    with pytest.raises(KeyError, match="recall@1"):
        found["recall@10"]


def test_progress_is_reported():
    seen = []
    queries = ask([[]] * 5, [[1]] * 5)
    evaluate(Table(np.zeros((5, 4))), queries, block=2, progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]
