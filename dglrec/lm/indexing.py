"""Names of items for a language model: from the training log to strings of tokens (Hua et al., SIGIR-AP 2023).

A name is a tuple of token strings. All names of a scheme are different, and those of the items that are in training
depend on nothing that is held out, not even on the order of users and items in the source: where no event of a user
orders them, their ids do. Items that are not in training get the names that are left.

    iid(train)    ("<item B004>",)             one token per item, whose meaning is learned
    sid(train)    ("10", "05")                 numbers in the order of first appearance in training, user by user
    cid(train)    ("<3>", "<3.1>", "<# 12>")   the path through clusters of items that share users, and a number
    p5(train)     ("83", "17")                 numbers in random order
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ..config import is_whole
from ..data.flat import Floats, Ints
from ..data.log import InteractionLog
from ..errors import ConfigError, DataError

Names: TypeAlias = list[tuple[str, ...]]

FIRST = 1001  # the smallest number that is a name, as in the public code


def iid(train: InteractionLog) -> Names:
    """One token per item.

    The preset `iid` does not use them: there row i of the token table is the name of item i.

    >>> log = InteractionLog.from_arrays(["a", "a", "b"], ["x", "y", "y"])
    >>> iid(log)
    [('<item x>',), ('<item y>',)]
    """
    return [(f"<item {name}>",) for name in train.item_ids.tolist()]


def sid(train: InteractionLog) -> Names:
    """Consecutive numbers at first appearance, user after user; unseen items follow.

    >>> log = InteractionLog.from_arrays([0, 0, 1], [2, 0, 1], user_ids=["a", "b"], item_ids=["x", "y", "z"])
    >>> sid(log)
    [('10', '02'), ('10', '03'), ('10', '01')]
    """
    return _numbered(np.concatenate([first_appearances(train), unseen_items(train)]))


def p5(train: InteractionLog, seed: int = 0) -> Names:
    """Numbers in random order: P5's names without its leak, where consecutive numbers continued into the test item.

    The items of training are shuffled, and separately the unseen ones, which follow.

    >>> log = InteractionLog.from_arrays(["a", "a", "b"], ["x", "y", "z"])
    >>> sorted(p5(log))
    [('10', '01'), ('10', '02'), ('10', '03')]
    """
    rng = np.random.default_rng([int(seed), 0x9505])
    seen, unseen = by_id(train, np.unique(train.item)), unseen_items(train)
    return _numbered(np.concatenate([rng.permutation(seen), rng.permutation(unseen)]))


def cid(train: InteractionLog, clusters: int = 20, largest: int = 500, seed: int = 0) -> Names:
    """The path of an item through clusters of clusters, and its number in the last of them.

    The similarity of two items is the number of pairs of their events in training histories of one user. Spectral
    clustering cuts all items into `clusters`, and every cluster of more than `largest` items again.

    Args:
        train: the training log.
        clusters: number of clusters of a cut, N.
        largest: maximum number of items that are not cut again, M.
        seed: of the clustering.

    Raises:
        ConfigError: fewer than 2 clusters, or `largest` below 1, or one of them is not a whole number.
    """
    if not (is_whole(clusters) and is_whole(largest)) or clusters < 2 or largest < 1:
        raise ConfigError(
            f"clusters is {clusters!r} and largest {largest!r}; expected whole numbers, at least 2 and at least 1"
        )
    together = co_occurrence(train)
    names: Names = [()] * train.num_items
    todo: list[tuple[tuple[int, ...], Ints]] = [((), first_appearances(train))]
    while todo:
        path, items = todo.pop()
        if path and len(items) <= largest:
            words = tuple(f"<{'.'.join(map(str, path[:end]))}>" for end in range(1, len(path) + 1))
            for place, item in enumerate(items.tolist()):
                names[item] = (*words, f"<# {place}>")
            continue
        own = together[items][:, items]
        own.sort_indices()  # else its sums would depend on the order of the source's ids
        label = _spectral(own, clusters, largest, seed)
        todo += [((*path, part), items[label == part]) for part in np.unique(label).tolist()]
    for place, item in enumerate(unseen_items(train).tolist()):
        names[item] = ("<new>", f"<# {place}>")
    return names


def first_appearances(train: InteractionLog) -> Ints:
    """Items in the order of their first appearance in training, user after user, users by id."""
    place = np.empty(train.num_users, dtype=np.int64)
    place[np.argsort(train.user_ids, kind="stable")] = np.arange(train.num_users)
    items = train.item[np.argsort(place[train.user], kind="stable")]
    seen, first = np.unique(items, return_index=True)
    return seen[np.argsort(first)]


def unseen_items(train: InteractionLog) -> Ints:
    """Items that are not in training, by id."""
    return by_id(train, np.setdiff1d(np.arange(train.num_items), train.item))


def by_id(train: InteractionLog, items: Ints) -> Ints:
    """Items in the order of their ids; their numbers depend on the source, where held-out rows may come first."""
    return items[np.argsort(train.item_ids[items], kind="stable")]


def co_occurrence(train: InteractionLog) -> Any:
    """(M, M) sparse: number of pairs of events of one user that two items have; 0 on the diagonal."""
    from scipy import sparse

    ones = np.ones(len(train))
    taken = sparse.csr_matrix((ones, (train.user, train.item)), shape=(train.num_users, train.num_items))
    together = taken.T @ taken
    together = together - sparse.diags(together.diagonal())
    together.eliminate_zeros()
    return together.tocsr()


def _spectral(affinity: Any, clusters: int, largest: int, seed: int) -> Ints:
    """(n,) cluster of each item; parts of equal size where the affinity gives no clusters."""
    count = affinity.shape[0]
    clusters = min(clusters, count)
    even = np.arange(count) * clusters // max(count, 1)
    if clusters < 2 or count <= clusters + 1 or affinity.nnz == 0:
        return even
    label = _pivoted(_leading(affinity, clusters, seed))
    stuck = np.bincount(label).max() == count and count > largest
    return even if stuck else label


def _leading(affinity: Any, count: int, seed: int) -> Floats:
    """(n, count): the leading eigenvectors of D^-1/2 A D^-1/2, times D^-1/2; rows of one cluster have one direction.

    By products with A alone: scikit-learn's SpectralClustering has the same vectors, but factorises a matrix that
    fills up, which takes minutes and gigabytes for ten thousand items.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import eigsh

    degree = np.asarray(affinity.sum(1)).ravel()
    scale = diags(np.where(degree > 0, degree, 1.0) ** -0.5)
    start = np.random.default_rng(seed).uniform(-1, 1, len(degree))
    _, vectors = eigsh(scale @ affinity @ scale, count, which="LA", v0=start)
    found: Floats = scale @ vectors
    return found


