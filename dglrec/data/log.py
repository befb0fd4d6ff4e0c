"""The interaction log: who touched what, and when."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ..errors import DataError, first_line
from .files import atomic_write
from .flat import Bools, Floats, Ints, distinct_keys, row_pointers

Strings: TypeAlias = npt.NDArray[np.str_]

_FORMAT = "dglrec interaction log 1"
_OTHER_PARTS = "part holds other values than 0 (training), 1 (validation) and 2 (test)"

# What a saved log may unpack to: this many bytes, or this many times its own size if that is more. Ids of which one is
# long pack to less than a hundredth, but `readers` lets them take 1 << 27 bytes at most.
_ALWAYS_UNPACKED = 1 << 28
_MOST_PACKED = 100


@dataclass(frozen=True, eq=False)
class InteractionLog:
    """Interactions of users with items, sorted by (user, time, order in the file).

    Users and items are indices into `user_ids` and `item_ids`, which hold the ids of the source as text. The sort is
    stable: events of a user at the same time stay in the order in which the source has them. A repeated (user, item)
    pair stays as many rows.

    Attributes:
        user: (n,) int64, index of the user; never decreases.
        item: (n,) int64, index of the item.
        time: (n,) float64, seconds; None where the source has no times (then rows are in file order).
        rating: (n,) float32, NaN where a row has none; None where the source has no ratings.
        user_ids: (num_users,) str, ids of the source in order of first appearance.
        item_ids: (num_items,) str, likewise.
        titles: (num_items,) str, "" where an item has none; None where the source has no titles.
        name: name of the data set.
        filters: what was filtered, in order, such as ("5-core",).
        part: (n,) int8, the part of the split that the source comes with: 0 training, 1 validation, 2 test; None where
            it comes without one. `dglrec.given` makes the split.
        texts: (num_items,) str, all that the source says of an item in words, its title among them, "" where it says
            nothing; None where there are no more than titles. Text encoders read it.

    >>> log = InteractionLog.from_arrays(["ann", "bob", "ann"], ["tea", "tea", "jam"], time=[20, 10, 10])
    >>> log.num_users, log.num_items, len(log)
    (2, 2, 3)
    >>> log.item_ids[log.item[log.user == log.user_index("ann")]].tolist()
    ['jam', 'tea']
    """

    user: Ints
    item: Ints
    time: Floats | None
    rating: npt.NDArray[np.float32] | None
    user_ids: Strings
    item_ids: Strings
    titles: npt.NDArray[np.object_] | None = None
    name: str = "log"
    filters: tuple[str, ...] = ()
    part: npt.NDArray[np.int8] | None = None
    texts: npt.NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        if self.user.dtype != np.int64 or self.item.dtype != np.int64:
            raise DataError("InteractionLog takes int64 indices; InteractionLog.from_arrays takes anything")
        for column in ("item", "time", "rating", "part"):
            values = getattr(self, column)
            if values is not None and values.shape != self.user.shape:
                raise DataError(f"column {column!r} has shape {values.shape}; expected {self.user.shape} as 'user' has")
        for values, ids, what in ((self.user, self.user_ids, "user"), (self.item, self.item_ids, "item")):
            if len(values) and not (values.min() >= 0 and values.max() < len(ids)):
                raise DataError(
                    f"{what} indices run from {values.min()} to {values.max()}; expected 0 to {len(ids) - 1}"
                )
        if self.part is not None and not np.isin(self.part, (0, 1, 2)).all():
            raise DataError(_OTHER_PARTS)
        for what in ("titles", "texts"):
            said = getattr(self, what)
            if said is not None and len(said) != len(self.item_ids):
                raise DataError(f"{len(said)} {what} for {len(self.item_ids)} items; expected one per item")
        step = np.diff(self.user)
        ordered = step > 0 if self.time is None else (step > 0) | (self.time[1:] >= self.time[:-1])
        if (step < 0).any() or (self.time is not None and not ordered.all()):
            raise DataError("rows are not sorted by (user, time); InteractionLog.from_arrays sorts them")

    @classmethod
    def from_arrays(
        cls,
        user: npt.ArrayLike,
        item: npt.ArrayLike,
        time: npt.ArrayLike | None = None,
        rating: npt.ArrayLike | None = None,
        *,
        user_ids: npt.ArrayLike | None = None,
        item_ids: npt.ArrayLike | None = None,
        titles: Mapping[str, str] | npt.ArrayLike | None = None,
        name: str = "log",
        filters: Sequence[str] = (),
        part: npt.ArrayLike | None = None,
        texts: Mapping[str, str] | npt.ArrayLike | None = None,
    ) -> InteractionLog:
        """A log from columns in file order.

        Args:
            user: (n,) raw ids (text or integers); indices where `user_ids` is given.
            item: (n,) likewise.
            time: (n,) seconds, or datetime64.
            rating: (n,) numbers, NaN where there is none.
            user_ids: (num_users,) ids that the indices in `user` refer to; without it ids are numbered in order of
                first appearance.
            item_ids: (num_items,) likewise.
            titles: id -> title, or one title for each of `item_ids`.
            name: name of the data set.
            filters: what was filtered already.
            part: (n,) 0, 1 or 2, the part of a split that the source comes with.
            texts: id -> all that is said of an item in words, or one text for each of `item_ids`.

        Raises:
            DataError: no rows, columns of different lengths, an empty id, a time that is NaN or infinite.

        >>> InteractionLog.from_arrays([7, 7, 3], [1, 2, 1]).user_ids.tolist()
        ['7', '3']
        """
        user_index, users = _encode(user, user_ids, "user")
        item_index, items = _encode(item, item_ids, "item")
        seconds = None if time is None else seconds_of(time)
        stars = None if rating is None else _numbers(rating, "rating").astype(np.float32)
        parts = None if part is None else _numbers(part, "part")
        n = len(user_index)
        for column, values in (("item", item_index), ("time", seconds), ("rating", stars), ("part", parts)):
            if values is not None and len(values) != n:
                raise DataError(
                    f"column {column!r} has {len(values)} rows and 'user' has {n}; expected the same number"
                )
        if n == 0:
            raise DataError("no interactions; expected at least one row")
        if parts is not None and not np.isin(parts, (0, 1, 2)).all():  # before they become small integers
            raise DataError(_OTHER_PARTS)
        order = np.argsort(user_index, kind="stable") if seconds is None else np.lexsort((seconds, user_index))
        return cls(
            user=user_index[order],
            item=item_index[order],
            time=None if seconds is None else seconds[order],
            rating=None if stars is None else stars[order],
            user_ids=users,
            item_ids=items,
            titles=None if titles is None else by_item(titles, items, "titles"),
            name=name,
            filters=tuple(filters),
            part=None if parts is None else parts[order].astype(np.int8),
            texts=None if texts is None else by_item(texts, items, "texts"),
        )

    @property
    def num_users(self) -> int:
        """Users in the vocabulary, with or without rows."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Items in the vocabulary, with or without rows."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        filters = "".join(f", {name}" for name in self.filters)
        size = f"{len(self)} interactions of {self.num_users} users, {self.num_items} items"
        return f"InteractionLog({self.name}{filters}: {size})"

    @cached_property
    def offsets(self) -> Ints:
        """(num_users + 1,) int64: the rows of user u are offsets[u] to offsets[u + 1]."""
        return row_pointers(np.bincount(self.user, minlength=self.num_users))

    @cached_property
    def position(self) -> Ints:
        """(n,) int64: 0 for the first event of a user, 1 for the second, and so on."""
        return np.arange(len(self), dtype=np.int64) - self.offsets[self.user]

    @cached_property
    def pair_keys(self) -> Ints:
        """(P,) int64: the distinct pairs of user u and item i as u * num_items + i, ascending."""
        return distinct_keys(self.user * self.num_items + self.item)

    def select(self, rows: npt.ArrayLike) -> InteractionLog:
        """The log of some rows, over the same users and items, in the order of this log.

        Args:
            rows: (n,) bool mask, or distinct row numbers.

        Raises:
            DataError: the mask does not fit, a row does not exist or is there twice.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            if chosen.shape != self.user.shape:
                raise DataError(f"the mask has shape {chosen.shape}; expected {self.user.shape}")
            index = np.flatnonzero(chosen)
        else:
            index = np.sort(chosen.astype(np.int64))
            if len(index) and (index[0] < 0 or index[-1] >= len(self) or (np.diff(index) == 0).any()):
                raise DataError(f"row numbers must be distinct and between 0 and {len(self) - 1}")
        return self._take(index)

    def _take(self, index: Ints) -> InteractionLog:
        """Rows `index` in that order, which must keep (user, time) sorted."""
        return dataclasses.replace(
            self,
            user=self.user[index],
            item=self.item[index],
            time=None if self.time is None else self.time[index],
            rating=None if self.rating is None else self.rating[index],
            part=None if self.part is None else self.part[index],
        )

    def k_core(self, k: int) -> InteractionLog:
        """The largest part of the log in which every user and every item has at least `k` rows.

        Rows are counted, not distinct pairs: ratings of any value and repeats count. Users and items that lose all
        their rows leave the vocabulary; the others keep their order.

        Raises:
            DataError: `k` is below 1, or nothing is left.

        >>> log = InteractionLog.from_arrays(["a", "a", "b", "b", "c"], ["x", "y", "x", "y", "z"])
        >>> log.k_core(2)
        InteractionLog(log, 2-core: 4 interactions of 2 users, 2 items)
        """
        if k < 1:
            raise DataError(f"k_core is {k}; expected at least 1")
        keep = np.ones(len(self), dtype=bool)
        users = np.bincount(self.user, minlength=self.num_users)
        items = np.bincount(self.item, minlength=self.num_items)
        # A pass looks at all rows, but only through tables of one byte per id, and counts only the rows that go.
        while len(drop := np.flatnonzero(keep & ((users < k)[self.user] | (items < k)[self.item]))):
            keep[drop] = False
            users -= np.bincount(self.user[drop], minlength=self.num_users)
            items -= np.bincount(self.item[drop], minlength=self.num_items)
        if not keep.any():
            raise DataError(
                f"the {k}-core of {self.name!r} is empty: no users and items have {k} rows with each other; "
                "try a smaller k"
            )
        return self._keep(keep, f"{k}-core")

    def one_pass_core(self, user_events: int = 100, item_events: int = 10) -> InteractionLog:
        """Frequent users and items, each counted once: the filter of MIP's data, which is not a k-core.

        Users with fewer than `user_events` rows go; then items with fewer than `item_events` rows among the users that
        are left; then users who now have fewer than `user_events`. An item may end up below its number by that last
        step, and stays. Rows are counted, not distinct pairs.

        Shi et al., "Everyone's Preference Changes Differently" (MIP), arXiv 2207.06652, as its code prepares the data.

        Raises:
            DataError: a number is below 1, or nothing is left.

        >>> log = InteractionLog.from_arrays(["a", "a", "a", "b", "b", "c"], ["x", "y", "z", "x", "y", "x"])
        >>> log.one_pass_core(2, 2)
        InteractionLog(log, one-pass core (2 a user, 2 an item): 4 interactions of 2 users, 2 items)
        """
        if min(user_events, item_events) < 1:
            raise DataError(f"one_pass_core takes {user_events} and {item_events} events; expected at least 1 of each")
        keep = np.bincount(self.user, minlength=self.num_users)[self.user] >= user_events
        keep &= np.bincount(self.item[keep], minlength=self.num_items)[self.item] >= item_events
        keep &= np.bincount(self.user[keep], minlength=self.num_users)[self.user] >= user_events
        if not keep.any():
            raise DataError(
                f"no user of {self.name!r} has {user_events} events with items that have {item_events}; "
                "try smaller numbers"
            )
        return self._keep(keep, f"one-pass core ({user_events} a user, {item_events} an item)")

    def count_filter(self, *passes: tuple[int, int]) -> InteractionLog:
        """Frequent users and items in several passes, each of which counts once: the filter of SelfGNN's data.

        A pass (a, b) keeps users with at least `a` distinct items and items with at least `b` distinct users, both
        counted before the pass; what remains may be below either number, and it is not a k-core. The public code for
        Amazon's books (Liu et al., "SelfGNN", SIGIR 2024) has `count_filter((20, 20), (15, 0), (5, 0))`, although the
        HardGNN paper says "5-core".

        Raises:
            DataError: no passes, or nothing is left.

        >>> log = InteractionLog.from_arrays(["a", "a", "a", "b", "b", "c"], ["x", "y", "y", "x", "z", "x"])
        >>> log.count_filter((2, 2))
        InteractionLog(log, counts (2, 2): 2 interactions of 2 users, 1 items)
        """
        if not passes:
            raise DataError("count_filter got no passes; expected some such as (20, 20), (15, 0)")
        name = "counts " + ", ".join(f"({users}, {items})" for users, items in passes)
        keep = np.ones(len(self), dtype=bool)
        for user_items, item_users in passes:
            pair = np.unique(self.user[keep] * self.num_items + self.item[keep])
            users = np.bincount(pair // self.num_items, minlength=self.num_users)
            items = np.bincount(pair % self.num_items, minlength=self.num_items)
            keep &= (users[self.user] >= user_items) & (items[self.item] >= item_users)
        if not keep.any():
            raise DataError(f"nothing of {self.name!r} is left by {name}; try smaller numbers")
        return self._keep(keep, name)

    def between(self, begin: float | str | np.datetime64, end: float | str | np.datetime64) -> InteractionLog:
        """The events with begin <= time < end; users and items without any leave the vocabulary.

        Args:
            begin, end: seconds, or dates in UTC such as "2014-01-01" or a datetime64.

        Raises:
            DataError: the log has no times, a date cannot be read, or nothing is left.

        >>> log = InteractionLog.from_arrays(["a", "b"], ["x", "y"], time=[1_388_534_399, 1_388_534_400])
        >>> log.between("2014-01-01", "2015-01-01").user_ids.tolist()
        ['b']
        """
        if self.time is None:
            raise DataError(f"{self.name!r} has no times; load it with its timestamps")
        first, last = (_moment(moment) for moment in (begin, end))
        keep = (self.time >= first) & (self.time < last)
        if not keep.any():
            raise DataError(
                f"no event of {self.name!r} is between {begin} and {end}; "
                f"they are from {self.time.min():.10g} to {self.time.max():.10g} s"
            )
        return self._keep(keep, f"from {begin} to before {end}")

    def _keep(self, keep: Bools, name: str) -> InteractionLog:
        """The log of the rows `keep` (n,); users and items without rows leave the vocabulary, the others keep order."""
        users = np.bincount(self.user[keep], minlength=self.num_users)
        items = np.bincount(self.item[keep], minlength=self.num_items)
        new_user, new_item = np.cumsum(users > 0) - 1, np.cumsum(items > 0) - 1  # index before -> index after
        rows = self.select(keep)
        return dataclasses.replace(
            rows,
            user=new_user[rows.user],
            item=new_item[rows.item],
            user_ids=self.user_ids[users > 0],
            item_ids=self.item_ids[items > 0],
            titles=None if self.titles is None else self.titles[items > 0],
            texts=None if self.texts is None else self.texts[items > 0],
            filters=(*(old for old in self.filters if old != name), name),
        )

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256(_FORMAT.encode())
        rating = self.rating
        if rating is not None:
            rating = np.where(np.isnan(rating), np.float32(np.nan), rating)  # one bit pattern for every NaN
        columns = {"user": self.user, "item": self.item, "time": self.time, "rating": rating, "part": self.part}
        for label, values in columns.items():
            if values is not None:
                hasher.update(f"|{label} {len(values)}|".encode())
                hasher.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes())
        for label, ids in (("user_ids", self.user_ids), ("item_ids", self.item_ids)):
            hasher.update(f"|{label} {len(ids)}|".encode())
            hasher.update("\0".join(ids.tolist()).encode("utf-8", "surrogatepass"))
        return hasher.hexdigest()

    def digest(self) -> str:
        """Hex SHA-256 of rows, their order and the ids; titles, texts, name and filters do not count."""
        return self._digest

    @overload
    def user_index(self, ids: str) -> int: ...
    @overload
    def user_index(self, ids: list[str] | tuple[str, ...] | npt.NDArray[Any]) -> Ints: ...
    def user_index(self, ids: str | list[str] | tuple[str, ...] | npt.NDArray[Any]) -> int | Ints:
        """Index of one user id, or indices of many.

        Raises:
            DataError: an id is not in the log; the closest one is named.
        """
        return _lookup(ids, self._user_numbers, "user")

    @overload
    def item_index(self, ids: str) -> int: ...
    @overload
    def item_index(self, ids: list[str] | tuple[str, ...] | npt.NDArray[Any]) -> Ints: ...
    def item_index(self, ids: str | list[str] | tuple[str, ...] | npt.NDArray[Any]) -> int | Ints:
        """Index of one item id, or indices of many.

        Raises:
            DataError: an id is not in the log; the closest one is named.
        """
        return _lookup(ids, self._item_numbers, "item")

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return dict(zip(self.user_ids.tolist(), range(self.num_users), strict=True))

    @cached_property
    def _item_numbers(self) -> dict[str, int]:
        return dict(zip(self.item_ids.tolist(), range(self.num_items), strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the log as one .npz file (no pickle), complete or not at all; reading it takes numpy alone.

        Raises:
            DataError: the file cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            "format": np.array(_FORMAT),
            "digest": np.array(self.digest()),
            "name": np.array(self.name),
            "filters": np.array(self.filters, dtype=np.str_),
            "user": self.user,
            "item": self.item,
            "user_ids": self.user_ids,
            "item_ids": self.item_ids,
        }
        if self.time is not None:
            arrays["time"] = self.time
        if self.rating is not None:
            arrays["rating"] = self.rating
        if self.part is not None:
            arrays["part"] = self.part
        for label, said in (("title", self.titles), ("text", self.texts)):
            if said is not None:
                encoded = [text.encode() for text in said.tolist()]
                arrays[f"{label}_bytes"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
                arrays[f"{label}_offsets"] = row_pointers(np.array([len(text) for text in encoded], dtype=np.int64))
        with atomic_write(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InteractionLog:
        """Reads a log that `save` wrote. Nothing in the file can run code.

        Raises:
            DataError: the file is missing, damaged, or something else than a saved log.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if not hasattr(file, "files") or "format" not in file.files or str(file["format"]) != _FORMAT:
                    raise DataError(f"{path} is not a log that this version of InteractionLog.save wrote")
                packed, unpacked = os.path.getsize(path), sum(part.file_size for part in file.zip.infolist())
                if unpacked > max(_ALWAYS_UNPACKED, _MOST_PACKED * packed):
                    raise DataError(f"{path} unpacks from {packed:,} bytes to {unpacked:,}, which no log does")
                arrays = {key: file[key] for key in file.files}
        except FileNotFoundError as error:
            raise DataError(f"no file {path}; expected a log that InteractionLog.save wrote") from error
        except DataError:
            raise
        except Exception as error:  # for damaged bytes zipfile, zlib and numpy raise a dozen different things
            raise DataError(f"{path} is damaged or not a saved log ({first_line(error)}); save it again") from error
        try:
            log = cls(
                user=arrays["user"],
                item=arrays["item"],
                time=arrays.get("time"),
                rating=arrays.get("rating"),
                user_ids=arrays["user_ids"],
                item_ids=arrays["item_ids"],
                titles=_saved_texts(arrays, "title"),
                name=str(arrays["name"]),
                filters=tuple(arrays["filters"].tolist()),
                part=arrays.get("part"),
                texts=_saved_texts(arrays, "text"),
            )
        except (KeyError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is not a complete log ({first_line(error)}); save it again") from error
        if log.digest() != str(arrays["digest"]):
            raise DataError(f"{path} was changed after it was saved (its SHA-256 differs); save it again")
        return log


def _saved_texts(arrays: Mapping[str, npt.NDArray[Any]], label: str) -> npt.NDArray[np.object_] | None:
    """Titles or texts as `save` wrote them."""
    if f"{label}_bytes" not in arrays:
        return None
    text, ends = arrays[f"{label}_bytes"].tobytes(), arrays[f"{label}_offsets"].tolist()
    found = np.empty(len(ends) - 1, dtype=np.object_)
    found[:] = [text[start:end].decode() for start, end in itertools.pairwise(ends)]
    return found


def _encode(values: npt.ArrayLike, ids: npt.ArrayLike | None, what: str) -> tuple[Ints, Strings]:
    """(n,) raw ids -> (n,) indices, and the ids in order of first appearance; with `ids`, they are indices already."""
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise DataError(f"column {what!r} has {raw.ndim} dimensions; expected 1")
    if ids is not None:
        known = np.asarray(ids).astype(np.str_)
        if len(set(known.tolist())) != len(known):
            raise DataError(f"{what}_ids holds an id twice; expected distinct ids")
        if len(raw) and raw.dtype.kind not in "iu":
            raise DataError(f"column {what!r} holds {raw.dtype}; expected integer indices into {what}_ids")
        return raw.astype(np.int64), known
    if raw.dtype.kind == "O":
        missing = np.flatnonzero((raw == None) | (raw != raw))  # noqa: E711 - element by element: None and NaN
        if len(missing):
            raise DataError(f"row {missing[0]} has no {what} id; expected text or an integer in every row")
        raw = raw.astype(np.str_)
    if len(raw) and raw.dtype.kind not in "iuU":
        raise DataError(f"column {what!r} holds {raw.dtype}; expected ids as text or integers")
    if raw.dtype.kind == "U" and (raw == "").any():
        raise DataError(
            f"row {np.flatnonzero(raw == '')[0]} has an empty {what} id; expected text or an integer in every row"
        )
    distinct, first, index = np.unique(raw, return_index=True, return_inverse=True)
    order = np.argsort(first)  # first appearances are distinct, so any sort is stable
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[index], distinct[order].astype(np.str_)


def _numbers(values: npt.ArrayLike, what: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {what!r} holds something else than numbers ({first_line(error)})") from error


def seconds_of(values: npt.ArrayLike) -> Floats:
    """(n,) times -> (n,) float64 seconds, all of them finite."""
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise DataError(f"column 'time' has {raw.ndim} dimensions; expected 1")
    try:
        seconds = moments_of(raw)
    except (TypeError, ValueError) as error:
        raise DataError(f"column 'time' holds something else than numbers ({first_line(error)})") from error
    bad = np.flatnonzero(~np.isfinite(seconds))
    if len(bad):
        raise DataError(f"time of row {bad[0]} is {seconds[bad[0]]}; expected a finite number of seconds in every row")
    return seconds


def moments_of(raw: npt.NDArray[Any]) -> Floats:
    """Numbers, datetime64 or timedelta64 as float64 seconds, NaN where one is missing."""
    if raw.dtype.kind not in "mM":
        return raw.astype(np.float64)
    seconds: Floats = raw.astype(f"{raw.dtype.kind}8[us]").astype(np.float64) / 1e6
    seconds[np.isnat(raw)] = np.nan
    return seconds


def _moment(moment: float | str | np.datetime64) -> float:
    """A time as seconds."""
    if not isinstance(moment, (str, np.datetime64)):
        return float(moment)
    try:
        return float(np.array(moment, dtype="datetime64[us]").astype(np.int64)) / 1e6
    except ValueError as error:
        raise DataError(f"{moment!r} is not a date; expected one such as '2014-01-01', or seconds") from error


def by_item(said: Mapping[str, str] | npt.ArrayLike, item_ids: Strings, what: str) -> npt.NDArray[np.object_]:
    """Titles or texts by item index, "" where there is none."""
    texts = np.empty(len(item_ids), dtype=np.object_)
    if isinstance(said, Mapping):
        texts[:] = [str(said.get(item, "")) for item in item_ids.tolist()]
        return texts
    given = np.asarray(said).tolist()
    if len(given) != len(item_ids):
        raise DataError(
            f"{len(given)} {what} for {len(item_ids)} items; expected one per item, or a mapping from ids to {what}"
        )
    texts[:] = ["" if text is None else str(text) for text in given]
    return texts


def _lookup(ids: str | Sequence[str] | npt.NDArray[Any], numbers: dict[str, int], what: str) -> int | Ints:
    single = isinstance(ids, str) or np.ndim(ids) == 0
    wanted = [str(ids)] if single else [str(one) for one in ids]
    index = np.array([numbers.get(one, -1) for one in wanted], dtype=np.int64)
    unknown = np.flatnonzero(index < 0)
    if len(unknown):
        name = wanted[unknown[0]]
        raise DataError(f"unknown {what} {name!r}; {_closest_id(name, numbers)}")
    return int(index[0]) if single else index


def _closest_id(name: str, numbers: dict[str, int]) -> str:
    """A hint for an unknown id; of many ids only those with the same beginning are compared."""
    ids = list(numbers)
    if len(ids) > 50_000:
        ids = [one for one in ids if one[:2] == name[:2]][:50_000]
    found = difflib.get_close_matches(name, ids, n=2, cutoff=0.75)
    if found:
        return "did you mean " + " or ".join(repr(one) for one in found) + "?"
    return f"known ids look like {', '.join(repr(one) for one in list(numbers)[:3])}"
