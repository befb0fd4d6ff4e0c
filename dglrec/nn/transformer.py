"""A causal transformer over packed sequences (SASRec, Kang and McAuley, ICDM 2018, in RecBole's post-norm form).

Embedding, norms, projections and feed-forward run on packed rows, so that no padding is computed there. Attention alone
scatters its rows into buckets of similar length, padded on the right to the bucket's longest sequence: behind a causal
mask, padding is never looked at. A bucket holds lengths in (0.8 n, n], so less than 20 % of its slots are padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError
from ..graphs import as_sequences
from .dropout import Dropout, dropout

BUCKET_RATIO = 0.8


@dataclass(frozen=True, eq=False)
class Buckets:
    """Where each packed row stands in the padded buckets, and back.

    Attributes:
        shapes: (rows, length) of each bucket, longest first; buckets lie one behind the other in one flat array.
        order: (B,) the sequences, in the order in which they fill the buckets.
        slots: (P,) the packed row in each slot; a padding slot repeats the last row of its sequence.
        places: (T,) the slot of each packed row.
        lengths: (B,) lengths, in the order of `order`.
    """

    shapes: list[tuple[int, int]]
    order: Tensor
    slots: Tensor
    places: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray, device: torch.device | str = "cpu") -> Buckets:
        """Plan the buckets for sequences of these lengths (B,), all of them at least 1, on the host."""
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        shapes, first = [], 0
        while first < len(ordered):
            longest = int(ordered[first])
            shortest = int(longest * BUCKET_RATIO) + 1  # lengths above 0.8 x the longest
            rows = int(np.searchsorted(-ordered[first:], -shortest, side="right"))
            shapes.append((rows, longest))
            first += rows
        widths = np.repeat([length for _, length in shapes], [rows for rows, _ in shapes])  # (B,) slots of a sequence
        ends = np.cumsum(widths)
        column = np.arange(int(ends[-1])) - np.repeat(ends - widths, widths)  # (P,)
        starts = (np.cumsum(lengths) - lengths)[order]  # first packed row of a sequence
        slots = np.repeat(starts, widths) + np.minimum(column, np.repeat(ordered - 1, widths))
        places = np.empty(int(lengths.sum()), dtype=np.int64)
        real = column < np.repeat(ordered, widths)
        places[slots[real]] = np.flatnonzero(real)
        tensors = (torch.as_tensor(array, device=device) for array in (order, slots, places, ordered))
        return cls(shapes, *tensors)

    @property
    def padding(self) -> float:
        """Share of slots that are padding."""
        return 1 - self.places.shape[0] / max(self.slots.shape[0], 1)

    def split(self, x: Tensor) -> list[Tensor]:
        """(P, d) or (B, d) rows in bucket order -> one (rows, length or 1, d) view a bucket."""
        per_slot = x.shape[0] == self.slots.shape[0] and x.shape[0] != self.order.shape[0]
        sizes = [rows * (length if per_slot else 1) for rows, length in self.shapes]
        return [part.view(rows, -1, x.shape[1]) for (rows, _), part in zip(self.shapes, x.split(sizes), strict=True)]


class _Pad(torch.autograd.Function):
    """(T, d) packed rows -> (P, d) slots. A padding slot takes no gradient, as the causal mask hides it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x[slots]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[ctx.saved_tensors[0]], None, None


class _Unpad(torch.autograd.Function):
    """(P, d) slots -> (T, d) packed rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.slots = x.shape[0]
        return x[places]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_grad = grad.new_zeros(ctx.slots, grad.shape[1])
        return x_grad.index_copy_(0, ctx.saved_tensors[0], grad), None


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
            Block(dim, heads, inner, dropout, attention_dropout, epsilon) for _ in range(layers)
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
        buckets = Buckets.of(lengths, packed.items.device)
        starts = torch.repeat_interleave(packed.offsets[:-1], packed.offsets.diff(), output_size=packed.items.shape[0])
        position = torch.arange(packed.items.shape[0], device=packed.items.device) - starts  # (T,)
        states = self.dropout(self.norm(F.embedding(packed.items, x) + self.position(position)))  # (T, d)
        final = packed.offsets[1:] - 1  # (B,) rows of the last positions
        for number, block in enumerate(self.blocks):
            only = final if last and number == len(self.blocks) - 1 else None
            states = block(states, buckets, only)
        return states if not last or len(self.blocks) else states[final]


class Block(nn.Module):
    """One post-norm block: x = LN(x + attention(x)), x = LN(x + feed-forward(x)) with exact GELU."""

    def __init__(
        self, dim: int, heads: int, inner: int, dropout: float, attention_dropout: float, epsilon: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.inner, self.outer = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.attention_norm, self.norm = nn.LayerNorm(dim, eps=epsilon), nn.LayerNorm(dim, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, buckets: Buckets, only: Tensor | None = None) -> Tensor:
        """(T, d) -> (T, d), or (B, d) for the rows `only` (B,), the last of each sequence."""
        key_value = F.linear(  # (T, 2d), one product for both
            x, torch.cat([self.key.weight, self.value.weight]), torch.cat([self.key.bias, self.value.bias])
        )
        keys = buckets.split(_Pad.apply(key_value, buckets.slots, buckets.places))  # type: ignore[no-untyped-call]
        if only is None:
            queries = buckets.split(_Pad.apply(self.query(x), buckets.slots, buckets.places))  # type: ignore[no-untyped-call]
        else:
            x = x[only]
            queries = buckets.split(self.query(x)[buckets.order])
        lengths = buckets.lengths.split([rows for rows, _ in buckets.shapes])
        mixed = torch.cat([self._attend(q, kv, n) for q, kv, n in zip(queries, keys, lengths, strict=True)])
        if only is None:
            mixed = _Unpad.apply(mixed, buckets.places)  # type: ignore[no-untyped-call]
        else:
            mixed = torch.empty_like(mixed).index_copy(0, buckets.order, mixed)
        x = self.attention_norm(x + self.dropout(self.out(mixed)))
        return self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))

    def _attend(self, query: Tensor, key_value: Tensor, lengths: Tensor) -> Tensor:
        """(b, L or 1, d), (b, L, 2d), (b,) -> (b * L or b, d); a single query is the last position of its sequence."""
        rows, length, _ = key_value.shape
        q = query.view(rows, query.shape[1], self.heads, -1).transpose(1, 2)  # (b, h, L or 1, d/h)
        k, v = key_value.view(rows, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # (b, h, L, d/h) each
        scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5  # (b, h, L or 1, L)
        column = torch.arange(length, device=query.device)
        single = query.shape[1] == 1
        hidden = (column >= lengths[:, None])[:, None, None, :] if single else column > column[:, None]
        weights = dropout(scores.masked_fill(hidden, float("-inf")).softmax(-1), self.attention_dropout, self.training)
        return (weights @ v).transpose(1, 2).reshape(-1, query.shape[2])
