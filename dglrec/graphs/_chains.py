"""Ward's clustering of one small set after the other, compiled by numba: the way on a CPU.

A chain goes from a cluster to its nearest one, from there to the nearest of that one, and so on, until two are each
other's nearest; these merge, and the chain continues from the rest of it (Murtagh, Comp. J. 1983). Distances, their
updates and the order of comparisons are those of SciPy's `linkage`, which scikit-learn calls, so that ties break as
they do there. A set of n points takes about 3 n^2 comparisons and n^2 updates, all in n^2 numbers that stay in the
cache.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

_THREAD_WORK = 400_000  # pairs of points that are worth a thread: some milliseconds


def _jit(function: Any) -> Any:
    # Without a check of each divisor, several numbers are divided at once.
    how: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **how)(function)
    except RuntimeError:  # there is no folder to keep the machine code in: it is made anew in each process
        return numba.njit(**how)(function)


@_jit
def _distances(points: Any, places: Any) -> Any:
    """(c, c) Euclidean distances of the points (n, d) at `places` (c,), infinite on the diagonal."""
    count, dim = len(places), points.shape[1]
    turned = np.empty((dim, count))
    for place in range(count):
        for axis in range(dim):
            turned[axis, place] = points[places[place], axis]
    distance = np.zeros((count, count))
    for one in range(count):
        row = distance[one]
        for axis in range(dim):
            value = turned[axis, one]
            for two in range(one):  # one axis after the other: neighbours in memory are added at once
                row[two] += (value - turned[axis, two]) ** 2
        for two in range(one):
            row[two] = np.sqrt(row[two])
            distance[two, one] = row[two]
        row[one] = np.inf
    return distance


@_jit
def _merges(distance: Any) -> Any:
    """All merges of a set: ends (c - 1, 2), two points each, one of each cluster, and heights (c - 1,).

    The distances (c, c) are overwritten; those of a cluster that became part of another are infinite.
    """
    count = len(distance)
    size = np.ones(count)
    ends, heights = np.empty((count - 1, 2), np.int64), np.empty(count - 1)
    chain, length = np.empty(count, np.int64), 0
    for merge in range(count - 1):
        if length == 0:
            chain[0], length = np.argmax(size > 0), 1
        while True:
            end = chain[length - 1]
            row = distance[end]
            nearest, height = -1, np.inf
            if length > 1:  # where it ties with others, the previous one, so that the chain ends
                nearest = chain[length - 2]
                height = row[nearest]
            for other in range(count):
                if row[other] < height:
                    nearest, height = other, row[other]
            if length > 1 and nearest == chain[length - 2]:
                break
            chain[length] = nearest
            length += 1
        length -= 2
        one, two = min(end, nearest), max(end, nearest)
        ends[merge, 0], ends[merge, 1], heights[merge] = one, two, height
        size_one, size_two = size[one], size[two]
        size[one], size[two] = 0, size_one + size_two
        first, second = distance[one], distance[two]
        for other in range(count):
            share = 1.0 / (size_one + size_two + size[other])
            second[other] = np.sqrt(
                (size[other] + size_one) * share * first[other] * first[other]
                + (size[other] + size_two) * share * second[other] * second[other]
                - size[other] * share * height * height
            )
        for other in range(count):
            distance[other, one] = np.inf
            distance[other, two] = second[other]
    return ends, heights


@_jit
def _clusters(points: Any, valid: Any, k: int, leader: Any) -> None:
    """Writes one point of each point's cluster into `leader` (B, n), of sets (B, n, d) with `valid` (B, n) points."""
    for which in range(len(points)):
        places = np.nonzero(valid[which])[0]
        own = leader[which]
        own[:] = np.arange(len(own))
        if len(places) <= k:
            continue
        ends, heights = _merges(_distances(points[which], places))
        for merge in np.argsort(heights, kind="mergesort")[: len(places) - k]:  # the lowest; a part before its whole
            one, two = places[ends[merge, 0]], places[ends[merge, 1]]
            while own[one] != one:
                one = own[one]
            while own[two] != two:
                two = own[two]
            own[one] = two
        for place in places:
            top = place
            while own[top] != top:
                top = own[top]
            own[place] = top


def ward_leaders(points: Tensor, k: int, valid: Tensor) -> Tensor:
    """One point of each point's cluster, (B, n) int64, at masked points themselves.

    Where there are many sets, as many threads as PyTorch uses share them.

    Args:
        points: (B, n, d) float64 on the CPU.
        k: clusters per set.
        valid: (B, n) bool.
    """
    leader = torch.empty(valid.shape, dtype=torch.int64)
    points = points.contiguous()  # another layout would be compiled anew
    threads = min(torch.get_num_threads(), 1 + valid.numel() * valid.shape[1] // _THREAD_WORK)
    parts = [
        tuple(part.numpy() for part in some)
        for some in zip(points.chunk(threads), valid.chunk(threads), leader.chunk(threads), strict=True)
    ]
    if len(parts) == 1:
        _clusters(*parts[0][:2], k, parts[0][2])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(lambda part: _clusters(part[0], part[1], k, part[2]), parts))
    return leader
