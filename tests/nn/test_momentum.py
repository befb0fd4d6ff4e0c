"""The momentum encoder and the queues."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dglrec.nn.momentum import Queue, follow, momentum_copy


def test_the_copy_follows_by_equation_17():
    fast = nn.Linear(3, 2)
    slow = momentum_copy(fast)
    assert not any(p.requires_grad for p in slow.parameters())
    before = [p.clone() for p in slow.parameters()]
    with torch.no_grad():
        fast.weight.add_(1.0)
    follow(slow, fast, 0.9)
    for own, old, new in zip(slow.parameters(), before, fast.parameters(), strict=True):
        torch.testing.assert_close(own, 0.9 * old + 0.1 * new)
    follow(slow, fast, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), fast.parameters(), strict=True))


@pytest.mark.parametrize(
    ("places", "sizes"), [(5, [2, 3, 1]), (5, [5, 4]), (5, [12, 1]), (5, [3] * 7), (512, [64] * 11 + [50])]
)
def test_a_queue_holds_the_newest(places, sizes):
    queue, put = Queue(places, 1), []
    for size in sizes:
        ids = torch.arange(len(put), len(put) + size)
        queue.put(ids[:, None].float(), ids)
        put += ids.tolist()
    assert sorted(queue.ids.tolist()) == sorted([-1] * (places - len(put)) + put[-places:])
    there = queue.ids >= 0
    assert torch.equal(queue.vectors[there, 0], queue.ids[there].float())


def test_the_positive_and_empty_places_are_no_negatives():
    queue = Queue(4, 2)
    queue.put(torch.ones(3, 2), torch.tensor([7, 8, 7]))
    assert queue.hidden(torch.tensor([7, 9])).tolist() == [[True, False, True, True], [False, False, False, True]]
