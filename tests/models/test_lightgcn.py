"""LightGCN's loss and weights against what the paper and RecBole say."""

from __future__ import annotations

import math

import pytest
import torch

import dglrec
from dglrec.graphs import user_item
from dglrec.nn import message_passing
from dglrec.streams import Streams


def make(split, **fields):
    return dglrec.models.preset("lightgcn", split, **{"dim": 8, "train": {"batch_size": 64}, **fields})


def propagated(model, split):
    graph = user_item(split.train, unique=True)
    return message_passing(graph, (model.user.weight, model.item.weight), model.config.layers, model.config.combine)


@pytest.mark.parametrize("fields", [{}, {"layers": 3}, {"combine": "last"}, {"norm": "squared", "l2": 0.1}], ids=str)
def test_the_loss_is_bpr_and_the_norm_of_the_batch(fields, split):
    model = make(split, **fields)
    users, items = propagated(model, split)
    for batch in model.batches(split, Streams(0)):
        terms = model.loss(batch)
        bpr, norms = 0.0, [0.0, 0.0, 0.0]
        rows = zip(batch.user.tolist(), batch.item.tolist(), batch.negative.tolist(), strict=True)
        for user, item, negative in rows:
            x = float(users[user] @ items[item] - users[user] @ items[negative])
            bpr += math.log1p(math.exp(-x)) / len(batch.user)
            for n, row in enumerate((model.user.weight[user], model.item.weight[item], model.item.weight[negative])):
                norms[n] += float(row.square().sum())
        size = sum(norms) / 2 if model.config.norm == "squared" else sum(math.sqrt(norm) for norm in norms)
        assert float(terms["bpr"]) == pytest.approx(bpr, rel=1e-5)
        assert float(terms["l2"]) == pytest.approx(model.config.l2 * size / len(batch.user), rel=1e-5)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.3, "layers": 1}], ids=str)
def test_softmax_compares_the_pairs_of_a_batch(fields, split):
    """Cosines over the temperature; what the other pairs hold are the negatives, be it the same item."""
    model = make(split, loss="softmax", norm="squared", l2=0.1, **fields)
    users, items = propagated(model, split)
    for batch in model.batches(split, Streams(0)):
        assert batch.negative is None
        terms, size = model.loss(batch), len(batch.user)
        x, y = (torch.nn.functional.normalize(rows) for rows in (users[batch.user], items[batch.item]))
        logits = [[float(one @ other) / model.config.temperature for other in y] for one in x]
        loss = sum(math.log(sum(math.exp(v) for v in row)) - row[n] for n, row in enumerate(logits)) / size
        norm = (model.user.weight[batch.user].square().sum() + model.item.weight[batch.item].square().sum()) / 2
        assert float(terms["softmax"]) == pytest.approx(loss, rel=1e-4)
        assert float(terms["l2"]) == pytest.approx(0.1 * float(norm.detach()) / size, rel=1e-5)


def test_one_training_is_ranked_by_both_products(split):
    model = make(split, loss="softmax").eval()
    users, items = propagated(model, split)
    with torch.no_grad():
        torch.testing.assert_close(model.scores(split.test), users[split.test.user] @ items.T, rtol=1e-4, atol=1e-7)
        model.set_ranking(rank="cosine")
        expected = users[split.test.user] @ torch.nn.functional.normalize(items).T
        torch.testing.assert_close(model.scores(split.test), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("combine", ["mean", "last"])
def test_a_score_is_the_product_of_propagated_rows(combine, split):
    model = make(split, combine=combine).eval()
    users, items = propagated(model, split)
    with torch.no_grad():
        torch.testing.assert_close(model.scores(split.test), users[split.test.user] @ items.T, rtol=1e-4, atol=1e-7)


def test_the_graph_is_the_training_log_s_alone(split):
    """No edge to a held-out item, unless the user has taken it in training as well."""
    model, train = make(split), split.train
    pairs = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
    a = model.adjacency
    users = torch.repeat_interleave(torch.arange(train.num_users), a.user_offsets.diff())
    assert set(zip(users.tolist(), a.user_items.tolist(), strict=True)) == pairs


def test_initial_weights_are_xavier_uniform_over_the_tables(split):
    model = make(split, dim=64)
    for table in (model.user.weight, model.item.weight):
        bound = math.sqrt(6 / sum(table.shape))
        assert table.abs().max() <= bound
        assert float(table.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_there_are_no_weights_but_the_tables(split):
    assert {name: tuple(p.shape) for name, p in make(split).named_parameters()} == {
        "user.weight": (split.log.num_users, 8),
        "item.weight": (split.log.num_items, 8),
    }
