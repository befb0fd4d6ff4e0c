"""SelfGNN: self-supervised graph neural networks for sequential recommendation (Liu, Xia, Huang, SIGIR 2024).

The log is cut into time slices. In each slice users and items exchange vectors along its own graph; over the slices a
recurrent cell and attention make one long-term vector a node; over the items of a history attention makes another
vector of the user. The scores of each slice are taught by those of the long-term vectors, with a weight that says how
far a user's slice can be trusted. `docs/selfgnn.md` goes through the equations, numbered as in HardGNN's paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batches import seen_pairs, unseen_items
from ..config import TrainConfig, check_limits
from ..data.splits import Queries, Split
from ..errors import ConfigError
from ..graphs import Sequences, slice_boundaries, time_slices
from ..losses import hinge, pair_cross_entropy
from ..nn.intervals import InstanceEncoder, IntervalFusion, Reliability
from ..nn.slices import SliceAdjacency, SliceEncoder, fold_in_slices
from ..streams import Streams, seeded
from .base import Model, check_times, query_sequences

CHUNK = 8192  # nodes that are fused at once in evaluation


@dataclass(frozen=True)
class SelfGNNConfig:
    """SelfGNN as HardGNN's paper prints it; what the paper leaves open has the value of the authors' public code.

    Attributes:
        dim: width d of users and items.
        slices: number of time slices T; not read with by="month".
        by: how the training log is cut: "equal_lengths" of time (paper and code), "equal_counts" of events, which is
            better where a log grows fast, or calendar months.
        tables: "own", tables of users and items a slice (E_t in Eq. 1), or "shared", one of each for all slices.
        layers: propagations L within a slice.
        norm: "sum" over neighbours (the code, and Eq. 1 with A_t of 0 and 1), or "symmetric", as LightGCN's, which the
            paper names as its inspiration.
        combine: a slice's vectors are the "sum" of layers 0..L (code; the paper does not say), "mean", or "last".
        edge_dropout: share of edges left out in training. The code has such a rate, but it has no effect there.
        slope: of every LeakyReLU; the paper gives none.
        interval: "fusion" (Eq. 3 to 5), or the "mean" of the slices, an ablation.
        recurrent: "gru" (paper) or "lstm" (code).
        shared_cell: one recurrent cell for users and items (code of SelfGNN; Eq. 4 names one) or two (code of HardGNN).
        heads: attention heads, of both levels.
        dropout: of the recurrent states (code).
        instance: "attention" over positions (Eq. 6 to 8), "collapsed" (code: items are summed before attention, see
            `InstanceEncoder`), or "none", an ablation.
        instance_layers: layers L_a of Eq. 7.
        max_length: items of a history that are read, M.
        pool: Eq. 8 is a "sum"; with "mean" long histories do not count for more.
        activate: LeakyReLU of the instance-level vector in the score (code; Eq. 9 has none).
        loss: "hinge" of pairs (code), or "bce" (paper). Hinge is the default, for it made the numbers.
        targets: "users", one target a user and epoch, among the most recent ones (code; the paper does not say), or
            "prefixes", each item of each history that has a past.
        recent: with "users", how far back the target may be: any of the last `recent` + 1 training items, but none of
            a user's first three where there are others (code).
        negatives: each target is set against as many uniform unseen items, or as many as the user has training items
            where these are fewer (code).
        beta: weight of Eq. 10, which is a sum over thousands of pairs (Eq. 13).
        ssl_edges: pairs of edges drawn a user and slice, at most half of the user's edges there (code).
        ssl_pairs: an edge is compared with another one of the "batch" (code), or with one of the same "user".
        ssl_width: hidden units of the reliability w.
        reg: weight of the sum of squares of tables, positions and the weights of w (code).
        seen: whether evaluation masks or keeps the items of the history.
    """

    dim: int = 64
    slices: int = 5
    by: Literal["equal_lengths", "equal_counts", "month"] = "equal_lengths"
    tables: Literal["own", "shared"] = "own"
    layers: int = 2
    norm: Literal["sum", "symmetric"] = "sum"
    combine: Literal["sum", "mean", "last"] = "sum"
    edge_dropout: float = 0.0
    slope: float = 0.5
    interval: Literal["fusion", "mean"] = "fusion"
    recurrent: Literal["gru", "lstm"] = "gru"
    shared_cell: bool = True
    heads: int = 16
    dropout: float = 0.5
    instance: Literal["attention", "collapsed", "none"] = "attention"
    instance_layers: int = 2
    max_length: int = 200
    pool: Literal["sum", "mean"] = "sum"
    activate: bool = False
    loss: Literal["hinge", "bce"] = "hinge"
    targets: Literal["users", "prefixes"] = "users"
    recent: int = 5
    negatives: int = 40
    beta: float = 1e-6
    ssl_edges: int = 40
    ssl_pairs: Literal["batch", "user"] = "batch"
    ssl_width: int = 32
    reg: float = 1e-2
    seen: Literal["mask", "keep"] = "mask"
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=150, monitor="ndcg@10"))

    def __post_init__(self) -> None:
        check_limits(self, dim=">=1", slices=">=1", layers=">=0", edge_dropout=">=0 <1", slope=">=0 <=1", heads=">=1")
        check_limits(self, dropout=">=0 <1", instance_layers=">=0", max_length=">=1", recent=">=0", negatives=">=1")
        check_limits(self, beta=">=0", ssl_edges=">=1", ssl_width=">=1", reg=">=0")
        if self.dim % self.heads:
            raise ConfigError(f"heads is {self.heads} and dim is {self.dim}; expected a dim that the heads divide")


@dataclass(frozen=True, eq=False)
class Sliced:
    """B targets and all that a step on them needs. Items are places among `items`, those that occur at all.

    Attributes:
        user: (B,) int64.
        items: (N,) int64, distinct.
        history: what came before each target, packed; its items are places.
        target: (B,) int64, the items to predict (not places).
        positive: (B,) int64, their places.
        row, negative: (P,) int64: each pair of a target's row with the place of an unseen item.
        edge_node: (2, S) int64, t B + row of the two edges of each pair of Eq. 10, in slice t.
        edge_item: (2, S) int64, the places of their items.
        hard: (B, K) int64 items that HardGNN mined, not places; or None.
        contrast: rows of `negative` that are everybody's negatives in HardGNN's InfoNCE, or None.
    """

    user: Tensor
    items: Tensor
    history: Sequences
    target: Tensor
    positive: Tensor
    row: Tensor
    negative: Tensor
    edge_node: Tensor
    edge_item: Tensor
    hard: Tensor | None = None
    contrast: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch's vectors: slices (T, B, d) and (T, N, d); long-term (B, d) and (N, d); instance-level (B, d)."""

    user_slices: Tensor
    item_slices: Tensor
    user: Tensor
    item: Tensor
    instance: Tensor


