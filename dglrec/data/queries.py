"""Queries: what a recommender is asked, a history and the items that would be right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .flat import Floats, Ints, count_in, first_of_pairs, in_query, packed, row_pointers, segments

Index: TypeAlias = int | slice | Sequence[int] | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Queries:
    """Questions to a recommender: each is a history, and a set of items that would be right.

    All Q queries lie one after the other in flat arrays; the part of query q is `offsets[q]` to `offsets[q + 1]`.

    Attributes:
        user: (Q,) int64, index of the user; -1 for a user whom the log does not know.
        offsets: (Q + 1,) int64, row pointers of the histories.
        items: (H,) int64, items of the histories, oldest first.
        times: (H,) float64 seconds, or None.
        target_offsets: (Q + 1,) int64, row pointers of the targets.
        targets: (P,) int64, the items that are right, distinct within a query. Only with candidates may one be
            there more than once, and then it is as many candidates: events are ranked there, not items.
        time: (Q,) float64 seconds of the (first) target, or None.
        candidate_offsets: (Q + 1,) int64, or None where all items are candidates.
        candidates: (C,) int64 or int32, the targets among them, or None.
        first_time: (Q,) float64 seconds of the user's first event ever, where histories begin later; None where they
            begin with it.
        name: "valid", "test", either with "-new" (see `new_items`), or "".
        split_digest: digest of the split that the queries belong to, or "".

    >>> queries = Queries.from_histories([[4, 2], [7]])
    >>> len(queries), queries.lengths.tolist(), queries[1].items.tolist()
    (2, [2, 1], [7])
    """

    user: Ints
    offsets: Ints
    items: Ints
    times: Floats | None
    target_offsets: Ints
    targets: Ints
    time: Floats | None
    candidate_offsets: Ints | None = None
    candidates: npt.NDArray[np.signedinteger[Any]] | None = None
    first_time: Floats | None = None
    name: str = ""
    split_digest: str = ""

    @classmethod
    def from_histories(
        cls,
        histories: Sequence[npt.ArrayLike],
        users: npt.ArrayLike | None = None,
        times: Sequence[npt.ArrayLike] | None = None,
    ) -> Queries:
        """Queries without targets, for recommending.

        Args:
            histories: item indices of each query, oldest first.
            users: (Q,) indices of the users; without it they are unknown (-1).
            times: seconds of each history's items.

        Raises:
            DataError: users or times do not fit the histories.
        """
        offsets, items = packed(histories, np.int64)
        user = np.full(len(histories), -1, dtype=np.int64) if users is None else np.asarray(users, dtype=np.int64)
        if user.shape != (len(histories),):
            raise DataError(f"users has shape {user.shape}; expected one for each of the {len(histories)} histories")
        packed_times = None
        if times is not None:
            time_offsets, packed_times = packed(times, np.float64)
            if not np.array_equal(offsets, time_offsets):
                raise DataError("times and histories have different lengths; expected a time for each item")
        no_targets = np.zeros(len(histories) + 1, dtype=np.int64)
        return cls(user, offsets, items, packed_times, no_targets, np.zeros(0, dtype=np.int64), None)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        label = f"{self.name}: " if self.name else ""
        return f"Queries({label}{len(self)} queries, {len(self.items)} items in histories, {len(self.targets)} targets)"

    @property
    def lengths(self) -> Ints:
        """(Q,) int64, items in each history."""
        return np.diff(self.offsets)

    def __getitem__(self, index: Index) -> Queries:
        """Some of the queries, by number, slice, numbers or mask."""
        numbers = np.arange(len(self))
        chosen = numbers[index] if isinstance(index, slice) or np.size(index) else numbers[:0]  # (Q',)
        chosen = np.atleast_1d(chosen)
        history, offsets = segments(self.offsets, chosen)
        target, target_offsets = segments(self.target_offsets, chosen)
        candidates, candidate_offsets = self.candidates, self.candidate_offsets
        if candidates is not None and candidate_offsets is not None:
            rows, candidate_offsets = segments(candidate_offsets, chosen)
            candidates = candidates[rows]
        return dataclasses.replace(
            self,
            user=self.user[chosen],
            offsets=offsets,
            items=self.items[history],
            times=None if self.times is None else self.times[history],
            target_offsets=target_offsets,
            targets=self.targets[target],
            time=None if self.time is None else self.time[chosen],
            candidate_offsets=candidate_offsets,
            candidates=candidates,
            first_time=None if self.first_time is None else self.first_time[chosen],
        )

    @cached_property
    def negatives(self) -> Ints:
        """The candidates that are not targets, query after query, flat.

        Raises:
            DataError: the queries have no candidates.
        """
        if self.candidates is None or self.candidate_offsets is None:
            raise DataError("these queries have no candidates, and so no negatives")
        right = in_query(self.candidate_offsets, self.candidates, self.target_offsets, self.targets)
        return self.candidates[~right].astype(np.int64, copy=False)

    def without_candidates(self) -> Queries:
        """The same queries for a ranking of the full catalogue; a target that is there twice becomes one."""
        query = np.repeat(np.arange(len(self)), np.diff(self.target_offsets))
        keep = first_of_pairs(query, self.targets, 1 + int(self.targets.max(initial=0)))
        return dataclasses.replace(
            self,
            target_offsets=row_pointers(np.bincount(query[keep], minlength=len(self))),
            targets=self.targets[keep],
            candidate_offsets=None,
            candidates=None,
        )

    def new_items(self) -> Queries:
        """The queries for items that are new to their user: targets that are in the history are dropped.

        Such targets leave the candidates as well, and queries that have no target left are dropped. Where people come
        back to what they know (check-ins), a model that repeats the history wins on all targets, and one that finds
        something new on these.

        >>> from dglrec import InteractionLog, leave_one_out
        >>> log = InteractionLog.from_arrays(["a"] * 4 + ["b"] * 4, ["p", "q", "r", "p", "q", "p", "r", "s"])
        >>> test = leave_one_out(log, order="file").test
        >>> len(test), len(test.new_items())
        (2, 1)
        """
        new = ~in_query(self.target_offsets, self.targets, self.offsets, self.items)
        left = count_in(self.target_offsets, new)
        candidates, candidate_offsets = self.candidates, self.candidate_offsets
        if candidates is not None and candidate_offsets is not None and not new.all():
            old, old_offsets = self.targets[~new], row_pointers(np.diff(self.target_offsets) - left)
            stays = ~in_query(candidate_offsets, candidates, old_offsets, old)
            candidates, candidate_offsets = candidates[stays], row_pointers(count_in(candidate_offsets, stays))
        kept = dataclasses.replace(
            self,
            target_offsets=row_pointers(left),
            targets=self.targets[new],
            candidate_offsets=candidate_offsets,
            candidates=candidates,
            name=f"{self.name}-new",
        )
        return kept[left > 0]
