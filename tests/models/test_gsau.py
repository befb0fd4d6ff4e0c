"""GSAU's loss against the paper's equations, with loops; its variants; its batches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.batches import cloze_batches
from dglrec.errors import DataError
from dglrec.graphs import Sequences, user_item
from dglrec.models.gsau import GraphAndSequence
from dglrec.nn import message_passing
from dglrec.streams import Streams

OFF = {"dropout": 0.0, "attention_dropout": 0.0}


def make(split, name="gsau", **fields):
    return dglrec.models.preset(name, split, **{"dim": 8, "inner": 16, "train": {"batch_size": 40}, **OFF, **fields})


def unit(x):
    return x / x.norm()


def align(xs, ys):
    return sum(float((x - y).square().sum()) for x, y in zip(xs, ys, strict=True)) / len(xs)


def uniform(xs):
    pairs = [math.exp(-2 * float((xs[a] - xs[b]).square().sum())) for a in range(len(xs)) for b in range(a)]
    return math.log(sum(pairs) / len(pairs))


def cross(xs, ys):
    return math.log(sum(math.exp(-2 * float((x - y).square().sum())) for x, y in zip(xs, ys, strict=True)) / len(xs))


def negatives(model, split, batch):
    """For each row the row whose target is its negative, as the config says."""
    size, train = len(batch.target), split.train
    rows = []
    for row in range(size):
        chosen = (row + 1) % size
        if model.config.negatives == "unseen":
            user = int(batch.user[row])
            seen = set(train.item[train.user == user].tolist())
            others = [(row + shift) % size for shift in range(1, 1 + min(8, size - 1))]
            unseen = [other for other in others if int(batch.target[other]) not in seen]
            chosen = unseen[0] if unseen else others[-1]
        rows.append(chosen)
    return rows


@torch.no_grad()
def by_hand(model, split, batch):
    """The terms of Eq. 10, over Eq. 4 to 9, row by row."""
    c, terms = model.config, {}
    if batch.edges is not None:
        graph = user_item(split.train, unique=True)
        users, items = message_passing(graph, (model.user.weight, model.item.weight), c.graph_layers, c.combine)
        xs = [unit(users[u]) for u in batch.edges.user]
        ys = [unit(items[i]) for i in batch.edges.item]
        terms["graph_alignment"] = align(xs, ys)
        terms["graph_uniformity"] = c.gamma * (uniform(xs) + uniform(ys))
    if batch.prefixes is not None:
        where = {"last": True} if c.encoder == "sasrec" else {"row": batch.prefixes.row}
        raw = model.sequence_encoder(batch.prefixes.history, model.item.weight, **where)
        s = [unit(x) for x in raw]
        v = [unit(model.item.weight[target]) for target in batch.prefixes.target]
        if c.rec:
            queries = torch.stack(s) if c.normalise_query else raw
            table = F.normalize(model.item.weight) if c.normalise_item else model.item.weight
            logits = queries @ table.T / c.temperature
            terms["cross_entropy"] = float(F.cross_entropy(logits, batch.prefixes.target))
        else:
            terms["sequence_alignment"] = align(s, v)
        spread = uniform(v) + uniform(s)
        if c.ui_uniformity:
            spread += cross(s, [v[row] for row in negatives(model, split, batch.prefixes)])
        terms["sequence_uniformity"] = c.gamma * spread
    return terms


VARIANTS = [
    {},
    {"gamma": 0.4, "graph_layers": 3},
    {"combine": "last"},
    {"ui_uniformity": False},
    {"negatives": "unseen"},
    {"rec": True},
    {"rec": True, "normalise_query": False},
    {"rec": True, "normalise_item": True, "temperature": 0.1},
    {"graph": False},
    {"sequential": False},
    {"encoder": "bert4rec"},
    {"encoder": "bert4rec", "rec": True},
    {"encoder": "bert4rec", "rec": True, "ui_uniformity": False},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_the_loss_is_that_of_the_paper_s_equations(fields, split):
    model = make(split, **fields)
    for batch in model.batches(split, Streams(0)):
        found = {name: term.item() for name, term in model.loss(batch).items()}
        assert found == pytest.approx(by_hand(model, split, batch), rel=1e-4, abs=1e-5)


def test_every_variant_differs(split):
    """So that the test above compares different things."""
    totals = set()
    for fields in VARIANTS:
        model = make(split, **fields)
        batch = next(iter(model.batches(split, Streams(0))))
        totals.add(round(float(sum(model.loss(batch).values()).detach()), 5))
    assert len(totals) == len(VARIANTS)


def test_gradients_flow_through_every_part(split):
    """Nothing is detached: users learn from the graph, items from both, the transformer from sequences."""
    for name in ("gsau", "gsau-rec"):
        model = make(split, name)
        batch = next(iter(model.batches(split, Streams(0))))
        sum(model.loss(batch).values()).backward()
        assert all(
            p.grad is not None and bool(p.grad.any()) for n, p in model.named_parameters() if "key.bias" not in n
        )
        graph_only, sequence_only = (
            torch.autograd.grad(sum(model.loss(part).values()), model.item.weight)[0]
            for part in (GraphAndSequence(batch.edges, None), GraphAndSequence(None, batch.prefixes))
        )
        torch.testing.assert_close(graph_only + sequence_only, model.item.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalise_item", [False, True])
def test_cross_entropy_teaches_items_that_the_batch_does_not_have(normalise_item, split):
    model = make(split, "gsau-rec", normalise_item=normalise_item, train={"batch_size": 2})
    batch = next(iter(model.batches(split, Streams(0))))
    assert len(set(batch.prefixes.history.items.tolist())) < model.num_items - 2
    (grad,) = torch.autograd.grad(model.loss(batch)["cross_entropy"], model.item.weight)
    assert grad.any(1).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_of_a_few_rows_are_finite(size, split):
    """The authors' derangement never ends on one row; uniformity of one row is a logarithm of nothing."""
    for name, fields in (("gsau", {}), ("gsau-rec", {"negatives": "unseen"})):
        model = make(split, name, train={"batch_size": size}, **fields)
        for batch, _ in zip(model.batches(split, Streams(0)), range(5), strict=False):
            terms = model.loss(batch)
            sum(terms.values()).backward()
            assert all(math.isfinite(term.item()) for term in terms.values())
            assert size > 1 or terms["sequence_uniformity"] == 0  # a row alone has no negative
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("kind", ["derangement", "unseen"])
def test_no_row_is_its_own_negative(kind, size, split):
    model = make(split, negatives=kind, train={"batch_size": size})
    for batch in model.batches(split, Streams(0)):
        rows = model._negative_rows(batch.prefixes)
        assert len(rows) == 1 or not (rows == torch.arange(len(rows))).any()
        assert rows.tolist() == negatives(model, split, batch.prefixes)


