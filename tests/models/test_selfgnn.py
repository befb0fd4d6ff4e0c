"""SelfGNN against its equations, with loops and DGL's message passing; its batches, gradients, and unknown users."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

import dglrec
from dglrec.batches import query_sequences
from dglrec.errors import ConfigError, DataError
from dglrec.graphs import slice_names, time_slices
from dglrec.nn import slice_message_passing
from dglrec.nn.slices import fold_in_slices
from dglrec.slice_batches import Sliced
from dglrec.streams import Streams
from tests.contract.model_contract import fit

SMALL = {"dim": 8, "heads": 2, "slices": 3, "dropout": 0.0, "negatives": 5, "max_length": 10}


def make(split, name="selfgnn", **fields):
    return dglrec.models.preset(name, split, **{**SMALL, "train": {"batch_size": 25}, **fields})


def first_batch(model, split) -> Sliced:
    return next(iter(model.batches(split, Streams(0))))


def leaky(x, slope=0.5):
    return F.leaky_relu(x, slope)


def history_of(batch, row):
    """Places of the items that a row reads."""
    offsets, end = batch.history.offsets, None
    if batch.after is not None:  # a window of which it reads what comes before its target
        end = int(batch.after[row]) + 1
        row = int(torch.searchsorted(offsets, end)) - 1
    return batch.history.items[offsets[row] : offsets[row + 1] if end is None else end]


@torch.no_grad()
def by_hand(model, split, batch):
    """The terms of the loss, row by row, with DGL's message passing for the slices."""
    c = model.config
    graph = time_slices(split.train, c.by, n=c.slices)
    tables = (model.user, model.item)
    e_u, e_v = slice_message_passing(graph, tables, c.layers, c.norm, c.slope)  # (T, U, d), (T, M, d)
    items, ids = model.fusion(e_v, 1), batch.items.tolist()
    users = []  # of each row, from the slices that end before its target, or from all
    for row, user in enumerate(batch.user.tolist()):
        past = c.slices if batch.past is None else int(batch.past[row])
        users.append(model.fusion(e_u[:past, [user]], 0)[0] if past else torch.zeros(c.dim))
    gaps, pairs, logs = [], [], {}
    for row, negative in zip(batch.row.tolist(), batch.negative.tolist(), strict=True):
        history = history_of(batch, row)
        one = dglrec.graphs.Sequences(torch.tensor([0, len(history)]), batch.items[history])
        instance = model.instance(one, items)[0]
        view = users[row] + (leaky(instance, c.slope) if c.activate else instance)
        positive, other = (float(view @ items[item]) for item in (ids[batch.target[row]], ids[negative]))
        gaps.append(max(0.0, 1 - positive + other))
        pairs.append((np.log1p(np.exp(-positive)) + np.log1p(np.exp(other))) / 2)
        logs[row] = -float((items[batch.items] @ view).log_softmax(0)[batch.target[row]])
    each = {"hinge": gaps, "bce": pairs, "softmax": list(logs.values())}[c.loss]
    terms = {c.loss: float(np.mean(each))}
    total, size = 0.0, len(batch.user)
    for nodes, places in zip(batch.edge_node.T.tolist(), batch.edge_item.T.tolist(), strict=True):
        long, short = [], []
        for node, place in zip(nodes, places, strict=True):
            t, user, item = node // size, batch.user[node % size], ids[place]
            own = users[node % size]
            w = model.reliability(own[None], e_u[t, user][None, None])[0, 0]
            long.append(w * leaky(own * items[item], c.slope).sum())
            short.append(leaky(e_u[t, user] * e_v[t, item], c.slope).sum())
        total += max(0.0, 1 - float((long[0] - long[1]) * (short[0] - short[1])))
    if c.beta:
        terms["self_augmented"] = c.beta * total
    weights = [*tables, model.reliability.inner.weight, model.reliability.outer.weight]
    weights += [] if c.instance == "none" else [model.instance.position.weight]
    return terms | {"l2": c.reg * sum(float((w * w).sum()) for w in weights)}


