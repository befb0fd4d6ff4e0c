"""MDGR: the method written out, its rounds against DGL's message passing, scores of candidates, what its fields do."""

from __future__ import annotations

import dataclasses
import math

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
from dglrec.nn.interests import batch_window, query_window
from dglrec.planted import agreement
from dglrec.streams import Streams


@pytest.fixture(scope="module")
def split():
    log = dglrec.sample("interests", users=60, items=400, seed=1)
    return dglrec.windows(log, by="user", valid=0.2, test=0.2)


def a_batch(model, split):
    return next(iter(model.batches(split, Streams(1))))


def by_hand(model, history, days, candidates):
    """(C,) Eq. 16 of some candidates, item by item and pair by pair; only Ward's clusters are the package's own."""
    c, n = model.config, len(history)
    items = range(n)
    p = model.item.weight[torch.as_tensor(history)]  # Eq. 1
    given = model.item.weight[torch.as_tensor(candidates)]

    def encoding(value):  # Eq. 3
        rates = [10_000 ** (-2 * i / c.encoding) for i in range(c.encoding // 2)]
        return torch.tensor([function(value * rate) for rate in rates for function in (math.sin, math.cos)])

    tau = [encoding(day) for day in days]
    rho = [encoding(c.max_length - n + i) for i in items]  # the last item has the last place
    e = [torch.cat([p[i], tau[i][: c.times * c.encoding], rho[i][: c.positions * c.encoding]]) for i in items]  # Eq. 2

    attention, phi = model.attention, []
    _, inner, _, outer = attention.join
    for i in items:
        heads = []
        for h in range(c.heads):
            rows = slice(h * c.dim, (h + 1) * c.dim)
            q = attention.query.weight[rows] @ e[i] + attention.query.bias[rows]
            keys = [attention.key.weight[rows] @ e[j] + attention.key.bias[rows] for j in items]
            share = torch.stack([q @ key for key in keys]).div(c.dim**0.5).softmax(0)  # Eq. 4
            heads.append(sum(share[j] * p[j] for j in items))  # Eq. 5
        hidden = (inner.weight @ torch.cat(heads) + inner.bias).tanh()
        phi.append(outer.weight @ hidden + outer.bias + c.residual * p[i])  # Eq. 6

    if c.candidate == "free":
        return scores_by_hand(model, phi, tau, None, given)
    return torch.cat([scores_by_hand(model, phi, tau, one, one.unsqueeze(0)) for one in given])


def scores_by_hand(model, phi, tau, target, given):
    """(C,) Eq. 16 of candidates' vectors (C, d), from the vectors of Eq. 6 and the target of Eq. 11."""
    c, items = model.config, range(len(phi))
    for _ in range(c.m):
        cluster = ward(torch.stack(phi).unsqueeze(0), c.k)[0].tolist()
        similar = [
            [sum(F.cosine_similarity(w * phi[i], w * phi[j], dim=0) for w in model.metric) / c.delta for j in items]
            for i in items
        ]  # Eq. 7, Eq. 8
        together = [(i, j) for i in items for j in range(i) if cluster[i] == cluster[j]]
        ranked = sorted((float(similar[i][j]) for i, j in together), reverse=True)
        kept = {pair for pair in together if similar[pair[0]][pair[1]] >= ranked[math.ceil(c.gamma * len(ranked)) - 1]}
        near = [[j for j in items if i == j or (i, j) in kept or (j, i) in kept] for i in items]  # Eq. 9
        around = phi
        for _ in range(c.hops):
            around = [sum(around[j] / (len(near[i]) * len(near[j])) ** 0.5 for j in near[i]) for i in items]
        moved = [0.0 for _ in items]
        for head in model.graph_attention:
            wanted, alpha, beta = phi[-1] if target is None else target, [], []
            for i in items:
                own, asked = head.cluster.weight @ phi[i], head.query.weight @ phi[i]
                alpha.append(head.cluster_score(torch.cat([own, around[i], own * around[i]])))  # Eq. 10
                beta.append(head.query_score(torch.cat([asked, wanted, asked * wanted])))  # Eq. 11
            for i in items:
                logits = [F.leaky_relu(alpha[i] + beta[j], 0.2) + c.learn_metric * similar[i][j] for j in near[i]]
                share = torch.cat(logits).softmax(0)  # Eq. 12
                moved[i] = moved[i] + sum(s * phi[j] for s, j in zip(share, near[i], strict=True)) / c.graph_heads
        phi = [phi[i] + moved[i] for i in items]  # Eq. 13

    cluster = ward(torch.stack(phi).unsqueeze(0), c.k)[0].tolist()
    found = []
    for group in set(cluster):
        z = phi[max(i for i in items if cluster[i] == group)]  # Eq. 14
        omega = 1.0
        if c.weights:
            row = [torch.zeros(c.encoding)] * (c.max_length - len(phi))
            row += [tau[i] if cluster[i] == group else torch.zeros(c.encoding) for i in items]
            omega = F.softplus(model.weight.second(model.weight.first(torch.cat([z, *row])).sigmoid()))  # Eq. 15
        scale, bias = model.affine
        found.append(omega * (scale * F.cosine_similarity(z.unsqueeze(0), given) + bias))
    return torch.stack(found).amax(0)  # Eq. 16


def written_out(split, **fields):
    """A small model whose items, interests and weights are far from one another."""
    sizes = {"dim": 8, "k": 3, "m": 2, "encoding": 4, "heads": 2, "graph_heads": 2, "delta": 2, "max_length": 12}
    model = MDGR(split, **(sizes | fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (model.item.weight, model.attention.query.weight, model.attention.key.weight):
            weight.normal_(generator=generator)
        for part in model.attention.join[1::2]:
            part.weight *= 3
        for part in model.graph_attention.modules() if model.config.m else ():
            if isinstance(part, torch.nn.Linear):  # logits of both signs: else the leaky ReLU is a factor, no more
                part.weight *= 2
                if part.bias is not None:
                    part.bias.zero_()
        if model.weight is not None:
            model.weight.second.weight *= 5
        model.affine.copy_(torch.tensor([1.7, -0.6]))
    return model


FORMS = [
    {},
    {"residual": True, "learn_metric": True},
    {"positions": False},
    {"times": False},
    {"weights": False, "m": 0},
    {"candidate": "exact"},
]


@pytest.mark.parametrize("fields", FORMS)
def test_scores_are_those_of_the_equations_written_out(split, fields):
    model = written_out(split, **fields)
    histories = [[3, 9, 4, 1, 5, 9, 2, 6, 30, 12], [7], [8, 8, 1], [5, 6]]
    days = [[0, 0.5, 1, 3, 3, 8, 20, 90, 400, 401.2], [0], [0, 3, 9], [0, 700]]
    queries = dglrec.Queries.from_histories(histories, times=[[86_400.0 * day for day in one] for one in days])
    candidates = [0, 9, 333]
    with torch.no_grad():
        scores = model.scores(queries)
        for row, (history, own) in enumerate(zip(histories, days, strict=True)):
            expected = by_hand(model, history, own, candidates)
            torch.testing.assert_close(scores[row, candidates], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("candidate", ["free", "exact"])
def test_the_loss_is_that_of_the_equations_written_out(split, candidate):
    """Of 2 windows with 2 positives and 3 negatives each."""
    model = written_out(split, candidate=candidate, train={"batch_size": 2})
    batch = a_batch(model, split)
    batch = dataclasses.replace(batch, positive=batch.positive[:, :2], negative=batch.negative[:, :3])
    window, total = batch_window(batch), 0.0
    with torch.no_grad():
        for row in range(2):
            items = [*batch.positive[row], *batch.negative[row]]
            y = by_hand(model, window.items[row], window.days[row].tolist(), items).sigmoid()
            total -= y[:2].log().sum() + (1 - y[2:]).log().sum()
        torch.testing.assert_close(model.loss(batch)["bce"], total / 10, rtol=1e-5, atol=1e-5)  # Eq. 17


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


@pytest.mark.parametrize(
    "fields",
    [{}, {"graph_heads": 2, "hops": 1, "rank": "matrix"}, {"rank": "pairs", "gamma": 0.1}, {"learn_metric": True}],
)
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


def exact(split):
    """A model with candidates of their own, a batch of it, and a function: loss and gradients, in float64."""
    fields = {"residual": True, "times": False, "weights": False, "learn_metric": True}  # days are float32
    model = MDGR(split, candidate="exact", m=2, train={"batch_size": 6}, **fields).double()
    batch = a_batch(model, split)
    batch = dataclasses.replace(batch, positive=batch.positive[:, :7], negative=batch.negative[:, :7])

    def learned(batch):
        model.zero_grad()
        (loss,) = model.loss(batch).values()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]

    return model, batch, learned


@pytest.mark.parametrize("windows_at_once", [1, 20, 83])
def test_exact_learning_in_chunks_is_that_of_the_whole(split, monkeypatch, windows_at_once):
    """6 windows of 14 candidates: one candidate at a time, three, and all but one."""
    model, batch, learned = exact(split)
    whole, sizes = learned(batch), []
    sub_graphs = model.sub_graphs

    def counted(vectors, mask):
        sizes.append(len(vectors))
        return sub_graphs(vectors, mask)

    monkeypatch.setattr(model, "sub_graphs", counted)
    monkeypatch.setattr("dglrec.models.mdgr.EXACT_WINDOWS", windows_at_once)
    for found, expected in zip(learned(batch), whole, strict=True):
        torch.testing.assert_close(found, expected)
    assert max(sizes) == max(6, windows_at_once // 6 * 6)


def test_exact_learning_keeps_no_rounds_in_memory(split):
    """Bytes that a step keeps for its gradient: the same for 14 candidates and for 2, but for what they are."""
    model, batch, _ = exact(split)

    def kept(batch):
        sizes = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()) * 0 or x,
            lambda x: x,
        )
        with hooks:
            model.loss(batch)
        return sum(sizes.values())

    few = dataclasses.replace(batch, positive=batch.positive[:, :1], negative=batch.negative[:, :1])
    assert kept(batch) - kept(few) < 6 * 12 * 50 * 32 * 8  # the vectors of the windows once each would be this much


def test_exact_learning_does_not_know_the_order_of_candidates(split):
    """Positives among themselves and negatives among themselves, and both together where labels go with them."""
    _, batch, learned = exact(split)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    shuffled = dataclasses.replace(batch, positive=batch.positive[:, order], negative=batch.negative[:, order.flip(0)])
    for found, expected in zip(learned(shuffled), learned(batch), strict=True):
        torch.testing.assert_close(found, expected)


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
    assert not [
        name for name, _ in preset("mdgr-dgc", split).named_parameters() if name.startswith(("metric", "graph"))
    ]


@pytest.mark.parametrize(
    ("name", "positions", "times"),
    [("mdgr", True, True), ("mdgr-p", False, True), ("mdgr-t", True, False), ("mdgr-pt", False, False)],
)
def test_ablations_leave_out_places_or_times_of_items(split, name, positions, times):
    """What is left out of Eq. 2 may change and the items' vectors stay; interest weights read times in any case."""
    model = dglrec.models.preset(name, split).eval()
    assert model.attention.query.weight.shape[1] == 32 + 8 * positions + 8 * times
    window = query_window(split.test[:4], 50, model.device)
    later = window._replace(days=2 * window.days)
    turned = window._replace(items=window.items.flip(1), days=window.days.flip(1))
    with torch.no_grad():
        vectors = model.encode(window)
        assert torch.equal(model.encode(later), vectors) is not times
        assert torch.allclose(model.encode(turned).flip(1), vectors, rtol=1e-5, atol=1e-6) is not positions
        weights = (model._interests(one, vectors)[..., :-1].norm(dim=2) for one in (window, later))
        assert not torch.allclose(*weights)


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
