"""LightGCN (He et al., SIGIR 2020): weight-free propagation over the user-item graph, trained by BPR.

In its place a sampled softmax (Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS
2024) can train it; docs/models.md compares the two on Gowalla.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Model
from ..batches import Edges, edge_batches
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..graphs import user_item
from ..losses import bpr, item_cross_entropy
from ..nn.initial import initialise
from ..nn.propagation import Adjacency, LightGCNEncoder, fold_in
from ..streams import Streams, seeded


@dataclass(frozen=True)
class LightGCNConfig:
    """LightGCN as RecBole runs it; the original has three layers.

    Attributes:
        dim: width of users and items.
        layers: propagations L.
        combine: "mean" of the layers 0..L, or the "last".
        loss: "bpr" against one uniform unseen item (paper), or "softmax" against the items of the batch's other pairs,
            over cosines (Wu et al.).
        temperature: of "softmax".
        l2: weight of the norm of the batch's layer-0 rows.
        norm: that norm: "frobenius" sums the three unsquared norms of the batch (RecBole), "squared" is half the sum of
            squares (the original). Both are divided by the batch size.
        init: initial weights.
        rank: items are ranked by "dot" (paper) or "cosine".
        seen: whether evaluation masks (RecBole) or keeps the items of the history.
    """

    dim: int = 64
    layers: int = 2
    combine: Literal["mean", "last"] = "mean"
    loss: Literal["bpr", "softmax"] = "bpr"
    temperature: float = 0.1
    l2: float = 1e-5
    norm: Literal["frobenius", "squared"] = "frobenius"
    init: Literal["xavier_uniform", "xavier_normal", "normal"] = "xavier_uniform"
    rank: Literal["dot", "cosine"] = "dot"
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", layers=">=0", l2=">=0", temperature=">0")


class LightGCN(Model):
    """Users and items are means over the layers of propagation; the score is their dot product.

    A query of a known user is scored with the user's row. An unknown user is folded in: see `fold_in`.

    Shapes: users (U, d), items (M, d); queries -> vectors (B, 1, d).
    """

    Config = LightGCNConfig
    ranking_fields = ("seen", "rank")
    config: LightGCNConfig

    def __init__(self, split: Split, config: LightGCNConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.user = nn.Embedding(self.num_users, c.dim)
            self.item = nn.Embedding(self.num_items, c.dim)
            initialise(self, c.init)
        self.encoder = LightGCNEncoder(c.layers, c.combine)
        self.adjacency = Adjacency(user_item(split.train, unique=True))

    @property
    def targets_per_epoch(self) -> int:
        """The training interactions."""
        return len(self.split.train)

    def batches(self, split: Split, streams: Streams) -> Iterator[Edges]:
        """Every training pair once, for BPR with one uniform unseen item."""
        c, rng = self.config, streams.numpy("edges")
        return edge_batches(split.train, c.train.batch_size, rng, self.device, negatives=c.loss == "bpr")

    def loss(self, batch: Edges) -> dict[str, Tensor]:
        """BPR or softmax, and the L2 norm of the layer-0 rows of the batch (He et al., Eq. 15)."""
        c, tables, size = self.config, (self.user.weight, self.item.weight), len(batch.user)
        asked = batch.item if batch.negative is None else torch.cat([batch.item, batch.negative])
        user, items = self.encoder(self.adjacency, tables, (batch.user, asked))  # (B, d), (B, d) or (2B, d)
        if batch.negative is None:
            own = torch.arange(size, device=user.device)  # the pair of each user
            term = item_cross_entropy(F.normalize(user) / c.temperature, F.normalize(items), own)
        else:
            term = bpr((user * items[:size]).sum(1), (user * items[size:]).sum(1))
        ego = (self.user(batch.user), *self.item(asked).split(size))
        if c.norm == "frobenius":
            norm = sum(rows.norm() for rows in ego)
        else:
            norm = sum(rows.square().sum() for rows in ego) / 2
        return {c.loss: term, "l2": c.l2 * norm / size}

    def query_vectors(self, queries: Queries) -> Tensor:
        """The propagated row of each user, folded in from the history where the user is unknown."""
        return fold_in(self.encoder, self.adjacency, (self.user.weight, self.item.weight), queries).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The propagated items."""
        items: Tensor = self.encoder(self.adjacency, (self.user.weight, self.item.weight))[1]
        return F.normalize(items) if self.config.rank == "cosine" else items
