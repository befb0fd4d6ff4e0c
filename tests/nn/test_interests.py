"""Blocks of multi-interest models against what they say they are, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dglrec.data import Queries
from dglrec.errors import DataError
from dglrec.graphs import Sequences
from dglrec.nn.interests import (
    GAPS,
    InterestAttention,
    InterestWeight,
    augmented,
    candidate_bce,
    gap_buckets,
    last_of_clusters,
    pad,
    places,
    query_window,
    sinusoid,
    take,
    window_logits,
)

DAY = 86_400.0


def ragged() -> Sequences:
    times = torch.tensor([0.0, 1.0, 5.0, 7.0, 2.0, 3.0], dtype=torch.float64) * DAY
    return Sequences(torch.tensor([0, 3, 4, 6]), torch.tensor([4, 5, 6, 7, 8, 9]), times)


def test_windows_stand_at_the_right_end() -> None:
    padded = pad(ragged(), torch.tensor([0.0, 0.0, DAY], dtype=torch.float64))
    assert padded.items.tolist() == [[4, 5, 6], [0, 0, 7], [0, 8, 9]]
    assert padded.mask.tolist() == [[True, True, True], [False, False, True], [False, True, True]]
    assert padded.days.tolist() == [[0, 1, 5], [0, 0, 7], [0, 1, 2]]
    assert pad(ragged()).days.tolist() == [[0, 1, 5], [0, 0, 0], [0, 0, 1]]  # histories begin with the first event


def test_windows_without_times_and_empty_ones() -> None:
    history = ragged()
    assert not pad(Sequences(history.offsets, history.items)).days.any()
    with pytest.raises(DataError, match="history 1 is empty"):
        pad(Sequences(torch.tensor([0, 2, 2]), torch.tensor([1, 2])))


def test_days_of_a_query_count_from_its_first_event_though_that_is_cut_off() -> None:
    queries = Queries.from_histories([[1, 2, 3], [4]], times=[np.array([0, 2, 3]) * DAY, [DAY]])
    window = query_window(queries, 2, torch.device("cpu"))
    assert window.items.tolist() == [[2, 3], [0, 4]]
    assert window.days.tolist() == [[2, 3], [0, 0]]


def test_sinusoid_is_the_equation() -> None:
    values = torch.tensor([[0.0, 3.0, 250.5]])
    found = sinusoid(values, 6)
    assert found.shape == (1, 3, 6)
    for place, value in enumerate(values[0].tolist()):
        for i in range(3):
            angle = value / 10_000 ** (2 * i / 6)
            assert found[0, place, 2 * i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert found[0, place, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_last_column_is_the_last_place() -> None:
    assert places(3, 50, torch.device("cpu")).tolist() == [47, 48, 49]


def test_gaps_are_counted_from_the_last_item() -> None:
    days = torch.tensor([[0.0, 300.0, 552.9, 555.0, 555.5, 556.0]])
    buckets = gap_buckets(days)
    assert buckets.shape == (1, 6, GAPS)
    assert buckets.sum(2).eq(1).all()
    assert buckets.argmax(2).tolist() == [[8, 8, 2, 1, 0, 0]]


def test_attention_by_hand() -> None:
    """One head, one number an item, q = a, k = b: weights of exp(a b), then two layers of ones."""
    attention = InterestAttention(1, 1, heads=1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.fill_(1.0 if parameter.ndim == 2 else 0.0)
    keys, values = torch.tensor([[[0.0], [1.0], [2.0]]]), torch.tensor([[[0.1], [0.2], [0.4]]])
    allowed = torch.tensor([[[True, True, True], [True, False, True]]])
    found = attention(torch.tensor([[[1.0], [0.5]]]), keys, values, allowed)
    e = math.e
    first = (0.1 + 0.2 * e + 0.4 * e**2) / (1 + e + e**2)
    second = (0.1 + 0.4 * e) / (1 + e)  # exp(.5 * 2) for the third item
    torch.testing.assert_close(found, torch.tensor([[[math.tanh(first)], [math.tanh(second)]]]))


def test_attention_is_the_loop_over_heads() -> None:
    torch.manual_seed(0)
    attention = InterestAttention(7, 4, heads=3, bias=True, limit=0.1)
    keys, values = torch.randn(2, 5, 7), torch.randn(2, 5, 4)
    allowed = torch.rand(2, 5, 5) < 0.7
    allowed |= torch.eye(5, dtype=torch.bool)
    found = attention(keys, keys, values, allowed)
    for window in range(2):
        heads = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            q = keys[window] @ attention.query.weight[part].T + attention.query.bias[part]
            k = keys[window] @ attention.key.weight[part].T + attention.key.bias[part]
            logits = (q @ k.T / 2).clamp(max=0.1).masked_fill(~allowed[window], -torch.inf)
            heads.append(logits.softmax(1) @ values[window])
        torch.testing.assert_close(found[window], attention.join(torch.cat(heads, dim=1)))


def test_last_items_and_members() -> None:
    labels = torch.tensor([[0, 1, 0, 2], [-1, -1, -1, 0]])
    last, members = last_of_clusters(labels, 4)
    assert last.tolist() == [[2, 1, 3, 3], [3, 3, 3, 3]]
    assert members[0].tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [False, False, False, True],
        [False, False, False, True],
    ]
    assert members[1].sum(1).tolist() == [1, 1, 1, 1]
    assert take(torch.arange(8.0).view(2, 4, 1), last)[0, :, 0].tolist() == [2, 1, 3, 3]


@pytest.mark.parametrize("bounded", [False, True])
def test_weights_are_two_layers_over_the_whole_row(bounded: bool) -> None:
    torch.manual_seed(0)
    slots, width = 6, 4
    net = InterestWeight(3, 2, slots, hidden=5, bounded=bounded)
    interests, features = torch.randn(2, 3, 3), torch.randn(2, width, 2)
    members = torch.rand(2, 3, width) < 0.5
    found = net(interests, features, members)
    assert (found > 0).all()
    for window in range(2):
        for one in range(3):
            row = torch.zeros(slots, 2)
            row[slots - width :] = features[window] * members[window, one].unsqueeze(1)
            hidden = net.first(torch.cat([interests[window, one], row.flatten()])).sigmoid()
            last = net.second(hidden)[0]
            torch.testing.assert_close(found[window, one], 2 * last.sigmoid() if bounded else F.softplus(last))


def test_augmented_products_are_the_affine_of_a_cosine() -> None:
    torch.manual_seed(0)
    interests, items, weight = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.rand(2, 3)
    logits = augmented(interests, 1.5 * weight, torch.tensor(0.3)) @ augmented(items, 1.0, 1.0).mT
    cosine = F.cosine_similarity(interests.unsqueeze(2), items.unsqueeze(1), dim=3)
    torch.testing.assert_close(logits, 1.5 * weight.unsqueeze(2) * cosine + 0.3)
    both = augmented(interests, weight, 0.3 * weight) @ augmented(items, 1.0, 1.0).mT
    torch.testing.assert_close(both, weight.unsqueeze(2) * (cosine + 0.3))


def test_the_loss_is_binary_cross_entropy_of_the_largest_sigmoid() -> None:
    torch.manual_seed(0)
    queries, positive, negative = torch.randn(3, 2, 4), torch.randn(3, 5, 4), torch.randn(3, 6, 4)
    found = candidate_bce(window_logits(queries, positive), window_logits(queries, negative))
    both = torch.cat([positive, negative], dim=1)
    scores = (queries.unsqueeze(2) * both.unsqueeze(1)).sum(3).sigmoid().amax(1)  # (B, P + N)
    labels = torch.cat([torch.ones(3, 5), torch.zeros(3, 6)], dim=1)
    torch.testing.assert_close(found, F.binary_cross_entropy(scores, labels))
