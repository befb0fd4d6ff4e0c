"""Losses: pure functions of vectors. Each says what it averages over."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # of a chunk of logits: in a CPU's cache, enough work for a GPU
LARGEST_EXPONENT = 60.0  # exp(60) times a million items stays below the largest float32
_HALF = (torch.bfloat16, torch.float16)


def alignment(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of positive pairs (Wang and Isola, ICML 2020; GSAU Eq. 4).

    Shapes: unit rows x (B, d), y (B, d) -> scalar.
    """
    return (x - y).square().sum(1).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """log of the mean of exp(-t ||x_a - x_b||^2) over the B (B - 1) / 2 pairs of rows (GSAU Eq. 5).

    Pairs of equal rows (a user who is twice in the batch) count, as in the public codes. A batch of one row has no
    pairs and gives 0.

    Shapes: unit rows (B, d) -> scalar.
    """
    if x.shape[0] < 2:
        return x.sum() * 0
    return _precisely(_Uniformity, x, t)


def _precisely(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """`function` of the inputs without autocast, half precision raised to float32, as it sums many numbers."""
    inputs = tuple(x.float() if isinstance(x, Tensor) and x.dtype in _HALF else x for x in inputs)
    with _no_autocast(inputs[0].device.type):
        value: Tensor = function.apply(*inputs)
    return value


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Operations in the precision of their inputs."""
    autocast = device in ("cpu", "cuda") and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if autocast else nullcontext()


class _Uniformity(torch.autograd.Function):
    """The gradient is made with the value, so that no (B, B) array is kept: 2 products and one exponential per pair."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: float) -> Tensor:
        pairs = x @ x.T  # (B, B); for unit rows -t ||a - b||^2 = 2 t (a.b - 1)
        pairs.sub_(1).mul_(2 * t).exp_().fill_diagonal_(0)
        total = pairs.sum()  # each pair twice
        ctx.save_for_backward((pairs @ x).mul_(4 * t / total) if ctx.needs_input_grad[0] else None)
        return (total / (x.shape[0] * (x.shape[0] - 1))).log()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad, None


def cross_uniformity(x: Tensor, y: Tensor, t: float = 2.0) -> Tensor:
    """log of the mean of exp(-t ||x_b - y_b||^2) over given negative pairs: GSAU's third subset of Eq. 9.

    Shapes: unit rows x (B, d), y (B, d), row b of y a negative of row b of x -> scalar.
    """
    return (-t * (x - y).square().sum(1)).exp().mean().log()


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking, mean of -log sigmoid(positive - negative) (Rendle et al., UAI 2009).

    Shapes: scores (B,), (B,) or (B, n) -> scalar.
    """
    return F.softplus(negative - (positive if negative.ndim == 1 else positive[:, None])).mean()


def hinge(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of max(0, 1 - positive + negative) over pairs of scores, as the public code of SelfGNN trains.

    Shapes: scores (P,), (P,) -> scalar.
    """
    return F.relu(1 - positive + negative).mean()


def pair_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of scores that should be high and of as many that should be low (L_rec of HardGNN).

    Shapes: scores (P,), (P,) -> scalar.
    """
    return (F.softplus(-positive).mean() + F.softplus(negative).mean()) / 2


def sum_of_squares(x: Tensor) -> Tensor:
    """The sum over all values, as a regulariser: one pass to compute it and one for its gradient.

    Shapes: any -> scalar.
    """
    total: Tensor = _SumOfSquares.apply(x)  # type: ignore[no-untyped-call]
    return total


class _SumOfSquares(torch.autograd.Function):
    """`x.dot(x)`; PyTorch would compute its gradient twice, as for two vectors, and add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.flatten().dot(x.flatten())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (2 * grad)


def info_nce(
    anchor: Tensor, positive: Tensor, negative: Tensor, tau: float = 0.1, hidden: Tensor | None = None
) -> Tensor:
    """Mean of -log softmax of cosines over `tau`, at the positive (van den Oord et al., 2018).

    HardGNN's Eq. 12; with a queue of negatives it is MoCo's (He et al., CVPR 2020) and GAL-Rec's. A row without
    negatives gives 0.

    Shapes: anchor (B, d), positive (B, d), negative (B, K, d), separate for each row, or (K, d), the same for all
    rows; hidden (B, K) bool, those that are not negatives of a row -> scalar.
    """
    parts = (part.float() if part.dtype in _HALF else part for part in (anchor, positive, negative))
    anchor, positive, negative = (F.normalize(part, dim=-1) for part in parts)
    own = (anchor * positive).sum(1, keepdim=True)  # (B, 1)
    with _no_autocast(anchor.device.type):  # else the negatives alone would be rounded
        others = anchor @ negative.T if negative.ndim == 2 else torch.einsum("bd,bkd->bk", anchor, negative)  # (B, K)
    if hidden is not None:
        others = others.masked_fill(hidden, -torch.inf)
    return -(torch.cat([own, others], 1) / tau).log_softmax(1)[:, 0].mean()


def item_cross_entropy(queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of softmax(queries @ items.T) at the targets, over all items, without keeping the logits.

    The logits of a chunk of rows are made, turned into the gradients of both inputs, and dropped: 3 matrix products in
    all, none of them twice, and no more memory than a chunk besides the two gradients.

    Shapes: queries (B, d), items (M, d), targets (B,) int64 -> scalar.
    """
    return _precisely(_ItemCrossEntropy, queries, items, targets)


class _ItemCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        rows, count = queries.shape[0], items.shape[0]
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        limit = LOGITS_BYTES.get(queries.device.type, LOGITS_BYTES["cpu"])
        chunk = min(rows, max(16, math.ceil(limit / (count * queries.element_size()))))
        # A logit is at most |q| |item|. Where that cannot overflow, no maximum is sought (on a GPU that would wait).
        bounded = queries.device.type == "cpu" and bool(
            queries.norm(dim=1).amax() * items.norm(dim=1).amax() < LARGEST_EXPONENT
        )
        query_grad = torch.empty_like(queries) if wanted else None
        item_grad = torch.zeros_like(items) if wanted else None
        total = queries.new_zeros((), dtype=torch.float32)
        buffer = queries.new_empty(chunk, count)
        for first in range(0, rows, chunk):
            part, target = queries[first : first + chunk], targets[first : first + chunk, None]
            logits = torch.mm(part, items.T, out=buffer[: len(part)])  # (c, M)
            at_target = logits.gather(1, target)
            if not bounded:
                top = logits.amax(1, keepdim=True)
                logits.sub_(top)
                at_target -= top
            weights = logits.exp_()
            norm = weights.sum(1, keepdim=True)
            total += (norm.log() - at_target).sum()
            if query_grad is not None and item_grad is not None:
                # the gradient of the logits is (softmax - one-hot) / B; the one-hot part follows below
                torch.mm(weights, items, out=query_grad[first : first + chunk]).div_(norm)
                item_grad.addmm_(weights.T, part / norm)
        if query_grad is not None and item_grad is not None:
            query_grad.sub_(items[targets]).div_(rows)
            item_grad.index_add_(0, targets, queries, alpha=-1).div_(rows)
        ctx.save_for_backward(query_grad, item_grad)
        return total / rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, item_grad = ctx.saved_tensors
        return query_grad * grad, item_grad.mul_(grad), None
