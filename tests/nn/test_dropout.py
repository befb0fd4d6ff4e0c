"""Dropout from shared random bits: its rate, its independence, and where its randomness comes from."""

from __future__ import annotations

import pytest
import torch

from dglrec.nn.dropout import Dropout, dropout, keep_mask


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 0.2, 1 / 3, 0.9, 0.004, 255 / 256])
def test_the_rate_holds_everywhere(p):
    torch.manual_seed(0)
    mask = keep_mask(torch.Size([64, 12_500]), p)
    assert mask.dtype == torch.bool
    error = (p * (1 - p) / mask.numel()) ** 0.5
    assert 1 - mask.float().mean().item() == pytest.approx(p, abs=5 * error)
    lanes = 1 - mask.view(-1, 8).float().mean(0)  # values that share a draw
    assert lanes.tolist() == pytest.approx([p] * 8, abs=5 * error * 8**0.5)


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_values_of_one_draw_are_independent(p):
    torch.manual_seed(0)
    drops = 1 - keep_mask(torch.Size([100_000, 8]), p).double()
    both = drops.T @ drops / len(drops)  # (8, 8), the chance that two are dropped
    off = both - torch.diag(both.diagonal()) + p * p * torch.eye(8, dtype=torch.float64)
    assert off.flatten().tolist() == pytest.approx([p * p] * 64, abs=0.006)
    following = (drops[:-1] * drops[1:]).mean(0)
    assert following.tolist() == pytest.approx([p * p] * 8, abs=0.006)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (7,), (2, 2, 9), (0, 4)])
def test_any_shape(shape):
    assert keep_mask(torch.Size(shape), 0.5).shape == shape
    assert keep_mask(torch.Size(shape), 0.1).shape == shape


def test_what_is_kept_is_scaled_and_takes_the_gradient():
    torch.manual_seed(0)
    x = torch.full((50, 40), 3.0, requires_grad=True)
    y = dropout(x, 0.25, training=True)
    assert set(y.detach().unique().tolist()) == {0.0, 4.0}
    y.sum().backward()
    assert torch.equal(x.grad, (y.detach() > 0) * (1 / 0.75))
    assert y.mean().item() == pytest.approx(3.0, abs=0.2)


def test_in_evaluation_and_at_p_0_nothing_happens():
    x = torch.randn(5, 5)
    state = torch.get_rng_state()
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    module = Dropout(0.5).eval()
    assert module(x) is x
    assert torch.equal(state, torch.get_rng_state())
    assert not dropout(x, 1.0, training=True).any()


def test_it_repeats_with_torch_s_global_generator_and_with_nothing_else():
    module, x = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(5)
    first, second = module(x), module(x)
    torch.manual_seed(5)
    assert torch.equal(first, module(x))
    assert torch.equal(second, module(x))
    assert not torch.equal(first, second)
