"""LightGCN (He et al., SIGIR 2020): weight-free propagation over the user-item graph, trained by BPR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..base import Model
from ..batches import Edges, edge_batches
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..graphs import user_item
from ..losses import bpr
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
        l2: weight of the norm of the batch's layer-0 rows.
        norm: that norm: "frobenius" sums the three unsquared norms of the batch (RecBole), "squared" is half the sum of
            squares (the original). Both are divided by the batch size.
        init: initial weights.
        seen: whether evaluation masks (RecBole) or keeps the items of the history.
    """

    dim: int = 64
    layers: int = 2
    combine: Literal["mean", "last"] = "mean"
    l2: float = 1e-5
    norm: Literal["frobenius", "squared"] = "frobenius"
    init: Literal["xavier_uniform", "xavier_normal", "normal"] = "xavier_uniform"
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", layers=">=0", l2=">=0")


class LightGCN(Model):
    """Users and items are means over the layers of propagation; the score is their dot product.

    A query of a known user is scored with the user's row. An unknown user is folded in: see `fold_in`.

    Shapes: users (U, d), items (M, d); queries -> vectors (B, 1, d).
    """

    Config = LightGCNConfig
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
        """Every training pair once, with one uniform unseen item."""
        return edge_batches(
            split.train, self.config.train.batch_size, streams.numpy("edges"), self.device, negatives=True
        )

    def loss(self, batch: Edges) -> dict[str, Tensor]:
        """BPR, and the L2 norm of the layer-0 rows of the batch (He et al., Eq. 15)."""
        assert batch.negative is not None
        tables, size = (self.user.weight, self.item.weight), len(batch.user)
        asked = torch.cat([batch.item, batch.negative])
        user, items = self.encoder(self.adjacency, tables, (batch.user, asked))  # (B, d), (2B, d)
        positive, negative = (user * items[:size]).sum(1), (user * items[size:]).sum(1)  # (B,)
        ego = (self.user(batch.user), *self.item(asked).split(size))
        if self.config.norm == "frobenius":
            norm = sum(rows.norm() for rows in ego)
        else:
            norm = sum(rows.square().sum() for rows in ego) / 2
        return {"bpr": bpr(positive, negative), "l2": self.config.l2 * norm / size}

    def query_vectors(self, queries: Queries) -> Tensor:
        """The propagated row of each user, folded in from the history where the user is unknown."""
        return fold_in(self.encoder, self.adjacency, (self.user.weight, self.item.weight), queries).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The propagated items."""
        items: Tensor = self.encoder(self.adjacency, (self.user.weight, self.item.weight))[1]
        return items
