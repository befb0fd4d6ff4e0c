"""Recommendations: the best items for a known user, for a new history, or for many of either at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch

from .config import is_whole
from .data.flat import Ints, row_pointers, segments
from .data.log import InteractionLog, Strings
from .data.queries import Queries
from .errors import ConfigError, DataError, DglrecError
from .evaluate import BLOCK_SCORES, block_size, blocks, eval_mode
from .nn.products import largest_products

_SHOWN_QUERIES = 10  # queries that are printed
_TITLE_WIDTH = 60


@dataclass(frozen=True)
class Recommendation:
    """One item for one query.

    Attributes:
        item_id: the source's id.
        score: the model's score; scores of different models have nothing to do with each other.
        title: "" where the data have none.
        rank: 1 for the best item of its query, or of its interest if the best of each were requested.
        query: number of the query, 0 where there was only one.
        interest: number of the query's interest that scores the item highest, or that lists it if the best of each were
            requested; None where a query has one vector.
        interest_name: the titles (or ids) of the history's items that this interest fits best; "" if it fits none.
    """

    item_id: str
    score: float
    title: str = ""
    rank: int = 1
    query: int = 0
    interest: int | None = None
    interest_name: str = ""


@dataclass(frozen=True, eq=False)
class Recommendations(Sequence[Recommendation]):
    """The items for one or more queries: a sequence of `Recommendation`, best first, query after query.

    For a single user or history, `recs[0]` is the best item and `len(recs)` their number. For many, `recs.of(2)` is the
    part of the third one, and `recs.queries()` goes over all parts. Prints itself as a table. Where a model has several
    vectors per query, each item says which of these interests it comes from, and `recs.by_interest()` groups them. With
    `per_interest` the lists of a query's interests follow each other, first the one with the best item; they
    are printed in the order of their numbers.

    Attributes:
        item_ids: (N,) str.
        scores: (N,) float32.
        titles: (N,) str, "" where an item has none.
        offsets: (Q + 1,) int64, the items of query q are offsets[q] to offsets[q + 1].
        users: the user of each query, None for a new history.
        interests: (N,) int64, see `Recommendation`; None where queries have one vector.
        interest_names: (N,) str, likewise.
        per_interest: how many items of each interest were requested; None where these are the best of all.

    >>> ids, scores, titles = np.array(["tea", "jam", "tea"]), np.array([2.0, 1.0, 3.0]), np.array(["", "Jam", ""])
    >>> recs = Recommendations(ids, scores, titles, np.array([0, 2, 3]), ("ann", None))
    >>> recs[1].item_id, recs[1].title, [rec.item_id for rec in recs.of(1)]
    ('jam', 'Jam', ['tea'])
    >>> print(recs.of(0))
    rank  item_id   score  title
       1  tea      2.0000
       2  jam      1.0000  Jam
    """

    item_ids: Strings
    scores: npt.NDArray[np.floating[Any]]
    titles: npt.NDArray[Any]
    offsets: Ints
    users: tuple[str | None, ...]
    interests: Ints | None = None
    interest_names: npt.NDArray[Any] | None = None
    per_interest: int | None = None

    @property
    def num_queries(self) -> int:
        """Number of queries."""
        return len(self.users)

    def of(self, query: int) -> Recommendations:
        """The part of one query, by its number.

        Raises:
            IndexError: there is no such query.
        """
        query = range(self.num_queries)[query]
        part = slice(int(self.offsets[query]), int(self.offsets[query + 1]))
        ends = np.array([0, part.stop - part.start])
        return Recommendations(
            *(self.item_ids[part], self.scores[part], self.titles[part], ends, self.users[query : query + 1]),
            interests=None if self.interests is None else self.interests[part],
            interest_names=None if self.interest_names is None else self.interest_names[part],
            per_interest=self.per_interest,
        )

    def queries(self) -> Iterator[Recommendations]:
        """The parts of all queries, in their order."""
        return (self.of(query) for query in range(self.num_queries))

    def by_interest(self) -> dict[int | None, list[Recommendation]]:
        """The items of each interest, best first; interests in the order of their best item.

        Only items of this result are listed: of the k best of all, an interest may have few or none. For a given number
        of each, call `recommend` with `per_interest`.

        Raises:
            DataError: there are several queries; take `of(query)` first.
        """
        if self.num_queries > 1:
            raise DataError(f"these are {self.num_queries} queries; take one, such as recs.of(0).by_interest()")
        groups: dict[int | None, list[Recommendation]] = {}
        for rec in self:
            groups.setdefault(rec.interest, []).append(rec)
        return groups

    def __len__(self) -> int:
        return len(self.item_ids)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Recommendation]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | list[Recommendation]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        query = int(np.searchsorted(self.offsets, place, side="right")) - 1
        first = int(self.offsets[query])  # of the list that the item is in
        if self.per_interest is not None and self.interests is not None:
            first += int((self.interests[first:place] != self.interests[place]).sum())
        return Recommendation(
            item_id=str(self.item_ids[place]),
            score=float(self.scores[place]),
            title=str(self.titles[place]),
            rank=place - first + 1,
            query=query,
            interest=None if self.interests is None else int(self.interests[place]),
            interest_name="" if self.interest_names is None else str(self.interest_names[place]),
        )

    def __repr__(self) -> str:
        return f"Recommendations({len(self)} items for {self.num_queries} queries)"

    def __str__(self) -> str:
        if self.num_queries == 1:
            return self._table()
        blocks = []
        for number, part in enumerate(self.queries()):
            if number == _SHOWN_QUERIES:
                blocks.append(f"... and {self.num_queries - number:,} more")
                break
            user = self.users[number]
            blocks.append((f"history {number}" if user is None else f"user {user}") + "\n" + part._table())
        return "\n\n".join(blocks)

    def _table(self) -> str:
        """The lines of a single query."""
        if not len(self):
            return "nothing left to recommend: all items are in the history"
        apart = self.per_interest is not None
        recs = sorted(self, key=lambda rec: rec.interest or 0) if apart else self  # lists by number, to be found
        rows = [("rank", "item_id", "score", "title", "" if apart or self.interests is None else "interest")]
        rows += [
            (
                *(f"{rec.rank}", rec.item_id, f"{rec.score:.4f}", _short(rec.title)),
                "" if apart else _short(_interest_text(rec)),
            )
            for rec in recs
        ]
        rank, item, score, title = (max(len(row[column]) for row in rows) for column in range(4))
        lines = [f"{r:>{rank}}  {i:<{item}}  {s:>{score}}  {t:<{title}}  {n}".rstrip() for r, i, s, t, n in rows]
        if apart:  # a line above each list
            lines[1:] = [
                f"interest {_short(_interest_text(rec, 'no item of the history'))}\n{line}" if rec.rank == 1 else line
                for rec, line in zip(recs, lines[1:], strict=True)
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """{"recommendations": [{query, user, rank, item_id, score, title}, ...]}, user None for a new history.

        Where queries have several vectors, interest and interest_name are there too.
        """
        rows = [
            {
                "query": rec.query,
                "user": self.users[rec.query],
                "rank": rec.rank,
                "item_id": rec.item_id,
                "score": rec.score,
                "title": rec.title,
                **({} if rec.interest is None else {"interest": rec.interest, "interest_name": rec.interest_name}),
            }
            for rec in self
        ]
        return {"recommendations": rows}


def recommend(
    model: Any,
    user: str | None = None,
    *,
    users: Sequence[str] | None = None,
    history: Sequence[str] | None = None,
    histories: Sequence[Sequence[str]] | None = None,
    k: int = 10,
    per_interest: int | None = None,
    seen: Literal["mask", "keep"] = "mask",
) -> Recommendations:
    """The k best items of each query, or the best of each of its interests.

    Exactly one of `user`, `users`, `history`, `histories` is given.

    Args:
        model: a model of `dglrec.models`; it is used in evaluation mode, and put back into the mode that it was in.
        user: id of a user of the data. The history is all that is known of the user, validation and test events too.
        users: ids of many users.
        history: item ids of a user who need not be in the log, oldest first.
        histories: many such histories.
        k: number of items, or all that are left where these are fewer.
        per_interest: number of items per interest, in place of k, by the interest's own score, for models with several
            vectors per query. An item may be in several lists. Equal interests, as those of a history of few items, are
            one.
        seen: "mask" leaves out the items of the history, "keep" allows them.

    Raises:
        DataError: an unknown user or item (the closest id is named), or an empty history.
        ConfigError: k below 1 or above the beam of a generative model, not exactly one kind of query, or `per_interest`
            below 1 or of a model without several vectors per query.
    """
    beam = model.beam
    for name, number in (("k", k), ("per_interest", 1 if per_interest is None else per_interest)):
        if not is_whole(number):
            raise ConfigError(f"{name} is {number!r}; expected a whole number")
    if k < 1 or (beam is not None and k > beam):
        limit = "" if beam is None else f", and at most {beam}, the model's beam"
        raise ConfigError(f"k is {k}; expected at least 1{limit}")
    if per_interest is not None and per_interest < 1:
        raise ConfigError(f"per_interest is {per_interest}; expected at least 1")
    if seen not in ("mask", "keep"):
        raise ConfigError(f"seen is {seen!r}; expected 'mask' or 'keep'")
    if sum(one is not None for one in (user, users, history, histories)) != 1:
        raise ConfigError("recommend needs exactly one of user, users, history and histories")
    log = model.split.log
    if user is not None or users is not None:
        queries = _known([user] if users is None else _many(users, "users"), log)
        names: list[str | None] = log.user_ids[queries.user].tolist()
    else:
        queries = _new([_many(history, "history")] if history is not None else _many(histories, "histories"), log)
        names = [None] * len(queries)
    parts = []
    with eval_mode(model), torch.no_grad():
        wide = BLOCK_SCORES // max(1, beam or log.num_items)  # the scores of all items are made at once
        for block in blocks(queries, min(block_size(model, queries, beam), max(1, wide)), None):
            vectors = _Vectors.of(model, block)
            several = vectors is not None and vectors.queries.shape[1] > 1
            if per_interest is not None:
                if vectors is None or not several:
                    raise ConfigError(_no_interests(model, per_interest, vectors))
                items, scores, interest = vectors.lists(block, per_interest, seen)
            elif beam is None:
                items, scores = _ranked(model.scores(block) if vectors is None else vectors.scores(), block, k, seen)
            else:
                items, scores = _listed(model, block, beam, k, seen)
            found = items >= 0
            columns: list[npt.NDArray[Any]] = [items, scores]
            if vectors is not None and several:
                if per_interest is None:
                    interest = vectors.best(items)
                columns += [interest, np.take_along_axis(vectors.names(block, log), interest, 1)]
            parts.append((found.sum(1), *(column[found] for column in columns)))
    counts, chosen, values, *told = (np.concatenate(column) for column in zip(*parts, strict=True))
    titles = np.full(len(chosen), "") if log.titles is None else log.titles[chosen]
    interests, interest_names = told or (None, None)
    ends = row_pointers(counts)
    return Recommendations(
        *(log.item_ids[chosen], values, titles, ends, tuple(names)), interests, interest_names, per_interest
    )


def _no_interests(model: Any, per_interest: int, vectors: _Vectors | None) -> str:
    """Why there is no list of each interest."""
    seen = "no vectors of a query that serve all items" if vectors is None else "one vector per query"
    return (
        f"per_interest is {per_interest}, but {model.preset} has {seen}; use k instead, or take a model with "
        "several vectors per query, such as mip, comirec-sa or mdgr"
    )


@dataclass(frozen=True, eq=False)
class _Vectors:
    """The vectors that a model's scores are made of: queries (B, K, d), items (M, d)."""

    queries: torch.Tensor
    items: torch.Tensor

    @classmethod
    def of(cls, model: Any, queries: Queries) -> _Vectors | None:
        """None for a model that scores or lists items by itself."""
        if model.beam is not None or not model.scores_are_products:
            return None
        return cls(model.query_vectors(queries), model.item_vectors())

    def scores(self) -> torch.Tensor:
        """(B, M), equal to the model's own scores."""
        return largest_products(self.queries, self.items)

    @cached_property
    def first(self) -> torch.Tensor:
        """(B, K): the number of each vector, or of the first one that is the same up to rounding."""
        same = torch.isclose(self.queries[:, :, None], self.queries[:, None]).all(3)  # (B, K, K)
        return same.int().argmax(2)

    def lists(self, queries: Queries, count: int, seen: str) -> tuple[Ints, npt.NDArray[np.float32], Ints]:
        """Items, scores and number of the vector, (B, K * count) each, list after list, -1 where no item is left.

        The list of a vector has the items that it alone scores highest. The list with the best item comes first; a
        vector that is equal to an earlier one has none.
        """
        lists = [_ranked(vector @ self.items.T, queries, count, seen) for vector in self.queries.unbind(1)]
        items, scores = (np.stack(parts, 1) for parts in zip(*lists, strict=True))  # (B, K, count)
        number = np.arange(items.shape[1])
        items[self.first.cpu().numpy() != number] = -1
        order = np.argsort(-scores.max(2), axis=1, kind="stable")  # (B, K)
        items, scores = (np.take_along_axis(part, order[:, :, None], 1) for part in (items, scores))
        shape = (len(items), -1)
        return items.reshape(shape), scores.reshape(shape), np.repeat(order, items.shape[2], axis=1)

    def best(self, items: Ints) -> Ints:
        """(B, k): which of the K vectors scores each item (B, k) highest."""
        asked = self.items[torch.as_tensor(np.maximum(items, 0), device=self.items.device)]  # (B, k, d)
        return self.first.gather(1, (self.queries @ asked.mT).argmax(1)).cpu().numpy()

    def names(self, queries: Queries, log: InteractionLog) -> npt.NDArray[Any]:
        """(B, K): the name of each vector, "" for one that no item of the history belongs to.

        Each item of the history belongs to the vector that scores it highest; a vector is named by the two of its own
        items that it scores highest.
        """
        device, many = self.items.device, self.queries.shape[1]
        row = np.repeat(np.arange(len(queries)), queries.lengths)
        place = torch.as_tensor(row, device=device)
        known = torch.as_tensor(queries.items, device=device)
        step = max(1, BLOCK_SCORES // self.queries[:1].numel())  # (T, K, d) would be large
        products = (
            (self.queries[rows] @ self.items[items].unsqueeze(2)).squeeze(2)  # (T, K)
            for rows, items in zip(place.split(step), known.split(step), strict=True)
        )
        fits = torch.cat(list(products)).max(1)
        fit, own = fits.values.float().cpu().numpy(), row * many + self.first[place, fits.indices].cpu().numpy()  # (T,)
        once = np.unique(row * len(self.items) + queries.items, return_index=True)[1]  # items that came again
        order = once[np.lexsort((-fit[once], own[once]))]  # by vector, best first
        keys, first = np.unique(own[order], return_index=True)
        texts = (log.item_ids if log.titles is None else log.titles)[queries.items[order]].astype(object)
        texts = np.where(texts == "", log.item_ids[queries.items[order]].astype(object), texts)
        second = np.minimum(first + 1, len(order) - 1)
        has_second = (own[order][second] == keys) & (second > first)
        names = np.full(len(queries) * many, "", dtype=object)  # of all vectors
        names[keys] = np.where(has_second, texts[first] + "; " + texts[second], texts[first])
        return names.reshape(-1, many)


def _known(users: Sequence[Any], log: InteractionLog) -> Queries:
    """Queries of users of the log, each with all of its events as history."""
    index = log.user_index([str(one) for one in users])
    rows, offsets = segments(log.offsets, index)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        raise DataError(f"user {users[empty[0]]!r} has no interactions; give a history instead")
    times = None if log.time is None else log.time[rows]
    no_targets = np.zeros(len(index) + 1, dtype=np.int64)
    return Queries(index, offsets, log.item[rows], times, no_targets, np.zeros(0, dtype=np.int64), None)


def _new(histories: Sequence[Any], log: InteractionLog) -> Queries:
    """Queries without a user, from item ids; all ids are looked up at once."""
    offsets = row_pointers(np.array([len(_many(history, "a history")) for history in histories], dtype=np.int64))
    items = log.item_index([str(item) for history in histories for item in history])
    no_targets = np.zeros(len(histories) + 1, dtype=np.int64)
    unknown = np.full(len(histories), -1, dtype=np.int64)
    return Queries(unknown, offsets, items, None, no_targets, np.zeros(0, dtype=np.int64), None)


def _many(ids: Any, what: str) -> Sequence[Any]:
    """`ids`, which must be a list of at least one; text alone would be a list of letters, and a set has no order."""
    if isinstance(ids, str | bytes | set | frozenset) or not hasattr(ids, "__len__"):
        raise DataError(f"{what} is {ids!r}; expected a list of ids")
    if not len(ids):
        raise DataError(f"{what} is empty; expected at least one id" + (", oldest first" if "history" in what else ""))
    return ids


def _ranked(scores: torch.Tensor, queries: Queries, k: int, seen: str) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Scores (B, M) -> items (B, k), best first, -1 where no item is left, and their scores (B, k)."""
    if scores.isnan().any():
        raise DglrecError("the model gives scores that are NaN; was it trained with too high a learning rate?")
    if seen == "mask":
        row = torch.as_tensor(np.repeat(np.arange(len(queries)), queries.lengths), device=scores.device)
        place = (row, torch.as_tensor(queries.items, device=scores.device))
        scores = scores.index_put(place, scores.new_tensor(-torch.inf))  # a copy: the scores are the model's
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    values, items = best.values.float().cpu().numpy(), best.indices.cpu().numpy()
    order = np.lexsort((items, -values))  # of the items chosen, those of one score in the order of the log
    values, items = np.take_along_axis(values, order, 1), np.take_along_axis(items, order, 1)
    return np.where(np.isneginf(values), -1, items), values


def _listed(model: Any, queries: Queries, beam: int, k: int, seen: str) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The list of a generative model, with -1 in place of items that are not wanted."""
    ids, values = model.top(queries, beam)  # (B, beam) each
    items = ids.cpu().numpy().astype(np.int64)
    if seen == "mask":
        wide = model.split.log.num_items
        shown = np.arange(len(queries))[:, None] * wide + items
        known = np.repeat(np.arange(len(queries)), queries.lengths) * wide + queries.items
        items = np.where((items >= 0) & np.isin(shown, known), -1, items)
    items = np.where((items >= 0).cumsum(1) <= k, items, -1)
    return items, values.float().cpu().numpy()


def _interest_text(rec: Recommendation, nameless: str = "") -> str:
    """Such as "3: Nordic baking, no. 3; Nordic baking, no. 8"; `nameless` replaces a missing name."""
    if rec.interest is None:
        return ""
    name = rec.interest_name or (nameless and f"({nameless})")
    return f"{rec.interest}: {name}" if name else f"{rec.interest}"


def _short(title: str) -> str:
    """A title on one line, not too long."""
    title = " ".join(title.split())
    return title if len(title) <= _TITLE_WIDTH else title[: _TITLE_WIDTH - 3] + "..."
