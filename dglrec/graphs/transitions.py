"""The item graph of what came after what: item -`next`-> item, as session-based models and counts read it."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._dgl import dgl
from ..config import is_whole
from ..errors import DataError
from .user_item import events_of

if TYPE_CHECKING:
    from ..data.log import InteractionLog


def transitions(
    log: InteractionLog | None = None,
    *,
    user: Any = None,
    item: Any = None,
    time: Any = None,
    num_items: int | None = None,
    reach: int = 1,
    max_seconds: float | None = None,
) -> Any:
    """The heterograph of which item came after which: item -`next`-> item and, the other way, item -`previous`-> item.

    One edge per ordered pair of items, sorted by (source, target) in `next`; both relations list the edges in the same
    order. An item that follows itself has an edge to itself. Edge features are `count` (int64), how often the
    pair occurred, and, where there are times, `time` (float64 seconds) of the newest occurrence: an edge knows of
    nothing later. Cost and memory grow with events times `reach`.

    Args:
        log: an `InteractionLog`; all of its items become nodes. Give the training log, `split.train`: a log that holds
            test events has edges from the last training item to the target.
        user, item, time, num_items: instead of a log, arrays as in `user_item`.
        reach: a pair occurs where the target is one of the next `reach` items of the same user.
        max_seconds: pairs further apart in time are left out, as between two sessions; None keeps them.

    Returns:
        A `dgl.DGLGraph` on the CPU, ready for any DGL code.

    Raises:
        DataError: as `user_item`; a reach below 1; `max_seconds` below 0, or for events without times.

    >>> graph = transitions(user=[0, 0, 0, 1, 1], item=[0, 2, 0, 0, 2])
    >>> [end.tolist() for end in graph.edges(etype="next")], graph.edges["next"].data["count"].tolist()
    ([[0, 2], [2, 0]], [2, 1])
    """
    users, items, times, _, num_items = events_of("transitions", log, user, item, time, None, num_items)
    if not is_whole(reach) or reach < 1:
        raise DataError(f"reach is {reach!r}; expected 1 (the next item alone) or more")
    if max_seconds is not None and times is None:
        raise DataError(f"max_seconds is {max_seconds}, but the events have no times; leave it out, or give times")
    if max_seconds is not None and not (_is_number(max_seconds) and max_seconds >= 0):
        raise DataError(f"max_seconds is {max_seconds!r}; expected a number of seconds, or None for all pairs")
    pairs, when = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for step in range(1, reach + 1):
        kept = users[step:] == users[:-step]
        if times is not None and max_seconds is not None:
            kept &= times[step:] - times[:-step] <= max_seconds
        pairs.append((items[:-step] * num_items + items[step:])[kept])
        when.append(np.zeros(len(pairs[-1])) if times is None else times[step:][kept])
    pair, place, count = np.unique(np.concatenate(pairs), return_inverse=True, return_counts=True)
    source, target = torch.as_tensor(pair // num_items), torch.as_tensor(pair % num_items)
    features = {"count": torch.as_tensor(count)}
    if times is not None:
        newest = np.full(len(pair), -np.inf)
        np.maximum.at(newest, place, np.concatenate(when))
        features["time"] = torch.as_tensor(newest)
    relations = {("item", "next", "item"): (source, target), ("item", "previous", "item"): (target, source)}
    graph = dgl.heterograph(relations, num_nodes_dict={"item": num_items})
    for name, values in features.items():
        graph.edges["next"].data[name] = values
        graph.edges["previous"].data[name] = values
    return graph


def _is_number(value: Any) -> bool:
    """Whether it is a number; for NumPy a length of time is one, too."""
    return isinstance(value, Real) and not isinstance(value, np.timedelta64)
