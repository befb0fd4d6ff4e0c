"""MDGR: its rounds against DGL's message passing, its scores of one candidate and of many, and what its fields do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec._dgl import dgl
from dglrec.errors import ConfigError
from dglrec.graphs import interests
from dglrec.graphs.clustering import ward
from dglrec.models import MDGR
from dglrec.nn.interests import query_window
from dglrec.planted import agreement
from dglrec.streams import Streams


@pytest.fixture(scope="module")
def split():
    log = dglrec.sample("interests", users=60, items=400, seed=1)
    return dglrec.windows(log, by="user", valid=0.2, test=0.2)


def a_batch(model, split):
    return next(iter(model.batches(split, Streams(1))))


def ragged(sizes, dim=32, seed=0):
    """Vectors (B, n, d) and mask (B, n) of histories of different lengths, filled up on the left."""
    generator, width = torch.Generator().manual_seed(seed), max(sizes)
    mask = torch.arange(width) >= width - torch.tensor(sizes)[:, None]
    return torch.randn(len(sizes), width, dim, generator=generator), mask


def round_by_dgl(model, x, sizes, target=None):
    """One round of MDGR by message passing on the builder's graph, of packed vectors (T, d): the reference."""
    c = model.config
    graph = interests(x, sizes, c.k, c.gamma, c.method, weight=model.metric, rank=c.rank)
    sizes = torch.tensor(sizes)
    wanted = torch.repeat_interleave(x[sizes.cumsum(0) - 1] if target is None else target, sizes, 0)
    scale = graph.in_degrees().clamp(min=1).float().rsqrt()[:, None]
    near = x
    for _ in range(c.hops):
        with graph.local_scope():
            graph.ndata["h"] = near * scale
            graph.update_all(dgl.function.copy_u("h", "m"), dgl.function.sum("m", "sum"))
            near = graph.ndata["sum"] * scale
    moved = []
    for head in model.graph_attention:
        own, asked = head.cluster(x), head.query(x)
        with graph.local_scope():
            graph.ndata["alpha"] = head.cluster_score(torch.cat([own, near, own * near], 1))
            graph.ndata["beta"] = head.query_score(torch.cat([asked, wanted, asked * wanted], 1))
            graph.apply_edges(dgl.function.v_add_u("alpha", "beta", "logit"))
            logits = F.leaky_relu(graph.edata["logit"], 0.2)
            if c.learn_metric:
                logits = logits + graph.edata["similarity"][:, None]
            graph.edata["weight"] = dgl.nn.functional.edge_softmax(graph, logits)
            graph.ndata["x"] = x
            graph.update_all(dgl.function.u_mul_e("x", "weight", "m"), dgl.function.sum("m", "sum"))
            moved.append(graph.ndata["sum"])
    return x + torch.stack(moved).mean(0)


@pytest.mark.parametrize("fields", [{}, {"graph_heads": 2, "hops": 1, "rank": "matrix"}, {"learn_metric": True}])
@pytest.mark.parametrize("given", [False, True])
def test_a_round_equals_message_passing_on_the_builders_graph(split, fields, given):
    model = MDGR(split, k=4, **fields)
    sizes = [50, 7, 1, 33, 50, 2]
    vectors, mask = ragged(sizes)
    target = torch.randn(6, 32) if given else None
    with torch.no_grad():
        dense = model.attend(vectors, model.sub_graphs(vectors, mask), target)
        torch.testing.assert_close(dense[mask], round_by_dgl(model, vectors[mask], sizes, target), rtol=1e-5, atol=1e-5)


def test_users_and_padding_change_nothing(split):
    """A history gives the same interests alone, among others, and in another place of the batch."""
    queries = split.test[:5]
    histories = [queries[i].items[-n:] for i, n in enumerate((50, 3, 20, 1, 9))]
    model = MDGR(split, times=False, weights=False).eval()
    with torch.no_grad():
        together = model.query_vectors(dglrec.Queries.from_histories(histories))
        turned = model.query_vectors(dglrec.Queries.from_histories(histories[::-1]))
        torch.testing.assert_close(turned.flip(0), together, rtol=1e-4, atol=1e-5)
        for row, history in enumerate(histories):
            alone = model.query_vectors(dglrec.Queries.from_histories([history]))
            torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_clusters_before_the_first_round_and_after_the_last(split):
    queries = dglrec.Queries.from_histories([split.test[i].items[-n:] for i, n in enumerate((50, 3, 20))])
    with torch.no_grad():
        once = MDGR(split, k=4, m=0, times=False, weights=False).eval().clusters(queries)
        model = MDGR(split, k=4, m=2, times=False, weights=False).eval()
        first, final = model.clusters(queries)
        window = query_window(queries, 50, model.device)
        vectors = [x for x, _ in model.rounds(window, model.encode(window))]
    assert torch.equal(*once)
    assert torch.equal(first, ward(vectors[0], 4, window.mask))
    assert torch.equal(final, ward(vectors[2], 4, window.mask))
    assert (final >= 0).sum(1).tolist() == [50, 3, 20]


