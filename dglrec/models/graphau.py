"""GraphAU: alignment of users and items with each other's neighbourhoods (Yang et al., "Graph-based Alignment and
Uniformity for Recommendation", CIKM 2023).

With u^n and i^n the rows of users and items after n propagations, u^0 and i^0 those of the tables, f the normalisation
of rows, A and U alignment and uniformity (`dglrec.losses`) over the B pairs of a batch, the original minimises

    1/L sum over n = 1..L of decay^(n-1) A_n + gamma / 2 (U(f(u^0)) + U(f(i^0)))
    A_1 = A(f(u^0), f(i^0)),  A_n = (A(f(u^0), f(i^(n-1))) + A(f(u^(n-1)), f(i^0))) / 2 for n > 1

and ranks by u^0 i^0. What GSAU's Table 1 calls GraphAU (Cao et al., WWW 2025 Companion, public code) is different:
the views V are u^1 .. u^L and the mean of all layers, all have the same weight, and (u^0, i^0) is not a pair:

    1 / (2 |V|) sum over v in V of [A(f(u^0), f(i^v)) + A(f(u^v), f(i^0))] + gamma (U(f(u^0)) + U(f(i^0)))

It ranks by the means. Its gamma is half of the original's.

Both forms learn from every interaction; the original's public code leaves ratings of 3 or less out of its loss.
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
from ..losses import alignment, uniformity
from ..nn.initial import initialise
from ..nn.propagation import Adjacency, LightGCNEncoder, fold_in
from ..streams import Streams, seeded


@dataclass(frozen=True)
class GraphAUConfig:
    """GraphAU as GSAU's authors ran it.

    Attributes:
        dim: width d of users and items.
        layers: propagations L.
        form: the "gsau" or the "original" loss, each with its own way to rank.
        gamma: weight of uniformity.
        decay: of the original, the weight of a hop relative to the hop before it.
        init: initial weights.
        seen: whether evaluation masks or keeps the items of the history.
    """

    dim: int = 64
    layers: int = 2
    form: Literal["gsau", "original"] = "gsau"
    gamma: float = 0.5
    decay: float = 1.4
    init: Literal["xavier_normal", "xavier_uniform", "normal"] = "xavier_normal"
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", layers=">=1", gamma=">=0", decay=">0")


class GraphAU(Model):
    """Users and items that are aligned with their pairs and with the propagated vectors of those.

    Shapes: users (U, d), items (M, d); queries -> vectors (B, 1, d).
    """

    Config = GraphAUConfig
    config: GraphAUConfig

    def __init__(self, split: Split, config: GraphAUConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        with seeded(c.train.seed, "init"):
            self.user = nn.Embedding(self.num_users, c.dim)
            self.item = nn.Embedding(self.num_items, c.dim)
            initialise(self, c.init)
        last = c.layers if c.form == "gsau" else c.layers - 1
        self.hops = nn.ModuleList(LightGCNEncoder(n, "last") for n in range(1, last + 1))
        self.encoder = LightGCNEncoder(c.layers if c.form == "gsau" else 0, "mean")  # for the ranking
        self.one_hop = LightGCNEncoder(1, "last")  # for users who are not in training
        self.adjacency = Adjacency(user_item(split.train, unique=True))

    @property
    def targets_per_epoch(self) -> int:
        """The training interactions."""
        return len(self.split.train)

    def batches(self, split: Split, streams: Streams) -> Iterator[Edges]:
        """Every training pair once."""
        return edge_batches(split.train, self.config.train.batch_size, streams.numpy("edges"), self.device)

    def loss(self, batch: Edges) -> dict[str, Tensor]:
        """The two terms of the form that the config names."""
        c, tables, rows = self.config, (self.user.weight, self.item.weight), (batch.user, batch.item)
        ego = (self.user(batch.user), self.item(batch.item))  # (B, d) each
        views = [hop(self.adjacency, tables, rows) for hop in self.hops]  # u^n, i^n from n = 1 on
        user, item = (F.normalize(x) for x in ego)
        spread = c.gamma * (uniformity(user) + uniformity(item))
        if c.form == "gsau":
            mean = [sum(layers) / (c.layers + 1) for layers in zip(ego, *views, strict=True)]
            pairs = torch.stack([self._crossed(user, item, view) for view in (*views, mean)])
            return {"alignment": pairs.mean(), "uniformity": spread}
        pairs = torch.stack([alignment(user, item), *(self._crossed(user, item, view) for view in views)])
        weights = torch.tensor([c.decay**hop for hop in range(c.layers)], device=self.device)
        return {"alignment": (weights * pairs).mean(), "uniformity": spread / 2}

    def _crossed(self, user: Tensor, item: Tensor, view: Any) -> Tensor:
        """(A(f(u^0), f(i^v)) + A(f(u^v), f(i^0))) / 2."""
        users, items = (F.normalize(x) for x in view)
        return (alignment(user, items) + alignment(users, item)) / 2

    def query_vectors(self, queries: Queries) -> Tensor:
        """The row of each user that the form ranks by, folded in from the history where the user is unknown."""
        tables = (self.user.weight, self.item.weight)
        if self.config.form == "gsau":
            return fold_in(self.encoder, self.adjacency, tables, queries).unsqueeze(1)
        user = torch.as_tensor(queries.user, device=self.device)
        known = (user >= 0) & (self.adjacency.user_offsets.diff() > 0)[user.clamp(min=0)]  # (B,)
        one_hop = fold_in(self.one_hop, self.adjacency, tables, queries)  # (B, d)
        return torch.where(known[:, None], self.user(user.clamp(min=0)), one_hop).unsqueeze(1)

    def item_vectors(self) -> Tensor:
        """The items that the form ranks by."""
        items: Tensor = self.encoder(self.adjacency, (self.user.weight, self.item.weight))[1]
        return items
