"""The two long-term levels of SelfGNN (Liu et al., SIGIR 2024; HardGNN, Eq. 3 to 8), and its weights of reliability.

`IntervalFusion` reads a node's vectors of the time slices in order; `InstanceEncoder` reads the items of a history.
Both attend without an output projection and after a layer norm, as in the public code; the paper only says Self-Att.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..graphs import Sequences
from .attention import Buckets, causal_attention, full_attention
from .dropout import Dropout
from .mean_attention import last_attention, mean_attention

Recurrent = Literal["gru", "lstm"]
Instance = Literal["attention", "causal", "collapsed"]
Pool = Literal["sum", "mean"]
SlicePool = Literal["mean", "last"]


class SelfAttention(nn.Module):
    """Layer norm, projections with bias, and softmax attention of `heads` heads, each position to all of its sequence.

    With `causal`, to itself and those before it. `IntervalFusion` uses norm and projections, and has its own pooling.

    Shapes: packed rows (T, d) with their `buckets` -> (T, d).

    Raises:
        ConfigError: heads do not divide dim.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"heads is {heads} and dim is {dim}; expected a dim that is divisible by heads")
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, buckets: Buckets) -> Tensor:
        """Attend within each sequence."""
        x = self.norm(x)
        parts = self.query(x), self.key(x), self.value(x)
        attend = causal_attention if self.causal else full_attention
        return attend(*parts, buckets, self.heads, 0.0)


class Slices(nn.Module):
    """From one vector per slice to one in all, without weights: the "mean" of the slices, or the "last" of them.

    On its own it replaces `IntervalFusion`, as an ablation; both sides are treated alike.

    Shapes: (T, A, d), with the numbers (A,) of slices that may be read or None for all -> (A, d), 0 where that is 0.
    """

    def __init__(self, pool: SlicePool = "mean") -> None:
        super().__init__()
        self.pool = pool

    def forward(self, slices: Tensor, side: int = 0, past: Tensor | None = None) -> Tensor:
        """One vector for each node, of its first `past` slices."""
        if past is None:
            return slices.mean(0) if self.pool == "mean" else slices[-1]
        if self.pool == "last":
            pooled = _newest(slices, past)
        else:
            read = torch.arange(len(slices), device=past.device)[:, None] < past  # (T, A)
            pooled = (slices * read.unsqueeze(2)).sum(0) / past.clamp(min=1).unsqueeze(1)
        return torch.where((past > 0).unsqueeze(1), pooled, 0.0)


def _newest(slices: Tensor, past: Tensor | None) -> Tensor:
    """The last slice (A, d) of (T, A, d), or of the first `past` of them (the first slice where that is 0)."""
    if past is None:
        return slices[-1]
    return slices[past.clamp(min=1) - 1, torch.arange(len(past), device=past.device)]


