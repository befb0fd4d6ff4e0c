"""The long-term levels of SelfGNN against loops: intervals, histories in both readings, and weights of reliability."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dglrec.errors import ConfigError, DataError
from dglrec.graphs import Sequences
from dglrec.nn import InstanceEncoder, IntervalFusion, Reliability
from dglrec.nn.intervals import Slices

DIM, HEADS, SLOPE = 8, 2, 0.5


def attended(layer, x, causal=False):
    """Self-attention of one sequence (L, d), head by head and position by position."""
    x = layer.norm(x)
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    out, width = torch.zeros_like(q), DIM // HEADS
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        for place in range(len(x)):
            read = range(place + 1 if causal else len(x))
            scores = torch.stack([q[place, own] @ k[other, own] / math.sqrt(width) for other in read])
            out[place, own] = sum(w * v[other, own] for other, w in enumerate(scores.softmax(0)))
    return out


def gru(cell, x):
    """The states of a GRU over (T, d), gate by gate, by PyTorch's names of the weights."""
    h, states = torch.zeros(DIM), []
    for row in x:
        gi = (cell.weight_ih_l0 @ row + cell.bias_ih_l0).chunk(3)
        gh = (cell.weight_hh_l0 @ h + cell.bias_hh_l0).chunk(3)
        reset, update = torch.sigmoid(gi[0] + gh[0]), torch.sigmoid(gi[1] + gh[1])
        h = (1 - update) * torch.tanh(gi[2] + reset * gh[2]) + update * h
        states.append(h)
    return torch.stack(states)


def lstm(cell, x):
    h, c, states = torch.zeros(DIM), torch.zeros(DIM), []
    for row in x:
        gates = cell.weight_ih_l0 @ row + cell.bias_ih_l0 + cell.weight_hh_l0 @ h + cell.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("make", [lambda pool: IntervalFusion(DIM, HEADS, pool=pool), Slices])
@torch.no_grad()
def test_the_past_is_all_that_is_read(make, pool):
    """A node of which p slices may be read is what a graph with p slices makes of it, and 0 if p is 0."""
    torch.manual_seed(0)
    fusion, slices, past = make(pool).eval(), torch.randn(4, 6, DIM), torch.tensor([0, 1, 2, 3, 4, 4])
    found = fusion(slices, 1, past)
    assert torch.equal(found[0], torch.zeros(DIM))
    for node, number in list(enumerate(past.tolist()))[1:]:
        torch.testing.assert_close(found[node], fusion(slices[:number, [node]], 1)[0])
    torch.testing.assert_close(fusion(slices, 1, torch.full((6,), 4)), fusion(slices, 1))


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pool", ["mean", "last"])
@torch.no_grad()
def test_interval_fusion_equals_a_loop(recurrent, shared, pool):
    torch.manual_seed(0)
    fusion = IntervalFusion(DIM, HEADS, recurrent, shared=shared, pool=pool).eval()
    slices = torch.randn(4, 5, DIM)
    for side in (0, 1):
        cell = fusion.cells[0 if shared else side]
        for node, fused in enumerate(fusion(slices, side)):
            states = {"gru": gru, "lstm": lstm}[recurrent](cell, slices[:, node])
            mixed = attended(fusion.attention[side], states)
            expected = mixed.mean(0) if pool == "mean" else mixed[-1]
            torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


def test_a_forget_gate_begins_open():
    (cell,) = IntervalFusion(DIM, HEADS, "lstm").cells
    assert (cell.bias_ih_l0 + cell.bias_hh_l0).tolist() == [0.0] * DIM + [1.0] * DIM + [0.0] * 2 * DIM


def test_states_are_dropped_in_training_alone():
    torch.manual_seed(0)
    fusion, slices = IntervalFusion(DIM, HEADS, dropout=0.5), torch.randn(4, 5, DIM)
    assert not torch.equal(fusion(slices, 0), fusion(slices, 0))
    fusion.eval()
    assert torch.equal(fusion(slices, 0), fusion(slices, 0))


def packed(sizes, items):
    offsets = torch.tensor([0, *np.cumsum(sizes)])
    return Sequences(offsets, items, sizes=np.array(sizes))


