"""ComiRec: controllable multi-interest recommendation (Cen et al., KDD 2020), by self-attention or dynamic routing.

K interests are read from a history at once, each a mixture of its items. Training picks, for each item that follows,
the interest that fits it best; an item's score is that of its best interest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import WindowModel
from ..batches import Windows
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..nn.interests import Padded, batch_window, candidate_bce, item_table, places, query_window, window_logits
from ..streams import seeded


@dataclass(frozen=True)
class ComiRecConfig:
    """ComiRec as in MDGR's comparison; its own paper has 4 interests, d 64, and the loss "softmax".

    Attributes:
        dim: size d of items and interests.
        extractor: "attention" (ComiRec-SA) or "routing" (ComiRec-DR).
        k: interests K.
        steps: iterations of the routing.
        loss: "bce" of all candidates of a window, or "softmax", which compares each positive with the negatives of its
            window, all scored by the interest that fits the positive best (in the paper negatives are random). The
            first is the default: windows are evaluated by an AUC over all users at once, which needs scores that are
            comparable between users; and if the positive alone chooses the interest, the interests can divide the
            catalogue among them, whatever the history is, and still have a low loss.
        max_length: number of most recent items that are read.
        negatives: number drawn for each prefix, unless the split is by windows (which have their own).
        seen: whether evaluation keeps or masks the items of the history.
    """

    dim: int = 32
    extractor: Literal["attention", "routing"] = "attention"
    k: int = 8
    steps: int = 3
    loss: Literal["bce", "softmax"] = "bce"
    max_length: int = 50
    negatives: int = 50
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, monitor="auto"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", k=">=1", steps=">=1", max_length=">=1", negatives=">=1")


class SelfAttention(nn.Module):
    """ComiRec-SA: K mixtures of a window's items, V = A^T H with A = softmax_n(W_2 tanh(W_1 (H + P))).

    W_1 maps the sum of an item and P, the vector of its place, to 4 d numbers; only the items are mixed.
    """

    def __init__(self, dim: int, k: int, slots: int) -> None:
        super().__init__()
        self.place = item_table(slots, dim)
        self.first = nn.Linear(dim, 4 * dim)
        self.second = nn.Linear(4 * dim, k, bias=False)  # a bias would cancel in the softmax over items

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """Shapes: items (B, n, d), mask (B, n) -> (B, K, d)."""
        place = self.place(places(items.shape[1], self.place.num_embeddings, items.device))  # (n, d)
        logits = self.second(self.first(items + place).tanh())  # (B, n, K)
        weight = logits.masked_fill(~mask.unsqueeze(2), -torch.inf).softmax(1)
        return weight.mT @ items


class DynamicRouting(nn.Module):
    """ComiRec-DR: each item votes for each interest by a map of its place and that interest; agreeing votes count more.

    Logits start at 0 and are softmaxed over interests. The gradient goes through the last step only. An interest's maps
    start equal at all places, so that votes can agree before the model distinguishes places.
    """

    def __init__(self, dim: int, k: int, slots: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.maps = nn.Parameter((torch.randn(1, k, dim, dim) / dim**0.5).repeat(slots, 1, 1, 1))

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """Shapes: items (B, n, d), mask (B, n) -> (B, K, d), of length below 1."""
        maps = self.maps[len(self.maps) - items.shape[1] :]  # of the last n places
        votes = torch.einsum("bnd,nkde->bnke", items, maps)  # (B, n, K, d)
        fixed = votes.detach()
        logits = votes.new_zeros(votes.shape[:3])  # (B, n, K)
        for _ in range(self.steps - 1):
            agreed = squash(torch.einsum("bnk,bnke->bke", _shares(logits, mask), fixed))
            logits = logits + torch.einsum("bnke,bke->bnk", fixed, agreed)
        return squash(torch.einsum("bnk,bnke->bke", _shares(logits, mask), votes))


def _shares(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, n, K): how an item's vote is shared out among interests; 0 where there is no item."""
    return logits.softmax(2) * mask.unsqueeze(2)


def squash(vectors: Tensor) -> Tensor:
    """|v|^2 / (1 + |v|^2) * v / |v|: short vectors shrink to almost 0, long ones to almost 1 (..., d) -> (..., d)."""
    square = vectors.square().sum(-1, keepdim=True)
    return vectors * square / (1 + square) / (square + 1e-9).sqrt()


class ComiRec(WindowModel):
    """K interests per history; the score is the largest dot product.

    Shapes: items (M, d); queries -> vectors (B, K, d).
    """

    Config = ComiRecConfig
    config: ComiRecConfig

    def __init__(self, split: Split, config: ComiRecConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.item = item_table(self.num_items, c.dim)
            self.extractor = (
                SelfAttention(c.dim, c.k, c.max_length)
                if c.extractor == "attention"
                else DynamicRouting(c.dim, c.k, c.max_length, c.steps)
            )

    def loss(self, batch: Windows) -> dict[str, Tensor]:
        """Positives against negatives, each scored by the interest that fits it best, or as the field `loss` says."""
        interests = self._interests(batch_window(batch))  # (B, K, d)
        positive, negative = self.item(batch.positive), self.item(batch.negative)
        if self.config.loss == "bce":
            return {"bce": candidate_bce(window_logits(interests, positive), window_logits(interests, negative))}
        return {"softmax": chosen_softmax(interests, positive, negative)}

    def _interests(self, window: Padded) -> Tensor:
        interests: Tensor = self.extractor(self.item(window.items), window.mask)
        return interests

    def query_vectors(self, queries: Queries) -> Tensor:
        """The interests of each history."""
        return self._interests(query_window(queries, self.config.max_length, self.device))

    def item_vectors(self) -> Tensor:
        """The item table."""
        return self.item.weight


def chosen_softmax(interests: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Cross-entropy of each positive against all negatives, both scored by the interest that fits the positive best.

    Shapes: interests (B, K, d), positive (B, P, d), negative (B, N, d) -> scalar, the mean over positives.
    """
    best, chosen = (interests @ positive.mT).max(1)  # (B, P)
    others = (interests @ negative.mT).gather(1, chosen.unsqueeze(2).expand(-1, -1, negative.shape[1]))  # (B, P, N)
    logits = torch.cat([best.unsqueeze(2), others], dim=2).flatten(0, 1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
