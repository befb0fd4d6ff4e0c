"""SelfGNN: self-supervised graph neural networks for sequential recommendation (Liu, Xia, Huang, SIGIR 2024).

The log is cut into time slices. In each slice users and items exchange vectors along its own graph; over the slices a
recurrent cell and attention make one long-term vector per node; over the items of a history attention makes another
vector of the user. The scores of the long-term vectors teach those of each slice, with a weight that says how far a
user's slice can be trusted. `docs/selfgnn.md` goes through the equations, numbered as in HardGNN's paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Model, check_times
from ..batches import query_sequences
from ..config import TrainConfig, check_limits
from ..data.queries import Queries
from ..data.splits import Split
from ..errors import ConfigError
from ..evaluate import eval_mode
from ..graphs import slice_boundaries, time_slices
from ..losses import hinge, item_cross_entropy, pair_cross_entropy, sum_of_squares
from ..nn.initial import initialise
from ..nn.intervals import InstanceEncoder, IntervalFusion, NoInstances, Reliability, Slices
from ..nn.keeping import Keeping
from ..nn.slices import SliceAdjacency, SliceEncoder, fold_in_slices, item_layers
from ..slice_batches import Sliced, SliceEdges, slice_batches
from ..streams import Streams, seeded

MONTHS = 60  # maximum number of slices with by="month": each has its own tables
CHUNK = 8192  # nodes that are fused at once in evaluation
REGULARISED = (  # as in the public code: neither attention, recurrent cells, norms nor biases
    "user", "item", "instance.position.weight", "reliability.inner.weight", "reliability.outer.weight",
)  # fmt: skip


@dataclass(frozen=True)
class SelfGNNConfig:
    """SelfGNN as HardGNN's paper prints it; what the paper leaves open is set as in the authors' public code.

    Attributes:
        dim: width d of users and items.
        slices: number of time slices T; not used with by="month".
        by: how the training log is cut: "equal_lengths" of time (paper and code), "equal_counts" of events, which is
            better where a log grows fast, or calendar months, 60 at most.
        tables: "slices", separate vectors for each slice (E_t of Eq. 1); "shared", one table of users and one of items,
            learned from the events of all slices; or "items", one table of items, from which users are computed.
        past: a training target's user is fused from the slices before the target's only, as in later queries; else
            from all slices, including the target's own edge, as in the paper.
        layers: propagations L within a slice.
        norm: "sum" over neighbours (the code, and Eq. 1 with A_t of 0 and 1), or "symmetric", as in LightGCN, which the
            paper names as its inspiration.
        slope: of every LeakyReLU; the paper gives none.
        interval: "fusion" (Eq. 3 to 5), or the "mean" of the slices, an ablation (the last one
            with interval_pool="last").
        interval_pool: the "mean" over slices (code), or the "last" slice's view of them.
        recurrent: "gru" (paper) or "lstm" (code).
        shared_cell: one recurrent cell for users and items (code of SelfGNN; Eq. 4 names one) or two (code of HardGNN).
        heads: attention heads, of both levels.
        dropout: of the recurrent states (code).
        instance: "attention" over positions (Eq. 6 to 8), "collapsed" (code: items are summed before attention, see
            `InstanceEncoder`), or "none", an ablation. "causal", in neither, attends backwards and reads the newest
            position, so that with targets="prefixes" the targets of a history share one pass.
        instance_layers: layers L_a of Eq. 7.
        max_length: items of a history that are read, M.
        pool: "sum", as in Eq. 8, or "mean", with which long histories do not have more weight.
        activate: LeakyReLU of the instance-level vector in the score (code; Eq. 9 has none).
        loss: "hinge" of pairs (code), or "bce" (paper). Hinge is the default: the published numbers used it. "softmax",
            in neither, compares each target with all items of its batch, those of other users and of the edges of
            Eq. 10 too (with beta=0 there are no such edges).
        targets: "users", one target per user and epoch, among the most recent ones (code; the paper does not say), or
            "prefixes", each item of each history that has a past.
        recent: with "users", how far back the target may be: any of the last `recent` + 1 training items, but none of
            a user's first three if there are others (code).
        negatives: number of uniform unseen items that each target is compared with, at most as many as the user has
            training items (code).
        beta: weight of Eq. 10, which is a sum over thousands of pairs (Eq. 13).
        ssl_edges: pairs of edges drawn per user and slice, at most half of the user's edges there (code).
        ssl_width: hidden units of the reliability w.
        reg: weight of the sum of squares of tables, positions and the weights of w (code).
        seen: whether evaluation masks or keeps the items of the history.
    """

    dim: int = 64
    slices: int = 5
    by: Literal["equal_lengths", "equal_counts", "month"] = "equal_lengths"
    tables: Literal["slices", "shared", "items"] = "slices"
    past: bool = False
    layers: int = 2
    norm: Literal["sum", "symmetric"] = "sum"
    slope: float = 0.5
    interval: Literal["fusion", "mean"] = "fusion"
    interval_pool: Literal["mean", "last"] = "mean"
    recurrent: Literal["gru", "lstm"] = "gru"
    shared_cell: bool = True
    heads: int = 16
    dropout: float = 0.5
    instance: Literal["attention", "causal", "collapsed", "none"] = "attention"
    instance_layers: int = 2
    max_length: int = 200
    pool: Literal["sum", "mean"] = "sum"
    activate: bool = False
    loss: Literal["hinge", "bce", "softmax"] = "hinge"
    targets: Literal["users", "prefixes"] = "users"
    recent: int = 5
    negatives: int = 40
    beta: float = 1e-6
    ssl_edges: int = 40
    ssl_width: int = 32
    reg: float = 1e-2
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=150, monitor="ndcg@10"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", slices=">=1", layers=">=0", slope=">=0 <=1", heads=">=1")
        check_limits(self, dropout=">=0 <1", instance_layers=">=0", max_length=">=1", recent=">=0", negatives=">=1")
        check_limits(self, beta=">=0", ssl_edges=">=1", ssl_width=">=1", reg=">=0")
        if self.past and self.slices == 1 and self.by != "month":
            raise ConfigError("past=True needs slices before a target's, and slices is 1; use more, or past=False")
        if self.dim % self.heads:
            raise ConfigError(f"heads is {self.heads} and dim is {self.dim}; expected a dim that is divisible by heads")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch's vectors: slices (T, B, d) and (T, N, d); long-term (B, d) and (N, d); instance-level (B, d)."""

    user_slices: Tensor
    item_slices: Tensor
    user: Tensor
    item: Tensor
    instance: Tensor


