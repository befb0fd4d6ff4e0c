"""Vectors of the tokens that prompts are made of: words, items and users (GAL-Rec, Eq. 3 and 4).

Those of items and users are mapped from external embeddings, see `dglrec.lm.embeddings` (Eq. 2) and
`dglrec.models.sources` (Eq. 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .hop_prompts import Packed


class NodeTokens(nn.Module):
    """Vectors of items and users, and of prompts (Eq. 3 and 4): g_theta of external embeddings, or learned tables."""

    def __init__(self, num_users: int, num_items: int, dim: int, source_dim: int | None, named: bool = True) -> None:
        super().__init__()
        self.num_users, self.num_items, self.named = num_users, num_items, named  # whether prompts name users
        self.mapping = None if source_dim is None else nn.Linear(source_dim, dim)
        if source_dim is None:
            self.item = nn.Embedding(num_items, dim)
            self.user = nn.Embedding(num_users if named else 0, dim)

    def items(self, known: Tensor, rows: Tensor | None = None) -> Tensor:
        """e_i of some items or all, (n, d), from the external embeddings h (M, d1)."""
        if self.mapping is not None:
            return self.mapping(known if rows is None else known[rows])
        return self.item.weight if rows is None else self.item(rows)

    def users(self, known: Tensor, rows: Tensor) -> Tensor:
        """e_u, (n, d), likewise."""
        return self.user(rows) if self.mapping is None else self.mapping(known[rows])

    def forward(self, words: nn.Embedding, packed: Packed, history: Packed, users: Tensor, items: Tensor) -> Tensor:
        """The vectors (T, d) of B prompts' tokens, Eq. 4; the asker's token is the mean of the history's items.

        Args:
            words: the language model's own tokens.
            packed: the prompts, T tokens.
            history: (B,) lists of items.
            users, items: external embeddings, (U, d1) and (M, d1).
        """
        token, count = packed.values, words.num_embeddings
        item, user = token - count, token - count - self.num_items
        asker = nn.functional.embedding_bag(
            history.values, self.items(items), history.offsets, mode="mean", include_last_offset=True
        )[packed.rows]  # (T, d)
        vectors = asker
        if self.named:
            named = self.users(users, user.clamp(0, self.num_users - 1))
            vectors = torch.where((user < self.num_users)[:, None], named, asker)
        vectors = torch.where((user < 0)[:, None], self.items(items, item.clamp(0, self.num_items - 1)), vectors)
        return torch.where((item < 0)[:, None], words(token.clamp(max=count - 1)), vectors)  # Eq. 4
