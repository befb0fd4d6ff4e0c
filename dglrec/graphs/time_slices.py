"""The log cut along its time: one heterograph whose relations are the slices (SelfGNN, HardGNN).

SelfGNN divides the time range [t_b, t_e] into T equal intervals and gives each its own adjacency A_t, in which user and
item are connected if they met in it (Liu et al., SIGIR 2024; HardGNN, Definition 1). Here each slice is a pair of
relations over the same users and items, user -`t0`-> item and item -`t0_by`-> user, then `t1`, and so on.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._dgl import dgl
from ..config import is_whole
from ..data.flat import Floats, Ints
from ..data.log import InteractionLog, seconds_of
from ..errors import DataError, closest
from .user_item import events_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CUTS = ("equal_lengths", "equal_counts", "month")
_THE_LOG = "a log"  # one whose name is not known
_MOST_MONTHS = 1200  # a century; beyond that the times are hardly seconds


def time_slices(
    log: InteractionLog | None = None,
    by: int | str | Sequence[Any] | np.ndarray = "equal_lengths",
    *,
    n: int | None = None,
    user: Any = None,
    item: Any = None,
    time: Any = None,
    num_users: int | None = None,
    num_items: int | None = None,
    unique: bool = True,
) -> Any:
    """The heterograph of who touched what and when: relations `t0`, `t1`, ... user -> item and `t0_by`, ... back.

    Each interaction is in one slice. All users and items are nodes: one that is silent in a slice has no edge of it.
    Both relations of a slice list its edges in the same order, sorted by (user, position). Edge features are `position`
    (int64, place in the user's whole history, from 0), `time` (float64 seconds) and, with `unique`, `count` (int64) and
    `last_time` (float64 seconds) of a pair's repeats in the slice. `sequences(graph, "t0")` gives a slice's histories.

    DGL lists relations by name, `t10` before `t2`; `slice_names` has them in the order of time.

    Args:
        log: an `InteractionLog` with times.
        by: how to cut. n or "equal_lengths": n intervals of equal length of [t_begin, t_end], the times of the log's
            first and last event (the papers' way). "equal_counts": n slices of about as many events. "month": calendar
            months in UTC, silent ones included. Or the boundaries themselves, as for `slice_boundaries`.
        n: number of slices T, for "equal_lengths" and "equal_counts".
        user, item, time: instead of a log, (E,) integer indices and (E,) seconds (or datetime64), in any order.
        num_users, num_items: number of nodes, where larger than the largest index + 1.
        unique: merge repeats of a (user, item) pair within a slice into its first edge, as A_t of the papers, which
            holds 0 and 1; False: one edge per interaction.

    Returns:
        A `dgl.DGLGraph` on the CPU, ready for any DGL code.

    Raises:
        DataError: no times, or what `slice_boundaries` and `user_item` refuse.

    >>> graph = time_slices(user=[0, 0, 1, 0], item=[2, 0, 2, 2], time=[0.0, 3.0, 4.0, 9.0], n=3)
    >>> [(name, *(ends.tolist() for ends in graph.edges(etype=name))) for name in slice_names(graph)]
    [('t0', [0], [2]), ('t1', [0, 1], [0, 2]), ('t2', [0], [2])]
    """
    users, items, times, num_users, num_items = events_of("time_slices", log, user, item, time, num_users, num_items)
    if times is None:
        name = "time_slices() got no time=" if log is None else f"{log.name!r} has no times"
        raise _no_times(name, "time_slices(user=log.user, item=log.item, time=log.position, n=...)")
    boundaries = _boundaries(_event_times(times), by, n, _THE_LOG if log is None else repr(log.name))
    position = np.arange(len(users)) - np.searchsorted(users, users)  # (E,) users ascend
    slice_of = np.searchsorted(boundaries, times, side="right")  # (E,)
    order = np.argsort(slice_of, kind="stable")  # by (slice, user, position)
    features: dict[str, Any] = {}
    if unique:
        pair = (slice_of * num_users + users) * num_items + items
        order, features["count"], last = _merged(pair, slice_of)
        features["last_time"] = times[last]
    features |= {"position": position[order], "time": times[order]}
    cuts = np.searchsorted(slice_of[order], np.arange(len(boundaries) + 2))  # (T + 1,)
    return _build(users[order], items[order], features, cuts, num_users, num_items)


def _merged(pair: Ints, slice_of: Ints) -> tuple[Ints, Ints, Ints]:
    """Repeats of a pair within a slice as one edge: the first events, in order, how many each is for, and the last.

    Args:
        pair: (E,) a number for each (slice, user, item); events are sorted by (user, position).
        slice_of: (E,) each event's slice.
    """
    by_pair = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.diff(pair[by_pair], prepend=-1))
    ends = np.append(starts[1:], len(pair))
    again = np.argsort(slice_of[by_pair[starts]] * len(pair) + by_pair[starts])  # of first events; all distinct
    return by_pair[starts][again], (ends - starts)[again], by_pair[ends - 1][again]


def _build(users: Ints, items: Ints, features: dict[str, Any], cuts: Ints, num_users: int, num_items: int) -> Any:
    """The graph of edges that are sorted by slice; those of slice t are `cuts[t]:cuts[t + 1]`."""
    user, item = torch.as_tensor(users), torch.as_tensor(items)
    parts = {f"t{t}": slice(int(cuts[t]), int(cuts[t + 1])) for t in range(len(cuts) - 1)}
    relations = {}
    for name, part in parts.items():
        relations["user", name, "item"] = (user[part], item[part])
        relations["item", f"{name}_by", "user"] = (item[part], user[part])
    graph = dgl.heterograph(relations, num_nodes_dict={"user": num_users, "item": num_items})
    for feature, values in features.items():
        tensor = torch.as_tensor(values)
        for name, part in parts.items():
            graph.edges[name].data[feature] = tensor[part]
            graph.edges[f"{name}_by"].data[feature] = tensor[part]
    return graph


def slice_boundaries(
    time: Any, by: int | str | Sequence[Any] | np.ndarray = "equal_lengths", *, n: int | None = None
) -> Floats:
    """Where slices begin: (T - 1,) seconds, ascending; slice t holds b_t <= time < b_(t+1), without limit at both ends.

    "equal_lengths": b_t = t_begin + t (t_end - t_begin) / n. A slice without any event is possible.

    "equal_counts": events at one time stay together, so that counts can only be about equal. Cut t goes where the
    number of events before it is nearest to t / n of all (of two, the earlier one), and is moved as little as possible
    where slices would be empty otherwise. A slice begins at the time of its first event. Repeats count.

    "month": the start, in UTC, of each month after that of the first event, to that of the last.

    Args:
        time: (E,) seconds or datetime64 in any order, or an `InteractionLog`.
        by: n, "equal_lengths", "equal_counts", "month", or (T - 1,) boundaries (seconds or datetime64), each after the
            first event and not after the last.
        n: number of slices, for "equal_lengths" and "equal_counts".

    Raises:
        DataError: no events or no times, n missing, below 1 or above the number of distinct times, times too close for
            equal lengths, an unknown way to cut, boundaries that do not ascend or lie outside the log, months over more
            than a century.

    >>> slice_boundaries([0.0, 3.0, 4.0, 9.0], 3).tolist()
    [3.0, 6.0]
    >>> slice_boundaries([0.0, 3.0, 3.0, 3.0, 9.0], "equal_counts", n=2).tolist()
    [3.0]
    """
    name = repr(time.name) if isinstance(time, InteractionLog) else _THE_LOG
    return _boundaries(_event_times(time), by, n, name)


def _boundaries(seconds: Floats, by: int | str | Sequence[Any] | np.ndarray, n: int | None, name: str) -> Floats:
    """`slice_boundaries` of (E,) seconds, of a log with this name."""
    if is_whole(by):
        if n is not None:
            raise DataError(f"by is {by} and n is {n}; give the number of slices once")
        by, n = "equal_lengths", int(by)
    if not isinstance(by, str):
        if n is not None:
            raise DataError(f"boundaries and n={n} were given; the boundaries say how many slices there are")
        return _given(by, seconds)
    if by not in CUTS:
        raise DataError(f"unknown way to cut {by!r}; {closest(by, CUTS)}, or a number of slices, or boundaries")
    if by == "month":
        if n is not None:
            raise DataError(f"by='month' takes no n (it is {n}); the calendar says how many slices there are")
        return _months(seconds)
    distinct, count = np.unique(seconds, return_counts=True)  # (D,) times and their events
    if n is None:
        raise DataError(f"by={by!r} needs the number of slices; pass n=...")
    if not is_whole(n) or n < 1:
        raise DataError(f"n is {n!r}; expected a number of slices, 1 or more")
    if n > len(distinct):
        raise DataError(
            f"{n} slices of {name}, which has {len(distinct)} distinct times; each slice needs one, so take "
            f"n={len(distinct)} or fewer (a model's field `slices`)"
        )
    if by == "equal_counts":
        return _equal_counts(distinct, count, n)
    with np.errstate(over="ignore", invalid="ignore"):
        begins: Floats = np.linspace(distinct[0], distinct[-1], n + 1)[:-1]
    if not (np.diff(begins) > 0).all():  # by rounding, or beyond the largest number
        raise DataError(
            f"the times of {name} are too close or too far apart for {n} slices of equal length; take by='equal_counts'"
        )
    return begins[1:]


def _no_times(who: str, call: str) -> DataError:
    """What to do with a log without times."""
    return DataError(
        f"{who}, and slices are cut by time; load it with its timestamps, or cut by the place in the history: {call}"
    )


def _event_times(time: Any) -> Floats:
    """(E,) seconds of a log, or of times as the caller has them."""
    if isinstance(time, InteractionLog):
        if time.time is None:
            raise _no_times(f"{time.name!r} has no times", "slice_boundaries(log.position, n=...)")
        time = time.time
    seconds = seconds_of(time)
    if len(seconds) == 0:
        raise DataError("no events, so there is no time to cut; expected at least one")
    return seconds


def _equal_counts(distinct: Floats, count: Ints, n: int) -> Floats:
    """Where n slices of about as many events begin: (n - 1,) of the (D,) distinct times, which have `count` events."""
    before = np.cumsum(count) - count  # (D,) events before each distinct time
    ideal = np.arange(1, n) * count.sum() / n  # (n - 1,)
    right = np.searchsorted(before, ideal).clip(1, len(distinct) - 1)
    cut = np.where(ideal - before[right - 1] <= before[right] - ideal, right - 1, right)
    place = np.arange(1, n)  # the cut before slice t leaves at least t times before it and n - t after it
    cut = np.maximum.accumulate(np.maximum(cut, place) - place) + place
    boundaries: Floats = distinct[np.minimum(cut, len(distinct) - n + place)]
    return boundaries


def _given(boundaries: Any, seconds: Floats) -> Floats:
    """The caller's own boundaries, once they are found to cut the log."""
    raw = np.asarray(boundaries)
    if raw.ndim != 1 or (raw.size and raw.dtype.kind not in "iufM"):
        raise DataError(
            f"boundaries hold {raw.dtype} of shape {raw.shape}; expected (T - 1,) seconds or datetime64, such as "
            'np.array(["2020-01-31"], dtype="datetime64[D]")'
        )
    dates = raw.dtype.kind == "M"
    if dates and np.isnat(raw).any():
        raise DataError("a boundary is NaT; expected a time for each slice after the first")
    values = raw.astype("datetime64[us]").astype(np.float64) / 1e6 if dates else raw.astype(np.float64)
    begin, end = seconds.min(), seconds.max()

    def said(value: float) -> str:  # as the caller writes them
        return str(np.datetime64(math.floor(value), "s")) if dates and math.isfinite(value) else f"{value:.10g}"

    outside = np.flatnonzero(~((values > begin) & (values <= end)))
    if len(outside):
        raise DataError(
            f"boundary {said(values[outside[0]])} is outside the log, whose events are from {said(begin)} to "
            f"{said(end)}; expected the times{'' if dates else ' (seconds)'} at which slices after the first begin"
        )
    if (np.diff(values) <= 0).any():
        place = int(np.flatnonzero(np.diff(values) <= 0)[0])
        raise DataError(
            f"boundaries do not ascend: {said(values[place])} comes before {said(values[place + 1])}; sort them"
        )
    return values


def _months(seconds: Floats) -> Floats:
    """The starts of the calendar months after the first one, in UTC."""
    limits = np.array([math.floor(seconds.min()), math.floor(seconds.max())])
    first, last = limits.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    if last - first >= _MOST_MONTHS:
        raise DataError(
            f"the times span {last - first + 1:,} months; expected seconds since 1970 (divide milliseconds by 1000)"
        )
    months = np.arange(first + 1, last + 1).astype("datetime64[M]")
    return months.astype("datetime64[s]").astype(np.float64)


def slice_names(graph: Any) -> list[str]:
    """The relations user -> item of a graph of time slices, in the order of time: ["t0", "t1", ...].

    Raises:
        DataError: it is not a graph of time slices.

    >>> slice_names(time_slices(user=[0] * 12, item=[0] * 12, time=range(12), n=12))[-2:]
    ['t10', 't11']
    """
    found = {name for source, name, _ in graph.canonical_etypes if source == "user" and re.fullmatch(r"t\d+", name)}
    names = [f"t{t}" for t in range(len(found))]
    if not found or set(names) != found:
        raise DataError(f"relations {', '.join(graph.etypes)} are not slices t0, t1, ...; make them with time_slices()")
    return names


def slice_times(graph: Any) -> Floats:
    """The times of the first and last event of each slice, from the edges alone: (T, 2) seconds, NaN where silent.

    What a graph knows ends at `np.nanmax(slice_times(graph))`: with a split by time, before any query.

    Raises:
        DataError: it is not a graph of time slices, or its edges have no `time`.

    >>> slice_times(time_slices(user=[0, 0, 1], item=[0, 0, 1], time=[1.0, 2.0, 9.0], n=2)).tolist()
    [[1.0, 2.0], [9.0, 9.0]]
    """
    times = np.full((len(slice_names(graph)), 2), np.nan)
    for row, name in zip(times, slice_names(graph), strict=True):
        data = graph.edges[name].data
        if "time" not in data:
            raise DataError(f"edges of {name!r} have no 'time'; build them with time_slices()")
        if len(data["time"]):
            row[:] = float(data["time"].min()), float(data.get("last_time", data["time"]).max())
    return times
