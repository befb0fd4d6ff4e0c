"""Batches: slices of flat tensors, made without a loop over users.

What a batch holds is part of the method. `Edges` are user-item pairs; `Prefixes` are independent (history, next item)
pairs, for losses that compare the rows of a batch with each other; `Positions` are whole windows of histories in
which every position predicts the next one, at a fraction of the work, for losses that do not. Batch size counts
targets. `Cloze` are histories with masked items. `Windows` are histories, each with many items that follow and many
that do not; there, batch size counts histories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .data.log import InteractionLog
from .data.queries import Queries
from .data.splits import Split
from .errors import ConfigError
from .graphs import Sequences


@dataclass(frozen=True, eq=False)
class Edges:
    """B training pairs.

    Attributes:
        user, item: (B,) int64.
        negative: (B,) int64, an item that the user has not touched in training, or None.
    """

    user: Tensor
    item: Tensor
    negative: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Prefixes:
    """B independent prefixes in random order, each with the item that follows it.

    Attributes:
        history: the B prefixes, packed.
        target: (B,) int64, the next items.
        user: (B,) int64.
    """

    history: Sequences
    target: Tensor
    user: Tensor


@dataclass(frozen=True, eq=False)
class Positions:
    """N targets, read at every position of a few windows.

    Attributes:
        history: the windows, packed (T items).
        row: (N,) int64, the packed row whose state predicts the target.
        target: (N,) int64.
    """

    history: Sequences
    row: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class Cloze:
    """N masked places in a few histories, in random order.

    Attributes:
        history: the histories, packed; masked places hold the number of items, as the index of the mask.
        row: (N,) int64, the packed rows of the places.
        target: (N,) int64, the items that were there.
        user: (N,) int64.
    """

    history: Sequences
    row: Tensor
    target: Tensor
    user: Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """B histories, each with P items that follow and N items that its user never touched.

    Attributes:
        history: the inputs, packed; their times are seconds since 1970, see `days_since`.
        positive: (B, P) int64; an item that follows twice is there twice.
        negative: (B, N) int64.
        user: (B,) int64.
        first_time: (B,) float64 seconds of each user's first event, or None without times.
    """

    history: Sequences
    positive: Tensor
    negative: Tensor
    user: Tensor
    first_time: Tensor | None = None


def edge_batches(
    train: InteractionLog, size: int, rng: np.random.Generator, device: torch.device, negatives: bool = False
) -> Iterator[Edges]:
    """All training interactions once, shuffled, `size` per batch; optionally one uniform unseen item beside each."""
    order = torch.as_tensor(rng.permutation(len(train)), device=device)
    user, item = torch.as_tensor(train.user, device=device)[order], torch.as_tensor(train.item, device=device)[order]
    negative = None
    if negatives:
        drawn = unseen_items(train, train.user, rng)
        negative = torch.as_tensor(drawn, device=device)[order]
    for first in range(0, len(train), size):
        part = slice(first, first + size)
        yield Edges(user[part], item[part], None if negative is None else negative[part])


def unseen_items(train: InteractionLog, user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each entry of `user` (n,) a uniform item outside of that user's training items: rejection, all at once.

    A user who has touched every item keeps the last draw.
    """
    seen = train.pair_keys
    drawn = rng.integers(train.num_items, size=len(user))
    todo = np.arange(len(user))
    for _ in range(100):
        keys = user[todo] * train.num_items + drawn[todo]
        place = np.searchsorted(seen, keys)
        todo = todo[seen[np.minimum(place, len(seen) - 1)] == keys]
        if len(todo) == 0:
            break
        drawn[todo] = rng.integers(train.num_items, size=len(todo))
    return drawn


