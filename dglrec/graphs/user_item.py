"""The user-item heterograph, and the packed sequences that it also is.

Edges are sorted by (user, position), so the row pointers of the relation user -> item are the offsets of the users'
histories and its columns are the items: graph encoders and sequential encoders read one structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._dgl import dgl
from ..config import is_whole
from ..data.log import InteractionLog, seconds_of
from ..errors import DataError

_MOST_NODES = 2**31  # of a type: the number of a pair then fits into 64 bits


@dataclass(frozen=True, eq=False)
class Sequences:
    """B packed sequences without padding: sequence b is `items[offsets[b]:offsets[b + 1]]`, oldest first.

    Attributes:
        offsets: (B + 1,) int64.
        items: (T,) int64 item indices.
        times: (T,) float64 seconds, or None.
        sizes: (B,) lengths on the host where they are known; they spare a wait for the device.
    """

    offsets: Tensor
    items: Tensor
    times: Tensor | None = None
    sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(B,) int64 lengths, on the host."""
        return self.sizes if self.sizes is not None else np.diff(self.offsets.cpu().numpy())

    def last(self, length: int) -> Sequences:
        """The most recent `length` items of every sequence."""
        if int(self.lengths.max(initial=0)) <= length:
            return self
        sizes = np.minimum(self.lengths, length)
        ends = self.offsets[1:]
        return self.windows(ends - torch.as_tensor(sizes, device=ends.device), sizes)

    def windows(self, starts: Tensor, sizes: np.ndarray) -> Sequences:
        """The windows `items[starts[b]:starts[b] + sizes[b]]`, packed; `sizes` (B,) stays on the host."""
        device = self.items.device
        offsets_host = np.concatenate([[0], np.cumsum(sizes)])
        total = int(offsets_host[-1])
        offsets = torch.as_tensor(offsets_host, device=device)  # (B + 1,)
        repeats = torch.as_tensor(sizes, device=device)
        shift = torch.repeat_interleave(starts - offsets[:-1], repeats, output_size=total)  # (T,)
        rows = shift + torch.arange(total, device=device)
        times = None if self.times is None else self.times[rows]
        return Sequences(offsets, self.items[rows], times, sizes)

    def to(self, device: torch.device | str) -> Sequences:
        """The same sequences on `device`."""
        times = None if self.times is None else self.times.to(device)
        return Sequences(self.offsets.to(device), self.items.to(device), times, self.lengths)


def user_item(
    log: InteractionLog | None = None,
    *,
    user: Any = None,
    item: Any = None,
    time: Any = None,
    num_users: int | None = None,
    num_items: int | None = None,
    unique: bool = False,
) -> Any:
    """The heterograph of who touched what: user -`interacts`-> item and item -`interacted_by`-> user.

    One edge per interaction, sorted by (user, position); both relations list the edges in the same order. Edge features
    are `position` (int64, from 0, within the user) and, where the log has times, `time` (float64 seconds).

    Args:
        log: an `InteractionLog`; all of its users and items become nodes.
        user, item, time: instead of a log, (E,) integer indices and (E,) seconds (or datetime64), in the order of the
            file. With times, edges are sorted stably by (user, time), without, by user.
        num_users, num_items: number of nodes, where larger than the largest index + 1.
        unique: merge repeats of a (user, item) pair into its first edge and keep their number as `count` (int64).

    Returns:
        A `dgl.DGLGraph` on the CPU, ready for any DGL code.

    Raises:
        DataError: neither a log nor arrays, arrays of different length, indices that are negative, not integers, or too
            large to count from 0, or an index beyond the number of nodes.

    >>> graph = user_item(user=[0, 0, 1], item=[2, 0, 2], time=[5.0, 3.0, 4.0])
    >>> graph.num_edges("interacts"), graph.edges(etype="interacts")[1].tolist()
    (3, [0, 2, 2])
    """
    users, items, times, num_users, num_items = events_of("user_item", log, user, item, time, num_users, num_items)
    counts = None
    if unique:
        _, first, counts = np.unique(users * num_items + items, return_index=True, return_counts=True)
        order = np.argsort(first)  # first occurrences, in (user, position) order again
        first, counts = first[order], counts[order]
        users, items = users[first], items[first]
        times = None if times is None else times[first]
    return _build(users, items, times, counts, num_users, num_items)


