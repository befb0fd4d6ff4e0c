"""The sample kind "hops": users who copy items of their neighbours, and whose own histories say little.

Users belong to small crews, and act once in each of ROUNDS rounds, the members of a crew in random order. An event is,

    with probability `noise`    any item that is new to the user,
    else with COPY              an item that another member had FIRST_LAG to LAST_LAG rounds ago and that is new to
                                the user (each event counts: an item that two of them had is twice as likely),
    else                        any item that is new to the user, as also where there is none to copy.

An item has few users, of a few crews, so that nothing can be learned of it in general. The graph shows who the members
of a user's crew are: those who have the same items. Their recent items are likely to come, and under leave-one-out
these are in the training log, as at most FIRST_LAG rounds are held out. Items are copied from several rounds, as
leave-one-out ends all training histories at the same round: with a single lag, the next item would be the others' last
item but one in validation and their last one in test, and a model that learns the one fails at the other.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .flat import Ints
from .interests import event_rows, places_of
from .log import InteractionLog
from .oracles import best_scores
from .queries import Queries

if TYPE_CHECKING:
    import torch

VERSION = 2  # 1 copied from one round alone
USERS, ITEMS, NOISE = 2000, 3000, 0.1  # where the caller gives none

CREW, ROUNDS, COPY = 5, 12, 0.7
FIRST_LAG, LAST_LAG = 2, 4  # rounds
_START, _HOUR = 1_577_836_800, 3_600  # 2020-01-01, in seconds since 1970
_SLOT_HOURS = 6  # between one member of a crew and the next
_BLOCK = 1024  # queries at a time
_NUMBERS = 1 << 20  # drawn at a time, so that memory does not grow with users times items


class HopWorld:
    """The process with its settings drawn, and all that its users do; see the text at the top of this file.

    Attributes:
        crew: (U,) int64, crew of each user.
        user: (n,) int64, user of each event; ascends.
        item: (n,) int64.
        time: (n,) float64 seconds, ascending within a user; those of a crew never tie.
        copied: (n,) bool, whether the event was copied from another member.
    """

    def __init__(self, users: int, items: int, seed: int, noise: float) -> None:
        if items <= 2 * ROUNDS:
            raise DataError(
                f"a sample of {items} items; hops needs more than {2 * ROUNDS}, as a user has an item only once"
            )
        self.users, self.items, self.noise = users, items, noise
        rng = np.random.default_rng([zlib.crc32(b"hops"), VERSION, int(seed)])
        crews = -(-users // CREW)
        self.crew: Ints = np.empty(users, dtype=np.int64)
        self.crew[np.argsort(rng.random(users))] = np.arange(users) % crews
        by_crew = np.argsort(self.crew, kind="stable")
        place = np.arange(users) - np.searchsorted(self.crew[by_crew], self.crew[by_crew])
        members = np.full((crews, CREW), -1, dtype=np.int64)
        members[self.crew[by_crew], place] = by_crew
        self._members = members
        self._draw(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        """All events: a loop over rounds and turns, each of which moves one member of every crew."""
        self._item: Ints = np.full((self.users, ROUNDS), -1, dtype=np.int64)  # the item of each user in each round
        time, copied = np.zeros((self.users, ROUNDS)), np.zeros((self.users, ROUNDS), dtype=bool)
        for step in range(ROUNDS):
            turn = np.argsort(rng.random(self._members.shape), axis=1)
            for slot, user in enumerate(np.take_along_axis(self._members, turn, axis=1).T):
                user = user[user >= 0]  # (A,) at most one of a crew
                found, own = self._copies(user, np.full(len(user), step)), self._item[user]
                chance = np.where(found >= 0, rng.random(found.shape), -1.0)
                how = rng.random((2, len(user)))
                copies = (how[0] >= self.noise) & (how[1] < COPY) & (chance.max(1) >= 0)
                chosen = np.take_along_axis(found, chance.argmax(1)[:, None], axis=1)[:, 0]
                self._item[user, step] = np.where(copies, chosen, self._any_new(rng, own[:, :step]))
                copied[user, step] = copies
                hours = (step * CREW + slot + rng.random(len(user)) * 0.9) * _SLOT_HOURS
                time[user, step] = np.floor(_START + hours * _HOUR)
        self.user = np.repeat(np.arange(self.users), ROUNDS)
        self.item, self.time, self.copied = self._item.reshape(-1), time.reshape(-1), copied.reshape(-1)

    def _any_new(self, rng: np.random.Generator, had: Ints) -> Ints:
        """(A,) one of all items that are not in each row of `had` (A, step): the largest of a number for each item."""
        chosen: Ints = np.empty(len(had), dtype=np.int64)
        rows = max(1, _NUMBERS // self.items)
        for first in range(0, len(had), rows):
            part = had[first : first + rows]
            numbers = rng.random((len(part), self.items))
            numbers[np.arange(len(part))[:, None], part] = -1.0
            chosen[first : first + rows] = numbers.argmax(1)
        return chosen

    def _copies(self, user: Ints, step: Ints) -> Ints:
        """(A, C) items that a user may copy, -1 for none: of the other members, some rounds ago, new to the user."""
        mates = self._members[self.crew[user]]  # (A, CREW)
        rounds = step[:, None] - np.arange(FIRST_LAG, LAST_LAG + 1)  # (A, lags)
        there = ((mates >= 0) & (mates != user[:, None]))[:, :, None] & (rounds >= 0)[:, None]
        items = self._item[mates[:, :, None], np.maximum(rounds, 0)[:, None]]  # (A, CREW, lags)
        before = np.where(np.arange(ROUNDS) < step[:, None], self._item[user], -1)  # (A, ROUNDS)
        taken = (items[..., None] == before[:, None, None]).any(3)
        copies: Ints = np.where(there & ~taken, items, -1).reshape(len(user), -1)
        return copies

    def log(self) -> InteractionLog:
        """The events as a log, in the same order."""
        return InteractionLog.from_arrays(
            self.user,
            self.item,
            self.time,
            user_ids=[f"user-{number}" for number in range(1, self.users + 1)],
            item_ids=[f"item-{number}" for number in range(1, self.items + 1)],
            name="sample-hops",
        )


class HopOracle:
    """Scores items by their true probability to come next, with knowledge of the process and of what all users did.

    `scores` has the form of a model's, so that `evaluate(oracle, split.test)` gives the best reachable values. Only
    events from FIRST_LAG rounds before the target and earlier are used, so that a model which reads the training log
    could do as well.
    """

    name = "oracle"

    def __init__(self, world: HopWorld, log: InteractionLog | None = None) -> None:
        self._world = world
        self._items, self._user = np.arange(world.items), np.arange(world.users)
        if log is not None:
            self._items = places_of(log.item_ids.tolist(), "item", world.items)
            self._user = places_of(log.user_ids.tolist(), "user", world.users)

    def probabilities(self, queries: Queries) -> npt.NDArray[np.float32]:
        """(B, M) probability of each item to come next.

        Raises:
            DataError: a query is not about an event of the sample.
        """
        world, each = self._world, np.arange(len(queries))
        if (queries.user < 0).any():
            raise DataError("the oracle of this sample knows its users by number; a query has none")
        user = self._user[queries.user]
        step = self._step(queries, user)
        found = world._copies(user, step)
        count = (found >= 0).sum(1, keepdims=True)  # (B, 1)
        table = np.ones((len(queries), world.items + 1))
        row, history = np.repeat(each, queries.lengths), self._items[queries.items]
        table[row, history] = 0.0
        table[:, -1] = 0.0
        copying = (1 - world.noise) * COPY * (count > 0)
        table *= (1 - copying) / table.sum(1, keepdims=True)
        np.add.at(table, (each[:, None], found), copying / np.maximum(count, 1))  # -1 falls into the last column
        return table[:, self._items].astype(np.float32)

    def _step(self, queries: Queries, user: Ints) -> Ints:
        """(B,) round of each query's target; the one after the last where the time is not known."""
        if queries.time is None:
            return np.full(len(queries), ROUNDS)
        return event_rows(self._world.user, self._world.time, self._user, queries.user, queries.time) % ROUNDS

    def scores(self, queries: Queries, items: Any = None) -> torch.Tensor:
        """(B, M) float32 probabilities, or (B, C) for items (B, C)."""
        import torch

        table = torch.from_numpy(self.probabilities(queries))
        return table if items is None else table.gather(1, torch.as_tensor(items, dtype=torch.int64))

    def best_scores(
        self, queries: Queries, k: tuple[int, ...] = (5, 10, 20, 50), block: int = _BLOCK
    ) -> dict[str, float]:
        """Expected recall@k and ndcg@k of the best ranking there is."""
        return best_scores(self.probabilities, queries, k, block)
