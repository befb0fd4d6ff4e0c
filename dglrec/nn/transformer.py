"""A causal transformer over packed sequences (SASRec, Kang and McAuley, ICDM 2018, in RecBole's post-norm form).

Embedding, norms, projections and feed-forward run on packed rows, so that no padding is computed there. Attention alone
scatters its rows into buckets of similar length, padded on the right to the bucket's longest sequence: behind a causal
mask, padding is never looked at. Where only the last state of a sequence is wanted, the last block computes no keys and
no values: the query is taken through the key's weights to the inputs, and the mixture of inputs through the value's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError
from ..graphs import as_sequences
from .dropout import Dropout, dropout, dropout_factors

BUCKET_RATIO = 0.7  # of the shortest to the longest sequence of a bucket: a CPU pays for each bucket and for each slot
USES_BUCKETS = ("cpu",)  # on other devices one bucket holds all: there a launch costs more than padding


@dataclass(frozen=True, eq=False)
class Slots:
    """Where rows stand in padded buckets, and back.

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
    """A padding slot takes no gradient, as no real row looks at it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class Buckets:
    """Sequences of similar length, padded to the longest of them; buckets lie one behind the other in one flat array.

    Args:
        lengths: (B,) lengths, all of them at least 1, on the host.
        device: of the index tensors; those named in `USES_BUCKETS` get buckets, others a single one.

    Attributes:
        shapes: (rows, length) of each bucket, longest first.
        order: (B,) the sequences, in the order in which they fill the buckets.
        lengths: (B,) lengths in that order.
    """

    def __init__(self, lengths: np.ndarray, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        order = np.argsort(-lengths, kind="stable")
        self._lengths = lengths[order]
        self._starts = (np.cumsum(lengths) - lengths)[order]  # first packed row of a sequence
        self.shapes: list[tuple[int, int]] = []
        first = 0
        while first < len(lengths):
            longest = int(self._lengths[first])
            shortest = int(longest * BUCKET_RATIO) + 1 if device.type in USES_BUCKETS else 1
            rows = int(np.searchsorted(-self._lengths[first:], -shortest, side="right"))
            self.shapes.append((rows, longest))
            first += rows
        self._widths = np.repeat([length for _, length in self.shapes], [rows for rows, _ in self.shapes])  # (B,)
        self.order = torch.as_tensor(order, device=device)
        self.lengths = torch.as_tensor(self._lengths, device=device)
        self._slots: dict[int, Slots] = {}  # by heads

    def slots(self, heads: int = 1) -> Slots:
        """Slots of rows that hold `heads` heads each, one head of a sequence behind the other: (T * heads,) rows."""
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
    slots = buckets.slots(heads)
    rows = (x.reshape(len(slots.places), -1) for x in (query, key, value))
    q, k, v = (slots.pad(x) for x in rows)  # (P, d / heads) each
    if query.device.type in USES_BUCKETS:
        mixed: Tensor = _BucketAttention.apply(q, k, v, [(n * heads, length) for n, length in buckets.shapes], p)  # type: ignore[no-untyped-call]
    else:  # a single bucket: PyTorch's own kernel
        (count, length), *_ = buckets.shapes
        q, k, v = (x.view(count, heads, length, -1) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True).flatten(0, 2)
    return slots.unpad(mixed).view(query.shape)


def full_attention(query: Tensor, key: Tensor, value: Tensor, buckets: Buckets, heads: int, p: float) -> Tensor:
    """Softmax attention of each position to all positions of its sequence, with dropout `p` on the weights.

    Shapes: packed rows (T, d) each, d of all heads together -> (T, d).
    """
    slots = buckets.slots(heads)
    padded = (slots.pad(x.reshape(len(slots.places), -1)) for x in (query, key, value))  # (P, d / heads) each
    shapes = [(rows * heads, length) for rows, length in buckets.shapes]
    lengths = buckets.lengths.repeat_interleave(heads).split([rows for rows, _ in shapes])
    mixed = []
    for (q, k, v), n in zip(_views(shapes, *padded), lengths, strict=True):
        real = torch.arange(k.shape[1], device=k.device) < n[:, None]  # (b, L): what is not padding
        mixed.append(F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None], dropout_p=p).flatten(0, 1))
    return slots.unpad(torch.cat(mixed)).view(query.shape)


class _BucketAttention(torch.autograd.Function):
    """Causal attention, bucket by bucket, with the products of a bucket as the only small operations.

    Softmax weights of all buckets lie in one flat array, so that dropout and both halves of the backward pass are one
    operation each. With weights W, dropped weights W' = W * keep, outputs O = W' V and their gradient dO, the gradient
    of the scores is W * (keep * dO V^T - D), where D, the sum of W' * dO V^T over a row, equals the sum of dO * O.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shapes: list[tuple[int, int]], p: float) -> Tensor:
        scale = 1 / math.sqrt(q.shape[1])
        weights, mixed = q.new_empty(sum(n * length * length for n, length in shapes)), torch.empty_like(v)
        longest = shapes[0][1]
        hidden = torch.full((longest, longest), -math.inf, dtype=q.dtype).triu_(1)
        for (qb, kb), wb in zip(_views(shapes, q, k), _squares(shapes, weights), strict=True):
            length = wb.shape[1]
            torch.baddbmm(hidden[:length, :length], qb, kb.transpose(1, 2), alpha=scale, out=wb)
            torch.softmax(wb, 2, out=wb)
        keep = dropout_factors(weights.shape, p, weights.dtype) if p else None
        dropped = weights if keep is None else weights * keep
        for (vb, ob), wb in zip(_views(shapes, v, mixed), _squares(shapes, dropped), strict=True):
            torch.bmm(wb, vb, out=ob)
        ctx.save_for_backward(q, k, v, mixed, weights, keep, dropped)
        ctx.shapes, ctx.scale = shapes, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mixed, weights, keep, dropped = ctx.saved_tensors
        shapes = ctx.shapes
        grad = grad.contiguous()
        dq, dk, dv, dw = (torch.empty_like(x) for x in (q, k, v, weights))
        rows = (grad * mixed).sum(1, keepdim=True)  # D
        for (vb, gb, dvb), wb, dwb in zip(
            _views(shapes, v, grad, dv), _squares(shapes, dropped), _squares(shapes, dw), strict=True
        ):
            torch.bmm(wb.transpose(1, 2), gb, out=dvb)
            torch.bmm(gb, vb.transpose(1, 2), out=dwb)
        if keep is not None:
            dw.mul_(keep)
        for (rb,), dwb in zip(_views(shapes, rows), _squares(shapes, dw), strict=True):
            dwb.sub_(rb)
        dw.mul_(weights).mul_(ctx.scale)
        for (qb, kb, dqb, dkb), dwb in zip(_views(shapes, q, k, dq, dk), _squares(shapes, dw), strict=True):
            torch.bmm(dwb, kb, out=dqb)
            torch.bmm(dwb.transpose(1, 2), qb, out=dkb)
        return dq, dk, dv, None, None


