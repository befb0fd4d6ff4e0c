"""Attention within packed sequences, by buckets of similar length.

Rows of all sequences are stored one after the other, (T, d), and everything except attention is computed on them so.
For attention they are scattered into buckets, padded on the right to the bucket's longest sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import dropout, dropout_factors

BUCKET_RATIO = 0.7  # of the shortest to the longest sequence of a bucket: on a CPU each bucket and each slot costs time
USES_BUCKETS = ("cpu",)  # on other devices one bucket holds all: there a launch costs more than padding


@dataclass(frozen=True, eq=False)
class Slots:
    """The places of rows in padded buckets, and back.

    Attributes:
        slots: (P,) the row in each slot; a padding slot repeats the last row of its sequence.
        places: (T,) the slot of each row.
    """

    slots: Tensor
    places: Tensor

    def pad(self, x: Tensor) -> Tensor:
        """(T, d) packed rows -> (P, d)."""
        padded: Tensor = _Pad.apply(x, self.slots, self.places)  # type: ignore[no-untyped-call]
        return padded

    def unpad(self, x: Tensor) -> Tensor:
        """(P, d) -> (T, d); the backward pass gives 0 to padding."""
        return x.index_select(0, self.places)


class _Pad(torch.autograd.Function):
    """A padding slot takes no gradient, as no real row attends to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class Buckets:
    """Sequences of similar length, padded to the longest of them; buckets are stored one after another in a flat array.

    Args:
        lengths: (B,) lengths, all of them at least 1, on the host.
        device: of the index tensors.
        several: whether there are several buckets, or one; None for what is faster on the device, see `USES_BUCKETS`.

    Attributes:
        shapes: (rows, length) of each bucket, longest first.
        order: (B,) the sequences, in the order in which they fill the buckets.
        lengths: (B,) lengths in that order.
    """

    def __init__(self, lengths: np.ndarray, device: torch.device | str = "cpu", several: bool | None = None) -> None:
        device = torch.device(device)
        several = device.type in USES_BUCKETS if several is None else several
        order = np.argsort(-lengths, kind="stable")
        self._lengths = lengths[order]
        self._starts = (np.cumsum(lengths) - lengths)[order]  # first packed row of a sequence
        self.shapes: list[tuple[int, int]] = []
        first = 0
        while first < len(lengths):
            longest = int(self._lengths[first])
            shortest = int(longest * BUCKET_RATIO) + 1 if several else 1
            rows = int(np.searchsorted(-self._lengths[first:], -shortest, side="right"))
            self.shapes.append((rows, longest))
            first += rows
        self._widths = np.repeat([length for _, length in self.shapes], [rows for rows, _ in self.shapes])  # (B,)
        self.order = torch.as_tensor(order, device=device)
        self.lengths = torch.as_tensor(self._lengths, device=device)
        self._slots: dict[int, Slots] = {}  # by heads

    def slots(self, heads: int = 1) -> Slots:
        """Slots of rows that hold `heads` heads each, a sequence's heads one after the other: (T * heads,) rows."""
        if heads not in self._slots:
            self._slots[heads] = self._plan(heads)
        return self._slots[heads]

    def _plan(self, heads: int) -> Slots:
        widths, lengths = np.repeat(self._widths, heads), np.repeat(self._lengths, heads)  # a head is a sequence
        head = np.tile(np.arange(heads), len(self._widths))
        ends = np.cumsum(widths)
        column = np.arange(int(ends[-1])) - np.repeat(ends - widths, widths)  # (P,)
        row = np.repeat(np.repeat(self._starts, heads), widths) + np.minimum(column, np.repeat(lengths - 1, widths))
        slots = row * heads + np.repeat(head, widths)
        places = np.empty(int(lengths.sum()), dtype=np.int64)
        real = column < np.repeat(lengths, widths)
        places[slots[real]] = np.flatnonzero(real)
        device = self.order.device
        return Slots(torch.as_tensor(slots, device=device), torch.as_tensor(places, device=device))

    @property
    def padding(self) -> float:
        """Share of slots that are padding."""
        return 1 - float(self._lengths.sum()) / float(self._widths.sum())


def causal_attention(query: Tensor, key: Tensor, value: Tensor, buckets: Buckets, heads: int, p: float) -> Tensor:
    """Softmax attention of each position to itself and those before it, with dropout `p` on the weights.

    Shapes: packed rows (T, d) each, d of all heads together -> (T, d).
    """
    if query.device.type in USES_BUCKETS:
        longest = buckets.shapes[0][1]
        later = torch.full((1, longest, longest), -math.inf, dtype=query.dtype).triu_(1)
        return _in_buckets(query, key, value, later, buckets, heads, p=p)
    slots = buckets.slots(heads)  # a single bucket: PyTorch's own kernel
    (count, length), *_ = buckets.shapes
    q, k, v = (_by_head(x, slots).view(count, heads, length, -1) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True).flatten(0, 2)
    return slots.unpad(mixed).view(query.shape)


