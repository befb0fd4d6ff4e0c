"""GraphAU: both losses against sums over pairs, and how each form ranks."""

from __future__ import annotations

import math

import pytest
import torch

import dglrec
from dglrec.graphs import user_item
from dglrec.nn.propagation import message_passing
from dglrec.streams import Streams


def unit(x):
    return x / math.sqrt(float(x.square().sum()))


def align(xs, ys):
    return sum(float((x - y).square().sum()) for x, y in zip(xs, ys, strict=True)) / len(xs)


def uniform(xs):
    pairs = [math.exp(-2 * float((xs[a] - xs[b]).square().sum())) for a in range(len(xs)) for b in range(a)]
    return math.log(sum(pairs) / len(pairs))


def make(split, form, **fields):
    gamma = {"gsau": 0.5, "original": 0.4}[form]
    return dglrec.models.GraphAU(split, form=form, dim=8, gamma=gamma, train={"batch_size": 32}, **fields)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("form", ["gsau", "original"])
@torch.no_grad()
def test_the_loss_is_that_of_the_papers(split, form, layers):
    model = make(split, form, layers=layers)
    batch = next(iter(model.batches(split, Streams(1))))
    graph, tables = user_item(split.train, unique=True), (model.user.weight, model.item.weight)
    hops = [tables, *(message_passing(graph, tables, n, "last") for n in range(1, layers + 1))]
    mean = message_passing(graph, tables, layers, "mean")

    def rows(view):
        return [unit(view[0][u]) for u in batch.user], [unit(view[1][i]) for i in batch.item]

    user, item = rows(tables)
    spread = uniform(user) + uniform(item)
    if form == "gsau":
        views = [rows(view) for view in (*hops[1:], mean)]
        crossed = sum(align(user, items) + align(users, item) for users, items in views)
        expected = {"alignment": crossed / (2 * len(views)), "uniformity": 0.5 * spread}
    else:
        total = align(user, item)
        for n in range(2, layers + 1):
            users, items = rows(hops[n - 1])
            total += 1.4 ** (n - 1) * (align(user, items) + align(users, item)) / 2
        expected = {"alignment": total / layers, "uniformity": 0.4 * spread / 2}
    terms = model.loss(batch)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name


@torch.no_grad()
def test_each_form_ranks_in_its_own_way(split):
    users = torch.as_tensor(split.test.user)
    model = make(split, "gsau").eval()
    means = message_passing(user_item(split.train, unique=True), (model.user.weight, model.item.weight), 2, "mean")
    torch.testing.assert_close(model.scores(split.test), means[0][users] @ means[1].T, rtol=1e-4, atol=1e-6)
    model = make(split, "original").eval()
    torch.testing.assert_close(model.scores(split.test), model.user.weight[users] @ model.item.weight.T)


def test_a_user_without_training_events_is_ranked_by_the_history():
    """The original ranks by the rows of the table, and that of such a user has learned nothing."""
    log = dglrec.InteractionLog.from_arrays(["a", "a", "a", "b"], list("pqrp"), part=[0, 0, 2, 2])
    model = make(dglrec.given(log, valid=0), "original").eval()
    with torch.no_grad():
        b, nobody = model.query_vectors(dglrec.Queries.from_histories([[0, 1], [0, 1]], users=[1, -1]))[:, 0]
    assert torch.equal(b, nobody) and not torch.equal(b, model.user.weight[1])


def test_the_presets_are_told_apart(split):
    for name in ("graphau", "graphau-original", "directau", "sasrec-u"):
        model = dglrec.models.preset(name, split)
        assert type(model)(split, model.config).preset == name
    original = dglrec.models.preset("graphau-original", split, train={"epochs": 3}).config
    assert (original.train.lr, original.train.batch_size, original.train.epochs) == (0.1, 2048, 3)
