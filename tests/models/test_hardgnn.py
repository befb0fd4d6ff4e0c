"""HardGNN: what it mines equals brute force, its loss the equations; without K and lambda it is SelfGNN to the bit."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.errors import ConfigError
from dglrec.losses import info_nce
from dglrec.models import hardgnn
from dglrec.streams import Streams
from tests.contract.model_contract import assert_same_bits, fit, poisoned, weights_of

SMALL = {"dim": 8, "heads": 2, "slices": 3, "negatives": 5, "max_length": 10}


def make(split, name="hardgnn", **fields):
    return dglrec.models.preset(name, split, **{**SMALL, "train": {"batch_size": 25, "lr": 1e-2}, **fields})


def nearest(model, split, k):
    """The mined items, user by user."""
    model.eval()
    train, found = split.train, []
    with torch.no_grad():
        _, items = model.all_vectors()
        last = model.encoder(model.adjacency, (model.user, model.item))[0][-1]
        for user in range(split.log.num_users):
            own = train.item[train.user == user]
            history = dglrec.graphs.Sequences(torch.tensor([0, len(own[-10:])]), torch.as_tensor(own[-10:]))
            anchor = last[user] if model.config.anchor == "slice" else model.instance(history, items)[0]
            cosine = F.cosine_similarity(anchor[None], items)
            cosine[torch.as_tensor(own)] = -2.0
            found.append(cosine.topk(k).indices)
    return torch.stack(found)


@pytest.mark.parametrize("fields", [{}, {"name": "hardgnn-code"}, {"anchor": "slice"}, {"k": 7}], ids=str)
@pytest.mark.parametrize("block", [1, 20_000, 1 << 27])
def test_mined_items_equal_brute_force(fields, block, split, monkeypatch):
    """A user at a time, some, and all."""
    monkeypatch.setitem(hardgnn.BLOCK_BYTES, "cpu", block)
    model = make(split, **fields)
    assert torch.equal(model.mine(), nearest(model, split, model.config.k))


def test_mining_knows_nothing_of_validation_and_test(split):
    """The same with other held-out items; and those may be mined, for nobody says that they are held out."""
    model, other = make(split, k=10), make(poisoned(split), k=10)
    hard = model.mine()
    assert torch.equal(hard, other.mine())
    for user in range(split.log.num_users):
        assert not set(hard[user].tolist()) & set(split.train.item[split.train.user == user].tolist())
    for queries in (split.valid, split.test, other.split.valid, other.split.test):
        assert any(int(item) in hard[user] for user, item in zip(queries.user, queries.targets, strict=True))


def test_a_block_has_as_many_users_as_there_is_room_for(split, monkeypatch):
    """Whoever has a long history takes more of it; with anchor="slice" nobody does."""
    monkeypatch.setitem(hardgnn.BLOCK_BYTES, "cpu", 4 * 5 * (split.log.num_items + 8 * 8 * 10))
    sizes = np.full(split.log.num_users, 10)
    for fields, users in ({}, 5), ({"anchor": "slice"}, 5 * (1 + 640 / split.log.num_items)):
        blocks = make(split, **fields)._blocks(sizes)
        assert [stop for _, stop in blocks[:-1]] == [first for first, _ in blocks[1:]]
        assert (blocks[0][0], blocks[-1][1]) == (0, len(sizes))
        assert all(users - 1 <= stop - first <= users + 1 for first, stop in blocks[:-1])


def test_mining_fuses_no_users(split, monkeypatch):
    """Only items are compared, and propagation is one pass."""
    for fields in {}, {"anchor": "slice"}:
        model, sides, passes = make(split, **fields).eval(), [], []
        fusion, encoder = model.fusion.forward, model.encoder.forward
        monkeypatch.setattr(model.fusion, "forward", lambda x, side, f=fusion, s=sides: s.append(side) or f(x, side))
        monkeypatch.setattr(model.encoder, "forward", lambda *x, f=encoder, p=passes: p.append(None) or f(*x))
        model.mine()
        assert (set(sides), len(passes)) == ({1}, 1)


def test_mining_changes_nothing_else(split):
    model = make(split).train()
    before, state = weights_of(model), torch.get_rng_state()
    model.mine()
    assert model.training
    assert_same_bits(before, weights_of(model))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("pair", [("hardgnn", "selfgnn"), ("hardgnn-code", "selfgnn-code")])
def test_without_k_and_lambda_it_is_selfgnn_to_the_bit(pair, split):
    cell = {"shared_cell": True}
    one = fit(make(split, pair[0], k=0, lam=0.0, **cell), split, epochs=2)
    other = fit(make(split, pair[1], **cell), split, epochs=2)
    assert_same_bits(weights_of(one.model), weights_of(other.model))
    assert [row["loss"] for row in one.rows] == [row["loss"] for row in other.rows]


def test_its_batches_are_those_of_selfgnn(split):
    """What is mined comes on top: no draw of SelfGNN's is another one."""
    for one, other in zip(
        make(split).batches(split, Streams(1)), make(split, "selfgnn").batches(split, Streams(1)), strict=True
    ):
        for field in ("user", "target", "row", "negative", "edge_node", "edge_item"):
            assert torch.equal(getattr(one, field), getattr(other, field))
        assert torch.equal(one.items[: len(other.items)], other.items)
        assert other.hard is None and one.hard.shape == (len(one.user), 3)