def full_attention(query: Tensor, key: Tensor, value: Tensor, buckets: Buckets, heads: int, p: float) -> Tensor:
    """Softmax attention of each position to all positions of its sequence, with dropout `p` on the weights.

    Shapes: packed rows (T, d) each, d of all heads together -> (T, d).
    """
    if p and query.device.type in USES_BUCKETS:  # where PyTorch's fused kernel has no dropout
        longest = buckets.shapes[0][1]
        nothing = query.new_zeros(1, longest, longest)
        return _in_buckets(query, key, value, nothing, buckets, heads, p=p, hides_padding=True)
    slots = buckets.slots()
    padded = (slots.pad(x) for x in (query, key, value))  # (P, d) each
    lengths = buckets.lengths.split([rows for rows, _ in buckets.shapes])
    mixed = []
    for views, n in zip(bucket_views(buckets.shapes, *padded), lengths, strict=True):
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in views)  # (b, h, L, d / heads)
        real = torch.arange(k.shape[2], device=k.device) < n[:, None]  # (b, L): what is not padding
        # Four dimensions, as PyTorch has no fused kernel for another number of them.
        one = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None], dropout_p=p)
        mixed.append(one.transpose(1, 2).flatten(2).flatten(0, 1))
    return slots.unpad(torch.cat(mixed))


def biased_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, buckets: Buckets) -> Tensor:
    """Softmax attention of each position to all of its sequence, with a learned bias and without a scale, as in T5.

    Shapes: packed rows (T, d) each; bias (h, L, L) of h heads and pairs of positions, L the longest -> (T, d).
    """
    heads = len(bias)
    if query.device.type in USES_BUCKETS:
        return _in_buckets(query, key, value, bias.to(query.dtype), buckets, heads, scale=1.0, hides_padding=True)
    slots = buckets.slots(heads)
    parts = []
    own = buckets.lengths.split([rows for rows, _ in buckets.shapes])
    shapes = [(rows * heads, length) for rows, length in buckets.shapes]
    views = bucket_views(shapes, *(_by_head(x, slots) for x in (query, key, value)))
    for (qb, kb, vb), n in zip(views, own, strict=True):
        length = qb.shape[1]
        padding = torch.arange(length, device=n.device) >= n[:, None]  # (b, L)
        added = bias[:, :length, :length].masked_fill(padding[:, None, None], -math.inf).to(qb.dtype)  # (b, h, L, L)
        qb, kb, vb = (x.unflatten(0, (-1, heads)) for x in (qb, kb, vb))
        parts.append(F.scaled_dot_product_attention(qb, kb, vb, attn_mask=added, scale=1.0).flatten(0, 2))
    return slots.unpad(torch.cat(parts)).view(query.shape)


def _by_head(x: Tensor, slots: Slots) -> Tensor:
    """Packed rows (T, d) as padded rows of single heads, (P, d / heads)."""
    return slots.pad(x.reshape(len(slots.places), -1))


def _in_buckets(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    buckets: Buckets,
    heads: int,
    *,
    scale: float | None = None,
    p: float = 0.0,
    hides_padding: bool = False,
) -> Tensor:
    """`_BucketAttention` of packed rows (T, d); the scale of scores is that of a softmax attention by default."""
    slots = buckets.slots(heads)
    q, k, v = (_by_head(x, slots) for x in (query, key, value))
    scale = 1 / math.sqrt(q.shape[1]) if scale is None else scale
    mixed: Tensor = _BucketAttention.apply(q, k, v, bias, buckets, scale, p, hides_padding)  # type: ignore[no-untyped-call]
    return slots.unpad(mixed).view(query.shape)


def query_attention(
    query: Tensor, rows: Tensor, key: Tensor, value: nn.Linear, buckets: Buckets, p: float = 0.0
) -> Tensor:
    """Attention of one query per sequence over its rows, without keys and values of each row.

    The score of a row x_t is q . (W_k x_t + b_k) = (W_k^T q) . x_t + a constant that softmax drops, and the mixture
    of values is W_v (sum of w_t x_t) + (sum of w_t) b_v: two products per sequence in place of two per position.

    Shapes: query (B, h, c), scaled; packed rows (T, d); key: W_k (h c, d) -> (B, h c).
    """
    heads, width, dim = query.shape[1], query.shape[2], rows.shape[1]
    query = torch.einsum("bhw,hwd->bhd", query[buckets.order], key.view(heads, width, dim))
    padded = buckets.slots().pad(rows)  # (P, d)
    counts = [count for count, _ in buckets.shapes]
    mixed, total = [], []
    for (part,), q, n in zip(
        bucket_views(buckets.shapes, padded), query.split(counts), buckets.lengths.split(counts), strict=True
    ):
        hidden = torch.arange(part.shape[1], device=rows.device) >= n[:, None]  # (b, L)
        weights = (q @ part.transpose(1, 2)).masked_fill(hidden[:, None], -math.inf).softmax(2)  # (b, h, L)
        weights = dropout(weights, p, p > 0)
        mixed.append(weights @ part)  # (b, h, d)
        total.append(weights.sum(2))
    out = torch.einsum("bhd,hwd->bhw", torch.cat(mixed), value.weight.view(heads, width, dim))
    if value.bias is not None:
        out = out + torch.cat(total)[:, :, None] * value.bias.view(heads, width)
    out = out.reshape(-1, heads * width)
    return torch.empty_like(out).index_copy(0, buckets.order, out)