class SelfGNN(Keeping, Model):
    """Short-term vectors by slice, long-term vectors over slices and over histories; the score is their dot product.

    A user who is not in training is folded in (`fold_in_slices`): the history's items, in the slices of their times
    (in the last one if there are no times), are the neighbours of a user without vectors of its own.

    Shapes: slices of users (T, U, d) and items (T, M, d); queries -> vectors (B, 1, d), items -> (M, d).

    Raises:
        ConfigError: the log has no times, or too many months, or one month where past=True.
        DataError: more slices than distinct times.
    """

    Config = SelfGNNConfig
    default_negatives = 999
    config: SelfGNNConfig
    user: Tensor

    def __init__(self, split: Split, config: SelfGNNConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        check_times(split, True, without="a model without time slices, such as sasrec")
        self.boundaries = slice_boundaries(split.train, c.by, n=None if c.by == "month" else c.slices)
        if c.past and not len(self.boundaries):
            raise ConfigError(
                f"past=True needs slices before a target's, and {split.log.name!r} covers one month only; use "
                "by='equal_counts' with slices=5, or past=False"
            )
        if c.by == "month" and len(self.boundaries) >= MONTHS:
            raise ConfigError(
                f"by='month' cuts {split.log.name!r} into {len(self.boundaries) + 1} slices, each with vectors of its "
                f"own; expected at most {MONTHS}: take by='equal_counts' with slices=12, or a period by log.between()"
            )
        self.edges = SliceEdges.of(split.train, self.boundaries)
        self.adjacency = SliceAdjacency(time_slices(split.train, self.boundaries))
        slices = self.adjacency.num_slices
        with seeded(c.train.seed, "init"):
            own = (slices,) if c.tables == "slices" else ()
            if c.tables == "items":
                self.register_buffer("user", torch.zeros(self.num_users, c.dim), persistent=False)
            else:
                self.user = nn.Parameter(torch.empty(*own, self.num_users, c.dim))
            self.item = nn.Parameter(torch.empty(*own, self.num_items, c.dim))
            self.encoder = SliceEncoder(c.layers, c.norm, c.slope)
            self.fusion: nn.Module = Slices(c.interval_pool)
            if c.interval == "fusion":
                self.fusion = IntervalFusion(c.dim, c.heads, c.recurrent, c.dropout, c.shared_cell, c.interval_pool)
            self.instance: nn.Module = NoInstances()
            if c.instance != "none":
                sizes = (c.dim, c.heads, c.instance_layers, c.max_length)
                self.instance = InstanceEncoder(*sizes, c.slope, c.instance, c.pool)
            self.reliability = Reliability(c.dim, c.ssl_width, c.slope)
            for side in (self.user, self.item)[c.tables == "items" :]:
                for table in side.view(-1, *side.shape[-2:]):
                    nn.init.xavier_uniform_(table)
            initialise(self, "xavier_uniform")

    @property
    def targets_per_epoch(self) -> int:
        """The number of users with a target, or of items with a past."""
        if self.config.targets == "prefixes":
            return super().targets_per_epoch
        return int((np.diff(self.split.train.offsets) > 1).sum())

    def batches(self, split: Split, streams: Streams) -> Iterator[Sliced]:
        """`train.batch_size` targets per step, each with its history, unseen items, and edges for Eq. 10."""
        c = self.config
        yield from slice_batches(
            split.train,
            self.edges,
            c.train.batch_size,
            streams,
            self.device,
            targets=c.targets,
            recent=c.recent,
            max_length=c.max_length,
            negatives=c.negatives,
            edge_pairs=c.ssl_edges if c.beta else 0,
            boundaries=self.boundaries if c.past else None,
            windows=c.targets == "prefixes" and c.instance == "causal",
        )

    # --- Vectors -------------------------------------------------------------------------------------------------

    def encode(self, batch: Sliced) -> Encoded:
        """All vectors of a batch."""
        tables, rows = (self.user, self.item), (batch.user, batch.items)
        short = self.encoder(self.adjacency, tables, rows)  # Eq. 1, Eq. 2
        user, item = self.fusion(short[0], 0, batch.past), self.fusion(short[1], 1)  # Eq. 3, Eq. 4, Eq. 5
        instance = self.instance(batch.history, item, batch.after)  # Eq. 6, Eq. 7, Eq. 8
        return Encoded(short[0], short[1], user, item, instance)

    def views(self, user: Tensor, instance: Tensor) -> Tensor:
        """(B, d): both views of the users, whose product with an item is the score."""
        return user + (F.leaky_relu(instance, self.config.slope) if self.config.activate else instance)  # Eq. 9

    # --- Loss ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Sliced) -> dict[str, Tensor]:
        """The ranking of targets above unseen items, Eq. 10 with its weight beta, and the sum of squares (Eq. 13)."""
        return self.terms(batch, self.encode(batch))

    def terms(self, batch: Sliced, encoded: Encoded) -> dict[str, Tensor]:
        """The terms of the loss of a batch whose vectors are known."""
        c = self.config
        users = self.views(encoded.user, encoded.instance)  # (B, d)
        if c.loss == "softmax":
            candidates = encoded.item[: len(encoded.item) - batch.aside]
            terms: dict[str, Tensor] = {c.loss: item_cross_entropy(users, candidates, batch.target)}
        else:
            positive = (users * encoded.item[batch.target]).sum(1)[batch.row]  # (P,)
            negative = (users[batch.row] * encoded.item[batch.negative]).sum(1)  # (P,)
            terms = {c.loss: (hinge if c.loss == "hinge" else pair_cross_entropy)(positive, negative)}
        if c.beta:
            terms["self_augmented"] = c.beta * self.self_augmented(batch, encoded)
        if c.reg:
            squares = [sum_of_squares(weight) for name, weight in self.named_parameters() if name in REGULARISED]
            terms["l2"] = c.reg * torch.stack(squares).sum()
        return terms

    def self_augmented(self, batch: Sliced, encoded: Encoded) -> Tensor:
        """Of two edges, a slice should prefer the one with the higher long-term score, as far as the slice is reliable.

        The gradient goes through the weights of the long-term scores and the slice's scores, not the long-term scores.
        """
        weight = self.reliability(encoded.user, encoded.user_slices).flatten()[batch.edge_node]  # w, (2, S)
        t, row, item = batch.edge_node // len(batch.user), batch.edge_node % len(batch.user), batch.edge_item
        long = self._edge_scores(encoded.user.detach()[row], encoded.item.detach()[item])  # (2, S)
        short = self._edge_scores(encoded.user_slices[t, row], encoded.item_slices[t, item])  # (2, S)
        d1, d2 = weight[0] * long[0] - weight[1] * long[1], short[0] - short[1]  # (S,)
        return F.relu(1 - d1 * d2).sum()  # Eq. 10

    def _edge_scores(self, user: Tensor, item: Tensor) -> Tensor:
        return F.leaky_relu(user * item, self.config.slope).sum(-1)

    # --- Scores --------------------------------------------------------------------------------------------------

    def all_vectors(self) -> tuple[Tensor, Tensor]:
        """Long-term vectors of all users (U, d) and items (M, d); in evaluation they are computed once and kept."""
        return self.once("vectors", tuple(self.parameters()), self._all_vectors)

    def _all_vectors(self) -> tuple[Tensor, Tensor]:
        users, items = self.encoder(self.adjacency, (self.user, self.item))
        return self.fuse(users, 0), self.fuse(items, 1)

    def fuse(self, slices: Tensor, side: int) -> Tensor:
        """Long-term vectors of many nodes of one side, in chunks: (T, A, d) -> (A, d)."""
        return torch.cat([self.fusion(part, side) for part in slices.split(CHUNK, 1)])

    def _item_layers(self) -> list[Tensor]:
        return item_layers(self.encoder, self.adjacency, (self.user, self.item))

    def query_vectors(self, queries: Queries) -> Tensor:
        """Eq. 9 of each query's user and history; an unknown user is folded in from the history."""
        users, items = self.all_vectors()
        vectors = users[torch.as_tensor(queries.user, device=users.device).clamp(min=0)]  # (B, d)
        trained = np.diff(self.split.train.offsets) > 0  # (U,)
        unknown = np.flatnonzero((queries.user < 0) | ~trained[np.maximum(queries.user, 0)])
        if len(unknown):
            tables, layers = (self.user, self.item), self.once("layers", tuple(self.parameters()), self._item_layers)
            short = fold_in_slices(self.encoder, self.adjacency, tables, queries[unknown], self.boundaries, layers)
            place = torch.as_tensor(unknown, device=users.device)
            vectors = vectors.index_copy(0, place, self.fusion(short, 0))
        history = query_sequences(queries, self.config.max_length, self.device)
        return self.views(vectors, self.instance(history, items)).unsqueeze(1)  # (B, 1, d)

    def item_vectors(self) -> Tensor:
        """The long-term vectors of the items."""
        return self.all_vectors()[1]

    @torch.no_grad()
    def slice_weights(self) -> Tensor:
        """(T, U): the learned reliability w of each user's slices, between 0 and 1 (Eq. 10 in docs/selfgnn.md)."""
        with eval_mode(self):
            rows = (torch.arange(size, device=self.device) for size in (self.num_users, 0))
            short, _ = self.encoder(self.adjacency, (self.user, self.item), tuple(rows))
            return torch.cat([self.reliability(self.fusion(part, 0), part) for part in short.split(CHUNK, 1)], 1)
