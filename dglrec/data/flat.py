"""Flat arrays: lists of different lengths one after the other, and row pointers that say where each begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_BLOCK = 1 << 20  # items that are looked up at once


def row_pointers(counts: npt.NDArray[Any]) -> Ints:
    """(n,) counts -> (n + 1,) running sums from 0."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def packed(lists: Sequence[npt.ArrayLike], dtype: type[Any] = np.int64) -> tuple[Ints, npt.NDArray[Any]]:
    """Arrays one after the other: (row pointers, values)."""
    arrays = [np.asarray(values, dtype=dtype).reshape(-1) for values in lists]
    values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)
    return row_pointers(np.array([len(one) for one in arrays], dtype=np.int64)), values


def ranges(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Row numbers start[0] .. end[0], start[1] .. end[1], ... in one array, and the (Q + 1,) row pointers."""
    offsets = row_pointers(end - start)
    rows = np.arange(offsets[-1], dtype=np.int64) + np.repeat(start - offsets[:-1], end - start)
    return rows, offsets


def segments(offsets: Ints, index: Ints) -> tuple[Ints, Ints]:
    """Flat positions of the segments `index`, and their new row pointers."""
    return ranges(offsets[index], offsets[index + 1])


def count_in(offsets: Ints, flags: Bools) -> Ints:
    """(Q,) int64: the flags that are set within each query."""
    before = row_pointers(flags)
    return before[offsets[1:]] - before[offsets[:-1]]


def in_query(offsets: Ints, items: npt.NDArray[np.signedinteger[Any]], other_offsets: Ints, others: Ints) -> Bools:
    """(n,) bool: the item of query q is among the others of query q.

    A block of items at a time, as there may be 1,000 candidates per query; np.isin would sort them all.
    """
    size = 1 + int(max(items.max(initial=0), others.max(initial=0)))
    known = np.sort(np.repeat(np.arange(len(offsets) - 1), np.diff(other_offsets)) * size + others)
    found = np.zeros(len(items), dtype=bool)
    for first in range(0, len(items), _BLOCK):
        part = slice(first, min(first + _BLOCK, len(items)))
        query = np.searchsorted(offsets, np.arange(part.start, part.stop), side="right") - 1
        found[part] = among(query * size + items[part], known)
    return found


def among(keys: Ints, known: Ints) -> Bools:
    """Which keys are in the sorted array `known`; for ascending keys 9 times as fast as np.isin, which sorts them."""
    if len(known) == 0:
        return np.zeros(keys.shape, dtype=bool)
    same: Bools = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
    return same


def first_of_pairs(group: Ints, item: Ints, num_items: int) -> Bools:
    """(n,) bool: the row is the first with its (group, item)."""
    keep = np.zeros(len(group), dtype=bool)
    keep[np.unique(group * num_items + item, return_index=True)[1]] = True
    return keep


def distinct_keys(keys: Ints) -> Ints:
    """The distinct ones of keys that are not negative, ascending; np.unique takes ten times as long."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]