@pytest.mark.parametrize("name", ["hardgnn", "hardgnn-code"])
def test_an_item_has_one_place_in_a_batch(name, split):
    """Whether it is drawn, mined, or both: at a second place it would have another vector, by another dropout mask."""
    model, plain = (make(split, one, train={"batch_size": 4}) for one in (name, name.replace("hard", "self")))
    hard, drawn = model.mine(), []
    for batch, other in zip(model.batches(split, Streams(0)), plain.batches(split, Streams(0)), strict=True):
        assert len(torch.unique(batch.items)) == len(batch.items)
        assert torch.equal(batch.items[batch.hard], hard[batch.user])
        drawn += (batch.hard < len(other.items)).flatten().tolist()
    assert set(drawn) == {True, False}


@pytest.mark.parametrize(("refresh", "expected"), [(0, [0]), (1, [0, 1, 2]), (2, [0, 2])])
def test_mining_is_refreshed_as_often_as_asked(refresh, expected, split, monkeypatch):
    """Of three steps an epoch; each time by the weights of that moment."""
    model, steps, calls = make(split, refresh=refresh), 0, []
    mine = model.mine
    monkeypatch.setattr(model, "mine", lambda: calls.append(steps) or mine())
    for _ in model.batches(split, Streams(0)):
        steps += 1
    assert steps == 3
    assert calls == expected