def events_of(
    what: str, log: InteractionLog | None, user: Any, item: Any, time: Any, num_users: int | None, num_items: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int, int]:
    """Users, items and times (E,), sorted by (user, time, order of the file), and the numbers of nodes.

    They come from a log or from arrays; `what` is the function that errors name.
    """
    if log is not None:
        if user is not None or item is not None or time is not None:
            raise DataError(f"{what}() got a log and arrays; expected one of the two")
        if not isinstance(log, InteractionLog):
            raise DataError(
                f"{what}() got a {type(log).__name__}; expected an InteractionLog, such as split.train, or the arrays "
                "user= and item="
            )
        sizes = _size(log.num_users, num_users, "users"), _size(log.num_items, num_items, "items")
        return log.user, log.item, log.time, *sizes
    if user is None or item is None:
        raise DataError(f"{what}() got neither a log nor both user= and item=; pass a log, or both arrays")
    users, items = _indices(user, "user"), _indices(item, "item")
    times = None if time is None else seconds_of(time)
    if len(users) != len(items) or (times is not None and len(times) != len(users)):
        seen = f"{len(users)} users, {len(items)} items" + ("" if times is None else f", {len(times)} times")
        raise DataError(f"{what}() got {seen}; expected arrays of one length")
    order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
    users, items = users[order], items[order]
    times = None if times is None else times[order]
    needed = (int(some.max(initial=-1)) + 1 for some in (users, items))
    return users, items, times, _size(next(needed), num_users, "users"), _size(next(needed), num_items, "items")


def _build(
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray | None,
    counts: np.ndarray | None,
    num_users: int,
    num_items: int,
) -> Any:
    user, item = torch.tensor(users), torch.tensor(items)  # copies: whoever changes the graph leaves the log as it is
    starts = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=num_users))])
    features = {"position": torch.arange(len(users)) - torch.as_tensor(starts)[user]}
    if times is not None:
        features["time"] = torch.tensor(times)
    if counts is not None:
        features["count"] = torch.as_tensor(counts)
    relations = {("user", "interacts", "item"): (user, item), ("item", "interacted_by", "user"): (item, user)}
    graph = dgl.heterograph(relations, num_nodes_dict={"user": num_users, "item": num_items})
    for name, values in features.items():
        graph.edges["interacts"].data[name] = values
        graph.edges["interacted_by"].data[name] = values
    return graph


def sequences(graph: Any, relation: str = "interacts") -> Sequences:
    """The histories that a user-item graph holds: offsets (num_users + 1,), items (E,), times (E,) or None.

    Edges that are not sorted by (user, position), as after sampling a subgraph, are sorted by their `position`.

    Raises:
        DataError: the edges are unsorted and have no `position` to sort them by.
    """
    user, item = graph.edges(order="eid", etype=relation)
    num_users = graph.num_nodes(graph.to_canonical_etype(relation)[0])
    data = graph.edges[relation].data
    time = data.get("time")
    if not _sorted(user, data.get("position")):
        if "position" not in data:
            raise DataError(
                f"edges of {relation!r} are not sorted by user and have no 'position'; build them with user_item()"
            )
        by_position = torch.argsort(data["position"], stable=True)
        order = by_position[torch.argsort(user[by_position], stable=True)]
        user, item = user[order], item[order]
        time = None if time is None else time[order]
    sizes = torch.bincount(user, minlength=num_users)
    offsets = torch.zeros(num_users + 1, dtype=torch.int64, device=user.device)
    torch.cumsum(sizes, 0, out=offsets[1:])
    return Sequences(offsets, item.long(), time, sizes.cpu().numpy())


def _sorted(user: Tensor, position: Tensor | None) -> bool:
    """Whether edges are in the order of (user, position)."""
    backwards = user[1:] < user[:-1]
    if position is not None:
        backwards |= (user[1:] == user[:-1]) & (position[1:] < position[:-1])
    return not bool(backwards.any())


def as_sequences(graph: Any, relation: str = "interacts") -> Sequences:
    """`graph` itself if it is packed already, else the sequences of a DGL graph: what every encoder calls first."""
    return graph if isinstance(graph, Sequences) else sequences(graph, relation)


def _indices(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name}= has shape {array.shape}; expected one dimension")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name}= holds {array.dtype}; expected integer indices (load() turns ids into them)")
    if array.size and int(array.min()) < 0:
        raise DataError(f"{name}= holds {int(array.min())}; expected indices from 0")
    if array.size and int(array.max()) >= _MOST_NODES:
        raise DataError(
            f"{name}= holds {int(array.max())}; expected indices that count from 0, which "
            "np.unique(ids, return_inverse=True) makes of ids"
        )
    return array.astype(np.int64)


def _size(needed: int, size: int | None, name: str) -> int:
    if size is None:
        return needed
    if not is_whole(size) or not 0 <= size <= _MOST_NODES:
        raise DataError(f"num_{name} is {size!r}; expected a number of nodes, at most {_MOST_NODES}")
    if size < needed:
        raise DataError(f"num_{name} is {size}, but an index is {needed - 1}; expected at least {needed}")
    return int(size)