class IntervalFusion(nn.Module):
    """From one vector per slice to one in all: recurrent over slices (Eq. 3, 4), attention among them (Eq. 5), mean.

    Args:
        dim, heads: width d, attention heads.
        recurrent: "gru" (paper) or "lstm" (public code, with a forget bias of 1).
        dropout: of the recurrent states.
        shared: one recurrent cell for users and items (the public code of SelfGNN), or one each (that of HardGNN).
            Either side has its own attention.
        pool: the "mean" over slices (public code), or what the "last" of them attends to.

    Shapes: (T, A, d), the slices of A nodes of one side (0 users, 1 items) -> (A, d). With `past` (A,) int64, only a
    node's first `past` slices are read; 0 where that is 0.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        recurrent: Recurrent = "gru",
        dropout: float = 0.5,
        shared: bool = True,
        pool: SlicePool = "mean",
    ) -> None:
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[recurrent]
        self.cells = nn.ModuleList(kind(dim, dim) for _ in range(1 if shared else 2))
        for cell in self.cells:
            for name, weight in cell.named_parameters():
                nn.init.xavier_uniform_(weight) if weight.ndim > 1 else nn.init.zeros_(weight)
                if recurrent == "lstm" and name.startswith("bias_ih"):
                    nn.init.ones_(weight[dim : 2 * dim])
        self.attention = nn.ModuleList(SelfAttention(dim, heads) for _ in range(2))
        self.dropout = Dropout(dropout)
        self.pool = pool

    def forward(self, slices: Tensor, side: int, past: Tensor | None = None) -> Tensor:
        """Fuse the slices of users (`side` 0) or items (1)."""
        states, _ = self.cells[side % len(self.cells)](slices)  # (T, A, d); a state depends on no later slice
        attention: Any = self.attention[side]
        x = attention.norm(self.dropout(states))
        key, value, known = attention.key(x), attention.value(x), None
        if past is not None:
            known = torch.arange(len(x), device=x.device)[:, None] < past.clamp(min=1)  # (T, A), at least one place
        if self.pool == "last":
            fused = last_attention(attention.query(_newest(x, past)), key, value, attention.heads, known)
        else:
            fused = mean_attention(attention.query(x), key, value, attention.heads, known)
        return fused if past is None else torch.where((past > 0).unsqueeze(1), fused, 0.0)


class InstanceEncoder(nn.Module):
    """A history as one vector: items and positions (Eq. 6), layers of attention with residuals (Eq. 7), a sum (Eq. 8).

    Position M is that of the most recent item, however long the history is.

    Args:
        dim, heads, layers: width d, attention heads, layers L_a.
        max_length: positions M.
        slope: of LeakyReLU below 0.
        kind: "attention" over positions, Eq. 6 to 8 as printed; or "collapsed", what the public code computes. Its mask
            sums the items before anything else, so that a history is LN(sum of items) + LN(sum of positions), one
            vector whose attention to itself is a projection. "causal" is in neither: positions count from the oldest
            item, each attends to those before it, and the newest one is the history's vector, so that all its prefixes
            are encoded at once.
        pool: how Eq. 8 pools the positions of "attention": their "sum" as printed, or their "mean".

    Shapes: packed `Sequences` of B histories, table (N, d) that their items point into -> (B, d), 0 for an empty one.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        max_length: int,
        slope: float = 0.5,
        kind: Instance = "attention",
        pool: Pool = "sum",
    ) -> None:
        super().__init__()
        self.max_length, self.slope, self.kind, self.pool = max_length, slope, kind, pool
        self.position = nn.Embedding(max_length, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 if kind == "collapsed" else 0))
        if kind == "collapsed":  # a softmax over one position is 1, so only the values are needed
            self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim)) for _ in range(layers))
        else:
            self.layers = nn.ModuleList(SelfAttention(dim, heads, kind == "causal") for _ in range(layers))

    def forward(self, history: Sequences, table: Tensor, rows: Tensor | None = None) -> Tensor:
        """Encode histories, each of at most `max_length` items; or, if "causal", the parts that end at packed `rows`.

        Shapes: rows (R,) -> (R, d).

        Raises:
            DataError: a history is longer than `max_length`.
        """
        lengths, total = history.lengths, len(history.items)
        if (longest := int(lengths.max(initial=0))) > self.max_length:
            raise DataError(
                f"a history has {longest} items; expected at most {self.max_length} (cut with .last({self.max_length}))"
            )
        sizes = history.offsets.diff()
        row = torch.repeat_interleave(torch.arange(len(lengths), device=table.device), sizes, output_size=total)
        place = torch.arange(total, device=table.device)  # (T,)
        if self.kind == "causal":
            place = place - history.offsets[:-1][row]
        else:
            place = place - history.offsets[1:][row] + self.max_length
        items, positions = F.embedding(history.items, table), self.position(place)  # (T, d) each
        none = (len(lengths), items.shape[1])
        if self.kind == "collapsed":
            sums = [each.new_zeros(none).index_add(0, row, each) for each in (items, positions)]
            x = self.norms[0](sums[0]) + self.norms[1](sums[1])  # (B, d)
            for layer in self.layers:
                x = F.leaky_relu(layer(x), self.slope) + x
            return torch.where((sizes > 0)[:, None], x, 0.0)
        x = items + positions
        if total:
            buckets = Buckets(lengths[lengths > 0], table.device)  # an empty one has no rows
            for layer in self.layers:
                x = F.leaky_relu(layer(x, buckets), self.slope) + x
        if self.kind == "causal":
            if rows is not None:
                return x[rows]
            newest = x[(history.offsets[1:] - 1).clamp(min=0)] if total else x.new_zeros(none)
            return torch.where((sizes > 0)[:, None], newest, 0.0)
        summed = x.new_zeros(none).index_add(0, row, x)
        return summed if self.pool == "sum" else summed / sizes.clamp(min=1)[:, None]


class NoInstances(nn.Module):
    """Replaces `InstanceEncoder` in an ablation: histories of B users give zeros (B, d)."""

    def forward(self, history: Sequences, table: Tensor, rows: Tensor | None = None) -> Tensor:
        """Zeros of the table's width."""
        return table.new_zeros(len(history if rows is None else rows), table.shape[1])


class Reliability(nn.Module):
    """w = sigmoid(MLP[long * short || long || short]): how far a node's slice can be trusted (SelfGNN; with Eq. 10).

    Args:
        dim, width: width d of the vectors, hidden units.
        slope: of LeakyReLU below 0.

    Shapes: long-term (A, d), short-term (T, A, d) -> (T, A).
    """

    def __init__(self, dim: int, width: int, slope: float = 0.5) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3 * dim, width), nn.Linear(width, 1)
        self.slope = slope

    def forward(self, long: Tensor, short: Tensor) -> Tensor:
        """The weights, between 0 and 1."""
        long = long.expand_as(short)
        hidden = F.leaky_relu(self.inner(torch.cat([long * short, long, short], 2)), self.slope)
        weight: Tensor = self.outer(hidden)
        return weight.squeeze(2).sigmoid()
