"""Attention within many short sequences, pooled at once: SelfGNN among the time slices of a node (Eq. 5).

With a dozen slices and heads of width 4, a matrix product per node and head is so small that calling it costs more than
its arithmetic. On a CPU, nodes are therefore the innermost dimension here: each operation runs over many nodes at once,
one query after another, and over few enough nodes for all to stay in the cache.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**16  # weights of one query that are worked on at once: 256 KB per array
LAUNCHED = 65_535  # sequences that CUDA's kernels of attention take at once


def mean_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, known: Tensor | None = None) -> Tensor:
    """The mean over t of sum_s softmax_s(q_t k_s / sqrt(w)) v_s, in each of `heads` heads of width w = d / heads.

    Shapes: (T, A, d) each, T positions of A sequences; `known` (T, A) bool, the positions that s and t run over, at
    least one per sequence, or None for all -> (A, d).
    """
    if query.device.type == "cpu":
        mean: Tensor = _MeanAttention.apply(query, key, value, heads, known)  # type: ignore[no-untyped-call]
        return mean
    return _by_kernel(query, key, value, heads, known)


def last_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, known: Tensor | None = None) -> Tensor:
    """What one position of each sequence attends to: sum_s softmax_s(q k_s / sqrt(w)) v_s.

    Shapes: query (A, d), key and value (T, A, d); `known` (T, A) bool as in `mean_attention` -> (A, d).
    """
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in (query, key, value))
    scores = (q * k).sum(3) / math.sqrt(q.shape[2])  # (T, A, h)
    if known is not None:
        scores = scores.masked_fill(~known.unsqueeze(2), -torch.inf)
    return (scores.softmax(0).unsqueeze(3) * v).sum(0).flatten(1)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, heads: int, known: Tensor | None) -> Tensor:
    """`mean_attention` by PyTorch's kernel, as on a GPU."""
    out = []
    for start in range(0, max(query.shape[1], 1), LAUNCHED):
        part = slice(start, start + LAUNCHED)
        mask = None if known is None else known[:, part]
        out.append(_launched(query[:, part], key[:, part], value[:, part], heads, mask))
    return torch.cat(out)


def _launched(query: Tensor, key: Tensor, value: Tensor, heads: int, known: Tensor | None) -> Tensor:
    """One call of the kernel."""
    q, k, v = (part.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for part in (query, key, value))  # (A, h, T, w)
    if known is None:
        return F.scaled_dot_product_attention(q, k, v).mean(2).flatten(1)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=known.T.contiguous()[:, None, None])
    share = (known / known.sum(0)).T[:, None, :, None]  # (A, 1, T, 1)
    return (mixed * share).sum(2).to(value.dtype).flatten(1)


class _MeanAttention(torch.autograd.Function):
    """A block of m sequences is laid out as (w, T, h, m): channels of a head, positions, heads, sequences.

    With weights a_ts of query t, shares n_t of the mean and the output's gradient g, the output is
    sum_s v_s (sum_t n_t a_ts), and the gradient of the score of t and s is n_t a_ts (g v_s - sum_r a_tr g v_r).
    Weights are not kept: the backward pass computes them again, which costs less than reading them from memory.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, known: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.heads, ctx.known = heads, known
        out = torch.empty_like(query[0])
        for block in _blocks(query, heads):
            q, k, v = (_laid_out(part, block, heads) for part in (query, key, value))  # (w, T, h, m)
            share, hidden = _positions(k, known, block)
            weight, mean = torch.empty_like(k[0]), torch.zeros_like(k[0])  # (T, h, m): of one query, over all
            for t in range(len(query)):
                mean.addcmul_(_softmax(q[:, t], k, hidden, weight), share[t])
            out[block] = (mean * v).sum(1).permute(2, 1, 0).flatten(1)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts, heads = ctx.saved_tensors, ctx.heads
        grads = [torch.empty_like(part) for part in parts]
        for block in _blocks(parts[0], heads):
            q, k, v = (_laid_out(part, block, heads) for part in parts)  # (w, T, h, m)
            share, hidden = _positions(k, ctx.known, block)
            g = _laid_out(grad.unsqueeze(0), block, heads)  # (w, 1, h, m)
            dweight = (v * g).sum(0)  # (T, h, m), the same for each query except for its share
            weight, dscore, mean = torch.empty_like(k[0]), torch.empty_like(k[0]), torch.zeros_like(k[0])
            dq, dk, product = torch.empty_like(q), torch.zeros_like(k), torch.empty_like(k)
            for t in range(len(parts[0])):
                mean.addcmul_(_softmax(q[:, t], k, hidden, weight), share[t])
                torch.mul(weight, dweight, out=dscore)
                dscore.addcmul_(weight, dscore.sum(0), value=-1)
                dq[:, t] = torch.mul(k, dscore, out=product).sum(1).mul_(share[t])
                dk.addcmul_((q[:, t] * share[t]).unsqueeze(1), dscore)
            scale = 1 / math.sqrt(len(k))
            for out, one in zip(grads, (dq * scale, dk * scale, mean * g), strict=True):
                out[:, block] = one.permute(1, 3, 2, 0).flatten(2)
        return *grads, None, None


def _blocks(query: Tensor, heads: int) -> list[slice]:
    """The sequences, as many at a time as `BLOCK` allows."""
    positions, count, _ = query.shape
    size = max(BLOCK // (positions * heads), 16)
    return [slice(start, start + size) for start in range(0, count, size)]


def _laid_out(part: Tensor, block: slice, heads: int) -> Tensor:
    """(T, A, d) -> (w, T, h, m) for the m sequences of a block, in float32 at least."""
    dtype = torch.promote_types(part.dtype, torch.float32)
    return part[:, block].unflatten(2, (heads, -1)).permute(3, 0, 2, 1).to(dtype).contiguous()


def _positions(key: Tensor, known: Tensor | None, block: slice) -> tuple[Tensor, Tensor | None]:
    """The share (T, m) of each position in the mean, and which of them (T, 1, m) have no weight."""
    if known is None:
        return key.new_full((key.shape[1], 1), 1 / key.shape[1]), None
    own = known[:, block]
    return own.to(key.dtype) / own.sum(0), ~own.unsqueeze(1)


def _softmax(query: Tensor, key: Tensor, hidden: Tensor | None, out: Tensor) -> Tensor:
    """The weights (T, h, m) of one query (w, h, m) for keys (w, T, h, m), into `out`."""
    query = query / math.sqrt(len(query))
    torch.mul(query[0], key[0], out=out)
    for channel in range(1, len(query)):
        out.addcmul_(query[channel], key[channel])
    if hidden is not None:
        out.masked_fill_(hidden, -torch.inf)
    out.sub_(out.amax(0)).exp_()
    return out.mul_(out.sum(0).reciprocal_())
