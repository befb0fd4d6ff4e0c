"""Pooled attention against PyTorch's own, block by block and with positions that are not known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dglrec.nn import mean_attention as module
from dglrec.nn.mean_attention import _by_kernel, last_attention, mean_attention


def plain(query, key, value, heads, known):
    """The mean over known queries of what each attends to, by PyTorch's kernel."""
    q, k, v = (part.transpose(0, 1).unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=known.T[:, None, None])  # (A, h, T, w)
    mixed = mixed.transpose(1, 2).flatten(2) * known.T.unsqueeze(2)  # (A, T, d)
    return mixed.sum(1) / known.sum(0).unsqueeze(1)


def some(slices, nodes, dtype=torch.float64, scale=1.0):
    """Queries, keys, values of 8 columns, and of each node a first few positions that are known."""
    torch.manual_seed(slices)
    parts = [(scale * torch.randn(slices, nodes, 8, dtype=dtype)).requires_grad_() for _ in range(3)]
    known = torch.arange(slices)[:, None] < torch.randint(1, slices + 1, (nodes,))
    return parts, known


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("slices", "nodes", "heads"), [(1, 3, 2), (5, 37, 4), (12, 40, 8), (3, 0, 2)])
def test_the_mean_equals_the_kernel(slices, nodes, heads, masked, monkeypatch):
    """Values and gradients, over several blocks the last of which is not full."""
    monkeypatch.setattr(module, "BLOCK", 1)  # 16 sequences
    monkeypatch.setattr(module, "LAUNCHED", 7)
    parts, known = some(slices, nodes)
    everything = torch.ones_like(known)
    found = mean_attention(*parts, heads, known if masked else None)
    expected = plain(*parts, heads, known if masked else everything)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(_by_kernel(*parts, heads, known if masked else None), expected)  # as on a GPU
    towards = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, parts, towards), torch.autograd.grad(expected, parts, towards), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_large_scores_and_half_precision():
    """Scores of hundreds do not overflow; bfloat16 is summed in float32, and comes back as bfloat16."""
    parts, known = some(6, 20, torch.float32, scale=30.0)
    torch.testing.assert_close(mean_attention(*parts, 2), plain(*parts, 2, torch.ones_like(known)))
    half = [part.detach().bfloat16().requires_grad_() for part in some(6, 20)[0]]
    found = mean_attention(*half, 2)
    assert found.dtype == torch.bfloat16
    expected = plain(*(part.float() for part in half), 2, torch.ones_like(known))
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)
    towards = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, half, towards),
        torch.autograd.grad(expected, half, towards.float()),
        strict=True,
    ):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


def test_the_last_equals_the_kernel():
    """One query a sequence, by value and gradient; a position that is not known has no weight."""
    (query, key, value), known = some(7, 11)
    places = known.sum(0) - 1
    found = last_attention(query[places, torch.arange(11)], key, value, 4, known)
    q, k, v = (part.transpose(0, 1).unflatten(2, (4, -1)).transpose(1, 2) for part in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=known.T[:, None, None]).transpose(1, 2).flatten(2)
    expected = mixed[torch.arange(11), places]
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.sin().sum(), (query, key, value)),
        torch.autograd.grad(expected.sin().sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
