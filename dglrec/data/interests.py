"""The sample kind "interests": users who follow several interests at once, which come and go.

Items belong to communities, of which there are as many as items in each; all items are equally popular. A user follows
STRANDS interests at a time, each of them a community. Events come in sessions:

    before each event but the first    with probability PAUSE, the user stays away for days. After that each strand,
                                       by itself, is given up with probability DRIFT, and becomes the next community (in
                                       the order of their numbers, the last one followed by the first) with probability
                                       FOLLOW, else any community;
    the event                          with probability `noise`, any item; else one of the strands at random, and any
                                       item of its community.

So interests interleave within a window, what was dropped or taken up shows only in order and time, and a community that
is new to the user can be foreseen half of the time. Nothing else can be learned: popularity is chance. An item may come
again. Histories have 101 to 800 events, so that 5,000 users give about 20,000 windows of 100.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DataError
from .flat import Floats, Ints
from .log import InteractionLog
from .queries import Queries

if TYPE_CHECKING:
    import torch

VERSION = 1
USERS, ITEMS, NOISE = 5000, 10_000, 0.1  # where the caller gives none

STRANDS = 5
PAUSE, DRIFT, FOLLOW = 1 / 12, 0.15, 0.5
_SHORTEST, _LONGEST = 101, 800
_START, _DAY = 1_577_836_800, 86_400  # 2020-01-01, in seconds since 1970
_JOIN_DAYS = 730  # users join within this many days
_PAUSE_DAYS, _GAP_MINUTES = 6, 20  # means of what comes on top of a day, and of a minute
_BLOCK = 512  # queries at a time

_KINDS_OF = ("Alpine", "Antique", "Indian", "Italian", "Japanese", "Modern", "Nordic", "Pocket", "Summer", "Vintage")
_TOPICS = ("baking", "chess", "cycling", "fishing", "gardens", "guitars", "knitting", "maps", "pottery", "sailing")


class InterestWorld:
    """The process with its settings drawn, and all that its users do; see the text at the top of this file.

    Attributes:
        group: (M,) int64, community of each item.
        num_groups: number of communities.
        user: (n,) int64, user of each event; ascends.
        item: (n,) int64.
        time: (n,) float64 seconds, ascending within a user without ties.
        label: (n,) int64, community that the event came from; -1 for noise.
        state: (n, STRANDS) int16, the interests that its user follows at the event.
    """

    def __init__(self, users: int, items: int, seed: int, noise: float) -> None:
        self.users, self.items, self.noise = users, items, noise
        self.num_groups = math.isqrt(items)
        rng = np.random.default_rng([zlib.crc32(b"interests"), VERSION, int(seed)])
        shuffled = rng.permutation(items)
        self.group = np.empty(items, dtype=np.int64)
        self.group[shuffled] = np.arange(items) % self.num_groups
        self._members = np.argsort(self.group, kind="stable")  # items, community by community
        self._first = np.searchsorted(self.group[self._members], np.arange(self.num_groups + 1))
        self._draw(rng)

    def _draw(self, rng: np.random.Generator) -> None:
        """All events: a loop over steps, each of which moves every user whose history goes on."""
        length = rng.integers(_SHORTEST, _LONGEST + 1, self.users)
        steps = int(length.max())
        item = np.zeros((self.users, steps), dtype=np.int64)
        label = np.zeros((self.users, steps), dtype=np.int64)
        state = np.zeros((self.users, steps, STRANDS), dtype=np.int16)
        following = rng.integers(self.num_groups, size=(self.users, STRANDS))
        paused = rng.random((self.users, steps)) < PAUSE
        paused[:, 0] = False
        for step in range(steps):
            on = np.flatnonzero(length > step)  # (A,) users
            away = on[paused[on, step]]
            following[away] = self._drift(following[away], rng)
            own = following[on, rng.integers(STRANDS, size=len(on))]
            size = self._first[own + 1] - self._first[own]
            place = self._first[own] + (rng.random(len(on)) * size).astype(np.int64)
            stray = rng.random(len(on)) < self.noise
            item[on, step] = np.where(stray, rng.integers(self.items, size=len(on)), self._members[place])
            label[on, step] = np.where(stray, -1, own)
            state[on, step] = following[on]
        days = 1 + rng.exponential(_PAUSE_DAYS, (self.users, steps))
        minutes = 1 + rng.exponential(_GAP_MINUTES, (self.users, steps))
        gap = np.where(paused, days * _DAY, minutes * 60)
        gap[:, 0] = rng.random(self.users) * _JOIN_DAYS * _DAY
        rows = np.arange(steps) < length[:, None]
        self.user = np.repeat(np.arange(self.users), length)
        self.item, self.label, self.state = item[rows], label[rows], state[rows]
        self.time: Floats = np.floor(_START + np.cumsum(gap, axis=1))[rows]

    def _drift(self, following: Ints, rng: np.random.Generator) -> Ints:
        """(A, STRANDS) interests after a pause."""
        given_up, follows = rng.random((2, *following.shape))
        anew = rng.integers(self.num_groups, size=following.shape)
        after = np.where(follows < FOLLOW, (following + 1) % self.num_groups, anew)
        return np.where(given_up < DRIFT, after, following)

    def log(self) -> InteractionLog:
        """The events as a log, in the same order."""
        rank = np.empty(self.items, dtype=np.int64)
        rank[self._members] = np.arange(self.items) - self._first[self.group[self._members]]
        return InteractionLog.from_arrays(
            self.user,
            self.item,
            self.time,
            user_ids=[f"user-{number}" for number in range(1, self.users + 1)],
            item_ids=[f"item-{number}" for number in range(1, self.items + 1)],
            titles=[title_of(group, place) for group, place in zip(self.group.tolist(), rank.tolist(), strict=True)],
            name="sample-interests",
        )


class InterestOracle:
    """Scores items by how often they are to be expected among the next events, with knowledge of the process.

    The number of next events is the number of a query's targets. That order is the best one for every metric over
    candidates drawn uniformly, pooled ones too: the scores of all queries are on one scale. `sees="state"` also knows
    the interests that the user follows at the end of the history, which cannot be read from it for certain: no model
    can be expected to score higher. `sees="history"` infers them from the history alone, so that the best that can be
    reached lies between the two.

    Attributes:
        item_group: (M,) int64, community of each item of the log.
        num_groups: number of communities.
    """

    name = "oracle"

    def __init__(
        self, world: InterestWorld, log: InteractionLog | None = None, sees: Literal["history", "state"] = "history"
    ) -> None:
        if sees not in ("history", "state"):
            raise DataError(f"sees is {sees!r}; expected 'history' or 'state'")
        self._world, self.sees = world, sees
        numbers, self._user = np.arange(world.items), np.arange(world.users)
        if log is not None:
            numbers = places_of(log.item_ids.tolist(), "item", world.items)
            self._user = places_of(log.user_ids.tolist(), "user", world.users)
        self.item_group = world.group[numbers]
        self.num_groups = world.num_groups
        self._size = np.bincount(world.group, minlength=world.num_groups)

    def labels(self, part: InteractionLog | Queries) -> Ints:
        """(n,) int64: the interest that each event of a log, or of the queries' histories, came from; -1 for noise.

        Raises:
            DataError: an event is not in the sample.
        """
        if isinstance(part, InteractionLog):
            user, time = part.user, part.time
        else:
            user, time = np.repeat(part.user, part.lengths), part.times
        return self._world.label[self._rows(user, time)]

    def _rows(self, user: Ints, time: Floats | None) -> Ints:
        """(n,) events of the process, found by user and time."""
        return event_rows(self._world.user, self._world.time, self._user, user, time)

    def following(self, queries: Queries) -> Floats:
        """(B, G): the expected number of the user's strands in each community at the end of the history."""
        found = np.zeros((len(queries), self.num_groups))
        if self.sees == "state":
            last = np.maximum(queries.offsets[1:] - 1, 0)
            times = None if queries.times is None else queries.times[last]
            np.add.at(found, (np.arange(len(queries))[:, None], self._world.state[self._rows(queries.user, times)]), 1)
            return found
        for start in range(0, len(queries), _BLOCK):
            found[start : start + _BLOCK] = self._filter(queries[start : start + _BLOCK])
        return found * STRANDS / found.sum(1, keepdims=True)

    def _filter(self, queries: Queries) -> Floats:
        """A filter that goes through the history and takes the communities' states as independent of each other."""
        length, number = queries.lengths, len(queries)
        here = (1 - self._world.noise) / STRANDS  # chance that an event comes from a community that is followed
        shares = self._size / len(self._world.group)
        active = np.full((number, self.num_groups), STRANDS / self.num_groups)
        for step in range(int(length.max(initial=0))):
            on = np.flatnonzero(length > step)
            row = queries.offsets[on] + step
            if step > 0 and queries.times is not None:
                paused = on[queries.times[row] - queries.times[row - 1] >= _DAY]
                active[paused] = self._after(active[paused], DRIFT)
            group = self.item_group[queries.items[row]]
            before = active[on, group]
            by_chance = self._world.noise * shares[group]
            active[on] *= (1 - here) / (1 - here * active[on])  # an event of another community
            active[on, group] = before * (here + by_chance) / (before * here + by_chance)
            active[on] = self._to_strands(active[on])
        return active

    def _to_strands(self, active: Floats) -> Floats:
        """(B, G) chances whose odds are multiplied by one number per row, so that about STRANDS are followed."""
        odds = active / np.maximum(1 - active, 1e-9)
        for _ in range(3):
            odds *= STRANDS / (odds / (1 + odds)).sum(1, keepdims=True)
        return odds / (1 + odds)

    def _after(self, active: Floats, chance: float) -> Floats:
        """(B, G) strands after each was given up with `chance`."""
        spread = active.sum(1, keepdims=True) / self.num_groups
        return (1 - chance) * active + chance * (FOLLOW * np.roll(active, 1, axis=1) + (1 - FOLLOW) * spread)

    def _expected(self, queries: Queries) -> Floats:
        """(B, G + 1): for an item of each community, how often it is to be expected; the last column for any item."""
        events = np.maximum(np.diff(queries.target_offsets), 1)
        active, sums = self.following(queries), np.zeros((len(queries), self.num_groups))
        for step in range(int(events.max(initial=0))):
            active = self._after(active, PAUSE * DRIFT)
            sums += active * (events > step)[:, None]
        by_interest = (1 - self._world.noise) / STRANDS * sums / np.maximum(self._size, 1)
        return by_interest + self._world.noise * events[:, None] / self._world.items

    def scores(self, queries: Queries, items: Any = None) -> torch.Tensor:
        """(B, M) float32, or (B, C) for items (B, C)."""
        import torch

        table = torch.from_numpy(self._expected(queries).astype(np.float32))  # (B, G)
        group = torch.from_numpy(self.item_group)
        if items is None:
            return table[:, group]
        return table.gather(1, group[torch.as_tensor(items, dtype=torch.int64)])