def test_mined_items_follow_the_weights(split):
    model = make(split, refresh=1)
    for batch in model.batches(split, Streams(0)):
        assert torch.equal(batch.items[batch.hard], nearest(model, split, 3)[batch.user])
        with torch.no_grad():
            model.item.add_(0.1 * torch.randn(model.item.shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("kind", ["instance", "slice"])
def test_the_contrastive_loss_is_eq_12(kind, split):
    model = make(split, dropout=0.0, lam=0.5, tau=0.2, anchor=kind)
    batch = next(iter(model.batches(split, Streams(0))))
    model.eval()
    with torch.no_grad():
        found = float(model.loss(batch)["info_nce"])
        _, items = model.all_vectors()
        last = model.encoder(model.adjacency, (model.user, model.item))[0][-1]
        anchor, total = last[batch.user] if kind == "slice" else model.encode(batch).instance, 0.0
        for row in range(len(batch.user)):
            sim = [
                float(F.cosine_similarity(anchor[row], items[item], dim=0)) / 0.2
                for item in batch.items[torch.cat([batch.target[row : row + 1], batch.hard[row]])].tolist()
            ]
            total -= sim[0] - math.log(sum(math.exp(one) for one in sim))
    assert found == pytest.approx(0.5 * total / len(batch.user), rel=1e-3)


def test_the_code_s_negatives_are_the_batch_s_and_the_hinge_s_first_ones_are_mined(split):
    many = {"negatives": 12}  # more than some users have items, so that users have more pairs or fewer
    model = make(split, "hardgnn-code", k=2, dropout=0.0, lam=0.5, tau=0.2, **many)
    batch = next(iter(model.batches(split, Streams(0))))
    model.eval()
    with torch.no_grad():
        terms = model.loss(batch)
        users, items = model.all_vectors()
        instance = model.encode(batch).instance
        view = users[batch.user] + F.leaky_relu(instance, 0.5)
        plain = next(iter(make(split, "selfgnn-code", **many).batches(split, Streams(0))))  # the same draws
        hard, target, slots = batch.items[batch.hard], plain.items[plain.target], {}
        negative = plain.items[plain.negative].tolist()
        for pair, row in enumerate(batch.row.tolist()):
            slot = slots[row] = slots.get(row, -1) + 1
            negative[pair] = int(hard[row, slot]) if slot < 2 else negative[pair]
        gaps = [
            max(0.0, 1 - float(view[row] @ items[target[row]]) + float(view[row] @ items[item]))
            for row, item in zip(batch.row.tolist(), negative, strict=True)
        ]
        shared = batch.items[batch.shared]
        expected = info_nce(instance[batch.row], items[target][batch.row], items[shared], 0.2)
    assert batch.items[batch.negative].tolist() == negative
    assert len(shared) == min(50, len(batch.row)) and not Counter(shared.tolist()) - Counter(negative)
    assert float(terms["hinge"]) == pytest.approx(float(np.mean(gaps)), rel=1e-3)
    assert float(terms["info_nce"]) == pytest.approx(0.5 * float(expected), rel=1e-3)


def test_the_code_s_negatives_are_drawn_anew_at_each_step(split):
    """Which of a step's pairs they are of, where as many were drawn for it as for others."""
    model, orders = make(split, "hardgnn-code", k=0, targets="prefixes", train={"batch_size": 1}), set()
    for batch in model.batches(split, Streams(0)):
        if len(batch.row) == 5:
            orders.add(tuple((batch.shared[:, None] == batch.negative).int().argmax(1).tolist()))
    assert len(orders) > 50


def test_mined_items_are_in_the_softmax_only_where_they_are_in_l_rec(split):
    """The softmax compares with all items of a batch; mined ones are among these for Eq. 12 alone, or for both."""
    fields, found = {"loss": "softmax", "pool": "mean", "dropout": 0.0, "train": {"batch_size": 4}}, {}
    for name, own in (("selfgnn", {}), ("hardgnn", {}), ("hard_in_rec", {"hard_in_rec": True})):
        model = make(split, "selfgnn" if name == "selfgnn" else "hardgnn", **fields, **own)
        found[name] = float(model.loss(next(iter(model.batches(split, Streams(0)))))["softmax"].detach())
    assert found["hardgnn"] == pytest.approx(found["selfgnn"], rel=1e-6)
    assert found["hard_in_rec"] > found["selfgnn"] + 1e-3


def test_gradients_flow_through_anchor_positive_and_negatives(split):
    """Each of the three learns, though no other term asks it to."""
    model = make(split)
    batch = next(iter(model.batches(split, Streams(0))))
    encoded = model.encode(batch)
    vectors = {name: getattr(encoded, name).detach().requires_grad_() for name in ("instance", "item")}
    encoded = dataclasses.replace(encoded, **vectors)
    model.encode = lambda _: encoded
    model.loss(batch)["info_nce"].backward()
    targets, mined = set(batch.target.tolist()), set(batch.hard.flatten().tolist())
    moved = set(vectors["item"].grad.any(1).nonzero().flatten().tolist())
    assert vectors["instance"].grad.any(1).all()
    assert moved >= targets - mined and moved >= mined - targets
    assert targets - mined and mined - targets and moved <= targets | mined


def test_more_hard_negatives_than_items_are_refused(split):
    train = split.train
    most = max(len(set(train.item[train.user == user].tolist())) for user in range(split.log.num_users))
    make(split, k=split.log.num_items - most)
    with pytest.raises(ConfigError, match=f"expected at most {split.log.num_items - most}"):
        make(split, k=split.log.num_items - most + 1)
    idle = make(split, k=split.log.num_items, lam=0.0)  # reads no mined items
    assert next(iter(idle.batches(split, Streams(0)))).hard is None
    with pytest.raises(ConfigError, match="expected at most"):
        idle.mine()


@pytest.mark.parametrize("fields", [{"k": -1}, {"tau": 0.0}, {"lam": -0.1}, {"refresh": -1}, {"instance": "none"}])
def test_values_out_of_range_are_named(fields, split):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        make(split, **fields)


def test_the_config_of_the_presets(split):
    paper, code = (dglrec.models.preset(name, split).config for name in ("hardgnn", "hardgnn-code"))
    changes = {"recurrent": "lstm", "shared_cell": False, "instance": "collapsed", "activate": True}
    changes["train"] = dataclasses.replace(paper.train, schedule="exponential")
    assert code == dataclasses.replace(paper, **changes, k=5, contrast="batch", hard_in_rec=True)


def test_mined_items_are_of_the_user_s_own_community():
    """Items that a user would like are what there is to be mined: .99 of them at four communities, .25 by chance."""
    known = {"users": 300, "items": 200, "seed": 1}
    split = dglrec.leave_one_out(dglrec.sample("communities", **known))
    group = dglrec.data.sample_oracle("communities", **known).item_group  # (M,)
    counts = np.zeros((split.log.num_users, group.max() + 1))
    np.add.at(counts, (split.train.user, group[split.train.item]), 1)
    fields = {"dim": 16, "negatives": 10, "max_length": 40, "pool": "mean", "reg": 1e-4, "k": 5}
    model = make(split, **fields, train={"batch_size": 64, "lr": 1e-2, "epochs": 5})
    fit(model, split, epochs=5)
    assert float((group[model.mine().numpy()] == counts.argmax(1)[:, None]).mean()) > 0.9


def test_the_config_of_the_presets_is_that_of_the_sheet(split):
    """What HardGNN adds, by value; the rest is SelfGNN's."""
    for name, base, own in (
        ("hardgnn", "selfgnn", {"k": 3, "contrast": "own", "hard_in_rec": False}),
        ("hardgnn-code", "selfgnn-code", {"k": 5, "contrast": "batch", "hard_in_rec": True, "shared_cell": False}),
    ):
        config, plain = (dglrec.models.preset(one, split).config for one in (name, base))
        own |= {"lam": 0.1, "tau": 0.1, "anchor": "instance", "refresh": 0}
        assert {field: getattr(config, field) for field in own} == own
        for field in dataclasses.fields(plain):
            if field.name not in own:
                assert getattr(config, field.name) == getattr(plain, field.name), field.name
