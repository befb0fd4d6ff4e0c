"""Batches of the models on time slices: targets with their histories, unseen items, and edges of each slice.

Everything is drawn and put together on the host, without a loop over users, and sent once. Histories, targets and
negatives point into the items of their own batch, so that a step computes the vectors of these items alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .batches import position_rows, unseen_items
from .data.flat import Floats, Ints
from .data.log import InteractionLog
from .graphs import Sequences
from .streams import Streams

Targets = Literal["users", "prefixes"]


@dataclass(frozen=True, eq=False)
class Sliced:
    """B targets and all that a step on them needs. A *place* is an index into `items`.

    Attributes:
        user: (B,) int64.
        items: (N,) int64, the distinct items that occur in the batch, ascending; after them, also ascending, those that
            HardGNN mined and that are not among them.
        history: what came before each target, packed, as places; where `after` is given, windows of histories.
        target: (B,) int64, places.
        row, negative: (P,) int64: pairs of a target's row, ascending, and the place of an item new to its user.
        edge_node: (2, S) int64, t B + row, and
        edge_item: (2, S) int64, places: the two edges of each pair of SelfGNN's self-augmented learning, in slice t.
        hard: (B, K) int64, places of the items that HardGNN mined, or None.
        aside: how many of `items`, the last ones, are no candidates of the softmax: those mined for Eq. 12 alone.
        shared: (n,) int64, places of the items that are the whole batch's negatives in HardGNN's public code, or None.
        past: (B,) int64, how many slices end before each target, or None where all slices may be read.
        after: (B,) int64, the packed rows of `history` that come right before the targets, or None where each target
            has a separate history and comes after its end.
    """

    user: Tensor
    items: Tensor
    history: Sequences
    target: Tensor
    row: Tensor
    negative: Tensor
    edge_node: Tensor
    edge_item: Tensor
    hard: Tensor | None = None
    aside: int = 0
    shared: Tensor | None = None
    past: Tensor | None = None
    after: Tensor | None = None


@dataclass(frozen=True, eq=False)
class SliceEdges:
    """The distinct pairs of each time slice, by (slice, user): those of slice t and user u begin at place t U + u.

    Attributes:
        num_slices: T.
        offsets: (T U + 1,) int64.
        items: (E,) int64, ascending within a user's slice.
    """

    num_slices: int
    offsets: Ints
    items: Ints

    @classmethod
    def of(cls, train: InteractionLog, boundaries: Floats) -> SliceEdges:
        """Those of a log with times, cut at `boundaries` (T - 1,) as `graphs.time_slices` cuts it."""
        assert train.time is not None
        slice_of = np.searchsorted(boundaries, train.time, side="right")
        pair = np.unique((slice_of * train.num_users + train.user) * train.num_items + train.item)
        cells = (len(boundaries) + 1) * train.num_users
        offsets = np.searchsorted(pair, np.arange(cells + 1) * train.num_items)
        return cls(len(boundaries) + 1, offsets, pair % train.num_items)

    def draw(self, user: Ints, most: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Pairs of edges of some users (B,) in each slice: t B + row (2, S), and items (2, S).

        A user with n edges in a slice has min(most, n // 2) pairs, drawn with replacement. The edges of a slice are one
        list, user after user, whose first half is paired with the second, as in SelfGNN's public code.
        """
        users = (len(self.offsets) - 1) // self.num_slices
        cell = (np.arange(self.num_slices)[:, None] * users + user).ravel()  # (T B,)
        degree = self.offsets[cell + 1] - self.offsets[cell]
        number = np.minimum(most, degree // 2)
        owner = np.repeat(np.arange(len(cell)), 2 * number)  # (2 S,)
        drawn = self.items[self.offsets[cell[owner]] + (rng.random(len(owner)) * degree[owner]).astype(np.int64)]
        size = number.reshape(self.num_slices, -1).sum(1)  # (T,) pairs of each slice
        first = np.arange(size.sum()) + np.repeat(np.cumsum(size) - size, size)
        ends = np.stack([first, first + np.repeat(size, size)])  # (2, S)
        return owner[ends], drawn[ends]


def slice_batches(
    train: InteractionLog,
    edges: SliceEdges,
    size: int,
    streams: Streams,
    device: torch.device,
    *,
    targets: Targets,
    recent: int,
    max_length: int,
    negatives: int,
    edge_pairs: int,
    boundaries: Floats | None = None,
    windows: bool = False,
) -> Iterator[Sliced]:
    """One epoch, `size` targets per step; the fields after the star are those of `SelfGNNConfig` (`ssl_edges`).

    With `boundaries` (T - 1,) each target says how many slices end before it. With `windows` the prefixes of a history
    that are targets share it, as those of SASRec do.
    """
    ended = None  # (n,) how many slices end before each event
    if boundaries is not None and train.time is not None:
        ended = np.searchsorted(boundaries, train.time, side="right")
    rng = streams.numpy("targets")
    number = np.diff(train.offsets)  # (U,)
    batches: Iterator[tuple[Any, ...]]
    if windows:
        parts = position_rows(train, size, max_length, max(1, max_length // 2), rng)
        batches = ((starts, sizes, before + 1, places) for starts, sizes, before, places in parts)
    else:
        batches = _own_histories(train, _targets(train, targets, recent, rng), size, max_length)
    for step, (starts, lengths, row, after) in enumerate(batches):
        user, target = train.user[row], train.item[row]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        past = train.item[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
        pairs = np.minimum(number[user], negatives)
        negative = unseen_items(train, np.repeat(user, pairs), streams.numpy("negatives", step))
        once = np.sort(np.unique(user, return_index=True)[1])  # Eq. 10 sums over users, however many targets they have
        owner, edge_item = edges.draw(user[once], edge_pairs, streams.numpy("edges", step))
        edge_node = owner // len(once) * len(user) + once[owner % len(once)]
        there = np.zeros(train.num_items, dtype=bool)
        for items in (past, target, negative, edge_item):
            there[items] = True
        place = np.cumsum(there) - 1

        def send(array: Any) -> Tensor:
            return torch.as_tensor(array, device=device)

        yield Sliced(
            user=send(user),
            items=send(np.flatnonzero(there)),
            history=Sequences(send(offsets), send(place[past]), sizes=lengths),
            target=send(place[target]),
            row=send(np.repeat(np.arange(len(user)), pairs)),
            negative=send(place[negative]),
            edge_node=send(edge_node),
            edge_item=send(place[edge_item]),
            past=None if ended is None else send(ended[row]),
            after=None if after is None else send(after),
        )


def _own_histories(train: InteractionLog, rows: Ints, size: int, max_length: int) -> Iterator[tuple[Any, ...]]:
    """As `position_rows`, for targets at `rows` that share no history: starts, lengths, rows of the targets, None."""
    for first in range(0, len(rows), size):
        row = rows[first : first + size]
        lengths = np.minimum(train.position[row], max_length)
        yield row - lengths, lengths, row, None


def _targets(train: InteractionLog, targets: Targets, recent: int, rng: np.random.Generator) -> Ints:
    """Rows of the training log that are the targets of an epoch, shuffled."""
    if targets == "prefixes":
        return rng.permutation(np.flatnonzero(train.position > 0))
    number = np.diff(train.offsets)
    users = rng.permutation(np.flatnonzero(number > 1))
    reach = np.clip(number[users] - 3, 1, recent + 1)
    rows: Ints = train.offsets[users + 1] - 1 - (rng.random(len(users)) * reach).astype(np.int64)
    return rows
