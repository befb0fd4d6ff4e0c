"""BERT4Rec: its encoder against PyTorch's own attention, its masks against their rules, its loss against plain sums."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dglrec
from dglrec.batches import cloze_batches
from dglrec.graphs import Sequences
from dglrec.nn.cloze import ClozeEncoder
from dglrec.streams import Streams

SMALL = {"dim": 8, "inner": 16, "layers": 2, "max_length": 12, "train": {"batch_size": 32}}


def plain_states(encoder: ClozeEncoder, items: list[int], table: torch.Tensor) -> torch.Tensor:
    """One sequence through the transformer, written out."""
    t = encoder.transformer
    x = t.norm(table[items] + t.position.weight[: len(items)])
    for block in t.blocks:
        heads = block.heads
        q, k, v = (f(x).view(len(items), heads, -1).transpose(0, 1) for f in (block.query, block.key, block.value))
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(2)  # all see all
        mixed = (weights @ v).transpose(0, 1).reshape(len(items), -1)
        x = block.attention_norm(x + block.out(mixed))
        x = block.norm(x + block.outer(F.gelu(block.inner(x))))
    return x


def head(encoder: ClozeEncoder, states: torch.Tensor) -> torch.Tensor:
    return encoder.norm(F.gelu(encoder.linear(states)))


@torch.no_grad()
def test_every_place_sees_both_sides():
    torch.manual_seed(0)
    encoder = ClozeEncoder(dim=8, max_length=9, inner=16).eval()
    items = torch.randn(11, 8)
    lists = [[3, 11, 5], [1], [11, 2, 2, 7, 11, 0, 4, 9, 11], [6, 11]]  # 11 is the mask
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    history = Sequences(torch.as_tensor(offsets), torch.tensor([item for one in lists for item in one]))
    table = torch.cat([items, encoder.mask.weight])
    expected = head(encoder, torch.cat([plain_states(encoder, one, table) for one in lists]))
    rows = torch.arange(len(expected))
    torch.testing.assert_close(encoder(history, items, rows), expected, rtol=1e-4, atol=1e-5)
    for drop in (True, False):
        encoder.drop_first = drop
        asked = [[*one[int(drop) :][-8:], 11] for one in lists]
        wanted = torch.stack([head(encoder, plain_states(encoder, one, table))[-1] for one in asked])
        torch.testing.assert_close(encoder.ask(history, items), wanted, rtol=1e-4, atol=1e-5)


def by_user(batch) -> list[tuple[list[int], list[int]]]:
    """The items of each sequence, and the places that are asked for."""
    bounds = batch.history.offsets.tolist()
    items, rows = batch.history.items.tolist(), set(batch.row.tolist())
    return [(items[a:b], [row - a for row in range(a, b) if row in rows]) for a, b in pairwise(bounds)]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("form", ["prefixes", "histories"])
def test_masks_follow_their_rules(split, form, first):
    """Over as many epochs as give some hundred batches."""
    train, mask, epochs = split.train, split.train.num_items, 3 if form == "prefixes" else 60
    sequences, last_alone, shares, cut, rng = 0, [], [], 0, np.random.default_rng(3)
    for batch in chain.from_iterable(
        cloze_batches(train, 8, 12, rng, torch.device("cpu"), form=form, first=first, ratio=0.3) for _ in range(epochs)
    ):
        parts = by_user(batch)
        sequences += len(parts)
        masked = [[place for place, item in enumerate(items) if item == mask] for items, _ in parts]
        last_alone.append(all(places == [len(items) - 1] for places, (items, _) in zip(masked, parts, strict=True)))
        if not last_alone[-1]:
            shares.append(sum(map(len, masked)) / sum(len(items) for items, _ in parts))
        for places, (_, asked) in zip(masked, parts, strict=True):
            most = int(0.3 * 12)  # all that is drawn is masked, and the last of them are asked for
            assert asked == [place for place in places[-most:] if first or place > 0]
            cut += len(places) > most
        # what stood there is what the log has at that place of that user, with the other items around it
        for row, target, user in zip(batch.row.tolist(), batch.target.tolist(), batch.user.tolist(), strict=True):
            own = train.item[train.user == user].tolist()
            which = int(np.searchsorted(batch.history.offsets.numpy(), row, side="right")) - 1
            items, _ = parts[which]
            place = row - int(batch.history.offsets[which])
            fits = [
                begin
                for begin in range(len(own) - len(items) + 1)
                if own[begin + place] == target
                and all(a in (b, mask) for a, b in zip(items, own[begin : begin + len(items)], strict=True))
            ]
            assert fits
    lengths = np.diff(train.offsets)
    each = int((train.position > 0).sum()) if form == "prefixes" else int((lengths > 1).sum())
    assert sequences == epochs * each
    assert np.mean(last_alone) == pytest.approx(0.5, abs=0.1)
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)
    assert cut > 10


@pytest.mark.parametrize("form", ["prefixes", "histories"])
def test_the_item_after_a_prefix_is_not_in_it(split, form):
    """Each sequence with its last item masked: what is left of it, and what is asked for."""
    found, train = [], split.train
    for batch in cloze_batches(
        train, 8, 12, np.random.default_rng(0), torch.device("cpu"), form=form, first=True, last_share=1.0
    ):
        bounds, rows = batch.history.offsets.tolist(), batch.row.tolist()
        user, target = (dict(zip(rows, values.tolist(), strict=True)) for values in (batch.user, batch.target))
        for a, b in pairwise(bounds):
            found.append((user[b - 1], *batch.history.items[a : b - 1].tolist(), target[b - 1]))
    histories = [(user, train.item[train.user == user].tolist()) for user in range(train.num_users)]
    ends = {user: range(1, len(own)) if form == "prefixes" else [len(own)] for user, own in histories if len(own) > 1}
    expected = [(user, *own[max(0, end - 12) : end]) for user, own in histories for end in ends.get(user, [])]
    assert sorted(found) == sorted(expected)


def log_of(sizes: list[int]) -> dglrec.InteractionLog:
    """Users with so many items, each of which is another one."""
    return dglrec.InteractionLog.from_arrays(np.repeat(np.arange(len(sizes)), sizes), np.arange(sum(sizes)))


@pytest.mark.parametrize(("sizes", "places"), [([3, 2], [1]), ([2, 2], [0, 0])])
def test_no_batch_is_without_a_target(sizes, places):
    """Where nothing was drawn, last items are masked; a first one is learned only where there is nothing else."""
    train = log_of(sizes)
    (batch,) = cloze_batches(train, 9, 12, np.random.default_rng(0), torch.device("cpu"), ratio=1e-9, last_share=0.0)
    assert all(items.count(train.num_items) == 1 and items[-1] == train.num_items for items, _ in by_user(batch))
    assert [place for _, asked in by_user(batch) for place in asked] == places


def test_any_item_of_a_short_history_may_be_the_target():
    """Also where `ratio * max_length` is less than one; and a history of one item is none."""
    found = set()
    for seed in range(40):
        how = {"form": "histories", "first": True, "last_share": 0.0, "ratio": 0.2}
        (batch,) = cloze_batches(log_of([1, 4]), 9, 4, np.random.default_rng(seed), torch.device("cpu"), **how)
        ((items, asked),) = by_user(batch)
        assert len(items) == 4 and len(asked) == 1
        found |= set(asked)
    assert found == {0, 1, 2, 3}


@torch.no_grad()
def test_the_loss_is_a_cross_entropy_with_biases(split):
    model = dglrec.models.preset("bert4rec", split, **SMALL).eval()
    model.bias.data = torch.randn(model.num_items)
    batch = next(iter(model.batches(split, Streams(0))))
    table = torch.cat([model.item.weight, model.encoder.mask.weight])
    bounds, items = batch.history.offsets.tolist(), batch.history.items.tolist()
    states = torch.cat([plain_states(model.encoder, items[a:b], table) for a, b in pairwise(bounds)])
    logits = head(model.encoder, states)[batch.row] @ model.item.weight.T + model.bias
    expected = F.cross_entropy(logits, batch.target)
    torch.testing.assert_close(model.loss(batch)["cross_entropy"], expected, rtol=1e-4, atol=1e-5)


def test_what_recbole_leaves_out_is_a_field(split):
    model = dglrec.models.preset("bert4rec", split, **SMALL).eval()
    faithful, fair = model, dglrec.models.preset("bert4rec", split, recbole=False, **SMALL).eval()
    fair.load_state_dict(faithful.state_dict())
    short = dglrec.Queries.from_histories([[1], [2]])
    assert torch.allclose(*faithful.scores(short))  # nothing is left of a history of one item
    assert not torch.allclose(*fair.scores(short))


def test_the_last_training_item_is_never_asked_for_in_prefixes(split):
    model = dglrec.models.preset("bert4rec", split, **SMALL)
    assert model.targets_per_epoch == int((split.train.position > 0).sum())
    histories = dglrec.models.preset("bert4rec", split, targets="histories", **SMALL)
    assert histories.targets_per_epoch == int((np.diff(split.train.offsets) > 1).sum())