def test_exact_candidates_are_scored_one_by_one(split):
    """Whatever else is ranked, and in whatever order: no candidate sees another, and none is marked as positive."""
    model = MDGR(split, candidate="exact", m=2).eval()
    queries = split.test[:3]
    items = torch.as_tensor(queries.candidates).view(3, -1)
    shuffle = torch.randperm(items.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = model.scores(queries, items=items)
        torch.testing.assert_close(model.scores(queries, items=items[:, shuffle]), scores[:, shuffle])
        torch.testing.assert_close(model.scores(queries, items=items[:, :1]), scores[:, :1])
        every = model.scores(queries)
        assert every.shape == (3, split.log.num_items)
        torch.testing.assert_close(every.gather(1, items), scores)


def test_a_user_of_one_interest_has_it_in_every_place(split):
    model = MDGR(split, k=8, times=False, weights=False).eval()
    with torch.no_grad():
        vectors = model.query_vectors(dglrec.Queries.from_histories([np.array([5])]))
    assert vectors.shape == (1, 8, 33)
    assert torch.equal(vectors, vectors[:, :1].expand_as(vectors))


def test_parameters_without_the_item_table(split):
    """Within 2 % of the paper's 49,331; the sizes that lead there are not all printed."""
    model = MDGR(split)
    count = sum(p.numel() for name, p in model.named_parameters() if name != "item.weight")
    assert abs(count / 49_331 - 1) < 0.02


def test_ablations_have_what_their_name_says(split):
    preset = dglrec.models.preset
    assert preset("mdgr-w", split).weight is None
    assert preset("mdgr-dgc", split).config.m == 0
    width = preset("mdgr", split).attention.query.weight.shape[1]
    assert preset("mdgr-p", split).attention.query.weight.shape[1] == width - 8
    assert preset("mdgr-t", split).attention.query.weight.shape[1] == width - 8
    assert preset("mdgr-pt", split).attention.query.weight.shape[1] == width - 16


def test_the_metric_learns_only_where_it_takes_part(split):
    for learn in (False, True):
        model = MDGR(split, learn_metric=learn, m=2, train={"batch_size": 8})
        sum(model.loss(a_batch(model, split)).values()).backward()
        grad = model.metric.grad
        assert (grad is not None and bool(grad.any())) is learn


def test_a_log_without_times_is_told_what_to_turn_off(split):
    log = dglrec.InteractionLog.from_arrays(split.log.user, split.log.item)
    untimed = dglrec.windows(log, by="user", valid=0.2, test=0.2, order="file")
    for name in ("mdgr", "mdgr-t", "mdgr-pt"):
        with pytest.raises(ConfigError, match="times=false and weights=false"):
            dglrec.models.preset(name, untimed)
    model = MDGR(untimed, times=False, weights=False, train={"batch_size": 8})
    assert sum(model.loss(a_batch(model, untimed)).values()).isfinite()


def test_interests_that_were_planted_are_found():
    """With the item's own vector in Eq. 6; as printed the clusters stay at chance here."""
    sample = {"kind": "interests", "users": 400, "items": 400, "seed": 1}
    log = dglrec.sample(**sample)
    split = dglrec.windows(log, by="user", valid=0.2, test=0.2)
    train = {"batch_size": 32, "lr": 5e-3, "epochs": 5}
    model = dglrec.models.preset("mdgr-residual", split, m=1, train=train)
    dglrec.fit(model, split, progress=False)
    found = agreement(model.eval(), split.test, dglrec.data.sample_oracle(**sample, log=log))
    assert found["final"] > 0.4
    assert dglrec.evaluate(model, split.test, k=50, metrics="auc_pooled")["auc_pooled"] > 0.7


@pytest.mark.parametrize(
    "fields", [{"gamma": 0.0}, {"gamma": 1.5}, {"k": 0}, {"method": "dbscan"}, {"encoding": 3}, {"encoding": 0}]
)
def test_values_out_of_range_are_named(split, fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        MDGR(split, **fields)