SIZES = [3, 0, 7, 1, 7, 5]


@pytest.fixture
def histories():
    torch.manual_seed(1)
    return packed(SIZES, torch.randint(9, (sum(SIZES),))), torch.randn(9, DIM)


@pytest.mark.parametrize("pool", ["sum", "mean"])
@torch.no_grad()
def test_attention_over_positions_equals_a_loop(pool, histories):
    history, table = histories
    encoder = InstanceEncoder(DIM, HEADS, 2, 7, SLOPE, "attention", pool)
    found = encoder(history, table)
    for row, size in enumerate(SIZES):
        items = history.items[history.offsets[row] : history.offsets[row + 1]]
        x = table[items] + encoder.position.weight[7 - size :]  # the most recent item has the last position
        for layer in encoder.layers:
            x = F.leaky_relu(attended(layer, x), SLOPE) + x
        expected = x.sum(0) / (max(size, 1) if pool == "mean" else 1)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_causal_attention_encodes_all_prefixes_at_once(histories):
    history, table = histories
    encoder = InstanceEncoder(DIM, HEADS, 2, 7, SLOPE, "causal")
    found = encoder(history, table)
    prefixes = encoder(history, table, torch.arange(len(history.items)))
    for row, (first, size) in enumerate(zip(history.offsets.tolist(), SIZES, strict=False)):
        x = table[history.items[first : first + size]] + encoder.position.weight[:size]
        for layer in encoder.layers:
            x = F.leaky_relu(attended(layer, x, causal=True), SLOPE) + x
        torch.testing.assert_close(prefixes[first : first + size], x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[row], x[-1] if size else torch.zeros(DIM), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_collapsed_histories_equal_a_loop(histories):
    history, table = histories
    encoder = InstanceEncoder(DIM, HEADS, 2, 7, SLOPE, "collapsed")
    found = encoder(history, table)
    for row, size in enumerate(SIZES):
        items = history.items[history.offsets[row] : history.offsets[row + 1]]
        x = encoder.norms[0](table[items].sum(0)) + encoder.norms[1](encoder.position.weight[7 - size :].sum(0))
        for norm, value in encoder.layers:
            x = F.leaky_relu(value(norm(x)), SLOPE) + x
        torch.testing.assert_close(found[row], x if size else torch.zeros(DIM), rtol=1e-4, atol=1e-5)


def test_the_order_of_items_counts_in_attention_alone(histories):
    history, table = histories
    turned = packed(SIZES, torch.cat([part.flip(0) for part in history.items.split(SIZES)]))
    for kind, same in (("attention", False), ("collapsed", True)):
        encoder = InstanceEncoder(DIM, HEADS, 1, 7, SLOPE, kind)
        with torch.no_grad():
            assert torch.allclose(encoder(history, table), encoder(turned, table), atol=1e-5) is same


@torch.no_grad()
def test_reliability_is_a_network_of_three_vectors():
    torch.manual_seed(0)
    weight, long, short = Reliability(DIM, 5, SLOPE), torch.randn(4, DIM), torch.randn(3, 4, DIM)
    found = weight(long, short)
    assert found.shape == (3, 4)
    for t in range(3):
        for node in range(4):
            x = torch.cat([long[node] * short[t, node], long[node], short[t, node]])
            expected = torch.sigmoid(weight.outer(F.leaky_relu(weight.inner(x), SLOPE)))[0]
            assert float(found[t, node]) == pytest.approx(float(expected), abs=1e-6)


def test_heads_divide_the_width():
    with pytest.raises(ConfigError, match="heads"):
        IntervalFusion(10, 4)


@pytest.mark.parametrize("kind", ["attention", "causal", "collapsed"])
def test_a_history_beyond_the_last_place_is_refused(kind):
    encoder = InstanceEncoder(DIM, HEADS, 1, 3, kind=kind)
    history = Sequences(torch.tensor([0, 1, 5]), torch.arange(5))
    with pytest.raises(DataError, match=r"a history has 4 items; expected at most 3 \(cut with \.last\(3\)\)"):
        encoder(history, torch.randn(5, DIM))
    assert encoder(history.last(3), torch.randn(5, DIM)).shape == (2, DIM)
