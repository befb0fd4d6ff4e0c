"""BERT4Rec's encoder: a transformer that sees both sides of a masked item, and a head that predicts it.

Sun et al., "BERT4Rec", CIKM 2019. With the item table E and a mask m in place of some items, states are
h = Transformer([E; m]), and the vector of a masked place is LN(GELU(W h + b)), to be compared with E.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..graphs import Sequences
from .transformer import BidirectionalTransformer


class ClozeEncoder(nn.Module):
    """Histories with masked places -> one vector per masked place.

    The index of the mask is the number of items. To predict the next item, the mask is put after the history, and
    RecBole, as GSAU's authors ran it, removes the first item of the history to make room, however short the history
    is: `drop_first`.

    Args:
        dim, max_length, layers, heads, inner, dropout, attention_dropout, epsilon: of the transformer.
        drop_first: whether `ask` removes the oldest item, as RecBole does.

    Shapes: histories of T items and N masked places, table (M, d) -> (N, d).
    """

    def __init__(
        self,
        dim: int = 64,
        max_length: int = 50,
        layers: int = 2,
        heads: int = 2,
        inner: int = 256,
        dropout: float = 0.2,
        attention_dropout: float = 0.2,
        drop_first: bool = True,
        epsilon: float = 1e-12,
    ) -> None:
        super().__init__()
        self.max_length, self.drop_first = max_length, drop_first
        self.mask = nn.Embedding(1, dim)  # uninitialised memory in GSAU's public code, and the items' init here
        self.transformer = BidirectionalTransformer(
            dim, max_length, layers, heads, inner, dropout, attention_dropout, epsilon
        )
        self.linear, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=epsilon)

    def forward(self, history: Sequences, items: Tensor, row: Tensor) -> Tensor:
        """The vectors of the packed rows `row` (N,), where the masks are."""
        states = self.transformer(history, torch.cat([items, self.mask.weight]))[row]
        return self._head(states)

    def ask(self, history: Sequences, items: Tensor) -> Tensor:
        """(B, d): what comes after each history."""
        asked = with_mask(history, len(items), self.max_length, self.drop_first)
        return self._head(self.transformer(asked, torch.cat([items, self.mask.weight]), last=True))

    def _head(self, states: Tensor) -> Tensor:
        vectors: Tensor = self.norm(F.gelu(self.linear(states)))
        return vectors


def with_mask(history: Sequences, mask: int, max_length: int, drop_first: bool) -> Sequences:
    """The histories with `mask` after each of them, at most `max_length` places in all.

    >>> history = Sequences(torch.tensor([0, 3, 4]), torch.tensor([5, 6, 7, 8]))
    >>> with_mask(history, 9, 3, drop_first=False).items.tolist()
    [6, 7, 9, 8, 9]
    >>> with_mask(history, 9, 9, drop_first=True).items.tolist()
    [6, 7, 9, 9]
    """
    sizes = (history.lengths - (1 if drop_first else 0)).clip(0, max_length - 1)
    device = history.items.device
    shorter = history.windows(history.offsets[1:] - torch.as_tensor(sizes, device=device), sizes)
    ends = shorter.offsets[1:] + torch.arange(len(history), device=device)  # (B,) where the masks go
    offsets = torch.cat([ends.new_zeros(1), ends + 1])
    items = torch.full((len(shorter.items) + len(history),), mask, device=device)
    kept = torch.ones(len(items), dtype=torch.bool, device=device)
    kept[ends] = False
    items[kept] = shorter.items
    return Sequences(offsets, items, None, sizes + 1)
