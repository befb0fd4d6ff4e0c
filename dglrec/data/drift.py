"""The sample kind "drift": users whose interests change at known times, some of them with noise in the end.

Items belong to communities of about 25; all items are equally popular. The time is cut into SPANS equal spans, followed
by CLOSING_DAYS that belong to none. In each span a user follows one community:

    at a change time (where a span begins)    with probability CHANGE, the user turns to any other community;
    an event                                  with probability `noise`, any item that is new to the user; else any such
                                              item of the community (any item where none is left).

A share NOISY of the users, the noisy ones, touch any items in the last NOISY_SPANS spans, and their interest does not
change any more: it shows again in the closing days, when every user has two events. Under leave-one-out these are the
validation and the test item, so that the training log ends with the last span. One of the two is in each half of the
closing days, so that a split by time can cut the same way.

Half of the users are there from the first span, the others join in one of those before the noise. A user has 2 to 5
events per span. So a whole history mixes about three communities, of which the newest counts or, where the history ends
in noise, the newest before the noise.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .flat import Bools, Floats, Ints
from .interests import event_rows, places_of, title_of
from .log import InteractionLog
from .oracles import best_scores
from .queries import Queries

if TYPE_CHECKING:
    import torch

VERSION = 1
NOISE = 0.1  # where the caller gives none

SPANS, NOISY_SPANS = 6, 2
CHANGE, NOISY = 0.5, 0.25
SPAN_DAYS, CLOSING_DAYS = 60, 14
_COMMUNITY = 25  # items
_FEWEST, _MOST = 2, 5  # events of a user in a span
_CLOSING = 2  # events after the last span
_START, _DAY = 1_577_836_800, 86_400  # 2020-01-01, in seconds since 1970
_BLOCK = 1024  # queries at a time


class DriftWorld:
    """The process with its settings drawn, and all that its users do; see the text at the top of this file.

    Attributes:
        group: (M,) int64, community of each item.
        num_groups: number of communities G.
        interest: (U, SPANS) int64, the community that each user follows in each span; -1 before the user joins.
        noisy: (U,) bool, the users whose last spans are noise.
        change_times: (SPANS - 1,) float64 seconds at which interests may change.
        closing_time: seconds at which the last span ends.
        user: (n,) int64, user of each event; ascends.
        item: (n,) int64.
        time: (n,) float64 seconds, ascending within a user without ties.
        label: (n,) int64, community that the event came from; -1 for noise.
    """

    def __init__(self, users: int, items: int, seed: int, noise: float) -> None:
        self.users, self.items, self.noise = users, items, noise
        self.num_groups = max(1, items // _COMMUNITY)
        starts = _START + np.arange(SPANS + 1) * float(SPAN_DAYS * _DAY)
        self.change_times, self.closing_time = starts[1:-1], float(starts[-1])
        rng = np.random.default_rng([zlib.crc32(b"drift"), VERSION, int(seed)])
        shuffled = np.argsort(rng.random(items))
        self.group = np.empty(items, dtype=np.int64)
        self.rank = np.empty(items, dtype=np.int64)  # place within its community
        self.group[shuffled] = np.arange(items) % self.num_groups
        self.rank[shuffled] = np.arange(items) // self.num_groups
        self.members = np.full((self.num_groups, -(-items // self.num_groups)), -1, dtype=np.int64)  # (G, n)
        self.members[self.group, self.rank] = np.arange(items)
        self._draw_users(rng)
        self._draw_events(rng)

    def _draw_users(self, rng: np.random.Generator) -> None:
        """Who is noisy, who joins when, and what each follows."""
        self.noisy: Bools = rng.random(self.users) < NOISY
        late, when = rng.random((2, self.users))
        self._first = np.where(late < 0.5, 0, (when * (SPANS - NOISY_SPANS)).astype(np.int64))  # (U,) span of joining
        changes, other = rng.random((2, self.users, SPANS))
        interest = np.empty((self.users, SPANS), dtype=np.int64)
        interest[:, 0] = (changes[:, 0] * self.num_groups).astype(np.int64)
        for span in range(1, SPANS):
            changed = changes[:, span] < CHANGE
            if span >= SPANS - NOISY_SPANS:
                changed &= ~self.noisy
            step = 1 + (other[:, span] * (self.num_groups - 1)).astype(np.int64)  # never to the same one
            interest[:, span] = (interest[:, span - 1] + step * changed) % self.num_groups
        self._follows = interest
        self.interest: Ints = np.where(np.arange(SPANS) >= self._first[:, None], interest, -1)

    def _draw_events(self, rng: np.random.Generator) -> None:
        """All events: a loop over places in a history, each of which moves every user who has one there."""
        most = min(_MOST, (self.items * 7 // 10 - _CLOSING) // SPANS)  # so that there is always a choice
        number = _FEWEST + (rng.random((self.users, SPANS)) * (most - _FEWEST + 1)).astype(np.int64)
        number[np.arange(SPANS) < self._first[:, None]] = 0
        there = np.arange(_MOST) < number[:, :, None]  # (U, SPANS, _MOST)
        within = np.sort(np.where(there, rng.random(there.shape), 2.0), axis=2)
        starts = np.append(_START, self.change_times)[:, None]
        time = starts + np.floor(within * (SPAN_DAYS * _DAY - _MOST)) + np.arange(_MOST)  # a second apart at least
        part = CLOSING_DAYS * _DAY / _CLOSING  # of the closing days, for each event there
        closing = self.closing_time + np.floor((np.arange(_CLOSING) + rng.random((self.users, _CLOSING))) * part)
        times = np.concatenate([time.reshape(self.users, -1), closing], axis=1)  # (U, K)
        rows = np.concatenate([there.reshape(self.users, -1), np.ones_like(closing, dtype=bool)], axis=1)
        span_of = np.append(np.repeat(np.arange(SPANS), _MOST), np.full(_CLOSING, SPANS))  # (K,)

        item, label = np.zeros(times.shape, dtype=np.int64), np.zeros(times.shape, dtype=np.int64)
        taken = np.zeros((self.users, self.items), dtype=bool)
        for place, span in enumerate(span_of.tolist()):
            on = np.flatnonzero(rows[:, place])  # (A,) users
            own = self._follows[on, min(span, SPANS - 1)]
            members = self.members[own]  # (A, n)
            free = (members >= 0) & ~taken[on[:, None], members]
            chance = np.where(free, rng.random(members.shape), -1.0)
            chosen = np.take_along_axis(members, chance.argmax(1)[:, None], axis=1)[:, 0]
            stray = (rng.random(len(on)) < self.noise) | ~free.any(1) | (self.noisy[on] & _is_noise(span))
            any_item = np.where(taken[on[stray]], -1.0, rng.random((int(stray.sum()), self.items)))
            chosen[stray] = any_item.argmax(1)
            item[on, place], label[on, place] = chosen, np.where(stray, -1, own)
            taken[on, chosen] = True
        self.user = np.repeat(np.arange(self.users), rows.sum(1))
        self.item, self.label, self.time = item[rows], label[rows], times[rows]

    def span(self, time: Floats) -> Ints:
        """Span of each time, from 0; SPANS in the closing days."""
        return np.searchsorted(np.append(self.change_times, self.closing_time), time, side="right")

    def log(self) -> InteractionLog:
        """The events as a log, in the same order."""
        return InteractionLog.from_arrays(
            self.user,
            self.item,
            self.time,
            user_ids=[f"user-{number}" for number in range(1, self.users + 1)],
            item_ids=[f"item-{number}" for number in range(1, self.items + 1)],
            titles=[
                title_of(group, place) for group, place in zip(self.group.tolist(), self.rank.tolist(), strict=True)
            ],
            name="sample-drift",
        )


def _is_noise(span: Any) -> Any:
    """Whether noisy users touch any items in a span (the closing days are none)."""
    return (span >= SPANS - NOISY_SPANS) & (span < SPANS)


class DriftOracle:
    """Scores items by their true probability to come next, with knowledge of the process.

    `sees="history"` infers what the user follows, and whether the user is noisy, from items and times of the history:
    it is Bayes' rule without any approximation, so that no model can be expected to score higher on queries with one
    target. `sees="state"` knows both. Histories without times are taken to be from the closing days alone.

    Attributes:
        item_group: (M,) int64, community of each item of the log.
        num_groups: number of communities.
        change_times: (SPANS - 1,) float64 seconds at which interests may change.
        closing_time: seconds at which the last span ends; all later events tell what the user follows.
        noisy: (U,) bool, the users of the log whose last spans are noise.
        interest: (U, SPANS) int64, the community that each user follows in each span; -1 before the user joins.
    """

    name = "oracle"

    def __init__(
        self, world: DriftWorld, log: InteractionLog | None = None, sees: Literal["history", "state"] = "history"
    ) -> None:
        if sees not in ("history", "state"):
            raise DataError(f"sees is {sees!r}; expected 'history' or 'state'")
        self._world, self.sees = world, sees
        self._number, self._user = np.arange(world.items), np.arange(world.users)  # of the log -> of the process
        if log is not None:
            self._number = places_of(log.item_ids.tolist(), "item", world.items)
            self._user = places_of(log.user_ids.tolist(), "user", world.users)
        self.item_group = world.group[self._number]
        self.num_groups = world.num_groups
        self.change_times, self.closing_time = world.change_times, world.closing_time
        self.noisy = world.noisy[self._user]
        self.interest = world.interest[self._user]

    def labels(self, part: InteractionLog | Queries) -> Ints:
        """(n,) int64: the community that each event of a log, or of the queries' histories, came from; -1 for noise.

        Raises:
            DataError: an event is not in the sample.
        """
        if isinstance(part, InteractionLog):
            user, time = part.user, part.time
        else:
            user, time = np.repeat(part.user, part.lengths), part.times
        world = self._world
        return world.label[event_rows(world.user, world.time, self._user, user, time)]

    def following(self, queries: Queries) -> Floats:
        """(B, 2, G): the probability of each community to be followed at the time of the query, by a user who is not
        noisy (0) and by one who is (1).
        """
        blocks = [self._filter(queries[start : start + _BLOCK])[0] for start in range(0, len(queries), _BLOCK)]
        return np.concatenate([np.zeros((0, 2, self.num_groups)), *blocks])

    def _filter(self, queries: Queries) -> tuple[Floats, Bools]:
        """What `following` says of a block, and (B, M) the items of the process that are in the histories."""
        world, number, lengths = self._world, len(queries), queries.lengths
        sizes = np.bincount(world.group, minlength=self.num_groups)
        free = np.repeat(sizes[None], number, axis=0)  # (B, G) items that are new to the user
        taken = np.zeros((number, world.items), dtype=bool)
        spans = np.full(len(queries.items), SPANS) if queries.times is None else world.span(queries.times)
        state = np.repeat(np.array([1 - NOISY, NOISY])[:, None] / self.num_groups, self.num_groups, axis=1)
        state = np.repeat(state[None], number, axis=0)  # (B, 2, G)
        now = np.zeros(number, dtype=np.int64)  # (B,) span of the last event
        for step in range(int(lengths.max(initial=0))):
            on = np.flatnonzero(lengths > step)
            row = queries.offsets[on] + step
            item = self._number[queries.items[row]]
            if self.sees == "history":
                new = ~taken[on, item]  # nothing can be learned from what cannot happen
                moved = self._moved(state[on], now[on], spans[row])
                state[on] = moved * np.where(new[:, None, None], self._likelihood(item, spans[row], free[on]), 1.0)
                state[on] /= state[on].sum((1, 2), keepdims=True)
            free[on, world.group[item]] -= ~taken[on, item]
            taken[on, item] = True
            now[on] = spans[row]
        asked = self._asked(queries)
        if self.sees == "history":
            return self._moved(state, now, np.maximum(asked, now)), taken
        if (queries.user < 0).any():
            raise DataError("a query has no user; sees='state' knows those of the sample, sees='history' takes any")
        user = self._user[queries.user]
        known = np.zeros_like(state)
        follows = world._follows[user, np.minimum(asked, SPANS - 1)]
        known[np.arange(number), world.noisy[user].astype(np.int64), follows] = 1
        return known, taken

    def _asked(self, queries: Queries) -> Ints:
        """(B,) the span of each query: that of its time, else that of its newest event."""
        if queries.time is not None:
            return self._world.span(queries.time)
        asked = np.full(len(queries), SPANS)
        if queries.times is not None:
            some = queries.lengths > 0
            asked[some] = self._world.span(queries.times[queries.offsets[1:][some] - 1])
        return asked

    def _moved(self, state: Floats, before: Ints, after: Ints) -> Floats:
        """(B, 2, G) states after the change times between two spans."""
        if self.num_groups == 1:
            return state
        last = np.array([SPANS - 1, SPANS - NOISY_SPANS - 1])  # after which nothing changes any more, by kind of user
        changes = np.minimum(after[:, None], last) - np.minimum(before[:, None], last)  # (B, 2)
        kept = (1 - CHANGE * self.num_groups / (self.num_groups - 1)) ** changes[:, :, None]
        return kept * state + (1 - kept) * state.mean(2, keepdims=True)

    def _likelihood(self, item: Ints, span: Ints, free: Ints) -> Floats:
        """(B, 2, G): how likely an item is for a user who follows a community, with `free` (B, G) items in each."""
        rows, group = np.arange(len(item)), self._world.group[item]
        by_chance = 1 / free.sum(1)[:, None]  # (B, 1)
        own = np.where(free > 0, 0.0, by_chance)
        own[rows, group] = 1 / free[rows, group]
        clean = self._world.noise * by_chance + (1 - self._world.noise) * own  # (B, G)
        return np.stack([clean, np.where(_is_noise(span)[:, None], by_chance, clean)], axis=1)

    def probabilities(self, queries: Queries) -> npt.NDArray[np.float32]:
        """(B, M) probability of each item of the log to come next, at the time of the query."""
        world = self._world
        blocks = [np.zeros((0, len(self._number)), dtype=np.float32)]
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            state, taken = self._filter(block)
            sizes = np.stack([np.bincount(world.group[~row], minlength=self.num_groups) for row in taken])  # (B, G)
            told = state[:, 0] + state[:, 1] * ~_is_noise(self._asked(block))[:, None]  # (B, G), less where it is noise
            own = (1 - world.noise) * np.where(sizes > 0, told, 0.0)
            left = np.maximum((~taken).sum(1), 1)
            by_chance = np.maximum(1 - own.sum(1), 0.0) / left  # never below 0 by rounding
            table = own[:, world.group] / np.maximum(sizes, 1)[:, world.group] + by_chance[:, None]
            blocks.append(np.where(taken, 0.0, table).astype(np.float32)[:, self._number])
        return np.concatenate(blocks)

    def scores(self, queries: Queries, items: Any = None) -> torch.Tensor:
        """(B, M) float32 probabilities, or (B, C) for items (B, C)."""
        import torch

        table = torch.from_numpy(self.probabilities(queries))
        return table if items is None else table.gather(1, torch.as_tensor(items, dtype=torch.int64))

    def best_scores(self, queries: Queries, k: tuple[int, ...] = (5, 10, 20, 50)) -> dict[str, float]:
        """Expected recall@k and ndcg@k of the best ranking there is, for queries with one target each."""
        return best_scores(self.probabilities, queries, k)
