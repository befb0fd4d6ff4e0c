"""A causal transformer over packed sequences (SASRec, Kang and McAuley, ICDM 2018, in RecBole's post-norm form).

Embedding, norms, projections and feed-forward run on packed rows, so that no padding is computed there; attention pads
them by buckets. With a causal mask, no item attends to padding. Where only the last state of a sequence is wanted,
the last block computes no keys and no values, see `query_attention`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError
from ..graphs import as_sequences
from .attention import Buckets, causal_attention, full_attention, query_attention
from .dropout import Dropout


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
        """Attention of the rows `only` (B,), the last of each sequence, over packed rows x (T, d) -> (B, d)."""
        width = x.shape[1] // self.heads
        query = self.query(x[only]).view(-1, self.heads, width) * width**-0.5
        p = self.attention_dropout if self.training else 0.0
        return query_attention(query, x, self.key.weight, self.value, buckets, p)
