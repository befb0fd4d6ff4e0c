"""From targets and queries to the neighbourhoods that prompts are made of, and packed prompts on a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.flat import Floats, Ints, ranges
from ..data.log import InteractionLog
from ..data.queries import Queries
from ..graphs import Hops, hops
from .prompts import Neighbour, Prompts


@dataclass(frozen=True, eq=False)
class Asked:
    """B questions: which item comes after a history.

    Attributes:
        user: (B,) int64, -1 for an unknown one.
        history: the items of each history, newest first.
        time: (B,) float64 seconds of the question; infinite where it is not known. None for a log without times.
        target: (B,) int64, the answer; -1 where it is not known.
    """

    user: Ints
    history: Neighbour
    time: Floats | None
    target: Ints


def targets_of(train: InteractionLog, rows: Ints, max_length: int) -> Asked:
    """The events `rows` (B,) of the training log as questions, each with the `max_length` events before it."""
    sizes = np.minimum(train.position[rows], max_length)
    back, offsets = ranges(np.zeros(len(rows), dtype=np.int64), sizes)  # 0 for the newest
    history = Neighbour(offsets, train.item[np.repeat(rows - 1, sizes) - back])
    time = None if train.time is None else train.time[rows]
    return Asked(train.user[rows], history, time, train.item[rows])


def asked_batches(
    train: InteractionLog, number: int, size: int, max_length: int, rng: np.random.Generator
) -> Iterator[Asked]:
    """An epoch's questions, `size` at a time: `number` training events that have a past, in random order."""
    rows = np.flatnonzero(train.position > 0)
    rows = rows[rng.permutation(len(rows))][:number]
    for first in range(0, len(rows), size):
        yield targets_of(train, rows[first : first + size], max_length)


def history_of(queries: Queries, max_length: int) -> Asked:
    """Queries as questions; those without a time may see all events."""
    sizes = np.minimum(queries.lengths, max_length)
    back, offsets = ranges(np.zeros(len(sizes), dtype=np.int64), sizes)
    history = Neighbour(offsets, queries.items[np.repeat(queries.offsets[1:] - 1, sizes) - back])
    time = np.full(len(queries), np.inf) if queries.time is None else queries.time
    return Asked(queries.user, history, time, np.full(len(queries), -1))


def around_users(
    graph: Any, asked: Asked, fanouts: Sequence[int], before: Floats | None, order: Any, seed: int = 0
) -> list[Neighbour]:
    """The histories, the other users of their items, and, with two fanouts, the other items of these users.

    Args:
        graph: of the training log, or `Neighbours` of it.
        asked: B questions.
        fanouts: neighbours of each node at each hop after the history.
        before: (B,) seconds; None walks all edges.
        order, seed: see `graphs.hops`.
    """
    if not fanouts or len(asked.history.nodes) == 0:
        empty = Neighbour(np.zeros(len(asked.user) + 1, dtype=np.int64), asked.history.nodes[:0])
        return [asked.history, *(empty for _ in fanouts)]
    row = np.repeat(np.arange(len(asked.user)), np.diff(asked.history.offsets))
    cut = None if before is None else before[row]
    trees = _without_askers(graph, asked.history.nodes, fanouts, asked.user[row], cut, order, seed)
    return [asked.history, *(Neighbour.of(level, row, len(asked.user)) for level in trees.levels)]


def around_items(
    graph: Any, asked: Asked, fanouts: Sequence[int], before: Floats | None, order: Any, seed: int = 0
) -> list[Neighbour]:
    """The users of the targets except the query's own, the other items of these, and so on; see `around_users`."""
    trees = _without_askers(graph, asked.target, fanouts, asked.user, before, order, seed)
    each = np.arange(len(asked.user))
    return [Neighbour.of(level, each, len(each)) for level in trees.levels]


def _without_askers(
    graph: Any, items: Ints, fanouts: Sequence[int], askers: Ints, before: Floats | None, order: Any, seed: int
) -> Hops:
    """The trees of items (n,), none of which has its asker (n,) at any hop."""
    asker: dict[str, Any] = {"exclude": askers, "everywhere": True}
    return hops(graph, items, fanouts, type="item", before=before, order=order, seed=seed, **asker)


@dataclass(frozen=True, eq=False)
class Packed:
    """B lists one after the other, on a device.

    Attributes:
        offsets: (B + 1,) int64.
        values: (T,) int64.
        rows: (T,) int64, the list that each value belongs to.
        lengths: (B,) on the host.
    """

    offsets: Tensor
    values: Tensor
    rows: Tensor
    lengths: Ints

    @classmethod
    def of(cls, offsets: Ints, values: Ints, device: torch.device) -> Packed:
        """From arrays on the host."""
        lengths = np.diff(offsets)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        first, second, third = (torch.as_tensor(part, device=device) for part in (offsets, values, rows))
        return cls(first, second, third, lengths)

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        """The lists of several, one after the other."""
        lists, total = 0, 0
        offsets, rows = [parts[0].offsets[:1]], []
        for part in parts:
            offsets.append(part.offsets[1:] + total)
            rows.append(part.rows + lists)
            lists, total = lists + len(part.lengths), total + part.values.shape[0]
        values = torch.cat([part.values for part in parts])
        return cls(torch.cat(offsets), values, torch.cat(rows), np.concatenate([part.lengths for part in parts]))

    def repeated(self, times: int) -> Packed:
        """All lists, `times` times."""
        return Packed.joined([self] * times)

    def first_from(self, least: int) -> Tensor:
        """(B,) the index among all T of the first value of each list that is at least `least`; T if there is none."""
        places = torch.arange(len(self.values), device=self.values.device)
        places = places.masked_fill(self.values < least, len(places))
        first = self.offsets.new_full((len(self.lengths),), len(places))
        return first.scatter_reduce(0, self.rows, places, "amin")


@dataclass(frozen=True, eq=False)
class HopPrompts:
    """B targets with their prompts.

    Attributes:
        prompts: "ask", and for the contrasts "user 0", "user 1", "user far", and the same of "item": B prompts each.
        history: the items of the users' histories.
        target: (B,) int64, the next items.
        user: (B,) int64.
    """

    prompts: dict[str, Packed]
    history: Packed
    target: Tensor
    user: Tensor

    @classmethod
    def of(cls, prompts: dict[str, Packed], asked: Asked, device: torch.device) -> HopPrompts:
        """The prompts that were made of questions, with the other parts of these."""
        history = Packed.of(asked.history.offsets, asked.history.nodes, device)
        target, user = (torch.as_tensor(part, device=device) for part in (asked.target, asked.user))
        return cls(prompts, history, target, user)


class CutShare:
    """The share of entries that the budget cut, over the prompts that were made since the last `figures()`."""

    def __init__(self) -> None:
        self._cut = self._entries = 0

    def add(self, made: Prompts, hops: Sequence[Neighbour]) -> None:
        """Count prompts that were made of these neighbours."""
        self._cut += int(made.cut.sum())
        self._entries += sum(len(hop.nodes) for hop in hops)

    def figures(self) -> dict[str, float]:
        """The share, as an epoch's row has it."""
        share = self._cut / max(self._entries, 1)
        self._cut = self._entries = 0
        return {"cut": share}