def _views(shapes: list[tuple[int, int]], *flat: Tensor) -> list[tuple[Tensor, ...]]:
    """(P, d) arrays -> for each bucket their (rows, length, d) views."""
    sizes = [rows * length for rows, length in shapes]
    parts = [[part.view(n, length, -1) for part, (n, length) in zip(x.split(sizes), shapes, strict=True)] for x in flat]
    return list(zip(*parts, strict=True))


def _squares(shapes: list[tuple[int, int]], flat: Tensor) -> list[Tensor]:
    """One number a pair of positions -> for each bucket its (rows, length, length) view."""
    sizes = [rows * length * length for rows, length in shapes]
    return [part.view(n, length, length) for part, (n, length) in zip(flat.split(sizes), shapes, strict=True)]


class CausalTransformer(nn.Module):
    """Item + position -> LayerNorm -> dropout -> `layers` post-norm blocks of causal self-attention and feed-forward.

    Args:
        dim: width d of items, positions and states.
        max_length: number of positions; a longer sequence is an error (cut it with `Sequences.last`).
        layers, heads, inner: blocks, attention heads, width of the feed-forward layer.
        dropout, attention_dropout: probabilities for rows and for attention weights.
        epsilon: of the layer norms (RecBole: 1e-12).

    Shapes: graph or sequences of B users and T items, table (M, d) -> states (T, d), or (B, d) with `last=True`.
    """

    attention: ClassVar[Any] = staticmethod(causal_attention)

    def __init__(
        self,
        dim: int = 64,
        max_length: int = 50,
        layers: int = 2,
        heads: int = 2,
        inner: int = 256,
        dropout: float = 0.5,
        attention_dropout: float = 0.5,
        epsilon: float = 1e-12,
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.position = nn.Embedding(max_length, dim)
        self.norm = nn.LayerNorm(dim, eps=epsilon)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, heads, inner, dropout, attention_dropout, epsilon, self.attention) for _ in range(layers)
        )

    def forward(self, graph: Any, x: Tensor, last: bool = False) -> Tensor:
        """Encode the sequences of `graph` (a user-item DGL graph, or packed `Sequences`) over the item table `x`.

        With `last=True` the last block computes the last position of each sequence only, where the rest is not needed.

        Raises:
            DataError: a sequence is empty or longer than `max_length`.
        """
        packed = as_sequences(graph)
        lengths = packed.lengths
        if len(lengths) == 0 or lengths.min() < 1 or lengths.max() > self.max_length:
            seen = f"lengths {lengths.min()} to {lengths.max()}" if len(lengths) else "no sequences"
            raise DataError(
                f"the encoder got {seen}; expected 1 to {self.max_length} items (cut with .last({self.max_length}))"
            )
        buckets = Buckets(lengths, packed.items.device)
        starts = torch.repeat_interleave(packed.offsets[:-1], packed.offsets.diff(), output_size=packed.items.shape[0])
        position = torch.arange(packed.items.shape[0], device=packed.items.device) - starts  # (T,)
        states = self.dropout(self.norm(F.embedding(packed.items, x) + self.position(position)))  # (T, d)
        final = packed.offsets[1:] - 1  # (B,) rows of the last positions
        for number, block in enumerate(self.blocks):
            only = final if last and number == len(self.blocks) - 1 else None
            states = block(states, buckets, only)
        return states if not last or len(self.blocks) else states[final]