def _pivoted(vectors: Floats) -> Ints:
    """(n,) clusters of rows (n, k) by k of them that differ most (Damle, Minden and Ying, 2019: cluster_qr)."""
    from scipy.linalg import qr, svd

    count = vectors.shape[1]
    *_, pivots = qr(vectors.T, pivoting=True, mode="economic")
    left, _, right = svd(vectors[pivots[:count]].T)
    label: Ints = np.abs(vectors @ (left @ right)).argmax(1)
    return label


def _numbered(order: Ints) -> Names:
    """The names of all items, numbered in this order."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return [_pieces(FIRST + one) for one in place.tolist()]


def _pieces(number: int) -> tuple[str, ...]:
    """Two digits at a time, so that neighbours share their beginnings: 13101 -> ("13", "10", "1")."""
    text = str(number)
    return tuple(text[place : place + 2] for place in range(0, len(text), 2))


def check_names(names: Names) -> None:
    """Refuse names that are empty or not all different.

    Raises:
        DataError: two items have the same name, or one has none.
    """
    known: dict[tuple[str, ...], int] = {}
    for item, name in enumerate(names):
        if not name:
            raise DataError(f"item {item} has an empty name; expected at least one token")
        if name in known:
            raise DataError(f"items {known[name]} and {item} have the name {' '.join(name)!r}; expected distinct names")
        known[name] = item
