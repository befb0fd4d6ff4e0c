"""MIP: a weighted multi-interest model for retrieval (Shi et al., arXiv 2207.06652), in its weighted form.

The items of a window are clustered by their own embeddings. Attention within each cluster, with its most recent
item as the query, gives an interest; the number of its items, and how long ago they were, give its weight. An item's
score is that of its best interest.

What the authors' code does and the form here does not: it computes an interest at every item and keeps only those at
the last item of a cluster, with the same result; it never applies its dropout layer, so there is none; it clips the
gradient's norm at 10 and takes batches of 64 windows, where the defaults here are those of MDGR's comparison
(`train.clip=10`, `train.batch_size=64`); and its weights of the last epoch, not those of the best one, are tested. Its
preparation of the data puts item 0 in place of the first record of the first user, in Amazon and MovieLens, which
`dglrec.windows` does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..base import WindowModel, check_times
from ..batches import Windows
from ..config import TrainConfig, check_even, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..graphs.clustering import ward
from ..nn.interests import (
    GAPS,
    InterestAttention,
    InterestWeight,
    Padded,
    augmented,
    batch_window,
    candidate_bce,
    gap_buckets,
    item_table,
    last_of_clusters,
    query_window,
    sinusoid,
    take,
    window_logits,
)
from ..streams import seeded


@dataclass(frozen=True)
class MIPConfig:
    """MIP as its code has it, trained as in MDGR's comparison.

    Attributes:
        dim: size d of items and interests.
        k: clusters, and thus interests, per window.
        heads: attention heads, each of size d.
        time_size: size of the encoding of days that is appended to the item in queries and keys.
        hidden: size of the hidden layer in the net of the weights.
        bounded: weights between 0 and 2, see `InterestWeight`; the authors' have no upper bound.
        limit: attention logits are cut off above it.
        times: whether days are read; without them all items count as of one day.
        max_length: number of most recent items that are read.
        negatives: number drawn for each prefix, unless the split is by windows (which have their own).
        seen: whether evaluation keeps or masks the items of the history.
    """

    dim: int = 32
    k: int = 5
    heads: int = 8
    time_size: int = 8
    hidden: int = 128
    bounded: bool = False
    limit: float = 10.0
    times: bool = True
    max_length: int = 50
    negatives: int = 50
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, monitor="auto"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", k=">=1", heads=">=1", time_size=">=2", hidden=">=1", limit=">0")
        check_limits(self, max_length=">=1", negatives=">=1")
        check_even(self, "time_size")


class MIP(WindowModel):
    """Interests of clusters, each with a weight; the score is the largest of scale * weight * cosine + bias.

    Histories without times, such as those of new users, count as of one day.

    Shapes: items (M, d + 1); queries -> vectors (B, k, d + 1), see `augmented`.
    """

    Config = MIPConfig
    config: MIPConfig

    def __init__(self, split: Split, config: MIPConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        check_times(split, c.times)
        with seeded(c.train.seed, "init"):
            self.item = item_table(self.num_items, c.dim)
            self.attention = InterestAttention(c.dim + c.time_size, c.dim, c.heads, limit=c.limit)
            self.weight = InterestWeight(c.dim, GAPS, c.max_length, c.hidden, bounded=c.bounded)
            self.scale = nn.Parameter(torch.ones(()))
            self.bias = nn.Parameter(torch.zeros(()))

    def loss(self, batch: Windows) -> dict[str, Tensor]:
        """Binary cross-entropy of positives and negatives."""
        interests = self._interests(batch_window(batch))
        positive, negative = (
            window_logits(interests, augmented(self.item(items), 1.0, 1.0))
            for items in (batch.positive, batch.negative)
        )
        return {"bce": candidate_bce(positive, negative)}

    def _interests(self, window: Padded) -> Tensor:
        """(B, k, d + 1): the interests with scale, weight and bias in them."""
        items = self.item(window.items)  # (B, n, d)
        days = window.days if self.config.times else torch.zeros_like(window.days)
        inputs = torch.cat([items, sinusoid(days, self.config.time_size)], dim=2)  # (B, n, d + time_size)
        last, members = last_of_clusters(ward(items, self.config.k, window.mask), self.config.k)
        interests = self.attention(take(inputs, last), inputs, items, members)  # (B, k, d)
        weight = self.weight(interests, gap_buckets(days), members)  # (B, k)
        return augmented(interests, self.scale * weight, self.bias)

    def query_vectors(self, queries: Queries) -> Tensor:
        """The weighted interests of each history."""
        return self._interests(query_window(queries, self.config.max_length, self.device))

    def item_vectors(self) -> Tensor:
        """The item table at length 1, and a 1 for the bias."""
        return augmented(self.item.weight, 1.0, 1.0)
