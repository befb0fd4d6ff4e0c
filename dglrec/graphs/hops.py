"""Multi-hop neighbourhoods of users and items: what a prompt tells a language model of the user-item graph.

The neighbours of a user are items, theirs are users, and so on. Each seed has a cut-off and a tree of its own: all of
it is before the cut-off, and the pair that is to be predicted is not in it. DGL's samplers have no cut-off per
seed, so the trees are drawn from the graph's edges sorted by time, for all seeds at once. Without cut-offs each edge of
a tree is one that `dgl.sampling.sample_neighbors` may draw as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from .._dgl import dgl
from ..config import is_whole
from ..data.flat import Ints, ranges, row_pointers
from ..data.log import moments_of
from ..errors import ConfigError, DataError
from ..streams import GOLDEN, mixed

NodeType = Literal["user", "item"]
Order = Literal["recent", "uniform"]

_HALF = np.uint64(32)  # bits
_WINDOW = 4  # times the fanout: the newest edges of a node, among which most find enough
_RELATIONS: dict[str, str] = {"user": "interacts", "item": "interacted_by"}
_OTHER: dict[str, NodeType] = {"user": "item", "item": "user"}


@dataclass(frozen=True, eq=False)
class Hop:
    """One hop of S trees: the neighbours of each of the P nodes of the hop before (of the seeds for the first).

    Attributes:
        type: of the N nodes, "user" or "item".
        offsets: (P + 1,) int64, the children of parent p are `offsets[p]` to `offsets[p + 1]`.
        nodes: (N,) int64, newest first within a parent, each once.
        edges: (N,) int64, id of the edge in the graph's relation from the parent's type to this one.
        root: (N,) int64, number of the seed that each belongs to; ascends.
    """

    type: NodeType
    offsets: Ints
    nodes: Ints
    edges: Ints
    root: Ints


@dataclass(frozen=True, eq=False)
class Hops:
    """The trees of S seeds, a `Hop` for each step away from them.

    Attributes:
        type: of the seeds, "user" or "item".
        seeds: (S,) int64.
        levels: the hops, nearest first.

    >>> from dglrec.graphs.user_item import user_item
    >>> graph = user_item(user=[0, 0, 1, 1], item=[0, 1, 1, 2], time=[1.0, 2.0, 3.0, 4.0])
    >>> [level.tolist() for level in hops(graph, [0], [8, 8]).of(0)]
    [[1, 0], [1]]
    """

    type: NodeType
    seeds: Ints
    levels: tuple[Hop, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def of(self, seed: int) -> list[Ints]:
        """The nodes of one tree, an array per hop; those of one parent are adjacent.

        Raises:
            DataError: there is no tree of that number.
        """
        if not 0 <= seed < len(self):
            raise DataError(f"there is no tree {seed}; there are {len(self)}, from 0")
        return [level.nodes[slice(*np.searchsorted(level.root, (seed, seed + 1)))] for level in self.levels]

    def block(self, level: int) -> Any:
        """A hop as a DGL block: messages flow from its N nodes to the P nodes of the hop before.

        The graph's numbers of the nodes and edges are in `dgl.NID` and `dgl.EID`. A node that is in a tree twice
        is two nodes of the block, so that the blocks of a tree fit each other without another look-up.

        Raises:
            DataError: there is no hop of that number.
        """
        if not 0 <= level < len(self.levels):
            raise DataError(f"there is no hop {level}; there are {len(self.levels)}, from 0")
        hop = self.levels[level]
        parents = self.seeds if level == 0 else self.levels[level - 1].nodes
        to = _OTHER[hop.type]
        parent = np.repeat(np.arange(len(parents)), np.diff(hop.offsets))
        relation = (hop.type, _RELATIONS[hop.type], to)
        data = {relation: (np.arange(len(hop.nodes)), parent)}
        block = dgl.create_block(data, {hop.type: len(hop.nodes)}, {to: len(parents)})
        block.srcnodes[hop.type].data[dgl.NID] = torch.as_tensor(hop.nodes)
        block.dstnodes[to].data[dgl.NID] = torch.as_tensor(parents)
        block.edges[relation].data[dgl.EID] = torch.as_tensor(hop.edges)
        return block


class Neighbours:
    """A user-item graph's edges by node and time, taken from it once; `hops` accepts it in place of the graph.

    Attributes:
        num_nodes: {"user": U, "item": M}.
        has_times: whether the edges have times, so that cut-offs can be kept.
    """

    def __init__(self, graph: Any) -> None:
        if "interacts" not in getattr(graph, "etypes", ()):
            raise DataError(
                f"a {type(graph).__name__} without the relation 'interacts'; expected what user_item() builds"
            )
        users, items = (part.numpy() for part in graph.edges(order="eid", etype="interacts"))
        data = graph.edges["interacts"].data
        self.num_nodes = {name: int(graph.num_nodes(name)) for name in _RELATIONS}
        self.has_times = "time" in data
        if self.has_times:
            self._times, rank = np.unique(data["time"].numpy(), return_inverse=True)
        else:
            self._times, rank = np.zeros(1), np.zeros(len(users), dtype=np.int64)
        position = data["position"].numpy() if "position" in data else np.arange(len(users))
        self._span = len(self._times) + 1  # a cut-off is a number of distinct times, 0 to all of them
        sides = {"user": (users, items), "item": (items, users)}
        self._of = {
            name: _Side(*sides[name], rank.reshape(-1), position, self.num_nodes[name], self._span) for name in sides
        }

    def cut(self, before: Any, count: int) -> Ints:
        """(S,) how many of the distinct times lie before each cut-off.

        Raises:
            DataError: there are no times to compare with, or a cut-off is missing or not a number.
        """
        if before is None:
            return np.full(count, self._span - 1, dtype=np.int64)
        if not self.has_times:
            raise DataError(
                "before= was given, and the edges of the graph have no times; build it from a log with times"
            )
        try:
            moments = moments_of(np.asarray(before))
        except (TypeError, ValueError):
            raise DataError(f"before= is {before!r}; expected seconds for each of the {count} seeds") from None
        if moments.shape != (count,) or np.isnan(moments).any():
            raise DataError(f"before= has shape {moments.shape}; expected seconds for each of the {count} seeds")
        return np.searchsorted(self._times, moments, side="left").astype(np.int64)

    def choose(
        self, type: NodeType, nodes: Ints, cut: Ints, banned: Ints, fanout: int, salt: npt.NDArray[np.uint64] | None
    ) -> _Chosen:
        """At most `fanout` neighbours of each node before its cut-off, none of them banned.

        Args:
            type: of the nodes.
            nodes: (n,).
            cut: (n,) see `cut`.
            banned: (2, n) neighbours that must not be taken, -1 for none.
            fanout: most neighbours per node.
            salt: (n,) the newest are taken where it is None, else a draw that depends on it and on the edge alone.
        """
        side = self._of[type]
        low, high = side.offsets[nodes], np.searchsorted(side.key, nodes * self._span + cut)
        first = low if salt is not None else np.maximum(low, high - _WINDOW * fanout)
        chosen = side.among(first, high, cut, banned, fanout, salt)
        short = np.flatnonzero((chosen.counts < fanout) & (first > low))
        if len(short) == 0:
            return chosen
        more = side.among(low[short], high[short], cut[short], banned[:, short], fanout, None)
        return chosen.replaced(short, more)


def hops(
    graph: Any,
    seeds: npt.ArrayLike,
    fanouts: Sequence[int],
    *,
    type: NodeType = "user",
    before: npt.ArrayLike | None = None,
    exclude: npt.ArrayLike | None = None,
    everywhere: bool = False,
    order: Order = "recent",
    seed: int = 0,
) -> Hops:
    """The neighbourhoods of users or items, `len(fanouts)` hops deep.

    A tree never steps straight back (a user is not a neighbour of the item that it was the parent of), and a repeated
    pair counts once, at its newest event before the cut-off. A tree depends on its own seed, cut-off and excluded pair,
    and not on the other seeds.

    Args:
        graph: what `user_item` builds, or `Neighbours` of it.
        seeds: (S,) users or items.
        fanouts: most neighbours of a node at each hop, such as (8, 8).
        type: of the seeds.
        before: (S,) seconds or datetime64; only edges with an earlier time are walked. None walks all.
        exclude: (S,) for each seed the node of the other type whose edges with it are removed from its tree, -1 for
            none: the pair that is to be predicted.
        everywhere: remove the excluded node from its whole tree, as a user who must not appear behind the neighbours.
            (A target that is missing in all histories would be revealed; remove its pair alone.)
        order: the most "recent" neighbours (without times: the last ones), or a "uniform" draw of them.
        seed: of the draw.

    Raises:
        DataError: the graph is not a user-item graph, a seed or an excluded node is not in it, or there are cut-offs
            and no times.
        ConfigError: fanouts that are not numbers from 1, an unknown order or type, or a seed that is not a number.

    >>> from dglrec.graphs.user_item import user_item
    >>> graph = user_item(user=[0, 0, 1, 1], item=[0, 1, 1, 2], time=[1.0, 2.0, 3.0, 4.0])
    >>> [level.tolist() for level in hops(graph, [0], [8, 8], before=[3.0]).of(0)]
    [[1, 0], []]
    """
    if type not in _OTHER:
        raise ConfigError(f"type is {type!r}; expected 'user' or 'item'")
    if order not in ("recent", "uniform"):
        raise ConfigError(f"order is {order!r}; expected 'recent' or 'uniform'")
    most = fanouts.tolist() if isinstance(fanouts, np.ndarray) else fanouts
    if not isinstance(most, Sequence) or not most or not all(is_whole(number) and number > 0 for number in most):
        raise ConfigError(
            f"fanouts are {fanouts!r}; expected at least one number per hop, each at least 1, such as [8, 8]"
        )
    if not is_whole(seed) or not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed is {seed!r}; expected a whole number from 0 to 2**63 - 1")
    index = graph if isinstance(graph, Neighbours) else Neighbours(graph)
    roots = _known(seeds, "seeds", index.num_nodes[type], least=0)
    target = np.full(len(roots), -1)
    if exclude is not None:
        target = _known(exclude, "exclude", index.num_nodes[_OTHER[type]], least=-1)
    if len(target) != len(roots):
        raise DataError(f"exclude= has {len(target)} entries; expected one for each of the {len(roots)} seeds")
    cut = index.cut(before, len(roots))
    salt = None if order == "recent" else _draw(seed, roots, cut)

    levels: list[Hop] = []
    here, nodes, root, back = type, roots, np.arange(len(roots)), np.full(len(roots), -1)
    for fanout in most:
        own, other = (roots, target) if here == type else (target, roots)
        whole = everywhere and here == type  # neighbours are of the excluded node's type
        removed = np.where(whole | (nodes == own[root]), other[root], -1)  # the other end of the excluded pair
        found = index.choose(
            here, nodes, cut[root], np.stack([back, removed]), fanout, None if salt is None else salt[root]
        )
        parent = np.repeat(np.arange(len(nodes)), found.counts)
        back, root, here = nodes[parent], root[parent], _OTHER[here]
        nodes = found.nodes
        levels.append(Hop(here, row_pointers(found.counts), nodes, found.edges, root))
    return Hops(type, roots, tuple(levels))


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Neighbours of n nodes: counts (n,), and nodes and edges (N,) of one after the other."""

    counts: Ints
    nodes: Ints
    edges: Ints

    def replaced(self, rows: Ints, other: _Chosen) -> _Chosen:
        """The same with the neighbours of some nodes taken from `other`, which holds theirs alone."""
        counts = self.counts.copy()
        counts[rows] = other.counts
        starts = row_pointers(self.counts)[:-1].copy()
        starts[rows] = len(self.nodes) + row_pointers(other.counts)[:-1]
        place, _ = ranges(starts, starts + counts)
        nodes, edges = np.concatenate([self.nodes, other.nodes]), np.concatenate([self.edges, other.edges])
        return _Chosen(counts, nodes[place], edges[place])