def event_rows(known_user: Ints, known_time: Floats, number: Ints, user: Ints, time: Floats | None) -> Ints:
    """(n,) events of a process, found by user (`number[user]` is that of the process) and time."""
    if time is None or (user < 0).any():
        raise DataError("events of the sample are found by user and time; these have none")
    span = known_time.max() + 1
    known, wanted = known_user * span + known_time, number[user] * span + time
    rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    if (known[rows] != wanted).any():
        raise DataError("an event is not in the sample; were sample and oracle made with the same arguments?")
    return rows


def places_of(ids: list[str], what: str, size: int) -> Ints:
    """Numbers of "item-7" and the like in the sample."""
    known = {f"{what}-{number}": number - 1 for number in range(1, size + 1)}
    missing = next((one for one in ids if one not in known), None)
    if missing is not None:
        raise DataError(f"{what} {missing!r} is not in this sample; were both made with the same arguments?")
    return np.array([known[one] for one in ids], dtype=np.int64)


def title_of(group: int, place: int) -> str:
    """A title such as "Nordic baking, no. 3"; the words before the comma are those of the community."""
    rest, topic = divmod(group, len(_TOPICS))
    series, kind = divmod(rest, len(_KINDS_OF))
    return f"{_KINDS_OF[kind]} {_TOPICS[topic]}{f' {series + 1}' if series else ''}, no. {place + 1}"