def prefix_batches(
    train: InteractionLog, size: int, max_length: int, rng: np.random.Generator, device: torch.device
) -> Iterator[Prefixes]:
    """Every (i_1..i_t -> i_(t+1)) with t >= 1 once, shuffled, `size` per batch; the last `max_length` items are read.

    This is RecBole's augmentation by prefixes, but read in place: nothing is copied or padded.
    """
    target = np.flatnonzero(train.position > 0)  # rows of the log
    target = target[rng.permutation(len(target))]
    sizes = np.minimum(train.position[target], max_length)
    rows = torch.as_tensor(target, device=device)
    starts = rows - torch.as_tensor(sizes, device=device)
    user, item = torch.as_tensor(train.user, device=device), torch.as_tensor(train.item, device=device)
    packed = Sequences(rows, item)  # only its items are read
    for first in range(0, len(target), size):
        part = slice(first, first + size)
        yield Prefixes(packed.windows(starts[part], sizes[part]), item[rows[part]], user[rows[part]])


def cloze_batches(
    train: InteractionLog,
    size: int,
    max_length: int,
    rng: np.random.Generator,
    device: torch.device,
    *,
    ratio: float = 0.2,
    last_share: float = 0.5,
    first: bool = False,
    form: Literal["prefixes", "histories"] = "prefixes",
) -> Iterator[Cloze]:
    """Sequences of items, `size` per batch, in random order, some of whose items are masked.

    Args:
        train: the training log.
        size: sequences per batch.
        max_length: at most the last `max_length` items of a sequence are read.
        rng: of the order and of the masks.
        device: where the batches go.
        ratio: probability that an item is masked; of a sequence the last `ratio * max_length` masked ones are targets.
        last_share: share of the batches in which the last item of each sequence is masked instead, and nothing else.
        first: whether a masked first item is a target; RecBole masks it and leaves it out.
        form: "prefixes" (i_1..i_t) with 1 <= t < n of each user's n items, as RecBole: the item after a prefix is not
            part of it; or whole "histories" of two items or more.
    """
    if form == "prefixes":
        ends = np.flatnonzero(train.position > 0)  # rows of the log; the sequence ends before them
        sizes = np.minimum(train.position[ends], max_length)
    else:
        lengths = np.diff(train.offsets)
        ends, sizes = train.offsets[1:][lengths > 1], np.minimum(lengths[lengths > 1], max_length)
    order = rng.permutation(len(ends))
    ends, sizes, most = ends[order], sizes[order], max(1, int(ratio * max_length))
    for begin in range(0, len(ends), size):
        count = sizes[begin : begin + size]
        bounds = np.concatenate([[0], np.cumsum(count)])
        place = np.arange(bounds[-1]) - np.repeat(bounds[:-1], count)  # (T,) within the sequence
        rows = np.repeat(ends[begin : begin + size] - count, count) + place  # of the log
        last = place == np.repeat(count - 1, count)
        drawn = rng.random(len(rows)) < ratio
        masked = last if rng.random() < last_share else drawn
        # RecBole masks all that was drawn, and cuts its list of targets, not the masks: the last `most` are learned.
        sofar = np.cumsum(masked)
        later = np.repeat(sofar[bounds[1:] - 1], count) - sofar  # (T,) masks after it in its sequence
        learned = masked & (later < most) & (first | (place > 0))
        if not learned.any():  # nothing to learn from
            masked, learned = last, last & (first | (place > 0))
        asked = np.flatnonzero(learned)
        asked = asked[rng.permutation(len(asked))] if len(asked) else np.flatnonzero(masked)
        items = np.where(masked, train.num_items, train.item[rows])
        arrays = (bounds, items, asked, train.item[rows[asked]], train.user[rows[asked]])
        offsets, packed, *found = (torch.as_tensor(values, device=device) for values in arrays)
        yield Cloze(Sequences(offsets, packed, None, count), *found)