def test_an_epoch_has_the_steps_of_the_longer_loader(split):
    """As the authors': 252 on Toys, where prefixes alone are 214 batches. The two batches of a step are independent."""
    model = make(split)
    batches = list(model.batches(split, Streams(0)))
    assert len(batches) == -(-len(split.train) // 40)
    assert all(batch.prefixes is not None for batch in batches)
    first = batches[0]
    assert first.edges.user.tolist() != first.prefixes.user.tolist()
    again = -(-int((split.train.position > 0).sum()) // 40)
    assert len(batches) > again
    assert batches[again].prefixes.target.tolist() != first.prefixes.target.tolist()  # shuffled anew


@pytest.mark.parametrize("preset", ["sasrec-u", "bert4rec-u"])
def test_without_a_graph_and_a_user_of_two_items_nothing_can_be_learned(preset):
    log = dglrec.InteractionLog.from_arrays(list("aaabbb"), list("pqrqrp"), time=range(6), name="short")
    split = dglrec.leave_one_out(log)  # leaves each user one item
    with pytest.raises(DataError, match=f"'short' has nothing that {preset} could learn from"):
        dglrec.fit(dglrec.models.preset(preset, split), split, epochs=1)


def test_sequences_are_ranked_by_the_raw_product_with_the_table(split):
    """As in the authors' code: the graph encoder is a regulariser, and nothing is normalised."""
    for name in ("gsau", "gsau-rec"):
        model = make(split, name).eval()
        with torch.no_grad():
            vectors = model.query_vectors(split.test)[:, 0]
            torch.testing.assert_close(model.scores(split.test), vectors @ model.item.weight.T)
            cosine = make(split, name, rank="cosine").eval()
            torch.testing.assert_close(cosine.scores(split.test), vectors @ F.normalize(model.item.weight).T)


def test_with_bert4rec_a_mask_after_the_history_is_ranked(split):
    """Its oldest item is left out, as RecBole does, and the product has no bias, unlike BERT4Rec's own."""
    model = make(split, "bert4rec-u").eval()
    history, mask = [3, 9, 4, 1], model.num_items
    asked = Sequences(torch.tensor([0, 4]), torch.tensor([*history[1:], mask]))
    with torch.no_grad():
        vector = model.sequence_encoder(asked, model.item.weight, torch.tensor([3]))
        found = model.scores(dglrec.Queries.from_histories([history]))
    torch.testing.assert_close(found, vector @ model.item.weight.T)


def test_with_bert4rec_masks_are_drawn_as_for_bert4rec(split):
    """In half of the batches the last item alone, and a masked first item is no target."""
    model = make(split, "bert4rec-u", mask_ratio=0.35, max_length=20)
    how = {"ratio": 0.35, "last_share": 0.5, "first": False, "form": "prefixes"}
    rng, size = Streams(0).numpy("prefixes", 0), model.config.train.batch_size
    expected = list(cloze_batches(split.train, size, 20, rng, model.device, **how))
    found = [batch.prefixes for batch in model.batches(split, Streams(0))][: len(expected)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.history.items, other.history.items) and torch.equal(one.row, other.row)


def test_one_training_is_ranked_by_both_products(split):
    """`rank` is read when items are ranked alone: the same weights come out, and either ranking can be had of them."""
    dot, cosine = (
        dglrec.fit(make(split, rank=rank), split, epochs=1, device="cpu", progress=False).model
        for rank in ("dot", "cosine")
    )
    assert all(torch.equal(one, two) for one, two in zip(dot.parameters(), cosine.parameters(), strict=True))
    assert dict(dglrec.evaluate(dot, split.test)) != dict(dglrec.evaluate(cosine, split.test))
    dot.set_ranking(rank="cosine")
    assert dict(dglrec.evaluate(dot, split.test)) == dict(dglrec.evaluate(cosine, split.test))


def test_without_sequences_the_graph_ranks(split):
    model = make(split, sequential=False).eval()
    users, items = message_passing(user_item(split.train, unique=True), (model.user.weight, model.item.weight))
    with torch.no_grad():
        torch.testing.assert_close(model.scores(split.test), users[split.test.user] @ items.T, rtol=1e-4, atol=1e-7)
        model.set_ranking(rank="cosine")
        expected = users[split.test.user] @ F.normalize(items).T
        torch.testing.assert_close(model.scores(split.test), expected, rtol=1e-4, atol=1e-7)


def test_initial_weights_are_xavier_normal_over_all_tables_and_layers(split):
    model = make(split, dim=64, inner=256)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert bool((parameter == (1 if name.endswith("weight") else 0)).all()), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(math.sqrt(2 / sum(parameter.shape)), rel=0.1), name


def test_the_number_of_weights(split):
    """2,108,928 on Toys in the authors' log, which counts two padding rows."""
    model = make(split, dim=64, inner=256)
    sequence = 50 * 64 + 2 * 64 + 2 * 49_984
    assert sum(p.numel() for p in model.parameters()) == (split.log.num_users + split.log.num_items) * 64 + sequence
    assert (19_413 + 11_925) * 64 + sequence == 2_108_928