class BidirectionalTransformer(CausalTransformer):
    """The same with attention to all positions of a sequence, the later ones too."""

    attention: ClassVar[Any] = staticmethod(full_attention)


class Block(nn.Module):
    """One post-norm block: x = LN(x + attention(x)), x = LN(x + feed-forward(x)) with exact GELU."""

    def __init__(
        self,
        dim: int,
        heads: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
        epsilon: float,
        attention: Any = causal_attention,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.inner, self.outer = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.attention_norm, self.norm = nn.LayerNorm(dim, eps=epsilon), nn.LayerNorm(dim, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, buckets: Buckets, only: Tensor | None = None) -> Tensor:
        """(T, d) -> (T, d), or (B, d) for the rows `only` (B,), the last of each sequence."""
        if only is None:
            p = self.attention_dropout if self.training else 0.0
            mixed = self.attention(self.query(x), self.key(x), self.value(x), buckets, self.heads, p)
        else:
            mixed = self._attend_last(x, only, buckets)
            x = x[only]
        x = self.attention_norm(x + self.dropout(self.out(mixed)))
        return self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))

    def _attend_last(self, x: Tensor, only: Tensor, buckets: Buckets) -> Tensor:
        """Attention of the rows `only` (B,), the last of each sequence, over packed rows x (T, d) -> (B, d).

        The score of a row x_t is q . (W_k x_t + b_k) = (W_k^T q) . x_t + a constant that softmax drops, and the mixture
        of values is W_v (sum of w_t x_t) + (sum of w_t) b_v: two products a sequence in place of two a position.
        """
        heads, dim = self.heads, x.shape[1]
        width = dim // heads
        query = self.query(x[only])[buckets.order].view(-1, heads, width) * width**-0.5  # (B, h, d/h)
        query = torch.einsum("bhw,hwd->bhd", query, self.key.weight.view(heads, width, dim))
        padded = buckets.slots().pad(x)  # (P, d)
        counts = [rows for rows, _ in buckets.shapes]
        mixed, total = [], []
        for (part,), q, n in zip(
            _views(buckets.shapes, padded), query.split(counts), buckets.lengths.split(counts), strict=True
        ):
            hidden = torch.arange(part.shape[1], device=x.device) >= n[:, None]  # (b, L)
            weights = (q @ part.transpose(1, 2)).masked_fill(hidden[:, None], -math.inf).softmax(2)  # (b, h, L)
            weights = dropout(weights, self.attention_dropout, self.training)
            mixed.append(weights @ part)  # (b, h, d)
            total.append(weights.sum(2))
        value, bias = self.value.weight.view(heads, width, dim), self.value.bias.view(heads, width)
        out = torch.einsum("bhd,hwd->bhw", torch.cat(mixed), value) + torch.cat(total)[:, :, None] * bias
        out = out.reshape(-1, dim)
        return torch.empty_like(out).index_copy(0, buckets.order, out)