def window_batches(
    split: Split,
    size: int,
    rng: np.random.Generator,
    device: torch.device,
    *,
    max_length: int = 50,
    negatives: int = 50,
) -> Iterator[Windows]:
    """The training windows of a split by windows once, shuffled, `size` windows per batch, with their fixed negatives.

    A split of another kind has no windows: there every prefix is a window with the next item as its one positive
    (P = 1), and `negatives` uniform unseen items are drawn for it from `rng`. At most the last `max_length` items of a
    history are read.
    """
    if split.windows is None:
        yield from _prefix_windows(split.train, size, rng, device, max_length, negatives)
        return
    known = split.windows
    items = torch.as_tensor(known.items, device=device)
    times = None if known.times is None else torch.as_tensor(known.times, device=device)
    packed = Sequences(items, items, times)  # only items and times are read
    positive = torch.as_tensor(known.targets, device=device).view(len(known), -1)  # (W, P)
    negative = torch.as_tensor(known.negatives, device=device).view(len(known), -1)  # (W, N)
    user = torch.as_tensor(known.user, device=device)
    first_time = None if known.first_time is None else torch.as_tensor(known.first_time, device=device)
    sizes = np.minimum(known.lengths, max_length)
    order = rng.permutation(len(known))
    for first in range(0, len(known), size):
        part = order[first : first + size]
        rows = torch.as_tensor(part, device=device)
        starts = torch.as_tensor(known.offsets[part + 1] - sizes[part], device=device)
        yield Windows(
            packed.windows(starts, sizes[part]),
            positive[rows],
            negative[rows],
            user[rows],
            None if first_time is None else first_time[rows],
        )


def _prefix_windows(
    train: InteractionLog, size: int, rng: np.random.Generator, device: torch.device, max_length: int, negatives: int
) -> Iterator[Windows]:
    """Every prefix of every history as a window with one positive."""
    target = np.flatnonzero(train.position > 0)  # rows of the log
    target = target[rng.permutation(len(target))]
    sizes = np.minimum(train.position[target], max_length)
    user = train.user[target]
    item = torch.as_tensor(train.item, device=device)
    times = None if train.time is None else torch.as_tensor(train.time, device=device)
    packed = Sequences(item, item, times)  # only items and times are read
    for first in range(0, len(target), size):
        part = slice(first, first + size)
        begun = None if train.time is None else train.time[train.offsets[user[part]]]
        drawn = unseen_items(train, np.repeat(user[part], negatives), rng).reshape(-1, negatives)
        yield Windows(
            packed.windows(torch.as_tensor(target[part] - sizes[part], device=device), sizes[part]),
            item[torch.as_tensor(target[part], device=device)].unsqueeze(1),
            torch.as_tensor(drawn, device=device),
            torch.as_tensor(user[part], device=device),
            None if begun is None else torch.as_tensor(begun, device=device),
        )


def window_targets(split: Split) -> int:
    """Positives in an epoch of `window_batches`."""
    return int((split.train.position > 0).sum()) if split.windows is None else len(split.windows.targets)


def days_since(history: Sequences, first_time: Tensor | None = None) -> Tensor:
    """(T,) float32: days from each user's first event to each item of the packed histories, as MIP measures time.

    Args:
        history: B packed histories with times in seconds.
        first_time: (B,) seconds of the first events, as in `Windows` and `Queries`; None: histories begin with them.

    Raises:
        ConfigError: the histories have no times.

    >>> history = Sequences(torch.tensor([0, 2]), torch.tensor([5, 6]), torch.tensor([86400.0, 129600.0]))
    >>> days_since(history).tolist(), days_since(history, torch.tensor([0.0])).tolist()
    ([0.0, 0.5], [1.0, 1.5])
    """
    if history.times is None:
        raise ConfigError("the model reads times, and these histories have none; use data with times, or turn them off")
    lengths = torch.as_tensor(history.lengths, device=history.items.device)
    if first_time is None:
        starts = history.offsets[:-1].clamp(max=max(len(history.items) - 1, 0))  # an empty history has no start
        first_time = history.times[starts]
    since = torch.repeat_interleave(first_time, lengths, output_size=len(history.items))
    return ((history.times - since) / 86_400).float()


