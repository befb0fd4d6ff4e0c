"""MDGR: multi-interest sequential recommendation by dynamic graph clustering.

The items of a history are clustered into interests, the closest items of an interest become the edges of a sub-graph,
and attention along those edges moves the items' vectors; then the moved vectors are clustered again, m times over. The
last item of each final cluster is an interest of the user. `docs/mdgr.md` goes through the paper equation by equation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..base import WindowModel, check_times
from ..batches import Windows
from ..config import TrainConfig, check_even, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..graphs.interests import METHODS, Interests, dense_interests
from ..nn.interests import (
    InterestAttention,
    InterestWeight,
    Padded,
    augmented,
    batch_window,
    candidate_bce,
    item_table,
    last_of_clusters,
    places,
    propagated,
    query_window,
    sinusoid,
    take,
    window_logits,
)
from ..streams import seeded

EXACT_WINDOWS = 1024  # windows that are run at once if each candidate has its own, in training and evaluation


@dataclass(frozen=True)
class MDGRConfig:
    """MDGR as printed; what the paper leaves open is read as in the related models MIP and SURGE.

    Attributes:
        dim: size d of items and interests.
        k: clusters of a history, and so interests of a user.
        m: times that the graph is built and vectors are moved. 0 is the row -DGC: one clustering, no graph.
        positions, times: whether Eq. 2 appends their encodings (rows -P, -T, -PT). Weights read times in any case.
        encoding: size of either encoding (`time_size` of MIP). The paper's d_m = 1 would leave one frequency.
        heads: attention heads H of Eq. 4 and 5, each over all of Eq. 2, its values the plain item vectors.
        dropout: of Eq. 6; the rate is not stated, and MIP's code never applies its own.
        residual: add the item's own vector to the result of Eq. 6. As printed, an item is only what it gathers, and as
            all items of a history gather from the same ones, the clustering can hardly distinguish them.
        method: how items are clustered: "ward", "kmeans" or "birch".
        delta: weight vectors of the similarity (Eq. 7 and 8).
        gamma: share of the pairs within clusters that become edges (Eq. 9).
        rank: what Eq. 9 ranks, "clusters", "matrix" or "pairs"; see `graphs.interests.sparsify`.
        learn_metric: add the similarity to the logits of Eq. 12. Else the threshold of Eq. 9 gives the weights of Eq. 7
            no gradient, and they keep their random initial values.
        hops: steps of the normalised adjacency that make the cluster vector of Eq. 10.
        graph_heads: heads H of Eq. 13.
        weights: interest weights (Eq. 15); without them each is 1 (row -W).
        weight_width: size of the hidden layer in the net of Eq. 15 (`hidden` of MIP).
        bounded: weights between 0 and 2, see `InterestWeight`; as printed they have no upper bound.
        candidate: what is used as the target in Eq. 11. "free": the most recent item, so that a user has one set of
            interests for all items. "exact": each candidate's row of the item table in turn, positive or negative, at
            a cost that is multiplied by the number of candidates.
        max_length: number of most recent items of a history that are read.
        negatives: number drawn for each positive, unless the split has windows with their own negatives.
        seen: whether evaluation keeps or masks the items of the history.
    """

    dim: int = 32
    k: int = 8
    m: int = 5
    positions: bool = True
    times: bool = True
    encoding: int = 8
    heads: int = 8
    dropout: float = 0.0
    residual: bool = False
    method: Literal["ward", "kmeans", "birch"] = "ward"
    delta: int = 4
    gamma: float = 0.5
    rank: Literal["clusters", "matrix", "pairs"] = "clusters"
    learn_metric: bool = False
    hops: int = 2
    graph_heads: int = 1
    weights: bool = True
    weight_width: int = 16
    bounded: bool = False
    candidate: Literal["free", "exact"] = "free"
    max_length: int = 50
    negatives: int = 50
    seen: Literal["keep", "mask"] = "keep"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=128, epochs=100, monitor="auto"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", k=">=1", m=">=0", heads=">=1", delta=">=1", gamma=">0 <=1")
        check_limits(self, hops=">=0", graph_heads=">=1", weight_width=">=1", max_length=">=1", negatives=">=1")
        check_limits(self, dropout=">=0 <1", encoding=">=2")
        check_even(self, "encoding")


class MDGR(WindowModel):
    """Interests from dynamic graph clustering; the score is the largest weighted affine cosine over them.

    Shapes: items (M, d); queries -> vectors (B, k, d + 1), items -> (M, d + 1), whose dot products are Eq. 16.
    """

    Config = MDGRConfig
    config: MDGRConfig

    def __init__(self, split: Split, config: MDGRConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        check_times(split, c.times or c.weights, without="times=false and weights=false")
        with seeded(c.train.seed, "init"):
            self.item = item_table(self.num_items, c.dim)
            width = c.dim + c.encoding * (c.positions + c.times)
            self.attention = InterestAttention(width, c.dim, c.heads, bias=True, dropout=c.dropout)
            if c.m:
                self.metric = nn.Parameter(torch.rand(c.delta, c.dim), requires_grad=c.learn_metric)  # w_q of Eq. 7
                self.graph_attention = nn.ModuleList(ClusterAttention(c.dim) for _ in range(c.graph_heads))
            self.weight = None
            if c.weights:
                self.weight = InterestWeight(c.dim, c.encoding, c.max_length, c.weight_width, bounded=c.bounded)
            self.affine = nn.Parameter(torch.tensor([1.0, 0.0]))  # a, b of Eq. 16

    def loss(self, batch: Windows) -> dict[str, Tensor]:
        """Binary cross-entropy, the mean over all candidates, positives and negatives (Eq. 17)."""
        window, items = batch_window(batch), torch.cat([batch.positive, batch.negative], 1)  # (B, P + N)
        encoded, positive = self.encode(window), batch.positive.shape[1]
        if self.config.candidate == "free":
            logits = window_logits(self._interests(window, encoded), augmented(self.item(items), 1.0, 1.0))  # Eq. 16
        else:
            logits = self._exact_logits(window, encoded, items)
        return {"bce": candidate_bce(logits[:, :positive], logits[:, positive:])}  # Eq. 17

    def _exact_logits(self, window: Padded, encoded: Tensor, items: Tensor) -> Tensor:
        """Eq. 16 of items (B, C), each the target of its own rounds, on about `EXACT_WINDOWS` windows at a time.

        Only their logits are kept for the gradient: the backward pass runs the rounds again.
        """

        def of_chunk(encoded: Tensor, items: Tensor) -> Tensor:
            count, vectors = items.shape[1], self.item(items)  # (B, c, d)
            each = Padded(*(part.repeat_interleave(count, 0) for part in window))  # a window for each candidate
            target = vectors.flatten(0, 1)  # (B * c, d): p_t in all rounds; Eq. 6 makes phi of a history's items only
            interests = self._interests(each, encoded.repeat_interleave(count, 0), target)  # (B * c, k, d + 1)
            return window_logits(interests, augmented(target[:, None], 1.0, 1.0)).view(-1, count)

        chunks = items.split(max(1, EXACT_WINDOWS // max(1, len(items))), 1)
        return torch.cat([checkpoint(of_chunk, encoded, chunk, use_reentrant=False) for chunk in chunks], 1)

    def encode(self, window: Padded) -> Tensor:
        """(B, n, d): the items' vectors as Eq. 6 gives them, each of which depends on the other items."""
        c = self.config
        items = self.item(window.items)  # Eq. 1, (B, n, d)
        parts = [items]
        if c.times:
            parts.append(sinusoid(window.days, c.encoding))  # Eq. 3
        if c.positions:
            place = places(items.shape[1], c.max_length, items.device).to(items.dtype)
            parts.append(sinusoid(place, c.encoding).expand(len(items), -1, -1))  # Eq. 3
        known = torch.cat(parts, 2)  # Eq. 2
        vectors: Tensor = self.attention(known, known, items, window.mask[:, None])  # Eq. 4, Eq. 5, Eq. 6
        return vectors + items if c.residual else vectors

    def _interests(self, window: Padded, vectors: Tensor, target: Tensor | None = None) -> Tensor:
        """(B, k, d + 1): interests with their weights, for the targets (B, d) or for any."""
        *_, (vectors, cluster) = self.rounds(window, vectors, target)
        last, members = last_of_clusters(cluster, self.config.k)
        interests = take(vectors, last)  # Eq. 14, (B, k, d); "the query to obtain" the interest is the interest itself
        scale, bias = self.affine
        if self.weight is None:
            return augmented(interests, scale, bias)
        weight = self.weight(interests, sinusoid(window.days, self.config.encoding), members)  # Eq. 15, (B, k)
        return augmented(interests, weight * scale, weight * bias)  # Eq. 16

    def rounds(self, window: Padded, vectors: Tensor, target: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors (B, n, d), as Eq. 6 gives them and then moved m times, each with the interests of the items (B, n).

        Args:
            window: B histories.
            vectors: (B, n, d) of Eq. 6.
            target: (B, d) of Eq. 11, or None for the most recent item of each history.
        """
        c = self.config
        for _ in range(c.m):
            graph = self.sub_graphs(vectors, window.mask)
            yield vectors, graph.cluster
            vectors = self.attend(vectors, graph, target)
        yield vectors, METHODS[c.method](vectors, c.k, window.mask)

    def sub_graphs(self, vectors: Tensor, mask: Tensor) -> Interests:
        """The interest sub-graphs of histories (B, n, d), (B, n). No gradient flows through clusters and edges."""
        c = self.config
        with torch.set_grad_enabled(c.learn_metric and torch.is_grad_enabled()):
            return dense_interests(
                vectors, c.k, c.gamma, mask, method=c.method, weight=self.metric, rank=c.rank
            )  # Eq. 7, Eq. 8, Eq. 9

    def attend(self, vectors: Tensor, graph: Interests, target: Tensor | None = None) -> Tensor:
        """One step of attention along the edges: (B, n, d) -> (B, n, d)."""
        if target is None:
            target = vectors[:, -1]  # phi_t moves from round to round, as all items do
        near = propagated(graph.edges, vectors, self.config.hops)  # represents an item's cluster in Eq. 10
        similarity = graph.similarity if self.config.learn_metric else None
        moved = [head(vectors, near, target, graph.edges, similarity) for head in self.graph_attention]
        return vectors + torch.stack(moved).mean(0)  # Eq. 13, with the residual of SURGE

    def clusters(self, queries: Queries) -> tuple[Tensor, Tensor]:
        """The interest of each item of the histories before the first round and after the last: (B, n), (B, n).

        Histories are aligned on the right; -1 where there is no item.
        """
        window = query_window(queries, self.config.max_length, self.device)
        found = [cluster for _, cluster in self.rounds(window, self.encode(window))]
        return found[0], found[-1]

    def query_vectors(self, queries: Queries) -> Tensor:
        """(B, k, d + 1): the interests of each history, times their weights, and the weighted bias."""
        window = query_window(queries, self.config.max_length, self.device)
        return self._interests(window, self.encode(window))

    def item_vectors(self) -> Tensor:
        """(M, d + 1): unit item vectors, and 1."""
        return augmented(self.item.weight, 1.0, 1.0)

    def scores(self, queries: Queries, items: Tensor | None = None) -> Tensor:
        """Eq. 16 of each item; with `candidate="exact"` each is the target of its own rounds."""
        if self.config.candidate == "free":
            return super().scores(queries, items)
        window = query_window(queries, self.config.max_length, self.device)
        if items is None:
            items = torch.arange(self.num_items, device=self.device).expand(len(queries), -1)
        return self._exact_logits(window, self.encode(window), items)

    @property
    def scores_are_products(self) -> bool:
        """False if each candidate has interests of its own."""
        return self.config.candidate == "free"


class ClusterAttention(nn.Module):
    """One head of Eq. 10 to 13: additive attention of an item to its neighbours in the interest sub-graph.

    The leaky ReLU before the softmax is SURGE's. Without it alpha_i is the same for all neighbours j of i, and the
    softmax over them cancels it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cluster, self.query = (nn.Linear(dim, dim, bias=False) for _ in range(2))  # W_c, W_q
        self.cluster_score, self.query_score = (
            nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Linear(dim, 1)) for _ in range(2)
        )

    def forward(
        self, vectors: Tensor, near: Tensor, target: Tensor, edges: Tensor, similarity: Tensor | None = None
    ) -> Tensor:
        """Vectors and cluster vectors (B, n, d), target (B, d), edges (B, n, n) bool -> (B, n, d); padding gives 0."""
        own, asked = self.cluster(vectors), self.query(vectors)
        wanted = target[:, None].expand_as(asked)
        alpha = self.cluster_score(torch.cat([own, near, own * near], 2))  # Eq. 10, (B, n, 1)
        beta = self.query_score(torch.cat([asked, wanted, asked * wanted], 2))  # Eq. 11, (B, n, 1)
        logits = F.leaky_relu(alpha + beta.mT, 0.2)  # (B, n, n)
        if similarity is not None:
            logits = logits + similarity
        weights = logits.masked_fill(~edges, -torch.inf).softmax(2)  # Eq. 12
        return weights.nan_to_num(0.0) @ vectors  # Eq. 13; rows of padding have no edges