VARIANTS = [
    {},
    {"name": "selfgnn-code"},
    {"norm": "symmetric", "layers": 3},
    {"by": "equal_counts"},
    {"loss": "bce", "pool": "mean", "activate": True},
    {"targets": "prefixes"},
    {"targets": "prefixes", "loss": "softmax"},
    {"targets": "prefixes", "instance": "causal", "past": True},
    {"instance": "causal"},
    {"interval": "mean", "instance": "none"},
    {"tables": "shared"},
    {"past": True, "recent": 8},
    {"past": True, "recent": 8, "interval": "mean"},
    {"tables": "items", "targets": "prefixes", "past": True, "interval_pool": "last"},
    {"slope": 0.2, "interval_pool": "last"},
    {"beta": 0.0},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_the_loss_is_that_of_the_equations(fields, split):
    model = make(split, **{"beta": 1e-3, **fields})
    with torch.no_grad():
        for bias in (p for name, p in model.named_parameters() if name.endswith("bias")):  # 0 at first; none is in "l2"
            bias.add_(0.1)
    batch = first_batch(model, split)
    found = {name: term.item() for name, term in model.loss(batch).items()}
    assert found == pytest.approx(by_hand(model, split, batch), rel=1e-3, abs=1e-5)


def test_every_field_is_read(split):
    """Each changes the loss; a field that is not passed on would change nothing."""
    changes = {
        "dim": 16, "slices": 4, "by": "equal_counts", "tables": "shared", "past": True, "layers": 1, "slope": 0.2,
        "norm": "symmetric", "interval": "mean", "interval_pool": "last", "recurrent": "lstm", "shared_cell": False,
        "heads": 4, "dropout": 0.5, "instance": "none", "instance_layers": 1, "max_length": 5, "pool": "mean",
        "activate": True, "loss": "bce", "targets": "prefixes", "recent": 0, "negatives": 3, "beta": 0.0,
        "ssl_edges": 2, "ssl_width": 8, "reg": 0.0,
    }  # fmt: skip
    names = {one.name for one in dataclasses.fields(dglrec.models.SelfGNNConfig)}
    assert set(changes) == names - {"seen", "train"}  # of all models

    def total(**fields):
        model = make(split, **{"beta": 1e-3, **fields})
        torch.manual_seed(0)  # of dropout
        return round(float(sum(model.loss(first_batch(model, split)).values()).detach()), 5)

    found = [total(), *(total(**{name: value}) for name, value in changes.items())]
    assert len(set(found)) == len(found)


def test_the_slope_is_that_of_every_part(split):
    model = make(split, slope=0.2)
    assert {part.slope for part in (model.encoder, model.instance, model.reliability)} == {0.2}


# --- Batches -------------------------------------------------------------------------------------------------------


def test_a_target_is_recent_and_its_history_is_what_came_before(split):
    model, train = make(split, recent=2), split.train
    reached = set()
    for epoch in range(6):
        for batch in model.batches(split, Streams(0, epoch)):
            for row, user in enumerate(batch.user.tolist()):
                own = train.item[train.offsets[user] : train.offsets[user + 1]].tolist()
                places = batch.history.items[batch.history.offsets[row] : batch.history.offsets[row + 1]]
                history = batch.items[places].tolist()
                reach = max(1, min(3, len(own) - 3))
                backs = [b for b in range(1, reach + 1) if own[: len(own) - b][-10:] == history]
                assert backs and any(own[-b] == int(batch.items[batch.target[row]]) for b in backs)
                reached |= {b for b in backs if own[-b] == int(batch.items[batch.target[row]])}
    assert reached == {1, 2, 3}


def test_negatives_are_new_to_the_user_and_as_many_as_it_has_items(split):
    model, train = make(split, negatives=7), split.train
    for batch in model.batches(split, Streams(0)):
        assert len(torch.unique(batch.items)) == len(batch.items)
        number = Counter(batch.row.tolist())
        for row, user in enumerate(batch.user.tolist()):
            own = set(train.item[train.user == user].tolist())
            negative = batch.items[batch.negative[batch.row == row]].tolist()
            assert not own & set(negative)
            assert number[row] == min(7, int((train.user == user).sum()))


def test_every_step_draws_anew(split):
    """Of one user, whose steps differ in nothing but the target."""
    model = make(split, targets="prefixes", train={"batch_size": 1})
    user = int(np.diff(split.train.offsets).argmax())
    found = [
        [batch.items[places].tolist() for places in (batch.negative, batch.edge_item)]
        for batch in model.batches(split, Streams(0))
        if int(batch.user) == user
    ]
    assert len(found) > 3
    for drawn in zip(*found, strict=True):
        assert len({str(one) for one in drawn}) > len(found) // 2


@pytest.mark.parametrize("by", ["equal_lengths", "equal_counts"])
def test_edges_are_those_of_the_graph(by, split):
    """Events at the very boundary too, which equal counts have."""
    model = make(split, by=by)
    edges, found = model.edges, []
    for cell, own in enumerate(np.split(edges.items, edges.offsets[1:-1])):
        found += [(*divmod(cell, split.log.num_users), item) for item in own.tolist()]
    graph, expected = time_slices(split.train, by, n=3), []
    for t, name in enumerate(slice_names(graph)):
        user, item = (ends.tolist() for ends in graph.edges(etype=name))
        expected += zip([t] * len(user), user, item, strict=True)
    assert found == sorted(expected)


@pytest.mark.parametrize("targets", ["users", "prefixes"])
def test_edges_of_eq_10_are_edges_of_their_slice(targets, split):
    """As many of a user as there are to draw, however many targets of the user's a batch holds."""
    model = make(split, ssl_edges=2, targets=targets)
    graph = time_slices(split.train, n=3)
    edges = [set(zip(*(end.tolist() for end in graph.edges(etype=t)), strict=True)) for t in slice_names(graph)]
    for batch in model.batches(split, Streams(0)):
        size = len(batch.user)
        slices, user = batch.edge_node // size, batch.user[batch.edge_node % size]
        item = batch.items[batch.edge_item]
        for t, u, i in zip(slices.flatten().tolist(), user.flatten().tolist(), item.flatten().tolist(), strict=True):
            assert (u, i) in edges[t]
        assert torch.equal(slices[0], slices[1])
        number = Counter(zip(slices.flatten().tolist(), user.flatten().tolist(), strict=True))
        for t, own in enumerate(edges):
            degree = Counter(u for u, _ in own)
            for u in batch.user.tolist():
                assert number[t, u] == 2 * min(2, degree[u] // 2)
    assert first_batch(make(split, beta=0.0), split).edge_item.shape == (2, 0)  # nobody asks for them


def test_pairs_of_eq_10_are_the_halves_of_a_slice_s_list(split):
    """User after user stands in the list; its halves are paired, so mostly one user's with another's."""
    model = make(split, ssl_edges=4)
    for batch in model.batches(split, Streams(0)):
        size, different = len(batch.user), batch.edge_node[0] != batch.edge_node[1]
        assert float(different.float().mean()) > 0.9
        for t in range(3):
            halves = batch.edge_node[:, batch.edge_node[0] // size == t]  # (2, S of the slice)
            assert halves.shape[1] > 0
            assert bool((halves.flatten().diff() >= 0).all())


# --- Gradients -----------------------------------------------------------------------------------------------------


def test_no_gradient_through_the_long_term_score_but_through_its_weight(split):
    """Eq. 10 alone: with w cut off, nothing reaches the fusion; with it, the fusion learns through w's inputs."""
    model = make(split, beta=1.0)
    batch = first_batch(model, split)

    def fusion_gradients():
        model.zero_grad()
        model.self_augmented(batch, model.encode(batch)).backward()
        return [p.grad for p in model.fusion.parameters()]

    assert any(grad is not None and bool(grad.any()) for grad in fusion_gradients())
    assert bool(model.reliability.inner.weight.grad.any()) and bool(model.user.grad.any())
    reliability = model.reliability.forward
    model.reliability.forward = lambda long, short: reliability(long, short).detach()
    assert all(grad is None or not bool(grad.any()) for grad in fusion_gradients())
    assert bool(model.user.grad.any()) and bool(model.item.grad.any())  # through the slice's own score


@pytest.mark.parametrize("name", ["selfgnn", "selfgnn-code"])
def test_every_weight_learns(name, split):
    model = make(split, name, beta=1e-3)
    sum(model.loss(first_batch(model, split)).values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert [n for n in without if "key.bias" not in n] == []  # softmax drops a constant


# --- Scores --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_are_eq_9(split):
    for name in ("selfgnn", "selfgnn-code"):
        model = make(split, name).eval()
        users, items = model.all_vectors()
        history = query_sequences(split.test, 10, model.device)
        instance = model.instance(history, items)
        view = leaky(instance) if name == "selfgnn-code" else instance
        own = users[split.test.user]
        torch.testing.assert_close(model.scores(split.test), own @ items.T + view @ items.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fields", [{}, {"norm": "symmetric"}, {"layers": 3}, {"by": "equal_counts"}])
@torch.no_grad()
def test_an_unknown_user_is_a_node_without_vectors_of_its_own(fields, split):
    """As message passing from the items' layers of training to a new node, slice by slice."""
    model = make(split, **fields).eval()
    c, train, user = model.config, split.train, 5
    if c.by == "equal_counts":  # one with an event where a slice begins
        user = int(train.user[np.isin(train.time, model.boundaries)][0])
    own = slice(int(train.offsets[user]), int(train.offsets[user + 1]))
    graph = time_slices(train, c.by, n=3)
    silent = int((graph.in_degrees(etype="t0") == 0).nonzero()[0])  # nobody took it in the first slice
    history = np.concatenate([[silent], train.item[own][:1], train.item[own]])  # with a repeat
    times = np.concatenate([[train.time.min()], train.time[own][:1], train.time[own]])
    queries = dglrec.Queries.from_histories([history], times=[times])
    slice_of = np.searchsorted(model.boundaries, times, side="right")
    layers = [
        slice_message_passing(graph, (model.user, model.item), layer, c.norm, c.slope, "last")[1]
        for layer in range(c.layers)
    ]  # (T, M, d) each
    expected = torch.zeros(3, 1, c.dim)
    for t in range(3):
        items = sorted(set(history[slice_of == t].tolist()))
        e = total = torch.zeros(c.dim)
        for layer in layers:
            z = torch.zeros(c.dim)
            for item in items:
                degree = int(graph.in_degrees(item, etype=f"t{t}"))
                if degree or c.norm == "sum":
                    z += layer[t, item] / ((len(items) * degree) ** 0.5 if c.norm == "symmetric" else 1)
            e = leaky(z) + e
            total = total + e
        expected[t, 0] = total
    found = fold_in_slices(model.encoder, model.adjacency, (model.user, model.item), queries, model.boundaries)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    _, items = model.all_vectors()
    vector = model.fusion(expected, 0) + model.instance(query_sequences(queries, 10, model.device), items)
    torch.testing.assert_close(model.query_vectors(queries)[:, 0], vector, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_users_without_a_table_are_what_their_items_say(split):
    """So a user whom training knew is the same as a new one with the same history."""
    model = make(split, tables="items", past=True, interval_pool="last").eval()
    assert [name for name, _ in model.named_parameters() if name.startswith("user")] == []
    train = split.train
    rows = np.flatnonzero(np.diff(train.offsets) > 3)[:4]
    parts = [slice(train.offsets[user], train.offsets[user + 1]) for user in rows]
    histories, times = ([column[part] for part in parts] for column in (train.item, train.time))
    known = dglrec.data.Queries.from_histories(histories, users=rows, times=times)
    new = dglrec.data.Queries.from_histories(histories, times=times)
    torch.testing.assert_close(model.query_vectors(known), model.query_vectors(new))


@torch.no_grad()
def test_a_user_without_training_events_is_folded_in():
    """As after a time point: the user has a row in the table, and no training changed it."""
    split = dglrec.time_point(dglrec.sample("shop", users=200, items=100), targets="next")
    model = make(split).eval()
    fresh = np.flatnonzero(~np.isin(split.test.user, split.train.user) & (split.test.lengths > 0))
    queries = split.test[fresh]
    assert len(queries) > 3
    nobody = dataclasses.replace(queries, user=np.full(len(queries), -1))
    assert torch.equal(model.query_vectors(queries), model.query_vectors(nobody))


@pytest.mark.parametrize("by", ["equal_lengths", "equal_counts"])
def test_past_counts_the_slices_that_end_before_a_target(by, split):
    model = make(split, targets="prefixes", past=True, by=by)
    train, found = split.train, Counter()
    for batch in model.batches(split, Streams(0)):
        for row, (user, past) in enumerate(zip(batch.user.tolist(), batch.past.tolist(), strict=True)):
            place = train.offsets[user] + int(batch.history.offsets[row + 1] - batch.history.offsets[row])
            if batch.history.offsets[row + 1] - batch.history.offsets[row] < model.config.max_length:
                assert past == int((model.boundaries <= train.time[place]).sum())
                found[past] += 1
    assert set(found) == {0, 1, 2}
    with pytest.raises(ConfigError, match="past=True needs slices before"):
        make(split, slices=1, past=True)


def test_targets_that_share_a_history_are_the_same_targets(split):
    """Every prefix once, with the same slices, and the newest items of its history."""
    train, found = split.train, {}
    for instance in ("attention", "causal"):
        model = make(split, targets="prefixes", past=True, instance=instance)
        rows = found[instance] = {}
        for batch in model.batches(split, Streams(0)):
            for row, (user, past) in enumerate(zip(batch.user.tolist(), batch.past.tolist(), strict=True)):
                read = batch.items[history_of(batch, row)].tolist()
                own = train.item[train.offsets[user] : train.offsets[user + 1]].tolist()
                target = int(batch.items[batch.target[row]])
                ends = range(1, len(own))  # where in the history it may be
                ends = [end for end in ends if own[max(0, end - len(read)) : end] == read and own[end] == target]
                assert any(len(read) >= min(end, 5) for end in ends)  # half of a window at least
                for end in ends:
                    rows.setdefault((user, end), set()).add(past)
        assert set(rows) == {(user, end) for user, n in enumerate(np.diff(train.offsets)) for end in range(1, n)}
    assert all(found["attention"][key] & found["causal"][key] for key in found["attention"])


@torch.no_grad()
def test_unknown_users_cost_a_propagation_once(split, monkeypatch):
    """However many calls; and other weights give other layers."""
    model, sums = make(split, layers=3).eval(), []
    model.all_vectors()
    to_items = model.adjacency.to_items
    monkeypatch.setattr(model.adjacency, "to_items", lambda *x: sums.append(None) or to_items(*x))
    queries = dglrec.Queries.from_histories([[1, 2, 3], [4]], times=[[0.0, 1.0, 2.0], [3.0]])
    first = model.query_vectors(queries)
    torch.testing.assert_close(torch.cat([model.query_vectors(queries[row : row + 1]) for row in range(2)]), first)
    assert len(sums) == 2  # layers 1 and 2
    model.item.mul_(2.0)
    assert not torch.allclose(model.query_vectors(queries), first)


def test_what_is_kept_is_what_is_made_anew(split):
    model = make(split).eval()
    with torch.no_grad():
        kept = model.scores(split.test)
        assert model.all_vectors()[0] is model.all_vectors()[0]
    torch.testing.assert_close(model.scores(split.test).detach(), kept)  # with a gradient nothing is kept


def test_slice_weights(split, monkeypatch):
    """A few users at a time, without dropout, and the mode stays."""
    model = make(split, dropout=0.5).train()
    monkeypatch.setattr("dglrec.models.selfgnn.CHUNK", 7)
    weights = model.slice_weights()
    assert model.training and torch.equal(weights, model.slice_weights())
    assert weights.shape == (3, split.log.num_users)
    model.eval()
    with torch.no_grad():
        short, _ = model.encoder(model.adjacency, (model.user, model.item))
        torch.testing.assert_close(weights, model.reliability(model.fusion(short, 0), short))
    assert 0 < float(weights.min()) <= float(weights.max()) < 1


@pytest.mark.parametrize("draw", [1, 2])
def test_slices_of_noise_are_trusted_less(draw):
    """In "drift" the last two spans of a quarter of the users are noise, and spans are slices here. Nobody tells the
    model. With a quarter of noisy users, -.75 is the least rank correlation between noise and w that there is.
    """
    known = {"users": 800, "items": 200, "seed": draw}
    log = dglrec.sample("drift", **known)
    split = dglrec.leave_one_out(log)
    noisy = dglrec.data.sample_oracle("drift", log=log, **known).noisy
    fields = {"slices": 6, "dim": 16, "heads": 2, "layers": 1, "instance": "none", "norm": "sum", "negatives": 5}
    found = []
    for seed in (1, 2, 3):
        train = {"lr": 1e-2, "batch_size": 256, "seed": seed}
        model = dglrec.models.preset("selfgnn-prefixes", split, **fields, beta=1e-3, train=train)
        fit(model, split, epochs=5)
        weights = model.slice_weights()[-2:].mean(0).numpy()  # (U,)
        found.append(spearmanr(weights, noisy).statistic)
    assert np.mean(found) < -0.1 and max(found) < 0, found


@pytest.mark.parametrize("draw", [1, 2])
def test_slices_tell_what_a_user_turned_to(draw):
    """In "drift" interests change where slices begin. Without the instance level, one slice cannot know which is the
    newest, neither of the same model nor of `selfgnn-prefixes`. What helps is to learn from the slices before the
    target's alone (`past`), which one slice cannot; so the model with all six slices is no better, either.
    """
    split = dglrec.leave_one_out(dglrec.sample("drift", users=1000, items=150, seed=draw))
    fields = {"dim": 16, "heads": 2, "instance": "none", "negatives": 5, "beta": 0.0}
    train = {"lr": 1e-2, "batch_size": 256, "seed": draw}
    found = []
    for name, more in (
        ("selfgnn-inductive", {"slices": 6}),
        ("selfgnn-inductive", {"slices": 1, "past": False}),  # one slice ends before no target
        ("selfgnn-inductive", {"slices": 6, "past": False}),
        ("selfgnn-prefixes", {"slices": 1}),
    ):
        model = dglrec.models.preset(name, split, **fields, **more, train=train)
        fit(model, split, epochs=4)
        found.append(dglrec.evaluate(model, split.test, k=10)["ndcg@10"])
    assert found[0] > max(found[1:]) + 0.01, found


# --- What is refused -----------------------------------------------------------------------------------------------


def test_a_log_without_times_is_refused(split):
    log = dglrec.InteractionLog.from_arrays(split.log.user, split.log.item)
    without = dglrec.leave_one_out(log, order="file")
    with pytest.raises(ConfigError, match="time slices"):
        make(without)


def test_more_slices_than_times_are_refused(split):
    with pytest.raises(DataError, match="distinct times"):
        make(split, slices=100_000)


@pytest.mark.parametrize("fields", [{"heads": 3}, {"layers": -1}, {"slices": 0}, {"recurrent": "rnn"}, {"beta": -1.0}])
def test_values_out_of_range_are_named(fields, split):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        make(split, **fields)


def test_months(split):
    model = make(split, by="month")
    assert model.adjacency.num_slices == len(model.boundaries) + 1
    assert model.user.shape == (model.adjacency.num_slices, split.log.num_users, 8)
    begin, end = split.log.time.min(), split.log.time.max()
    years = dataclasses.replace(split.log, time=(split.log.time - begin) / (end - begin) * 10 * 365 * 86_400)
    with pytest.raises(ConfigError, match=r"into \d+ slices, .*; expected at most 60: take by='equal_counts'"):
        make(dglrec.leave_one_out(years), by="month")


def test_the_config_of_the_presets_is_that_of_the_sheet(split):
    """What paper and code share, by value, and in what the presets differ."""
    paper, code = (dglrec.models.preset(name, split).config for name in ("selfgnn", "selfgnn-code"))
    shared = {
        "dim": 64,
        "slope": 0.5,
        "heads": 16,
        "dropout": 0.5,
        "interval_pool": "mean",
        "norm": "sum",
        "loss": "hinge",
    }
    shared |= {"max_length": 200, "recent": 5, "negatives": 40, "targets": "users", "reg": 1e-2, "beta": 1e-6}
    shared |= {"layers": 2, "ssl_edges": 40, "ssl_width": 32, "slices": 5, "by": "equal_lengths", "tables": "slices"}
    shared |= {"pool": "sum", "past": False, "shared_cell": True}
    for config in (paper, code):
        assert {name: getattr(config, name) for name in shared} == shared
        train = config.train
        assert (train.optimizer, train.lr, train.batch_size, train.epochs, train.decay) == (
            "adam",
            1e-3,
            512,
            150,
            0.96,
        )
    assert (paper.recurrent, paper.instance, paper.activate, paper.train.schedule) == (
        "gru",
        "attention",
        False,
        "constant",
    )
    same = dataclasses.replace(paper, recurrent="lstm", instance="collapsed", activate=True)
    same = dataclasses.replace(same, train=dataclasses.replace(same.train, schedule="exponential"))
    assert same == code