def windows(train: InteractionLog, max_length: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows over all histories in which each position except the first of a user is a target exactly once.

    A history of n items has inputs 0..n-2. The first window holds the first `max_length` of them, each next one ends
    `stride` later (the last one at the end), and only what is new in a window is a target there. So a target has at
    least `max_length - stride` items of context; with `stride=1` contexts are exactly those of `prefix_batches`.

    Returns:
        starts (W,), ends (W,): rows of the log, inputs `starts[w]:ends[w]`; firsts (W,): inputs `firsts[w]:ends[w]`
        have their next item as a target.
    """
    if not 1 <= stride <= max_length:
        raise ConfigError(f"stride is {stride}; expected 1 to {max_length}, the length of a window")
    inputs = np.diff(train.offsets) - 1
    users = np.flatnonzero(inputs > 0)
    count = 1 + np.maximum(0, -(-(inputs[users] - max_length) // stride))
    begin = np.repeat(train.offsets[users], count)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    ends = np.minimum(max_length + number * stride, np.repeat(inputs[users], count))
    firsts = np.where(number == 0, 0, max_length + (number - 1) * stride)
    return begin + np.maximum(0, ends - max_length), begin + ends, begin + firsts


def position_rows(
    train: InteractionLog, size: int, max_length: int, stride: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Every position of every history as a target once, `size` targets per batch, windows in random order.

    A window that a batch's end falls into is read in both batches, for the targets that are left, so that every step
    has the same number of targets and every target the same weight.

    Yields:
        starts (W,), sizes (W,): of the windows, `starts[w]:starts[w] + sizes[w]` in the log; rows (B,) of the log after
        which a target comes; places (B,) of these rows among those of all windows.
    """
    starts, ends, firsts = windows(train, max_length, stride)
    shuffled = rng.permutation(len(starts))
    starts, ends, firsts = starts[shuffled], ends[shuffled], firsts[shuffled]
    bounds = np.concatenate([[0], np.cumsum(ends - firsts)])  # targets before each window
    for first in range(0, int(bounds[-1]), size):
        last = min(first + size, int(bounds[-1]))
        low, high = np.searchsorted(bounds, first, side="right") - 1, np.searchsorted(bounds, last, side="left")
        start, end = starts[low:high], ends[low:high].copy()
        from_ = firsts[low:high] + np.maximum(0, first - bounds[low:high])
        end -= np.maximum(0, bounds[low + 1 : high + 1] - last)
        sizes, wanted = end - start, end - from_
        shift = np.cumsum(sizes) - sizes - start  # from rows of the log to packed rows
        rows = np.arange(last - first) - np.repeat(np.cumsum(wanted) - wanted, wanted) + np.repeat(from_, wanted)
        yield start, sizes, rows, rows + np.repeat(shift, wanted)


def position_batches(
    train: InteractionLog, size: int, max_length: int, stride: int, rng: np.random.Generator, device: torch.device
) -> Iterator[Positions]:
    """The batches of `position_rows`."""
    item = torch.as_tensor(train.item, device=device)
    packed = Sequences(item, item)  # only its items are read
    for starts, sizes, rows, places in position_rows(train, size, max_length, stride, rng):
        history = packed.windows(torch.as_tensor(starts, device=device), sizes)
        target = item[torch.as_tensor(rows + 1, device=device)]
        yield Positions(history, torch.as_tensor(places, device=device), target)


def query_sequences(queries: Queries, max_length: int, device: torch.device) -> Sequences:
    """The last `max_length` items of each query's history, packed, on `device`."""
    times = None if queries.times is None else torch.as_tensor(queries.times, device=device)
    offsets, items = torch.as_tensor(queries.offsets, device=device), torch.as_tensor(queries.items, device=device)
    return Sequences(offsets, items, times, np.diff(queries.offsets)).last(max_length)