class SelfGNN(Model):
    """Short-term vectors by slice, long-term vectors over slices and over histories; the score is their dot product.

    A user whom training did not know is folded in (`fold_in_slices`): the history's items, in the slices of their times
    (in the last one where there are no times), are the neighbours of a user without vectors of its own.

    Shapes: slices of users (T, U, d) and items (T, M, d); queries -> vectors (B, 1, d), items -> (M, d).

    Raises:
        ConfigError: the log has no times.
        DataError: more slices than distinct times.
    """

    Config = SelfGNNConfig
    config: SelfGNNConfig

    def __init__(self, split: Split, config: SelfGNNConfig | None = None, **fields: Any) -> None:
        super().__init__(split, config, **fields)
        c = self.config
        check_times(split, True, "a model without time slices, such as sasrec")
        n = None if c.by == "month" else c.slices
        self.boundaries = slice_boundaries(split.train, c.by, n=n)
        graph = time_slices(split.train, c.by, n=n)
        self.adjacency = SliceAdjacency(graph)
        self.num_slices = self.adjacency.num_slices
        with seeded(c.train.seed, "init"):
            self.user, self.item = (self._table(size) for size in (self.num_users, self.num_items))
            self.encoder = SliceEncoder(c.layers, c.norm, c.slope, c.combine, c.edge_dropout)
            self.fusion = None
            if c.interval == "fusion":
                self.fusion = IntervalFusion(c.dim, c.heads, c.recurrent, c.dropout, c.shared_cell)
            self.instance = None
            if c.instance != "none":
                self.instance = InstanceEncoder(
                    c.dim, c.heads, c.instance_layers, c.max_length, c.slope, c.instance, c.pool
                )
            self.reliability = Reliability(c.dim, c.ssl_width, c.slope)
            for part in self.modules():
                if isinstance(part, nn.Embedding | nn.Linear):
                    nn.init.xavier_uniform_(part.weight)
                if isinstance(part, nn.Linear):
                    nn.init.zeros_(part.bias)
        a = self.adjacency  # the edges on the host, for draws: row of each (slice, user), row pointers, items
        edges = (a.user_row.view(self.num_slices, -1), a.user_offsets, a.item_nodes[a.user_columns] % self.num_items)
        self._edges = tuple(part.numpy() for part in edges)
        self._kept: tuple[Any, ...] | None = None

    def _table(self, size: int) -> nn.Parameter:
        shape = (size, self.config.dim)
        parts = [nn.init.xavier_uniform_(torch.empty(shape)) for _ in range(self.num_slices)]
        return nn.Parameter(torch.stack(parts) if self.config.tables == "own" else parts[0])

    # --- What a step holds ---------------------------------------------------------------------------------------

    @property
    def targets_per_epoch(self) -> int:
        """One for each user with a target, or every item with a past."""
        if self.config.targets == "prefixes":
            return super().targets_per_epoch
        return int((np.diff(self.split.train.offsets) > 1).sum())

    def batches(self, split: Split, streams: Streams) -> Iterator[Sliced]:
        """`train.batch_size` targets a step, each with its history, unseen items, and edges for Eq. 10."""
        train, size = split.train, self.config.train.batch_size
        rows, seen = self._targets(split, streams.numpy("targets")), seen_pairs(train)
        for step, first in enumerate(range(0, len(rows), size)):
            yield self._batch(split, rows[first : first + size], seen, streams, step)

    def _targets(self, split: Split, rng: np.random.Generator) -> np.ndarray:
        """Rows of the training log that are the targets of an epoch, shuffled."""
        train = split.train
        if self.config.targets == "prefixes":
            return rng.permutation(np.flatnonzero(train.position > 0))
        number = np.diff(train.offsets)
        users = rng.permutation(np.flatnonzero(number > 1))
        reach = np.clip(number[users] - 3, 1, self.config.recent + 1)
        back = 1 + (rng.random(len(users)) * reach).astype(np.int64)
        rows: np.ndarray = train.offsets[users + 1] - back
        return rows

    def _batch(self, split: Split, target: np.ndarray, seen: np.ndarray, streams: Streams, step: int) -> Sliced:
        """The batch of some rows of the log; everything is put together on the host, as ids, and sent once."""
        c, train = self.config, split.train
        user = train.user[target]
        sizes = np.minimum(train.position[target], c.max_length)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        past = train.item[np.arange(offsets[-1]) + np.repeat(target - sizes - offsets[:-1], sizes)]
        pairs = np.minimum(np.diff(train.offsets)[user], c.negatives)
        negative = unseen_items(train, np.repeat(user, pairs), streams.numpy("negatives", step), seen)
        edge_node, edge_item = self._edge_pairs(user, streams.numpy("edges", step))
        there = np.zeros(self.num_items, dtype=bool)
        for items in (past, train.item[target], negative, edge_item):
            there[items] = True
        place = np.cumsum(there) - 1

        def send(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, device=self.device)

        return Sliced(
            user=send(user),
            items=send(np.flatnonzero(there)),
            history=Sequences(send(offsets), send(place[past]), sizes=sizes),
            target=send(train.item[target]),
            positive=send(place[train.item[target]]),
            row=send(np.repeat(np.arange(len(user)), pairs)),
            negative=send(place[negative]),
            edge_node=send(edge_node),
            edge_item=send(place[edge_item]),
        )

    def _edge_pairs(self, user: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of edges of the batch's users (B,), drawn in each slice: t B + row (2, S), and items (2, S).

        A user with n edges in a slice has min(`ssl_edges`, n // 2) pairs drawn with replacement. With ssl_pairs="batch"
        the edges of a slice are one list, whose first half is paired with the second, as in the public code.
        """
        c = self.config
        rows, offsets, items = self._edges
        row = rows[:, user].reshape(-1)  # (T B,) -1 where silent
        degree = np.where(row >= 0, offsets[row + 1] - offsets[row], 0)
        number = np.minimum(c.ssl_edges, degree // 2) if c.beta else np.zeros_like(degree)
        owner = np.repeat(np.arange(len(row)), 2 * number)  # (2 S,)
        drawn = items[offsets[row[owner]] + (rng.random(len(owner)) * degree[owner]).astype(np.int64)]
        half = np.arange(len(owner) // 2)
        if c.ssl_pairs == "user":
            ends = np.stack([2 * half, 2 * half + 1])
        else:
            size = number.reshape(len(rows), -1).sum(1)  # (T,) pairs in each slice
            begin = np.repeat(np.cumsum(size) - size, size)
            ends = half + begin + np.stack([np.zeros_like(half), np.repeat(size, size)])
        return owner[ends], drawn[ends]

    # --- Vectors -------------------------------------------------------------------------------------------------

    def encode(self, batch: Sliced) -> Encoded:
        """All vectors of a batch."""
        tables, rows = (self.user, self.item), (batch.user, batch.items)
        user_slices, item_slices = self.encoder(self.adjacency, tables, rows)  # Eq. 1, Eq. 2
        user, item = self._long_term(user_slices, 0), self._long_term(item_slices, 1)  # (B, d), (N, d)
        return Encoded(user_slices, item_slices, user, item, self._instances(batch.history, item))

    def _long_term(self, slices: Tensor, side: int) -> Tensor:
        """(T, A, d) -> (A, d): one vector for each user (side 0) or item (1)."""
        if self.fusion is None:
            return slices.mean(0)
        fused: Tensor = self.fusion(slices, side)  # Eq. 3, Eq. 4, Eq. 5
        return fused

    def _instances(self, history: Sequences, table: Tensor) -> Tensor:
        """(B, d): what the histories say by themselves, over the items' long-term vectors."""
        if self.instance is None:
            return table.new_zeros(len(history), table.shape[1])
        vectors: Tensor = self.instance(history, table)  # Eq. 6, Eq. 7, Eq. 8
        return vectors

    def _views(self, user: Tensor, instance: Tensor) -> Tensor:
        """(B, d): both views of the users, whose product with an item is the score."""
        seen = F.leaky_relu(instance, self.config.slope) if self.config.activate else instance
        return user + seen  # Eq. 9

    # --- Loss ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Sliced) -> dict[str, Tensor]:
        """The ranking of targets above unseen items, Eq. 10 with its weight beta, and the sum of squares (Eq. 13)."""
        return self._terms(batch, self.encode(batch))

    def _terms(self, batch: Sliced, encoded: Encoded) -> dict[str, Tensor]:
        c = self.config
        users = self._views(encoded.user, encoded.instance)  # (B, d)
        positive = (users * encoded.item[batch.positive]).sum(1)[batch.row]  # (P,)
        negative = (users[batch.row] * encoded.item[batch.negative]).sum(1)  # (P,)
        loss = hinge if c.loss == "hinge" else pair_cross_entropy
        terms: dict[str, Tensor] = {c.loss: loss(positive, negative)}
        if c.beta:
            terms["self_augmented"] = c.beta * self._self_augmented(batch, encoded)
        if c.reg:
            squared = [self.user, self.item, self.reliability.inner.weight, self.reliability.outer.weight]
            squared += [] if self.instance is None else [self.instance.position.weight]
            terms["l2"] = c.reg * torch.stack([torch.dot(t.flatten(), t.flatten()) for t in squared]).sum()
        return terms

    def _self_augmented(self, batch: Sliced, encoded: Encoded) -> Tensor:
        """Of two edges a slice shall prefer the one that the long term prefers, as far as the users' slice is reliable.

        No gradient goes through the long-term scores; it goes through their weights, and through the slice's scores.
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

    def train(self, mode: bool = True) -> SelfGNN:
        """Switch between training and evaluation; either forgets what was kept, for weights may have changed."""
        self._kept = None
        return super().train(mode)

    def all_vectors(self) -> tuple[Tensor, Tensor]:
        """Long-term vectors of all users (U, d) and items (M, d); in evaluation they are made once and kept."""
        weights = tuple(self.parameters())
        if self.training or torch.is_grad_enabled() or self.user.is_inference():
            return self._all_vectors()
        key = tuple((weight.data_ptr(), weight._version, weight.device) for weight in weights)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._all_vectors(), weights)  # what the key names stays alive
        return self._kept[1]

    def _all_vectors(self) -> tuple[Tensor, Tensor]:
        slices = self.encoder(self.adjacency, (self.user, self.item))
        users, items = (
            torch.cat([self._long_term(part, side) for part in own.split(CHUNK, 1)]) for side, own in enumerate(slices)
        )
        return users, items

    def query_vectors(self, queries: Queries) -> Tensor:
        """Eq. 9 of each query's user and history; an unknown user is folded in from the history."""
        users, items = self.all_vectors()
        vectors = users[torch.as_tensor(queries.user, device=users.device).clamp(min=0)]  # (B, d)
        trained = np.diff(self.split.train.offsets) > 0  # (U,)
        unknown = np.flatnonzero((queries.user < 0) | ~trained[np.maximum(queries.user, 0)])
        if len(unknown):
            place = torch.as_tensor(unknown, device=users.device)
            vectors = vectors.index_copy(0, place, self._fold_in(queries[unknown]))
        history = query_sequences(queries, self.config.max_length, self.device)
        return self._views(vectors, self._instances(history, items)).unsqueeze(1)  # (B, 1, d)

    def _fold_in(self, queries: Queries) -> Tensor:
        """(B, d): long-term vectors of users whom training did not know."""
        row = np.repeat(np.arange(len(queries)), queries.lengths)
        slice_of = np.full(len(row), self.num_slices - 1)
        if queries.times is not None:
            slice_of = np.searchsorted(self.boundaries, queries.times, side="right")
        user, t, item = (torch.as_tensor(part, device=self.device) for part in (row, slice_of, queries.items))
        tables = (self.user, self.item)
        return self._long_term(fold_in_slices(self.encoder, self.adjacency, tables, (user, t, item), len(queries)), 0)

    def item_vectors(self) -> Tensor:
        """The long-term vectors of the items."""
        return self.all_vectors()[1]

    @torch.no_grad()
    def slice_weights(self) -> Tensor:
        """(T, U): the learned reliability w of each user's slices, between 0 and 1 (see Eq. 10's page)."""
        users, _ = self.all_vectors()
        short, _ = self.encoder(self.adjacency, (self.user, self.item))
        weights: Tensor = self.reliability(users, short)
        return weights