class _Side:
    """The edges from one type of node, sorted by (node, time, position).

    Attributes:
        offsets: (n + 1,) edges of each node.
        node: (E,) the other end.
        edge: (E,) id in the graph.
        key: (E,) node * span + rank of the time, ascending.
        again: (E,) rank of the pair's next event, the largest there is where it has none.
    """

    def __init__(self, own: Ints, other: Ints, rank: Ints, position: Ints, count: int, span: int) -> None:
        order = np.lexsort((position, rank, own))
        self.offsets = row_pointers(np.bincount(own, minlength=count))
        self.node, self.edge = other[order].astype(np.int64), order
        own, rank = own[order].astype(np.int64), rank[order]  # a graph may number its nodes with 32 bits
        self.key = own * span + rank
        self.again = np.full(len(own), span, dtype=np.int64)
        by_pair = np.lexsort((np.arange(len(own)), self.node, own))
        same = (own[by_pair][1:] == own[by_pair][:-1]) & (self.node[by_pair][1:] == self.node[by_pair][:-1])
        self.again[by_pair[:-1][same]] = rank[by_pair[1:][same]]

    def among(
        self, first: Ints, high: Ints, cut: Ints, banned: Ints, fanout: int, salt: npt.NDArray[np.uint64] | None
    ) -> _Chosen:
        """The neighbours on the edges first[r] .. high[r] of each row r, newest first; see `Neighbours.choose`."""
        rows, _ = ranges(first, high)
        row = np.repeat(np.arange(len(first)), high - first)
        place = (high - 1 + first)[row] - rows  # newest first
        node = self.node[place]
        keep = (self.again[place] >= cut[row]) & (node != banned[0, row]) & (node != banned[1, row])
        place, row = place[keep], row[keep]
        number = np.arange(len(row)) - row_pointers(np.bincount(row, minlength=len(first)))[row]  # within its row
        if salt is None:
            chosen = np.flatnonzero(number < fanout)
        else:
            drawn = np.argsort((row.astype(np.uint64) << _HALF) | (_draw(salt[row], self.edge[place]) >> _HALF))
            chosen = np.sort(
                drawn[number < fanout]
            )  # rows of `drawn` ascend as those of `row`, so it has their numbers
        place = place[chosen]
        return _Chosen(np.bincount(row[chosen], minlength=len(first)), self.node[place], self.edge[place])


def _draw(*numbers: Any) -> npt.NDArray[np.uint64]:
    """A number from several that looks like a draw: `mixed` over each of them in turn."""
    drawn = np.zeros(np.broadcast_shapes(*(np.shape(part) for part in numbers)), dtype=np.uint64)
    for part in numbers:
        drawn = mixed((drawn ^ np.asarray(part).astype(np.uint64)) + GOLDEN)
    return drawn


def _known(nodes: npt.ArrayLike, name: str, count: int, least: int) -> Ints:
    """Node numbers, none of them outside of the graph."""
    array = np.asarray(nodes)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"{name} is {array.dtype} of shape {array.shape}; expected a row of node numbers")
    wrong = np.flatnonzero((array < least) | (array >= count))
    if len(wrong):
        raise DataError(f"{name} holds {array[wrong[0]]}; the graph has {count} such nodes, from 0")
    return array.astype(np.int64)
