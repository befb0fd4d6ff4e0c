"""Samples: interaction logs drawn from a process that is known, so that the best reachable score is known too.

"interests", with long histories, is in `dglrec.data.interests`, "drift", with interests that change at known times, in
`dglrec.data.drift`, "hops", where neighbours tell what comes next, in `dglrec.data.hops`. The other kinds are one
process with different settings. Items belong to groups, and within its group each item has a successor, so that the
group is a cycle. A user belongs to one group and at each step interacts with an item that is new to them:

    with probability `noise`    any item,
    else with `follow`          the successor of the last item of the user's group (skipping those already taken or not
                                on sale),
    else                        an item of the user's group, drawn by popularity.

communities: 50 items per group, follow 0, all items equally popular: only the group can be learned.
grammar:     one group of all items, follow 1: only the successor can be learned.
shop:        100 items per group (a department), follow .6, skewed popularity, and a drift in the middle of the period:
             a fifth of the items goes out of sale, and another fifth comes in. It has titles.

`sample_oracle` gives the true probability of each item after a history. It is scored by the evaluator as any model is,
and no model can be expected to score higher.

A kind has a version, and its random stream depends on kind and version alone: adding a kind changes no other one, and
changing what a kind draws means a new version of it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from ..errors import DataError, closest
from . import drift, hops, interests
from .drift import DriftOracle, DriftWorld
from .flat import Bools, Floats, Ints
from .hops import HopOracle, HopWorld
from .interests import InterestOracle, InterestWorld
from .log import InteractionLog
from .oracles import best_scores
from .queries import Queries
from .splits import check_seed

if TYPE_CHECKING:
    import torch

_START = 1_577_836_800  # 2020-01-01, in seconds since 1970
_DAY = 86_400
_PERIOD_DAYS = 730  # users join within the period; the drift is in its middle
_MIN_LENGTH, _MAX_LENGTH = 5, 50
_MIN_ITEMS, _MIN_USERS = 20, 2
_USERS, _ITEMS = 2000, 1000  # where the caller gives none


@dataclass(frozen=True)
class _Kind:
    """Settings of the process; fields as in the text above."""

    version: int
    group_size: int | None  # None: one group of all items
    follow: float
    skew: float  # popularity falls as rank ** -skew
    drift: bool
    noise: float  # where the caller gives none
    titles: bool


_KINDS = {
    "communities": _Kind(version=1, group_size=50, follow=0.0, skew=0.0, drift=False, noise=0.1, titles=False),
    "grammar": _Kind(version=1, group_size=None, follow=1.0, skew=0.0, drift=False, noise=0.1, titles=False),
    "shop": _Kind(version=1, group_size=100, follow=0.6, skew=0.8, drift=True, noise=0.1, titles=True),
}
_OTHERS: dict[
    str, tuple[type[InterestWorld] | type[DriftWorld] | type[HopWorld], int, int, float]
] = {  # users, items, noise by default
    "interests": (InterestWorld, interests.USERS, interests.ITEMS, interests.NOISE),
    "drift": (DriftWorld, _USERS, _ITEMS, drift.NOISE),
    "hops": (HopWorld, hops.USERS, hops.ITEMS, hops.NOISE),
}
KINDS = (*_KINDS, *_OTHERS)
Kind = Literal["communities", "grammar", "shop", "interests", "drift", "hops"]


def sample(
    kind: Kind = "shop",
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
) -> InteractionLog:
    """A log drawn from a known process; see the text at the top of this file.

    Histories have 5 to 50 events (seven tenths of a group at most), few of them long; an item is in a history once;
    times are seconds since 1970 and never tie within a user. Those of "interests" have 101 to 800, with repeats; those
    of "drift" 8 to 32, those of "hops" 12.

    Args:
        kind: "communities", "grammar", "shop", "interests", "drift" or "hops".
        users: number of users, at least 2; 2,000 by default, 5,000 for "interests".
        items: number of items, at least 20; items without events are in the vocabulary too. 1,000 by default, 10,000
            for "interests", 3,000 for "hops".
        seed: of the draw.
        noise: probability that a step takes any item; the kind's own by default (.1).

    Raises:
        DataError: an unknown kind, or numbers out of range.

    >>> log = sample("shop", users=50, items=100)
    >>> log.num_users, log.num_items, log.titles is not None
    (50, 100, True)
    """
    world = _world(kind, users, items, seed, noise)
    if isinstance(world, (InterestWorld, DriftWorld, HopWorld)):
        return world.log()
    user, item, time = world.draw()
    return InteractionLog.from_arrays(
        user,
        item,
        time,
        user_ids=[f"user-{number}" for number in range(1, world.users + 1)],
        item_ids=world.item_ids,
        titles=_shop_titles(world.group, world.rank) if world.kind.titles else None,
        name=f"sample-{kind}",
    )


@overload
def sample_oracle(
    kind: Literal["communities", "grammar", "shop"] = "shop",
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    *,
    log: InteractionLog | None = None,
) -> Oracle: ...
@overload
def sample_oracle(
    kind: Literal["interests"],
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    *,
    log: InteractionLog | None = None,
) -> InterestOracle: ...
@overload
def sample_oracle(
    kind: Literal["drift"],
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    *,
    log: InteractionLog | None = None,
) -> DriftOracle: ...
@overload
def sample_oracle(
    kind: Literal["hops"],
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    *,
    log: InteractionLog | None = None,
) -> HopOracle: ...
def sample_oracle(
    kind: Kind = "shop",
    users: int | None = None,
    items: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    *,
    log: InteractionLog | None = None,
) -> Oracle | InterestOracle | DriftOracle | HopOracle:
    """The oracle of the log that `sample` makes from the same arguments.

    Args:
        kind: as for `sample`.
        users: as for `sample`.
        items: as for `sample`.
        seed: as for `sample`.
        noise: as for `sample`.
        log: the log in use where it is not all of the sample (after a filter); its items are matched by id.
    """
    world = _world(kind, users, items, seed, noise)
    if isinstance(world, InterestWorld):
        return InterestOracle(world, log)
    if isinstance(world, DriftWorld):
        return DriftOracle(world, log)
    if isinstance(world, HopWorld):
        return HopOracle(world, log)
    numbers = np.arange(world.items)
    if log is not None:
        place = {name: number for number, name in enumerate(world.item_ids)}
        missing = [name for name in log.item_ids.tolist() if name not in place]
        if missing:
            raise DataError(f"item {missing[0]!r} is not in sample({kind!r}, items={world.items})")
        numbers = np.array([place[name] for name in log.item_ids.tolist()], dtype=np.int64)
    return Oracle(world, numbers)


def _world(
    kind: str, users: int | None, items: int | None, seed: int, noise: float | None
) -> _World | InterestWorld | DriftWorld | HopWorld:
    """The process of a kind, once its arguments are found to be in range."""
    if kind not in KINDS:
        raise DataError(f"unknown kind of sample {kind!r}; {closest(kind, KINDS)}")
    if kind in _OTHERS:
        make, all_users, all_items, all_noise = _OTHERS[kind]
    else:
        make, all_users, all_items, all_noise = None, _USERS, _ITEMS, _KINDS[kind].noise
    users, items = all_users if users is None else users, all_items if items is None else items
    if users < _MIN_USERS or items < _MIN_ITEMS:
        raise DataError(f"a sample of {users} users and {items} items; expected at least {_MIN_USERS} and {_MIN_ITEMS}")
    noise = all_noise if noise is None else float(noise)
    if not 0 <= noise <= 1:
        raise DataError(f"noise is {noise}; expected a probability")
    check_seed(seed)
    return _World(kind, users, items, seed, noise) if make is None else make(users, items, seed, noise)


class Oracle:
    """Scores items by their true probability to come next, with knowledge of the process and of the history alone.

    The user's group is taken to be the most frequent one in the history. `scores` has the form of a model's, so that
    `evaluate(oracle, split.test)` gives the best reachable values; `best_scores` gives the values to expect from the
    probabilities, which do not depend on the luck of the draw. It is for queries with one target: for sets of targets
    the best order is another one.

    Attributes:
        item_group: (M,) group of each item of the log.
        drift_time: seconds since 1970 at which items leave and come; None for a kind without drift.
    """

    name = "oracle"

    def __init__(self, world: _World, numbers: Ints) -> None:
        self._world = world
        self._numbers = numbers  # item of the log -> item of the process
        self.item_group = world.group[numbers]
        self.drift_time = float(world.drift_time) if world.kind.drift else None

    def probabilities(self, queries: Queries) -> npt.NDArray[np.float32]:
        """(B, M) probability of each item to come next.

        Queries without times count as after the drift.
        """
        world = self._world
        number = len(queries)
        row = np.repeat(np.arange(number), queries.lengths)
        history = self._numbers[queries.items]
        taken = np.zeros((number, world.items), dtype=bool)
        taken[row, history] = True

        groups = np.bincount(row * world.groups + world.group[history], minlength=number * world.groups)
        group = groups.reshape(number, world.groups).argmax(1)  # (B,)
        own = world.group[history] == group[row]
        last = np.full(number, -1, dtype=np.int64)
        last[row[own]] = history[own]  # of several, the last assignment stays: the newest item

        late = np.ones(number, dtype=bool) if queries.time is None else queries.time >= world.drift_time
        return world.next_item(group, last, taken, late)[:, self._numbers]

    def scores(self, queries: Queries, items: Any = None) -> torch.Tensor:
        """(B, M) float32 probabilities, or (B, C) for items (B, C)."""
        import torch

        table = torch.from_numpy(self.probabilities(queries))
        return table if items is None else table.gather(1, torch.as_tensor(items, dtype=torch.int64))

    def best_scores(
        self, queries: Queries, k: tuple[int, ...] = (5, 10, 20, 50), block: int = 1024
    ) -> dict[str, float]:
        """Expected recall@k and ndcg@k of the best ranking there is, for queries with one target each."""
        return best_scores(self.probabilities, queries, k, block)


class _World:
    """The process: which item is in which group and when on sale, drawn once; `draw` lets users walk through it."""

    def __init__(self, kind: str, users: int, items: int, seed: int, noise: float) -> None:
        self.kind, self.noise = _KINDS[kind], noise
        self.users, self.items = users, items
        self.item_ids = [f"item-{number}" for number in range(1, items + 1)]
        self.rng = np.random.default_rng([zlib.crc32(kind.encode()), self.kind.version, int(seed)])
        self.drift_time = _START + _PERIOD_DAYS // 2 * _DAY

        # Groups of (nearly) equal size, at random: `cycle[g]` lists the items of g, each followed by its successor.
        self.groups = 1 if self.kind.group_size is None else max(1, items // self.kind.group_size)
        shuffled = np.argsort(self._random(items))
        self.group = np.empty(items, dtype=np.int64)
        self.rank = np.empty(items, dtype=np.int64)  # place in the cycle
        self.group[shuffled] = np.arange(items) % self.groups
        self.rank[shuffled] = np.arange(items) // self.groups
        self.cycle = np.full(
            (self.groups, -(-items // self.groups)), -1, dtype=np.int64
        )  # (G, n), -1 where a group is short
        self.cycle[self.group, self.rank] = np.arange(items)

        # Popularity, and what is on sale before (row 0) and after (row 1) the drift.
        popularity_rank = np.argsort(np.argsort(self._random(items))) // self.groups  # within its group, roughly
        self.weight = (1.0 + popularity_rank) ** -self.kind.skew
        self.on_sale = np.ones((2, items), dtype=bool)
        if self.kind.drift:
            fate = self._random(items)
            self.on_sale[1, fate < 0.2] = False
            self.on_sale[0, fate > 0.8] = False

    def _random(self, *shape: int) -> Floats:
        return self.rng.random(shape)

    @cached_property
    def longest(self) -> int:
        """Longest history: seven tenths of what the smallest group has on sale, so that there is always a choice."""
        smallest = min(np.bincount(self.group, weights=sale, minlength=self.groups).min() for sale in self.on_sale)
        return int(min(_MAX_LENGTH, max(smallest * 7 // 10, 2)))

    def draw(self) -> tuple[Ints, Ints, Floats]:
        """Columns of a log: user, item, seconds. A loop over steps; each moves all users that are still walking."""
        group = (self._random(self.users) * self.groups).astype(np.int64)
        extra = -np.log1p(-self._random(self.users)) * 7  # exponential: most histories are short
        length = np.minimum(_MIN_LENGTH + extra.astype(np.int64), self.longest)
        gap_days = -np.log1p(-self._random(self.users, int(length.max()))) * 9
        first = _START + self._random(self.users) * (_PERIOD_DAYS - 60) * _DAY
        time = np.floor(first[:, None] + np.cumsum(60 + gap_days * _DAY, axis=1))  # (U, L)
        late = (time >= self.drift_time) if self.kind.drift else np.zeros_like(time, dtype=bool)

        taken = np.zeros((self.users, self.items), dtype=bool)
        last = np.full(self.users, -1, dtype=np.int64)
        item = np.full(time.shape, -1, dtype=np.int64)
        for step in range(int(length.max())):
            user = np.flatnonzero(length > step)  # (A,) users that still walk
            chosen = self._step(group[user], last[user], taken[user], late[user, step])
            item[user, step] = chosen
            taken[user, chosen] = True
            own = self.group[chosen] == group[user]
            last[user[own]] = chosen[own]
        rows = np.arange(time.shape[1]) < length[:, None]
        return np.repeat(np.arange(self.users), length), item[rows], time[rows]

    def _step(self, group: Ints, last: Ints, taken: Bools, late: Bools) -> Ints:
        """(A,) the item that each user takes next."""
        how = self._random(2, len(group))
        stray = how[0] < self.noise
        follow = ~stray & (how[1] < self.kind.follow) & (last >= 0)
        pick = ~stray & ~follow
        chosen = np.empty(len(group), dtype=np.int64)
        chosen[follow] = self._successor(group[follow], last[follow], taken[follow], late[follow])
        free = self._free(taken, late)
        chosen[stray] = self._race(free[stray])
        mine = self.cycle[group[pick]]  # (P, n)
        weight = np.where(mine >= 0, self.weight[mine], 0.0) * np.take_along_axis(free[pick], mine, axis=1)
        chosen[pick] = np.take_along_axis(mine, self._race(weight)[:, None], axis=1)[:, 0]
        return chosen

    def _race(self, weight: npt.NDArray[Any]) -> Ints:
        """(P, n) weights -> (P,) a column drawn in proportion to them: the first of n exponential clocks to ring."""
        with np.errstate(divide="ignore"):
            return (-np.log1p(-self._random(*weight.shape)) / weight).argmin(1)

    def _free(self, taken: Bools, late: Bools) -> Bools:
        """(A, M) items that are on sale and not taken yet."""
        return self.on_sale[late.astype(np.int64)] & ~taken

    def _successor(self, group: Ints, last: Ints, taken: Bools, late: Bools) -> Ints:
        """(A,) the first item after `last` in the cycle of the group that is on sale and not taken."""
        around = (self.rank[last][:, None] + 1 + np.arange(self.cycle.shape[1])) % self.cycle.shape[1]  # (A, n)
        following = self.cycle[group[:, None], around]
        rows = np.arange(len(last))[:, None]
        free = (following >= 0) & self.on_sale[late.astype(np.int64)[:, None], following] & ~taken[rows, following]
        return np.take_along_axis(following, free.argmax(1)[:, None], axis=1)[:, 0]

    def next_item(self, group: Ints, last: Ints, taken: Bools, late: Bools) -> npt.NDArray[np.float32]:
        """(A, M) probability of each item at the step that `_step` draws."""
        if not self.kind.drift:
            late = np.zeros_like(late)
        free = self._free(taken, late)
        rows = np.arange(len(group))
        stray = free / np.maximum(free.sum(1, keepdims=True), 1)
        own = free * self.weight * (self.group == group[:, None])
        own /= np.maximum(own.sum(1, keepdims=True), 1e-12)
        follow = np.where(last >= 0, self.kind.follow, 0.0)
        chance = self.noise * stray + (1 - self.noise) * (1 - follow)[:, None] * own
        known = np.flatnonzero(last >= 0)
        successor = self._successor(group[known], last[known], taken[known], late[known])
        chance[rows[known], successor] += (1 - self.noise) * follow[known]
        return chance.astype(np.float32)


# Titles ---------------------------------------------------------------------------------------------------------------

_DEPARTMENTS = (
    (("shirt", "blouse", "jacket", "jumper"), ("Linen", "Cotton", "Flannel", "Denim", "Silk")),
    (("mug", "bowl", "plate", "teapot"), ("Stoneware", "Porcelain", "Enamel", "Glass", "Bamboo")),
    (("armchair", "bookshelf", "side table", "stool"), ("Oak", "Walnut", "Rattan", "Pine", "Steel")),
    (("backpack", "tent", "sleeping bag", "rain cover"), ("Light", "Trekking", "Winter", "Family", "Festival")),
    (("face cream", "shampoo", "soap", "hand balm"), ("Lavender", "Oat", "Rosemary", "Almond", "Aloe")),
    (("board game", "puzzle", "building set", "kite"), ("Travel", "Wooden", "Giant", "Magnetic", "Classic")),
    (("notebook", "fountain pen", "pencil case", "calendar"), ("Pocket", "Ruled", "Leather", "Recycled", "Desk")),
    (("trowel", "watering can", "plant pot", "bird feeder"), ("Copper", "Zinc", "Terracotta", "Cedar", "Garden")),
    (("headphones", "speaker", "desk lamp", "charger"), ("Compact", "Wireless", "Folding", "Studio", "Solar")),
    (("running shoes", "yoga mat", "bottle", "cap"), ("Trail", "Road", "Training", "Cork", "Race")),
)
_COLOURS = ("blue", "green", "red", "black", "white", "yellow", "grey", "brown", "pink", "orange", "violet", "teal")


def _shop_titles(group: Ints, rank: Ints) -> list[str]:
    """A title of each item, such as "Linen shirt, blue": group and place in the cycle give department and words."""
    titles = []
    for department, number in zip(group.tolist(), rank.tolist(), strict=True):
        nouns, kinds = _DEPARTMENTS[department % len(_DEPARTMENTS)]
        rest, noun = divmod(number, len(nouns))
        rest, first = divmod(rest, len(kinds))
        rest, colour = divmod(rest, len(_COLOURS))
        series = rest * -(-(int(group.max()) + 1) // len(_DEPARTMENTS)) + department // len(_DEPARTMENTS)
        suffix = f", no. {series + 1}" if series else ""
        titles.append(f"{kinds[first]} {nouns[noun]}, {_COLOURS[colour]}{suffix}")
    return titles