class _BucketAttention(torch.autograd.Function):
    """Attention on a CPU, bucket by bucket, with the products of a bucket as the only small operations.

    Softmax weights of all buckets lie in one flat array, so that dropout and both halves of the backward pass are one
    operation each. With weights W, dropped weights W' = W * keep, outputs O = W' V and their gradient dO, the gradient
    of the scores is W * (keep * dO V^T - D), where D, the sum of W' * dO V^T over a row, equals the sum of dO * O.

    A bias of pairs of positions is added to the scores: (h, L, L), or (1, L, L) for all heads. One that hides later
    positions hides padding, too, as this comes last; with another one `hides_padding` is to be set.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        buckets: Buckets,
        scale: float,
        p: float,
        hides_padding: bool = False,
    ) -> Tensor:
        heads = len(q) // sum(rows * length for rows, length in buckets.shapes)
        shapes = [(rows * heads, length) for rows, length in buckets.shapes]
        weights, mixed = q.new_empty(sum(n * length * length for n, length in shapes)), torch.empty_like(v)
        lengths = buckets.lengths.split([rows for rows, _ in buckets.shapes])
        for (qb, kb), wb, own in zip(bucket_views(shapes, q, k), _squares(shapes, weights), lengths, strict=True):
            length = wb.shape[1]
            if len(bias) == 1:
                torch.baddbmm(bias[0, :length, :length], qb, kb.transpose(1, 2), alpha=scale, out=wb)
            else:
                torch.baddbmm(wb, qb, kb.transpose(1, 2), beta=0, alpha=scale, out=wb)
                wb.unflatten(0, (-1, heads)).add_(bias[:, :length, :length])
            if hides_padding:
                padding = torch.arange(length) >= own[:, None]  # (b, L)
                wb.unflatten(0, (-1, heads)).masked_fill_(padding[:, None, None], -math.inf)
            torch.softmax(wb, 2, out=wb)
        keep = dropout_factors(weights.shape, p, weights.dtype) if p else None
        dropped = weights if keep is None else weights * keep
        for (vb, ob), wb in zip(bucket_views(shapes, v, mixed), _squares(shapes, dropped), strict=True):
            torch.bmm(wb, vb, out=ob)
        ctx.save_for_backward(q, k, v, mixed, weights, keep, dropped)
        ctx.shapes, ctx.scale, ctx.bias = shapes, scale, bias.shape
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mixed, weights, keep, dropped = ctx.saved_tensors
        shapes = ctx.shapes
        grad = grad.contiguous()
        dq, dk, dv, dw = (torch.empty_like(x) for x in (q, k, v, weights))
        dbias = q.new_zeros(ctx.bias) if ctx.needs_input_grad[3] else None
        rows = (grad * mixed).sum(1, keepdim=True)  # D
        for (vb, gb, dvb), wb, dwb in zip(
            bucket_views(shapes, v, grad, dv), _squares(shapes, dropped), _squares(shapes, dw), strict=True
        ):
            torch.bmm(wb.transpose(1, 2), gb, out=dvb)
            torch.bmm(gb, vb.transpose(1, 2), out=dwb)
        if keep is not None:
            dw.mul_(keep)
        for (rb,), dwb in zip(bucket_views(shapes, rows), _squares(shapes, dw), strict=True):
            dwb.sub_(rb)
        dw.mul_(weights)
        if dbias is not None:
            for dwb in _squares(shapes, dw):
                dbias[:, : dwb.shape[1], : dwb.shape[1]] += dwb.unflatten(0, (-1, len(dbias))).sum(0)
        dw.mul_(ctx.scale)
        for (qb, kb, dqb, dkb), dwb in zip(bucket_views(shapes, q, k, dq, dk), _squares(shapes, dw), strict=True):
            torch.bmm(dwb, kb, out=dqb)
            torch.bmm(dwb.transpose(1, 2), qb, out=dkb)
        return dq, dk, dv, dbias, None, None, None, None


def bucket_views(shapes: list[tuple[int, int]], *flat: Tensor) -> list[tuple[Tensor, ...]]:
    """(P, d) arrays -> for each bucket their (rows, length, d) views."""
    sizes = [rows * length for rows, length in shapes]
    parts = [[part.view(n, length, -1) for part, (n, length) in zip(x.split(sizes), shapes, strict=True)] for x in flat]
    return list(zip(*parts, strict=True))


def _squares(shapes: list[tuple[int, int]], flat: Tensor) -> list[Tensor]:
    """One number per pair of positions -> for each bucket its (rows, length, length) view."""
    sizes = [rows * length * length for rows, length in shapes]
    return [part.view(n, length, length) for part, (n, length) in zip(flat.split(sizes), shapes, strict=True)]
